"""The C library, loaded once, and the one way in which a failed call becomes an OSError.

`ctypes.CDLL` releases the GIL around each call and keeps errno per thread. Calls that never wait for a disk
may keep it (`brief`): to give it away and to get it back costs several times what they take, when other
threads want it. Paths go in as bytes, so that every name a filesystem can hold works, also one that is not
UTF-8.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

AnyPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC_WITH_GIL = ctypes.PyDLL(None, use_errno=True)


def function(
    name: str, *argtypes: Any, paths: tuple[int, ...] = (), wrapper: str = "", since: str = "", brief: bool = False
) -> Callable[..., int]:
    """Declare a C function that answers -1 and sets errno when it fails.

    `paths` are the positions of one or two path arguments, which the OSError then names (the directory fd
    before it, where the path is empty). `since` is the Linux version that a sentence for ENOSYS tells. `brief`
    keeps the GIL: for what never waits, whatever becomes of a disk.
    """
    # By index, for each index gives a function object of its own: `syscall` is declared several times.
    declared: Any = (_LIBC_WITH_GIL if brief else _LIBC)[name]
    declared.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    declared.argtypes = argtypes

    def check(result: int, _function: Any, args: tuple[Any, ...]) -> int:
        if result >= 0:
            return result
        named = [_named(args, at) for at in paths if args[at] is not None]
        raise _error(ctypes.get_errno(), named, wrapper or name, since)

    declared.errcheck = check
    call: Callable[..., int] = declared
    return call


def system_call(
    name: str, *argtypes: Any, paths: tuple[int, ...] = (), since: str, brief: bool = False
) -> Callable[..., int]:
    """Declare a system call that glibc 2.36 has no function for; its number is the first argument.

    All that we need are newer than 424, from where on numbers are the same on every architecture.
    """
    return function("syscall", ctypes.c_long, *argtypes, paths=paths, wrapper=name, since=since, brief=brief)


def path_bytes(path: AnyPath) -> bytes:
    """Encode a path for the kernel; a NUL byte, at which C would cut it off, is EINVAL."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "path holds a NUL byte", path)
    return raw


def _named(args: tuple[Any, ...], at: int) -> str | int:
    """Give what an error should name for the path at position `at`: the path, or its directory fd."""
    raw: bytes = args[at]
    before: Any = args[at - 1] if at else None
    return before if raw == b"" and isinstance(before, int) else os.fsdecode(raw)


def _error(number: int, paths: list[str | int], name: str, since: str) -> OSError:
    text = os.strerror(number)
    if number == errno.ENOSYS and since:
        text = f"{text}: {name} needs Linux {since}"
    first, second = [*paths, None, None][:2]
    return OSError(number, text, first, None, second)
