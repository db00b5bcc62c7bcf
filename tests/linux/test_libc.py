"""How a failed call becomes an OSError."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from provisioner.linux.libc import function, path_bytes, system_call

_NO_SUCH_NUMBER = 100_000


def test_a_call_that_the_kernel_lacks_says_which_kernel_has_it() -> None:
    call = system_call("futurecall", since="99.1")
    with pytest.raises(OSError, match=r"Function not implemented: futurecall needs Linux 99\.1") as caught:
        call(_NO_SUCH_NUMBER)
    assert caught.value.errno == errno.ENOSYS


def test_one_symbol_serves_several_declarations() -> None:
    """`syscall` is declared for each call that glibc lacks; one must not change the other."""
    first = function("getppid")
    second = function("getppid", ctypes.c_int)
    assert first() == os.getppid()
    assert second(1) == os.getppid()


def test_the_error_is_of_the_class_that_python_has_for_it() -> None:
    unlink = function("unlink", ctypes.c_char_p, paths=(0,))
    with pytest.raises(FileNotFoundError, match=r"'/nowhere'") as caught:
        unlink(b"/nowhere")
    assert caught.value.filename == "/nowhere"


def test_paths_of_any_type_become_bytes() -> None:
    assert path_bytes("a\udcff") == b"a\xff"
    assert path_bytes(b"a\xff") == b"a\xff"
    assert path_bytes(Path("/a/b")) == b"/a/b"


@pytest.mark.parametrize("path", ["a\0b", b"a\0b", "\0"])
def test_a_path_is_never_cut_at_a_nul_byte(path: str | bytes) -> None:
    with pytest.raises(OSError, match="NUL") as caught:
        path_bytes(path)
    assert caught.value.errno == errno.EINVAL
