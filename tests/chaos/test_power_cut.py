"""After a power cut nothing is missing that was acknowledged, on each filesystem that pools lie on."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from provisioner.identity import init_pool, retire
from provisioner.names import folder_for
from tests.chaos.rpcs import BYTES, MORE_BYTES, Site, site_config
from tests.support.filesystems import LOOP_KINDS
from tests.support.powercut import PowerDisk, power_disk
from tests.support.served import served
from tests.support.strace import attached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LONG_NAME = "Volume ".ljust(128, "x")


@dataclass
class Promises:
    """What was acknowledged: by volume_id the size, and mode, uid and gid of the root, or the bytes of the image."""

    pool_id: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    owners: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)


class Story:
    """One step after the other; the power is cut after each."""

    def __init__(self, site: Site, disk: PowerDisk) -> None:
        self.site, self.disk = site, disk
        self.promised = Promises()

    def step(self, call: Callable[[], None]) -> None:
        """Make a call, cut the power, start again, and look whether every promise was kept."""
        call()
        self.disk.cut()
        self.site.served.kill()
        self.disk.revive()
        self.site.served.start()
        self.assert_kept()

    def assert_kept(self) -> None:
        """Assert that each volume is there as promised, no other one, and none mounted."""
        assert init_id(self.site) == self.promised.pool_id
        assert self.site.sizes() == self.promised.sizes
        for volume_id, owner in self.promised.owners.items():
            found = self.site.data(volume_id).stat()
            assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == owner
        for volume_id, content in self.promised.images.items():
            assert self.image(volume_id).read_bytes() == content
            assert self.image(volume_id).with_name("fresh").exists()
        assert self.site.mounted() == []
        for rest in ("staging", "trash"):
            self.site.assert_empty(rest)

    def start(self) -> None:
        """Let the first start make the pool: ready says that it is there."""
        self.site.served.start()
        self.promised.pool_id = init_id(self.site)

    def create(self, name: str, mode: int = 0o770, uid: int = 0, gid: int = 0) -> None:
        """CreateVolume."""
        volume_id = self.site.create(name, mode=f"{mode:04o}", uid=str(uid), gid=str(gid))
        self.promised.sizes[volume_id] = BYTES
        self.promised.owners[volume_id] = mode, uid, gid

    def create_image(self, name: str, *, thin: bool) -> None:
        """CreateVolume of an image that nobody has mounted yet."""
        volume_id = self.site.create(name, backend="image", fsType="ext4", thin=str(thin).lower())
        self.promised.sizes[volume_id] = BYTES
        self.promised.images[volume_id] = self.image(volume_id).read_bytes()

    def image(self, volume_id: str) -> Path:
        """Find a volume's image."""
        return self.site.data(volume_id).with_name("disk.img")

    def expand(self, name: str) -> None:
        """ControllerExpandVolume."""
        self.site.expand(self.id(name), MORE_BYTES)
        self.promised.sizes[self.id(name)] = MORE_BYTES

    def delete(self, name: str) -> None:
        """DeleteVolume."""
        self.site.delete(self.id(name))
        del self.promised.sizes[self.id(name)], self.promised.owners[self.id(name)]

    def id(self, name: str) -> str:
        """Give a volume's id."""
        return f"{self.promised.pool_id}.{folder_for(name)}"


def init_id(site: Site) -> str:
    """Read the pool's id from the disk."""
    return (site.control / "pool.json").read_text().partition('"pool_id": "')[2][:16]


@contextmanager
def story(kind: str, tmp_path: Path) -> Iterator[Story]:
    """Give a site whose pool is a whole disk, mounted and empty."""
    with power_disk(kind, tmp_path) as disk:
        config = site_config(tmp_path, path=str(disk.path), requireMount=True)
        with served(config, tmp_path, start=False) as server:
            site = Site(server, tmp_path, disk.path)
            try:
                yield Story(site, disk)
            finally:
                site.close()


@pytest.mark.parametrize("kind", LOOP_KINDS)
def test_the_method_works_what_is_not_synced_vanishes(kind: str, tmp_path: Path) -> None:
    with power_disk(kind, tmp_path) as disk:
        synced, lost = disk.path / "synced", disk.path / "lost"
        synced.mkdir()
        _sync(disk.path)
        lost.mkdir()
        disk.cut()
        disk.revive()
        assert synced.exists()
        assert not lost.exists()


@pytest.mark.parametrize("kind", LOOP_KINDS)
def test_the_method_works_a_volume_whose_syncs_are_left_out_vanishes(kind: str, tmp_path: Path) -> None:
    with story(kind, tmp_path) as told:
        told.step(told.start)
        told.step(lambda: told.create("kept"))
        process = told.site.served.process
        with attached(process.pid, tmp_path / "trace", inject="fsync:retval=0", trace="fsync", threads=True):
            told.site.create("lost")
        told.step(lambda: None)


@pytest.mark.parametrize("kind", LOOP_KINDS)
def test_whatever_was_acknowledged_is_there_after_a_power_cut(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with story(kind, tmp_path) as told:
        told.step(told.start)
        told.step(lambda: told.create("plain"))
        told.step(lambda: told.create("owned", 0o2750, 1234, 5678))
        told.step(lambda: told.create(_LONG_NAME, 0o1777, 1, 2))
        told.step(lambda: told.expand("plain"))
        told.step(lambda: told.expand(_LONG_NAME))
        told.step(lambda: told.site.stage(told.id("plain")))
        told.step(lambda: told.site.publish(told.id("plain"), "target"))
        told.site.publish(told.id("plain"), "target")
        told.step(lambda: told.site.unpublish(told.id("plain"), "target"))
        told.step(lambda: told.site.unstage(told.id("plain")))
        told.step(lambda: told.delete("plain"))
        told.step(lambda: told.create("plain", 0o700, 3, 4))
        told.step(lambda: told.delete(_LONG_NAME))
        told.step(lambda: told.delete("owned"))
        with capsys.disabled():
            print(f"\n{kind}: the power was cut after {told.disk.cuts} calls")


@pytest.mark.parametrize("kind", LOOP_KINDS)
def test_an_image_is_there_to_the_last_byte_after_a_power_cut(kind: str, tmp_path: Path) -> None:
    with story(kind, tmp_path) as told:
        told.step(told.start)
        told.step(lambda: told.create_image("thin", thin=True))
        told.step(lambda: told.create_image("thick", thin=False))
        for name in ("thin", "thick"):
            told.site.stage(told.id(name))
            told.site.unstage(told.id(name))


@pytest.mark.parametrize("kind", LOOP_KINDS)
def test_what_an_administrator_did_is_there_after_a_power_cut(kind: str, tmp_path: Path) -> None:
    with power_disk(kind, tmp_path) as disk:
        control, gone = disk.path / ".csi-local-path", "0123456789abcdef"
        identity = init_pool(str(disk.path))
        disk.cut()
        disk.revive()
        assert identity.pool_id in (control / "pool.json").read_text()
        retire(str(disk.path), gone)
        disk.cut()
        disk.revive()
        assert os.listdir(control / "retired") == [gone]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
