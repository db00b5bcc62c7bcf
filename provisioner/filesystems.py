"""The filesystems that an image can have: how each is made, checked, mounted and grown.

A program gets the descriptor of what it works on: however long it lives, and whatever becomes of us, the file or device
stays what it was, and its number nobody else's.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from provisioner.commands import CommandError, installed, path_for, run, started
from provisioner.linux.blkdev import size_bytes
from provisioner.linux.fsresize import ext4_bytes, ext4_is_clean, grow_ext4, grow_xfs, may_grow_ext4, xfs_bytes
from provisioner.waits import for_a_program

_MAKE_S = 300.0
_CHECK_S = 3600.0  # of a large one after a crash; the caller's retries are told that it goes on

MIB = 2**20
_BLOCK_BYTES = 4096
_CANNOT_WORK = 8  # e2fsck(8): operational error
_NOTICE = re.compile(r"Overwriting existing filesystem; this can be undone using the command:\n.*\n\n?")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of filesystem. least_bytes: no smaller one can be.

    grow: takes an open directory, its device and the most bytes that it may have; gives those that it has then.
    size_bytes: reads from an image or a device how large the filesystem is, 0 where it does not know.
    grow_unmounted: for a process that `grow` is refused; what that overwrites no journal brings back after a kill.
    """

    make: tuple[str, ...]
    repair: tuple[str, ...]  # '-z FILE' notes what it overwrites, for `undo`
    repaired: frozenset[int]
    glance: tuple[str, ...]
    examine: tuple[str, ...]
    package: str
    least_bytes: int
    grow: Callable[[int, int, int], int]
    size_bytes: Callable[[int], int]
    grow_unmounted: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    inodes: str = ""


KINDS = {
    # Blocks of 4 KiB whatever the size, for a device of such cannot carry smaller ones. What is read of a new image is
    # zeros: nothing needs to be written to it that a sparse one would have to find room for.
    "ext4": Kind(
        make=("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E", "assume_storage_prezeroed=1,nodiscard"),
        repair=("e2fsck", "-p"),
        repaired=frozenset({0, 1, 2}),  # e2fsck(8): clean, corrected, corrected and wants a reboot
        glance=("e2fsck", "-n"),
        examine=("e2fsck", "-n", "-f"),
        package="e2fsprogs",
        least_bytes=4 * MIB,
        grow=grow_ext4,
        size_bytes=ext4_bytes,
        grow_unmounted=("resize2fs",),
        undo=("e2undo",),
        inodes="-N",
    ),
    # Sectors of the device, or the kernel does not mount it. It mends itself by its journal when it is mounted; what
    # that cannot mend is for people.
    "xfs": Kind(
        make=("mkfs.xfs", "-q", "-f", "-K", "-s", "size=4096"),
        repair=(),
        repaired=frozenset({0}),
        glance=("xfs_repair", "-n"),
        examine=("xfs_repair", "-n"),
        package="xfsprogs",
        least_bytes=300 * MIB,
        grow=grow_xfs,
        size_bytes=xfs_bytes,
    ),
}


class OutOfRoom(Exception):
    """A filesystem wants to be mended, and there is no room to note what that overwrites."""


class Corrupt(Exception):
    """A filesystem cannot be mounted as it is; the message is what its checker says."""


@contextmanager
def making(kind: str, fd: int, inodes: int) -> Iterator[None]:
    """Make a filesystem on an empty file that is open, while a block does something else; it is there when that ends.

    inodes: at least so many, 0 for as many as its size suggests.
    """
    how = KINDS[kind]
    more = (how.inodes, str(inodes)) if inodes and how.inodes else ()
    with for_a_program(), started([*how.make, *more, path_for(fd)], pass_fds=(fd,)) as program:
        yield
        program.end(deadline_s=_MAKE_S)


