"""The filesystems that an image can have: how each is made, checked, mounted and grown.

A program gets the descriptor of what it works on: however long it lives, and whatever becomes of us, the file or device
stays what it was, and its number nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provisioner.commands import CommandError, installed, path_for, run
from provisioner.linux.blkdev import size_bytes
from provisioner.linux.fsresize import ext4_bytes, grow_ext4, grow_xfs

_MAKE_S = 300.0
_CHECK_S = 3600.0  # of a large one after a crash; the caller's retries are told that it goes on

MIB = 2**20
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of filesystem. least_bytes: no smaller one can be.

    grow: takes an open directory, its device and the most bytes that it may have; gives those that it has then.
    """

    make: tuple[str, ...]
    repair: tuple[str, ...]
    repaired: frozenset[int]
    examine: tuple[str, ...]
    package: str
    least_bytes: int
    grow: Callable[[int, int, int], int]
    grow_unmounted: tuple[str, ...] = ()
    inodes: str = ""


KINDS = {
    # Blocks of 4 KiB whatever the size, for a device of such cannot carry smaller ones. What is read of a new image is
    # zeros: nothing needs to be written to it that a sparse one would have to find room for.
    "ext4": Kind(
        make=("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E", "assume_storage_prezeroed=1,nodiscard"),
        repair=("e2fsck", "-p"),
        repaired=frozenset({0, 1, 2}),  # e2fsck(8): clean, corrected, corrected and wants a reboot
        examine=("e2fsck", "-n", "-f"),
        package="e2fsprogs",
        least_bytes=4 * MIB,
        grow=grow_ext4,
        grow_unmounted=("resize2fs",),
        inodes="-N",
    ),
    # Sectors of the device, or the kernel does not mount it. It mends itself by its journal when it is mounted; what
    # that cannot mend is for people.
    "xfs": Kind(
        make=("mkfs.xfs", "-q", "-f", "-K", "-s", "size=4096"),
        repair=(),
        repaired=frozenset({0}),
        examine=("xfs_repair", "-n"),
        package="xfsprogs",
        least_bytes=300 * MIB,
        grow=grow_xfs,
    ),
}


class Corrupt(Exception):
    """A filesystem cannot be mounted as it is; the message is what its checker says."""


def make(kind: str, fd: int, inodes: int) -> None:
    """Make a filesystem on an empty file that is open; inodes: at least so many, 0 for as many as its size suggests."""
    how = KINDS[kind]
    more = (how.inodes, str(inodes)) if inodes and how.inodes else ()
    run([*how.make, *more, path_for(fd)], deadline_s=_MAKE_S, pass_fds=(fd,))


def repair(kind: str, device: str, device_fd: int) -> None:
    """Let the checker mend what it safely can before a mount; Corrupt where a person has to look."""
    how = KINDS[kind]
    if not how.repair:
        return
    try:
        run([*how.repair, device], deadline_s=_CHECK_S, allowed=how.repaired, pass_fds=(device_fd,))
    except CommandError as error:
        raise Corrupt(str(error)) from error


def grow_unmounted(kind: str, device: str, device_fd: int, most_bytes: int) -> None:
    """Let a filesystem that nobody has mounted fill its device, up to a size, where its kind can; checked before."""
    how = KINDS[kind]
    wanted = min(size_bytes(device_fd), most_bytes)
    if not how.grow_unmounted or wanted - ext4_bytes(device_fd) < _BLOCK_BYTES:
        return
    try:
        run([*how.repair, "-f", device], deadline_s=_CHECK_S, allowed=how.repaired, pass_fds=(device_fd,))
    except CommandError as error:
        raise Corrupt(str(error)) from error
    run([*how.grow_unmounted, device, f"{wanted // 1024}K"], deadline_s=_CHECK_S, pass_fds=(device_fd,))


def examine(kind: str, device: str, device_fd: int) -> str:
    """Give what the checker says of a filesystem that could not be mounted; nothing is written to it."""
    try:
        return run([*KINDS[kind].examine, device], deadline_s=_CHECK_S, pass_fds=(device_fd,))
    except CommandError as error:
        return str(error)


def missing(kind: str) -> str:
    """Say which program is missing for a kind and where it comes from, or ''."""
    how = KINDS[kind]
    for program in filter(None, (*how.make[:1], *how.examine[:1], *how.grow_unmounted[:1])):
        if not installed(program):
            return f"{program} is not installed; it is in the package {how.package}"
    return ""
