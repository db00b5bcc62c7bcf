"""Measuring on real filesystems: mounts inside, depth, holes, and what is foreign on a disk of our own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from provisioner.backends import Occupied
from provisioner.linux.mount import MS_BIND, UMOUNT_NOFOLLOW, mount, umount2
from provisioner.measuring import Measuring
from provisioner.pace import Pace, Paced
from provisioner.rounds import Rounds
from provisioner.usage import Usage
from provisioner.walking import measure
from tests.support.filesystems import Filesystem
from tests.support.paces import FdCounting, Unpaced, open_fds
from tests.support.trees import directory_fd, make_deep, make_wide

MIB = 1 << 20


def measured(path: Path) -> tuple[int, int]:
    """Measure a directory by its path."""
    with directory_fd(path) as fd:
        return measure(fd, Unpaced())


def test_only_what_is_allocated_counts(folder: Path) -> None:
    content = folder / "content"
    content.write_bytes(os.urandom(MIB))
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (folder / "link").hardlink_to(content)
    fd = os.open(content, os.O_RDONLY)
    os.fsync(fd)  # btrfs allocates late
    os.close(fd)
    used, inodes = measured(folder)
    assert MIB <= used < MIB + 65536
    assert inodes == 3


def test_mounts_inside_are_left_out(folder: Path) -> None:
    """Those of the same filesystem too; and what is below them is not counted either."""
    volume, other = folder / "volume", folder / "other"
    (volume / "deep" / "mnt").mkdir(parents=True)
    (volume / "file").touch()
    other.mkdir()
    make_wide(other, 30)
    mount(other, volume / "deep" / "mnt", flags=MS_BIND)
    mount(other / "file-0", volume / "file", flags=MS_BIND)
    try:
        assert measured(volume)[1] == 2  # itself and `deep`
    finally:
        umount2(volume / "deep" / "mnt", UMOUNT_NOFOLLOW)
        umount2(volume / "file", UMOUNT_NOFOLLOW)
    assert measured(volume)[1] == 4


def test_three_thousand_nested_directories_cost_a_bounded_number_of_descriptors(folder: Path) -> None:
    make_deep(folder, 3000)
    before, pace = open_fds(), FdCounting(every=50)
    with directory_fd(folder) as fd:
        assert measure(fd, pace)[1] == 1 + 2 * 3000
    assert pace.most <= 40
    assert open_fds() == before


def test_looking_writes_nothing(filesystem: Filesystem, folder: Path) -> None:
    """Not even the time of access, which relatime would set on a directory that has just changed."""
    assert filesystem.path in folder.parents
    (folder / "inside").mkdir()
    make_wide(folder / "inside", 3)
    before = (folder / "inside").stat().st_atime_ns
    measured(folder)
    assert (folder / "inside").stat().st_atime_ns == before


@dataclass
class Disk:
    """The directories of a pool, opened by path: the test holds them as long as it runs."""

    path: str
    volumes_fd: int
    staging_fd: int
    trash_fd: int
    pool_id: str = "00000000000000aa"

    def check(self) -> None:
        """Be there."""


@dataclass
class Pool:
    """A pool with one volume."""

    disk: Disk
    usage: Usage

    def folders(self) -> list[str]:
        """Name it."""
        return ["pvc-1"]

    def occupied(self, folder: str) -> Occupied | None:  # noqa: ARG002  the Protocol names it
        """Count nothing."""
        return None

    def illness(self, folder: str) -> str:  # noqa: ARG002  the Protocol names it
        """Find nothing."""
        return ""

    def escaped(self, folder: str, pace: Paced) -> str:  # noqa: ARG002  the Protocol names it
        """Find nothing."""
        return ""


def test_what_strangers_use_is_foreign_and_what_is_ours_is_not(memory: Path) -> None:
    control = memory / "control"
    for name in ("volumes/pvc-1/data", "staging/new/data", "trash/old/data"):
        (control / name).mkdir(parents=True)
        (control / name / "content").write_bytes(b"x" * MIB)
    with (
        directory_fd(control) as control_fd,
        directory_fd(control / "volumes") as volumes_fd,
        directory_fd(control / "staging") as staging_fd,
        directory_fd(control / "trash") as trash_fd,
    ):
        pool = Pool(Disk(str(control), volumes_fd, staging_fd, trash_fd), Usage(control_fd))
        measurer = Rounds(Measuring().measure, lambda: [pool], 3600, Pace(work_s=float("inf")))
        measurer.run_once()
        before = pool.usage.foreign_bytes
        (memory / "stranger").write_bytes(b"x" * 2 * MIB)
        measurer.run_once()
        after = pool.usage.foreign_bytes
    assert before is not None
    assert after is not None
    assert before < 65536  # our own record of it
    assert 2 * MIB <= after - before < 2 * MIB + 65536
