"""The means that hold a volume to its size, each on a filesystem of its own, for suites that hold for all of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provisioner import loops
from provisioner.assembly import Provisioner
from provisioner.errors import Precondition
from provisioner.linux.fsresize import may_grow_ext4
from provisioner.model import Capability, CapacityRange, NewVolume, Volume
from provisioner.settings import Settings
from tests.support.disks import until
from tests.support.filesystems import MIB, loop_filesystem
from tests.support.provisioned import MULTI, PATIENT, at, running, settings_for, unmount_below, wanted


@dataclass(frozen=True)
class Means:
    """How a pool is prepared, what a class says, and how a write past the limit fails."""

    name: str
    kind: str
    refused: int = errno.EDQUOT
    usable: float = 0.9  # share of a small volume that data can have
    maps: float = 0.0  # share of the size that maps of extents may take beyond it, where each block is an extent
    options: str = ""
    mkfs_options: tuple[str, ...] = ()
    pool: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    size: int = 512 * MIB  # of the filesystem
    grows_as_ext4: bool = False

    @contextmanager
    def filesystem(self, tmp_path: Path) -> Iterator[Path]:
        """Mount the filesystem at tmp_path/KIND."""
        with loop_filesystem(
            self.kind, tmp_path, self.size, mkfs_options=self.mkfs_options, options=self.options
        ) as found:
            yield found.path

    def settings(self, tmp_path: Path, **keys: Any) -> Settings:
        """Give the settings of a pool there; its reserve is room for records, which no volume covers."""
        return settings_for(tmp_path, **({"path": str(tmp_path / self.kind), "reserve": "1Mi"} | self.pool | keys))

    def wanted(
        self, name: str, size: int, *, limit: int = 0, capability: Capability = MULTI, **parameters: str
    ) -> NewVolume:
        """Ask for a volume that everybody may write to."""
        asked = {"mode": "0777", "enforce": "required"} | self.parameters | parameters
        return replace(wanted(name, size, limit=limit), capabilities=(capability,), parameters=asked)


# ext4 and XFS count the blocks of these maps, and never refuse them while data is written back. A block of an ext4's
# has room for 340 extents, and may be half full.
_MAPS = 1 / 128
# commit=1: a destroyed subvolume is freed after the commit, which would else come every 30 seconds.
SUBVOLUME = Means("subvolume", "btrfs", options="commit=1", pool={"quota": "enable"})
SIMPLE = Means("subvolume with simple quotas", "btrfs", options="commit=1", pool={"quota": "simple"})
# A small ext4 of its own spends an eighth on its journal.
_OF_EXT4: dict[str, Any] = {"refused": errno.ENOSPC, "usable": 0.7, "maps": _MAPS, "grows_as_ext4": True}
IMAGE = Means("image on ext4", "ext4", parameters={"backend": "image"}, **_OF_EXT4)
THIN = Means("thin image on xfs", "xfs", parameters={"backend": "image", "thin": "true"}, **_OF_EXT4)
IMAGE_ON_BTRFS = Means("image on btrfs", "btrfs", parameters={"backend": "image"}, **_OF_EXT4)
QUOTA_XFS = Means("quota on xfs", "xfs", errno.ENOSPC, maps=_MAPS, options="prjquota")
QUOTA_EXT4 = Means(
    "quota on ext4",
    "ext4",
    maps=_MAPS,
    options="prjquota",
    mkfs_options=("-O", "project,quota", "-E", "quotatype=prjquota"),
)
# What tests of images alone take.
IMAGES = Means("images", "ext4", parameters={"backend": "image", "thin": "true"}, size=1024 * MIB)


def has_project_quotas() -> bool:
    """Tell whether this kernel's filesystems were built with quotas: those of the machine of `make test-vm` were."""
    return os.path.exists("/proc/fs/xfs/xqmstat")


