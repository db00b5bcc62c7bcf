"""Filesystems of a test's own, and a mount namespace of its own to make them in. Needs no pytest.

A filesystem lives in a sparse file under a loop device that detaches itself with the last unmount. In the
private namespace that unmount happens even when the test process is killed: nothing can leak.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from provisioner.linux.libc import function
from provisioner.linux.mount import MNT_DETACH, MS_REC, MS_SLAVE, UMOUNT_NOFOLLOW, mount, umount2
from provisioner.linux.mountinfo import MountInfo, read_mountinfo
from provisioner.linux.statx import statx

LOOP_KINDS = ("ext4", "xfs", "btrfs")

MIB = 1 << 20
DEFAULT_BYTES = {"ext4": 64 * MIB, "xfs": 300 * MIB, "btrfs": 128 * MIB}  # about the least that each accepts

# As little written as can be: a test waits for it.
_MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-K"],
}

_CLONE_NEWNS = 0x00020000
_unshare = function("unshare", ctypes.c_int)


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A mounted filesystem: `image` is its backing file, `device` its loop device."""

    kind: str
    path: Path
    image: Path
    device: str


def isolate_mounts() -> None:
    """Give this thread, and the threads and processes that it starts, a mount namespace of their own.

    To be called once, in the main thread, before others start. None of our mounts gets out; what is mounted
    and unmounted outside comes in where it is shared, as systemd has it.
    """
    _unshare(_CLONE_NEWNS)
    mount(None, "/", flags=MS_REC | MS_SLAVE)


def make_image(kind: str, image: Path, size_bytes: int = 0, *mkfs_options: str) -> None:
    """Make a filesystem in a new sparse file; a size of 0 means a small one that the kind accepts."""
    with image.open("xb") as file:
        file.truncate(size_bytes or DEFAULT_BYTES[kind])
    subprocess.run([*_MKFS[kind], *mkfs_options, str(image)], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def mounted(kind: str, image: Path, path: Path, options: str = "") -> Iterator[Filesystem]:
    """Mount an image at a folder, made where it is not there; at the end unmount it wherever it shows.

    `options` are those of mount(8).
    """
    path.mkdir(exist_ok=True)
    joined = ",".join(filter(None, ["loop", options]))
    subprocess.run(["mount", "-n", "-t", kind, "-o", joined, str(image), str(path)], check=True)
    found = _topmost(path)
    try:
        yield Filesystem(kind, path, image, found.source)
    finally:
        unmount_all(path, found.dev)


@contextmanager
def loop_filesystem(
    kind: str, folder: Path, size_bytes: int = 0, *, mkfs_options: tuple[str, ...] = (), options: str = ""
) -> Iterator[Filesystem]:
    """Make and mount a filesystem of its own at `folder`/KIND, and remove its image at the end."""
    image = folder / f"{kind}.img"
    make_image(kind, image, size_bytes, *mkfs_options)
    try:
        with mounted(kind, image, folder / kind, options) as filesystem:
            yield filesystem
    finally:
        image.unlink()


@contextmanager
def tmpfs(path: Path, size_bytes: int = 16 * MIB) -> Iterator[Path]:
    """Mount a tmpfs at a folder, made where it is not there."""
    path.mkdir(exist_ok=True)
    mount("tmpfs", path, "tmpfs", data=f"size={size_bytes}")
    dev = _topmost(path).dev
    try:
        yield path
    finally:
        unmount_all(path, dev)


def unmount_all(path: Path, dev: int | None = None) -> None:
    """Unmount everything at and below a folder, and filesystem `dev` wherever else a test has bound it.

    A mount that a process holds is taken off the tree all the same, and then EBUSY is raised: the test
    forgot to close or end something.
    """
    # Again and again, for the order in the table is not always that in which mounts lie on each other.
    while doomed := _doomed(path, dev):
        errors = [error for error in map(_unmount, doomed) if error]
        if len(errors) == len(doomed):
            for mount_point in doomed:
                umount2(mount_point, MNT_DETACH | UMOUNT_NOFOLLOW)
            raise errors[0]


def _doomed(path: Path, dev: int | None) -> list[str]:
    """List mount points to unmount, the latest mount first."""
    place = os.path.realpath(path)
    found = [
        found.mount_point
        for found in read_mountinfo()
        if found.dev == dev or found.mount_point == place or found.mount_point.startswith(place + "/")
    ]
    return found[::-1]


def _unmount(mount_point: str) -> OSError | None:
    try:
        umount2(mount_point, UMOUNT_NOFOLLOW)
    except OSError as error:
        return error
    return None


def _topmost(path: Path) -> MountInfo:
    mnt_id = statx(path).mnt_id
    return next(found for found in read_mountinfo() if found.mnt_id == mnt_id)


def pytest_sessionstart() -> None:
    """Isolate a test session, where this module is registered as a plugin and has the right to."""
    with suppress(PermissionError):
        isolate_mounts()