def repair(kind: str, device: str, device_fd: int, staging_fd: int) -> None:
    """Let the checker mend what it safely can before a mount; it would not look at what is clean.

    Corrupt where a person has to look. OutOfRoom where what it overwrites cannot be noted in the directory
    `staging_fd`; without that nothing is overwritten.
    """
    how = KINDS[kind]
    if how.repair and not ext4_is_clean(device_fd):
        with for_a_program():
            _mend(how, how.repair, device, device_fd, staging_fd)


def grow_unmounted(kind: str, device: str, device_fd: int, staging_fd: int, most_bytes: int) -> None:
    """Let a filesystem that this process may not let grow once it is mounted fill its device, up to a size."""
    how = KINDS[kind]
    wanted = min(size_bytes(device_fd), most_bytes)
    if not how.grow_unmounted or wanted - ext4_bytes(device_fd) < _BLOCK_BYTES or may_grow_ext4():
        return
    with for_a_program():
        _mend(how, (*how.repair, "-f"), device, device_fd, staging_fd)
        run([*how.grow_unmounted, device, f"{wanted // 1024}K"], deadline_s=_CHECK_S, pass_fds=(device_fd,))


def _mend(how: Kind, argv: tuple[str, ...], device: str, device_fd: int, staging_fd: int) -> None:
    """Run a checker, which writes before it knows whether it can mend all; what it wrote is undone where it cannot."""
    with _nameless(staging_fd) as notes_fd:
        fds = (device_fd, notes_fd)
        try:
            run([*argv, "-z", path_for(notes_fd), device], deadline_s=_CHECK_S, allowed=how.repaired, pass_fds=fds)
        except CommandError as error:
            if error.status == _CANNOT_WORK and "is in use" in error.output:
                raise OSError(errno.EBUSY, f"another program has {device} for itself alone") from error
            said = CommandError(error.argv, error.status, _NOTICE.sub("", error.output))
            # The notes of one that was killed may lack their end: it is as safe to start again as it is to go on.
            if error.status is not None and error.status >= 0 and os.fstat(notes_fd).st_size:
                _undo(how, said, device, fds)
            raise (OutOfRoom if "No space left" in error.output else Corrupt)(str(said)) from error


@contextmanager
def _nameless(staging_fd: int) -> Iterator[int]:
    """Open a file that goes with its last user: nobody can apply its notes to a filesystem that changed since."""
    name = f"notes.{secrets.token_hex(4)}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=staging_fd)
    try:
        os.unlink(name, dir_fd=staging_fd)
        yield fd
    finally:
        with suppress(OSError):  # nobody needs it any more
            os.close(fd)


def _undo(how: Kind, said: CommandError, device: str, fds: tuple[int, int]) -> None:
    try:
        run([*how.undo, path_for(fds[1]), device], deadline_s=_CHECK_S, pass_fds=fds)
        os.fsync(fds[0])  # it leaves that to the last who closes the device
    except CommandError as error:
        raise Corrupt(f"{said}; what that changed could not be undone: {error}") from error


def looks_sound(kind: str, device: str, device_fd: int) -> bool:
    """Ask the checker whether anything is known to be wrong with a filesystem; that of ext4 does not read it all."""
    try:
        with for_a_program():
            run([*KINDS[kind].glance, device], deadline_s=_CHECK_S, pass_fds=(device_fd,))
    except CommandError:
        return False
    return True


def examine(kind: str, device: str, device_fd: int) -> str:
    """Give what the checker says of a filesystem that could not be mounted; nothing is written to it."""
    try:
        with for_a_program():
            return run([*KINDS[kind].examine, device], deadline_s=_CHECK_S, pass_fds=(device_fd,))
    except CommandError as error:
        return str(error)


def missing(kind: str) -> str:
    """Say which program is missing for a kind and where it comes from, or ''."""
    how = KINDS[kind]
    for program in filter(None, (*how.make[:1], *how.examine[:1], *how.grow_unmounted[:1], *how.undo[:1])):
        if not installed(program):
            return f"{program} is not installed; it is in the package {how.package}"
    return ""