# Each kernel runs what it can: one has project quotas and no simple ones, the other no project quotas. Images are tried
# on both, for root may grow a mounted ext4 in the one machine and perhaps not in the other.
_IN_THE_VM = (QUOTA_XFS, QUOTA_EXT4, SUBVOLUME, IMAGE)
_HERE = (SUBVOLUME, SIMPLE, IMAGE, THIN, IMAGE_ON_BTRFS)
MEANS = _IN_THE_VM if has_project_quotas() else _HERE


@dataclass(frozen=True, slots=True)
class Served:
    """A pool at work."""

    means: Means
    settings: Settings
    provisioner: Provisioner
    targets: Path

    @property
    def control(self) -> Path:
        """The pool's own folder."""
        return Path(self.settings.pools[0].path) / ".csi-local-path"

    def devices(self) -> list[int]:
        """List the loop devices of images in the pool."""
        return [number for number, _ in loops.ours() if _file_of(number).startswith(str(self.control))]

    def until_detached(self) -> None:
        """Wait until there is none: a device goes a moment after its last user."""
        until(lambda: self.devices() == [])

    def is_measured(self) -> bool:
        """Tell whether it is known what strangers use."""
        known = self.provisioner._pools.pools[0].known
        return known is not None and known.usage.foreign_bytes is not None

    def occupied(self, volume: Volume) -> int:
        """Give the bytes that a volume takes of its pool, as the means counts them."""
        known = self.provisioner._pools.pools[0].known
        assert known is not None
        found = known.occupied(volume.name)
        assert found is not None
        return found.used_bytes

    def create(self, name: str, size: int, capability: Capability = MULTI, **parameters: str) -> Volume:
        """Create a volume."""
        wanted = self.means.wanted(name, size, limit=0, capability=capability, **parameters)
        return self.provisioner.volumes.create(wanted, PATIENT)

    def publish(self, volume: Volume, capability: Capability = MULTI) -> Path:
        """Stage and publish a volume at a target named as it is."""
        staged, target = self.targets / f"{volume.name}.staged", self.targets / volume.name
        staged.mkdir(exist_ok=True)
        self.provisioner.publishing.stage(volume.volume_id, str(staged), capability)
        self.provisioner.publishing.publish(at(volume.volume_id, target, capability, staged=str(staged)), PATIENT)
        return target

    def grow(self, volume: Volume, size: int) -> Path:
        """Do what the node has to do when a published volume grows; gives the target.

        A mounted ext4 grows for nobody who lacks CAP_SYS_RESOURCE, as root does on some machines.
        """
        target = self.targets / volume.name
        expand = partial(self.provisioner.publishing.expand, volume.volume_id, str(target), CapacityRange(size))
        if self.means.grows_as_ext4 and not may_grow_ext4():
            with pytest.raises(Precondition, match="CAP_SYS_RESOURCE"):
                expand()
            self.unpublish(volume)
            self.publish(volume)
        assert expand() == size
        return target

    def unpublish(self, volume: Volume) -> None:
        """Undo `publish`."""
        self.provisioner.publishing.unpublish(volume.volume_id, str(self.targets / volume.name), PATIENT)
        self.provisioner.publishing.unstage(volume.volume_id, str(self.targets / f"{volume.name}.staged"))

    def take_away(self, volume: Volume) -> None:
        """Undo `publish`, and delete the volume."""
        self.unpublish(volume)
        self.provisioner.volumes.delete(volume.volume_id, PATIENT)


def _file_of(number: int) -> str:
    try:
        return Path(f"/sys/block/loop{number}/loop/backing_file").read_text(encoding="utf-8").strip()
    except FileNotFoundError:  # another test's, which went meanwhile
        return ""


@contextmanager
def serving(means: Means, tmp_path: Path, *, unmount: bool = True, **keys: Any) -> Iterator[Served]:
    """Serve a pool on a filesystem that is there; at the end nothing is mounted at its targets, if so wanted."""
    settings = means.settings(tmp_path, **keys)
    with running(settings) as provisioner:
        yield Served(means, settings, provisioner, tmp_path / "targets")
    if unmount:
        unmount_below(tmp_path / "targets")
