"""Adds up what a directory tree occupies, whatever its shape, and reads nothing but directories.

The upper levels stay open. Below them only the directory of the moment is: its parent is found again by
`..`, and must then be the one that was left. So a tree costs a bounded number of descriptors, and almost
no memory.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass

from provisioner.directories import listed, open_directory, open_parent
from provisioner.linux.statx import AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, Statx, statx
from provisioner.pace import Paced

_BLOCK_BYTES = 512  # st_blocks counts these, whatever the filesystem's own size is

_OPEN_LEVELS = 16

# Bounds of memory against a tree that was built to break them; what lies beyond is not counted.
_MOST_LEVELS = 10_000
_MOST_NAMES = 100_000


@dataclass(slots=True)
class _Level:
    """A directory on the way down; `fd` is -1 while it is closed."""

    fd: int
    dev: int
    ino: int
    names: Generator[str, None, None]


def measure(dir_fd: int, pace: Paced, visit: Callable[[int], None] | None = None) -> tuple[int, int]:
    """Give (bytes, inodes) that the directory `dir_fd` and all below it occupy.

    Bytes are allocated ones: holes cost nothing. A file with several links counts once, shared evenly
    between its links, should one of them lie outside. What is mounted inside is left out, and no symlink is
    followed. What changes meanwhile may be counted or not. Raises Stopped from `pace`, and OSError where
    `dir_fd` itself cannot be read; what cannot be read below it is left out.

    visit: gets each directory, open; one that it raises OSError for is left out too.
    """
    return _Walk(pace, visit).measure(dir_fd)


class _Walk:
    """One walk down and up again."""

    def __init__(self, pace: Paced, visit: Callable[[int], None] | None) -> None:
        self._pace = pace
        self._visit = visit
        self._mnt_id = 0
        self._levels: list[_Level] = []
        self._names_held = 0
        self._sums = _Sums()

    def measure(self, dir_fd: int) -> tuple[int, int]:
        """Walk the tree below `dir_fd`, and give the sums."""
        root = statx("", dir_fd=dir_fd, flags=AT_EMPTY_PATH)
        self._mnt_id = root.mnt_id
        self._sums.add(root)
        try:
            self._enter(".", dir_fd)
            while self._levels:
                name = next(self._levels[-1].names, None)
                if name is None:
                    self._ascend()
                else:
                    self._descend(name)
        finally:
            while self._levels:
                self._drop()
        return self._sums.total()

    def _descend(self, name: str) -> None:
        """Enter a child of the lowest level, unless it went, or is out of bounds."""
        if len(self._levels) >= _MOST_LEVELS:
            return
        parent = self._levels[-1]
        with suppress(OSError):
            self._enter(name, parent.fd)
            if len(self._levels) > _OPEN_LEVELS + 1:
                os.close(parent.fd)
                parent.fd = -1

    def _enter(self, name: str, dir_fd: int) -> None:
        fd = open_directory(name, dir_fd)
        try:
            found = statx("", dir_fd=fd, flags=AT_EMPTY_PATH)
            if self._visit:
                self._visit(fd)
        except OSError:
            os.close(fd)
            raise
        names = self._directories(fd)
        deep = len(self._levels) >= _OPEN_LEVELS
        self._levels.append(_Level(fd, found.dev, found.ino, self._held(names) if deep else names))

    def _ascend(self) -> None:
        """Leave the lowest level; where the way up is not the way we came, leave those that were closed too."""
        left = self._levels[-1]
        if len(self._levels) > 1 and self._levels[-2].fd < 0:
            self._levels[-2].fd = self._reopened(left.fd, self._levels[-2])
        self._drop()
        while self._levels and self._levels[-1].fd < 0:
            self._drop()

    def _reopened(self, child_fd: int, level: _Level) -> int:
        """Open the parent of a directory, -1 where it is not the one that it was: somebody moved the child."""
        try:
            fd = open_parent(child_fd)
        except OSError:
            return -1
        with suppress(OSError):
            found = statx("", dir_fd=fd, flags=AT_EMPTY_PATH)
            if (found.mnt_id, found.dev, found.ino) == (self._mnt_id, level.dev, level.ino):
                return fd
        os.close(fd)
        return -1

    def _drop(self) -> None:
        level = self._levels.pop()
        level.names.close()
        if level.fd >= 0:
            os.close(level.fd)

    def _directories(self, fd: int) -> Generator[str, None, None]:
        """Count all entries of a directory, and give those that are directories themselves."""
        with suppress(OSError), listed(fd) as entries:
            for entry in entries:
                self._pace.step()
                if self._counted(fd, entry.name):
                    yield entry.name

    def _counted(self, fd: int, name: str) -> bool:
        """Count an entry; True where it is a directory of this mount."""
        try:
            found = statx(name, dir_fd=fd, flags=AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT)
        except OSError:
            return False
        if found.mnt_id != self._mnt_id:
            return False
        self._sums.add(found)
        return stat.S_ISDIR(found.mode)

    def _held(self, names: Generator[str, None, None]) -> Generator[str, None, None]:
        """Read a directory to its end and keep the names, for its descriptor will be closed."""
        held: list[str] = []
        try:
            for name in names:
                if self._names_held < _MOST_NAMES:
                    held.append(name)
                    self._names_held += 1
            while held:
                self._names_held -= 1
                yield held.pop()
        finally:
            self._names_held -= len(held)


class _Sums:
    """Blocks and inodes; those of files with several links by the number of links."""

    def __init__(self) -> None:
        self._blocks: defaultdict[int, int] = defaultdict(int)
        self._links: defaultdict[int, int] = defaultdict(int)

    def add(self, found: Statx) -> None:
        """Count one name of a file."""
        links = 1 if stat.S_ISDIR(found.mode) else max(found.nlink, 1)
        self._blocks[links] += found.blocks
        self._links[links] += 1

    def total(self) -> tuple[int, int]:
        """Give (bytes, inodes): each of n links brings an nth of its file, so nothing needs to be remembered."""
        used = sum(blocks * _BLOCK_BYTES // links for links, blocks in self._blocks.items())
        return used, sum(-(-seen // links) for links, seen in self._links.items())
