"""Loop devices of images: attached so that none is left behind, and recognised before anything is done to one."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

import structlog

from provisioner.identity import CONTROL
from provisioner.linux import loop
from provisioner.linux.blkdev import flush, size_bytes
from provisioner.linux.loop import LoopStatus
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.linux.statx import Statx
from provisioner.names import folder_of_entry
from provisioner.records import IMAGE

log = structlog.get_logger(__name__)

BLOCK_BYTES = 4096  # no disk asks for more, and direct IO in units of less is refused by some

Image: TypeAlias = tuple[int, int]  # device and inode of the file

_CONTROL = "/dev/loop-control"
_BACKING = re.compile(rf"(?:.*/)?{re.escape(CONTROL)}/(volumes|trash)/([^/]+)/{re.escape(IMAGE)}(?: \(deleted\))?")
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)  # what the kernel says of a device that shows nothing, or goes
_MOST_TRIES = 100  # each is lost to somebody else who attached a file in the same moment


def is_available() -> bool:
    """Tell whether this process can see where loop devices are made."""
    try:
        os.stat(_CONTROL)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def attached(image_fd: int, *, autoclear: bool, readonly: bool = False) -> Iterator[int]:
    """Give a new device of an image, opened.

    autoclear: it goes with its last user, and should nobody use it, at the end of the block. Without, it stays
    until `detach`; where the block fails, it goes too.
    """
    fd = _attach(image_fd, autoclear=autoclear, readonly=readonly)
    try:
        yield fd
    except BaseException:
        if not autoclear:  # one with it goes by itself, and only once all that was written through it is in the file
            with suppress(OSError):
                loop.clear(fd)
        raise
    finally:
        with suppress(OSError):  # nothing was written through it
            os.close(fd)


def _attach(image_fd: int, *, autoclear: bool, readonly: bool) -> int:
    flags = loop.LO_FLAGS_DIRECT_IO
    flags |= loop.LO_FLAGS_AUTOCLEAR if autoclear else 0
    flags |= loop.LO_FLAGS_READ_ONLY if readonly else 0
    control_fd = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_MOST_TRIES):
            fd = os.open(loop.device_path(loop.get_free(control_fd)), _access(readonly=readonly))
            try:
                loop.configure(fd, image_fd, block_bytes=BLOCK_BYTES, flags=flags, name=IMAGE)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return fd
    finally:
        with suppress(OSError):  # the device must not get lost for that
            os.close(control_fd)
    raise OSError(errno.EAGAIN, "no loop device stayed free long enough", _CONTROL)


def _access(*, readonly: bool) -> int:
    return (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC


def number_of(found: Statx) -> int | None:
    """Give the loop device that a path shows, by what statx tells of it: one that is mounted there, or its node."""
    dev = found.rdev if stat.S_ISBLK(found.mode) else found.dev
    return os.minor(dev) if os.major(dev) == loop.LOOP_MAJOR else None


def folder_behind(number: int) -> str:
    """Name the volume whose image a device shows, by the image's path as the kernel tells it; '' where it is none."""
    try:
        with open(f"/sys/block/loop{number}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
            match = _BACKING.fullmatch(file.read().rstrip("\n"))
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return ""
    if match is None:
        return ""
    return match[2] if match[1] == "volumes" else folder_of_entry(match[2])


def image_behind(number: int) -> Image | None:
    """Give the file that a device shows, None where it shows none."""
    try:
        return status_of(number).image
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return None


def is_mounted(number: int, fs_type: str) -> bool:
    """Tell whether a filesystem is mounted from a device, in whichever mount namespace.

    O_EXCL would not tell: a program that has the device for itself alone refuses it to others as a mount does.
    """
    return os.path.exists(f"/sys/fs/{fs_type}/loop{number}")


def look_again(fd: int) -> None:
    """Let a device that nobody has mounted show what its file has become: all of it, and nothing of before."""
    flush(fd)
    loop.set_capacity(fd)


def status_of(number: int) -> LoopStatus:
    """Tell what a device shows, and how."""
    with opened(number, readonly=True) as fd:
        return loop.get_status(fd)


def flags_of(number: int) -> int:
    """Give the LO_FLAGS_ of a device."""
    return status_of(number).flags


def ours(left_out: Callable[[str], None] | None = None) -> Iterator[tuple[int, Image]]:
    """List the devices that show images of volumes, in whichever pool, with the image of each: one look at all.

    One on a dead filesystem, which answers nothing (EIO), is left out: no other pool shall wait for it. left_out: gets
    the folder of its volume.
    """
    for name in os.listdir("/sys/block"):
        if name.startswith("loop") and (folder := folder_behind(number := int(name[4:]))):
            try:
                image = image_behind(number)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                log.warning("loop device left alone", device=loop.device_path(number), error=str(error))
                if left_out:
                    left_out(folder)
                continue
            if image:
                yield number, image


def open_device(number: int, *, readonly: bool = False) -> int:
    """Open a device."""
    return os.open(loop.device_path(number), _access(readonly=readonly))


@contextmanager
def opened(number: int, *, readonly: bool = False) -> Iterator[int]:
    """Hold a device open for a while."""
    fd = open_device(number, readonly=readonly)
    try:
        yield fd
    finally:
        os.close(fd)


def size_of(number: int) -> int:
    """Give how many bytes a device shows."""
    with opened(number, readonly=True) as fd:
        return size_bytes(fd)


def let_grow(number: int) -> None:
    """Let a device have the size that its image has now."""
    with opened(number, readonly=True) as fd:
        loop.set_capacity(fd)


def detach_unless_mounted(number: int) -> None:
    """Detach a device unless its node is bound somewhere; looks at all mounts."""
    if not flags_of(number) & loop.LO_FLAGS_AUTOCLEAR and all(
        mount.root != f"/loop{number}" for mount in read_mountinfo()
    ):
        detach(number)


def detach(number: int, image: Image | None = None) -> None:
    """Detach a device; one that is in use goes when it is not any more. image: only if it shows this one."""
    with opened(number, readonly=True) as fd:
        try:
            status = loop.get_status(fd)  # open, its number cannot become another's any more
            if image in (None, status.image):
                loop.clear(fd)
        except OSError as error:
            if error.errno != errno.ENXIO:  # it went already
                raise
