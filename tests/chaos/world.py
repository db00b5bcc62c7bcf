"""A pool with a volume in use, and what must be true of it whatever happened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import structlog

from provisioner.assembly import Provisioner
from provisioner.linux import btrfs
from provisioner.linux.ioctl import ioctl_number
from provisioner.linux.mountinfo import MountInfo, read_mountinfo
from provisioner.names import parse_volume_id
from provisioner.survey import survey
from tests.support.inline import allowing
from tests.support.patience import PATIENCE
from tests.support.provisioned import MIB, PATIENT, at, settings_for, unmount_below, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from provisioner.pool import Contents

SIBLING_BYTES = 4 * MIB
_ERASED_WITHIN_S = 10.0 * PATIENCE

structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=True)


class World:
    """What lies below one folder: a pool, targets, and the settings that name them."""

    def __init__(self, place: Path) -> None:
        """Make the folders where they are not there."""
        place.mkdir(exist_ok=True)
        self.place = place
        self.settings = allowing(settings_for(place, quota="enable"))
        self.control = place / "pool/.csi-local-path"
        self.targets = place / "targets"

    @cached_property
    def pool_id(self) -> str:
        """The pool's id, read once."""
        identity = json.loads((self.control / "pool.json").read_bytes())
        return str(identity["pool_id"])

    @property
    def subject(self) -> str:
        """The volume_id of the volume that operations are about, whether it exists or not."""
        return f"{self.pool_id}.subject"

    def start(self) -> Provisioner:
        """Start a provisioner for good: its process ends without stopping it, as in a crash."""
        provisioner = Provisioner(self.settings)
        provisioner.lock()
        provisioner.start()
        return provisioner

    @contextmanager
    def running(self) -> Iterator[Provisioner]:
        """Run a provisioner and stop it."""
        provisioner = self.start()
        try:
            yield provisioner
        finally:
            provisioner.stop()

    def data(self, volume_id: str) -> Path:
        """Find a volume's data."""
        return self.control / "volumes" / folder(volume_id) / "data"

    def make(self, provisioner: Provisioner, name: str, size: int = SIBLING_BYTES) -> str:
        """Create a volume and put some data into it; gives its id."""
        volume_id = provisioner.volumes.create(wanted(name, size), PATIENT).volume_id
        fill(self.data(volume_id), name)
        return volume_id

    def with_sibling(self) -> Provisioner:
        """Start on a new pool with a volume that is published and filled."""
        provisioner = self.start()
        volume_id = self.make(provisioner, "sibling")
        provisioner.publishing.publish(at(volume_id, self.targets / "sibling"), PATIENT)
        return provisioner

    def mounts(self) -> list[MountInfo]:
        """List what is mounted at the targets."""
        below = f"{self.targets}/"
        return [mount for mount in read_mountinfo() if mount.mount_point.startswith(below)]

    def hinted(self) -> list[str]:
        """List the targets that hints tell of, sorted; of one that is not there, the hint itself."""
        paths = [*map(str, self.targets.iterdir()), *(mount.mount_point for mount in self.mounts())]
        known = {hashlib.sha256(os.fsencode(path)).hexdigest()[:32]: path for path in paths}
        hints = os.listdir(self.control / "published")
        return sorted(known.get(hint.rpartition("@")[2].partition(".")[0], hint) for hint in hints)

    def assert_agreed(self, provisioner: Provisioner, *, erased: bool = True) -> None:
        """Assert that the sums in memory are those of the disk, once the trash is erased if so wanted."""
        contents = provisioner._pools.pools[0].known
        assert contents is not None, "the pool is not there"
        if erased:
            wait_until(lambda: self._is_erased(contents), "the trash stays")
        report = survey(self.settings)[0]
        found = [volume for volume in report.volumes if erased or volume.state != "trash"]
        states = {volume.name: (volume.state, volume.reason) for volume in found}
        assert {state for state, _ in states.values()} <= {"ok"}, f"half-done volumes are visible: {states}"
        assert contents.ledger.promised_bytes == report.promised_bytes, "the ledger differs from the disk"
        listed = {volume.name: volume.capacity_bytes for volume in provisioner.volumes.list(0, "").volumes}
        assert listed == {volume.name: volume.capacity_bytes for volume in found}

    def _is_erased(self, contents: Contents) -> bool:
        """Tell whether the trash is empty; where a disk frees with its next commit, that is now."""
        entries = os.listdir(self.control / "trash")
        if entries and contents.disk.fs_type == "btrfs":
            commit(contents.disk.volumes_fd)
            for entry in entries:
                contents.trash.wake(entry)
        return not entries and contents.ledger.trash_bytes == 0

    def assert_swept(self, provisioner: Provisioner) -> None:
        """Assert that nothing is left of what an earlier process began."""
        # The measurer, just started, builds its file there too: soon it is done.
        wait_until(lambda: os.listdir(self.control / "staging") == [], "staging is not swept")
        self.assert_agreed(provisioner)
        mounted = {mount.mount_point for mount in self.mounts()}
        assert set(self.hinted()) <= mounted, f"hints without mounts: {self.hinted()}, mounted are {mounted}"

    def assert_published(self, *names: str) -> None:
        """Assert that just these targets are mounted, once each, and hinted at."""
        paths = sorted(str(self.targets / name) for name in ("sibling", *names))
        assert sorted(mount.mount_point for mount in self.mounts()) == paths
        assert self.hinted() == paths

    def assert_sibling(self, provisioner: Provisioner) -> None:
        """Assert that the volume that nobody spoke of is as it was."""
        found = [volume for volume in provisioner.volumes.list(0, "").volumes if volume.name == "sibling"]
        assert [volume.capacity_bytes for volume in found] == [SIBLING_BYTES], "the sibling is gone"
        assert_filled(self.data(found[0].volume_id), "sibling")
        assert_filled(self.targets / "sibling", "sibling")

    def clean(self) -> None:
        """Unmount and remove everything."""
        unmount_below(self.place)
        shutil.rmtree(self.place)


