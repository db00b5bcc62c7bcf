"""openat2(2): what each RESOLVE_ rule refuses, on real symlinks and mounts."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner.linux import openat2 as module
from provisioner.linux.close import close_path
from provisioner.linux.mount import MS_BIND, mount
from provisioner.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    open_path,
    openat2,
)
from tests.support.filesystems import tmpfs


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Hold a directory open."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _read(path: str, resolve: int, dir_fd: int) -> str:
    """Open and close; give the text inside, or the name of the error."""
    try:
        fd = openat2(path, os.O_RDONLY, resolve=resolve, dir_fd=dir_fd)
    except OSError as error:
        return errno.errorcode[error.errno or 0] if error.filename == path else repr(error)
    with open(fd, encoding="utf-8") as file:
        return file.read()


@pytest.fixture
def tree(memory: Path) -> Path:
    """Lay out a file inside, one outside, and ways that lead from one to the other."""
    (memory / "outside").write_text("outside")
    inside = memory / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "file").write_text("inside")
    (inside / "sub" / "file").write_text("sub")
    os.symlink("file", inside / "link")
    os.symlink("sub", inside / "sublink")
    os.symlink("../outside", inside / "escape")
    os.symlink(memory / "outside", inside / "absolute")
    os.symlink("/file", inside / "rooted")
    return inside


def test_the_structure_is_the_kernels() -> None:
    assert module._OPEN_HOW.size == 24
    assert module._NR == 437
    assert RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS << 8 == 0x0201
    assert (RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT) == (0x04, 0x08, 0x10)


@pytest.mark.parametrize(
    ("path", "resolve", "expected"),
    [
        ("file", 0, "inside"),
        ("link", 0, "inside"),
        ("escape", 0, "outside"),
        ("missing", 0, "ENOENT"),
        ("file/x", 0, "ENOTDIR"),
        ("sub/file", RESOLVE_NO_SYMLINKS, "sub"),
        ("link", RESOLVE_NO_SYMLINKS, "ELOOP"),
        ("sublink/file", RESOLVE_NO_SYMLINKS, "ELOOP"),
        ("link", RESOLVE_BENEATH, "inside"),
        ("sub/../file", RESOLVE_BENEATH, "inside"),
        ("../outside", RESOLVE_BENEATH, "EXDEV"),
        ("escape", RESOLVE_BENEATH, "EXDEV"),
        ("absolute", RESOLVE_BENEATH, "EXDEV"),
        ("/etc/hostname", RESOLVE_BENEATH, "EXDEV"),
        ("rooted", RESOLVE_IN_ROOT, "inside"),
        ("/file", RESOLVE_IN_ROOT, "inside"),
        ("../../file", RESOLVE_IN_ROOT, "inside"),
    ],
)
def test_paths_resolve_by_the_rules(tree: Path, path: str, resolve: int, expected: str) -> None:
    with opened(tree) as dir_fd:
        assert _read(path, resolve, dir_fd) == expected


def test_symlinks_of_proc_are_magic() -> None:
    with opened(Path("/proc/self")) as dir_fd:
        assert _read("root/etc", RESOLVE_NO_MAGICLINKS, dir_fd) == "ELOOP"
        assert _read("root/etc", RESOLVE_NO_SYMLINKS, dir_fd) == "ELOOP"


def test_a_bind_mount_of_the_same_filesystem_is_another_device(folder: Path) -> None:
    for name in ("source", "target"):
        (folder / name).mkdir()
    (folder / "source" / "file").write_text("source")
    mount(folder / "source", folder / "target", flags=MS_BIND)
    with opened(folder) as dir_fd:
        assert _read("target/file", RESOLVE_BENEATH, dir_fd) == "source"
        assert _read("target/file", RESOLVE_NO_XDEV, dir_fd) == "EXDEV"
        assert _read("target", RESOLVE_NO_XDEV, dir_fd) == "EXDEV"
        assert _read("source/file", RESOLVE_NO_XDEV, dir_fd) == "source"


def test_another_filesystem_is_another_device(folder: Path) -> None:
    with tmpfs(folder / "memory"), opened(folder) as dir_fd:
        assert _read("memory", RESOLVE_NO_XDEV, dir_fd) == "EXDEV"
    with opened(folder) as dir_fd:
        os.close(openat2("memory", os.O_PATH, resolve=RESOLVE_NO_XDEV, dir_fd=dir_fd))


def test_descriptors_close_on_exec(memory: Path) -> None:
    for flags in (os.O_RDONLY, os.O_PATH):
        fd = openat2(memory, flags)
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_a_new_file_gets_its_mode(memory: Path) -> None:
    with opened(memory) as dir_fd:
        fd = openat2("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode=0o640, dir_fd=dir_fd)
    assert os.fstat(fd).st_mode & 0o7777 == 0o640
    os.close(fd)
    with pytest.raises(OSError, match="Invalid argument"):
        openat2(memory, os.O_RDONLY, mode=0o640)


def test_unknown_flags_are_refused(memory: Path) -> None:
    """Unlike open(2): a rule that the kernel does not know must not be dropped."""
    with pytest.raises(OSError, match="Invalid argument"):
        openat2(memory, os.O_PATH, resolve=1 << 60)


class Racing:
    """A kernel that answers with errors before it gives 99."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.calls = 0

    def __call__(self, *_args: object) -> int:
        self.calls += 1
        if self.numbers:
            raise OSError(self.numbers.pop(0), "raced")
        return 99


def test_a_race_and_a_signal_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Racing(errno.EAGAIN, errno.EINTR, errno.EAGAIN)
    monkeypatch.setattr(module, "_openat2", kernel)
    assert openat2("x", os.O_PATH) == 99
    assert kernel.calls == 4


def test_other_errors_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Racing(errno.EIO)
    monkeypatch.setattr(module, "_openat2", kernel)
    with pytest.raises(OSError, match="raced"):
        openat2("x", os.O_PATH)
    assert kernel.calls == 1


def test_a_race_without_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Racing(*[errno.EAGAIN] * 1000)
    monkeypatch.setattr(module, "_openat2", kernel)
    with pytest.raises(BlockingIOError):
        openat2("x", os.O_PATH)
    assert kernel.calls == 128


def test_renames_elsewhere_do_not_disturb(tree: Path) -> None:
    """Any rename on the machine makes a `..` below RESOLVE_BENEATH uncertain."""
    stop = threading.Event()

    def rename() -> None:
        (tree / "a").mkdir()
        while not stop.is_set():
            os.rename(tree / "a", tree / "b")
            os.rename(tree / "b", tree / "a")

    renamer = threading.Thread(target=rename)
    renamer.start()
    try:
        with opened(tree) as dir_fd:
            for _ in range(2000):
                os.close(openat2("sub/../sub/../file", os.O_PATH, resolve=RESOLVE_BENEATH, dir_fd=dir_fd))
    finally:
        stop.set()
        renamer.join()


def test_what_the_cache_lacks_is_opened_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        fd = open_path(tmp_path, os.O_DIRECTORY)
        try:
            assert os.fstat(fd).st_ino == tmp_path.stat().st_ino
            assert not os.get_inheritable(fd)
        finally:
            close_path(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        monkeypatch.setattr(module, "_openat2_brief", _lacks)


def _lacks(*_: object) -> int:
    raise BlockingIOError


def test_a_path_is_opened_by_the_same_rules(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        open_path(tmp_path / "link", os.O_DIRECTORY, resolve=RESOLVE_NO_SYMLINKS)
    with pytest.raises(FileNotFoundError):
        open_path(tmp_path / "nothing")
