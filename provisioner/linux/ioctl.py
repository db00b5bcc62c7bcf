"""ioctl(2), and how its request numbers are made (asm-generic/ioctl.h)."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Any

from provisioner.linux.libc import function

_WRITE, _READ = 1, 2

# Not fcntl.ioctl, which keeps the GIL for buffers of more than 1,024 bytes.
_ioctl = function("ioctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_ioctl_number = function("ioctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)


def _request(direction: int, kind: int | str, number: int, size: int) -> int:
    return direction << 30 | size << 16 | (ord(kind) if isinstance(kind, str) else kind) << 8 | number


def io(kind: int | str, number: int) -> int:
    """_IO: a request without a structure."""
    return _request(0, kind, number, 0)


def ior(kind: int | str, number: int, size: int) -> int:
    """_IOR: the kernel fills a structure of `size` bytes; some requests say so and read it."""
    return _request(_READ, kind, number, size)


def iow(kind: int | str, number: int, size: int) -> int:
    """_IOW: the kernel reads a structure."""
    return _request(_WRITE, kind, number, size)


def iowr(kind: int | str, number: int, size: int) -> int:
    """_IOWR: it does both."""
    return _request(_READ | _WRITE, kind, number, size)


def ioctl(fd: int, request: int, structure: bytes) -> bytes:
    """Make a request with a copy of `structure`, and give that as the kernel left it; the OSError names the file."""
    buffer = ctypes.create_string_buffer(structure, len(structure))
    try:
        _ioctl(fd, request, buffer)
    except OSError as error:
        error.filename = path_of(fd)
        raise
    return buffer.raw


def ioctl_number(fd: int, request: int, argument: int = 0) -> int:
    """Make a request that takes a number, or nothing, and give its result; the OSError names the file."""
    try:
        return _ioctl_number(fd, request, argument)
    except OSError as error:
        error.filename = path_of(fd)
        raise


def path_of(fd: int) -> Any:
    """Give the path of an open file for a message; its number where there is none."""
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}")
    return fd