def wait_until(done: Callable[[], bool], otherwise: str | Callable[[], str]) -> None:
    """Wait for a thread that tells nobody when it is done. otherwise: what to say, or asks for it, if it never is."""
    deadline = time.monotonic() + _ERASED_WITHIN_S
    while not done():
        assert time.monotonic() < deadline, otherwise if isinstance(otherwise, str) else otherwise()
        time.sleep(0.001)


def commit(fd: int) -> None:
    """Let a btrfs commit, and then free what was destroyed: it does so by itself twice a minute."""
    ioctl_number(fd, btrfs.BTRFS_IOC_SYNC)


def freed(fd: int, left: int = 1) -> None:
    """Wait until a btrfs has no more subvolumes than are left."""

    def are_freed() -> bool:
        commit(fd)
        return len(list(btrfs.subvolumes_from(fd, btrfs.BTRFS_FIRST_FREE_OBJECTID))) <= left

    wait_until(are_freed, "subvolumes are not freed")


def folder(volume_id: str) -> str:
    """Name the folder of a volume."""
    parsed = parse_volume_id(volume_id)
    assert parsed is not None
    return parsed.folder


def fill(data: Path, name: str) -> None:
    """Write a volume's data: two files, one of them deeper, and a symlink that leads out."""
    (data / "deep").mkdir()
    for path in (data / "file", data / "deep/file"):
        path.write_bytes(_content(path, name))
    (data / "link").symlink_to("/etc")


def assert_filled(data: Path, name: str) -> None:
    """Assert that a volume's data is what `fill` wrote, byte for byte, and nothing else."""
    assert sorted(path.name for path in data.iterdir()) == ["deep", "file", "link"]
    for path in (data / "file", data / "deep/file"):
        assert path.read_bytes() == _content(path, name), f"{path} was touched"
    assert os.readlink(data / "link") == "/etc"


def _content(path: Path, name: str) -> bytes:
    return f"{name} {path.name}\n".encode() * 1000
