"""Trees of the shapes that break naive code; everything is made by descriptor, for paths would be too long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def directory_fd(path: Path) -> Iterator[int]:
    """Hold a directory open."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def make_deep(path: Path, levels: int, name: str = "d") -> None:
    """Nest `levels` directories in one another, with a file in each."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(levels):
            os.mkdir(name, dir_fd=fd)
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = child
            touch("file", fd)
    finally:
        os.close(fd)


def touch(name: str, dir_fd: int) -> None:
    """Make an empty file."""
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=dir_fd))


def make_wide(path: Path, files: int) -> None:
    """Make empty files."""
    with directory_fd(path) as fd:
        for number in range(files):
            touch(f"file-{number}", fd)
