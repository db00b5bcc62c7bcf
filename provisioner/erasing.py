"""Empties a directory, whatever was planted in it, and touches nothing outside.

Every call names one component below a directory that is held open, so nothing that is renamed, replaced
or mounted meanwhile can lead elsewhere. Depth costs nothing: a directory that is not empty is moved up into
the top one, under a name of ours, and emptied there; so two levels are open at a time, however deep the tree.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from provisioner.directories import listed, opened
from provisioner.linux import btrfs
from provisioner.linux.fsxattr import FS_XFLAG_PROJINHERIT, get_fsxattr, set_fsxattr
from provisioner.linux.renameat2 import rename_noreplace
from provisioner.linux.statx import AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, statx
from provisioner.pace import Paced

# Beyond these, more of them would tell a person nothing new.
MOST_OBSTACLES = 100

# Somebody still writes if there is something new each time; what is left then is for a later try.
_MOST_PASSES = 20

_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})

# What opening a directory says if something else stands there by now.
_REPLACED = frozenset({errno.ENOTDIR, errno.ELOOP, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What could not be removed: its path below the directory, the errno, and a sentence for people.

    The path is where it lies now, which may be higher up than where it was; it is printable.
    """

    path: str
    errno: int
    message: str


@dataclass(slots=True)
class _Home:
    """A directory that others are moved up into; `outer` is the one above a border that renames cannot cross."""

    fd: int
    path: str = ""
    outer: _Home | None = None
    prefix: str = field(default_factory=lambda: f".erase-{secrets.token_hex(8)}-")
    moved: int = 0
    handled: int = 0


def erase(dir_fd: int, pace: Paced, keep: frozenset[str] = frozenset()) -> list[Obstacle]:
    """Empty the directory `dir_fd`, but for the names in `keep`; say what resisted.

    Symlinks are unlinked, never followed; mounts are neither entered nor undone. The directory itself
    stays. Raises Stopped from `pace`, and OSError where the directory itself cannot be listed; the next
    call goes on where this one ended.
    """
    return _Eraser(pace).empty(dir_fd, keep)


class _Eraser:
    """One run over one directory."""

    def __init__(self, pace: Paced) -> None:
        self._pace = pace
        self._obstacles: list[Obstacle] = []
        self._progress = 0

    def empty(self, dir_fd: int, keep: frozenset[str]) -> list[Obstacle]:
        """Go over the directory until a pass changes nothing: a listing may miss what changes meanwhile."""
        _admit_all_projects(dir_fd)
        for _ in range(_MOST_PASSES):
            self._progress = 0
            self._obstacles.clear()
            self._pass(_Home(dir_fd), keep)
            if not self._progress:
                return self._obstacles
        return self._obstacles or [Obstacle(".", errno.ENOTEMPTY, "files are still being created here")]

    def _pass(self, home: _Home, keep: frozenset[str] = frozenset()) -> None:
        """Take away each child of a home once, and each directory that is moved up meanwhile."""
        with listed(home.fd) as entries:
            for entry in entries:
                if entry.name not in keep and not entry.name.startswith(home.prefix):
                    self._take_away(home, entry.name, is_dir=_is_dir(entry))
        while home.handled < home.moved:
            home.handled += 1
            self._take_away(home, f"{home.prefix}{home.handled}", is_dir=True)

    def _take_away(self, home: _Home, name: str, *, is_dir: bool) -> None:
        """Remove a child of a home, emptying it first where it is a directory."""
        if self._removed(home.fd, home.path, name, is_dir=is_dir):
            return
        if home.outer and self._moved_up(home.fd, home.path, name, home.outer):
            return
        try:
            with opened(name, home.fd) as fd:
                self._empty_child(home, fd, f"{home.path}{shown(name)}/")
        except OSError as error:
            if error.errno not in _REPLACED:
                self._note(home.fd, home.path, name, error)
                return
        self._removed(home.fd, home.path, name, is_dir=True)

    def _empty_child(self, home: _Home, fd: int, path: str) -> None:
        """Remove what a child of a home holds, and move up into the home what is not empty.

        Where a rename cannot do that (a nested btrfs subvolume) the child becomes a home itself. Subvolumes
        nested in it can still go up to the outer one, so two homes are enough.
        """
        with listed(fd) as entries:
            for entry in entries:
                if self._removed(fd, path, entry.name, is_dir=_is_dir(entry)):
                    continue
                if self._moved_up(fd, path, entry.name, home):
                    continue
                if home.outer is None:
                    break
                self._note(fd, path, entry.name, OSError(errno.EXDEV, "cannot be moved up to be emptied"))
            else:
                return
        self._pass(_Home(fd, path, outer=home))

    def _removed(self, dir_fd: int, path: str, name: str, *, is_dir: bool) -> bool:
        """Remove one name; False for a directory that is not empty. What resists is noted, and left."""
        self._pace.step()
        try:
            _insist(dir_fd, name, partial(_remove, dir_fd, name, is_dir=is_dir))
        except OSError as error:
            if error.errno in _NOT_EMPTY:
                return False
            self._note(dir_fd, path, name, error)
        else:
            self._progress += 1
        return True

    def _moved_up(self, dir_fd: int, path: str, name: str, home: _Home) -> bool:
        """Move a directory into a home; False where no rename leads there. What resists is noted, and left."""
        new_name = f"{home.prefix}{home.moved + 1}"
        try:
            _insist(dir_fd, name, partial(rename_noreplace, name, new_name, src_dir_fd=dir_fd, dst_dir_fd=home.fd))
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            self._note(dir_fd, path, name, error)
        else:
            home.moved += 1
            self._progress += 1
        return True

    def _note(self, dir_fd: int, path: str, name: str, error: OSError) -> None:
        """Remember an obstacle; what is gone is none."""
        if error.errno != errno.ENOENT and len(self._obstacles) < MOST_OBSTACLES:
            message = _explain(dir_fd, name, error)
            self._obstacles.append(Obstacle(path + shown(name), error.errno or errno.EIO, message))


def _admit_all_projects(dir_fd: int) -> None:
    """Let directories of any project be moved into this one: one that hands its own on admits no other."""
    with suppress(OSError):  # most filesystems have no projects; what cannot be changed is met again by a rename
        found = get_fsxattr(dir_fd)
        if found.xflags & FS_XFLAG_PROJINHERIT:
            set_fsxattr(dir_fd, replace(found, xflags=found.xflags & ~FS_XFLAG_PROJINHERIT))


def _insist(dir_fd: int, name: str, act: Callable[[], None]) -> None:
    """Do something with a name; again, where a btrfs subvolume was in the way that its owner had made read-only."""
    try:
        act()
    except OSError as error:
        if error.errno != errno.EROFS or not _made_writable(dir_fd, name):
            raise
        act()


def _made_writable(dir_fd: int, name: str) -> bool:
    """Make writable the subvolume whose root a name lies in, and that whose root it is; False where neither needed it.

    What lies deeper is come to only after that.
    """
    done = False
    with suppress(OSError):
        done = btrfs.make_writable(dir_fd)
    with suppress(OSError), opened(name, dir_fd) as fd:
        done = btrfs.make_writable(fd) or done
    return done


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # a guess: `_remove` finds out


def _remove(dir_fd: int, name: str, *, is_dir: bool) -> None:
    """Remove a file or an empty directory; `is_dir` only says what to try first."""
    try:
        (os.rmdir if is_dir else os.unlink)(name, dir_fd=dir_fd)
    except NotADirectoryError:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        os.rmdir(name, dir_fd=dir_fd)


def _explain(dir_fd: int, name: str, error: OSError) -> str:
    """Say why a name resists, as far as the kernel tells."""
    if error.errno == errno.EBUSY:
        return "something is mounted here, or the kernel uses it; unmount it"
    if error.errno == errno.EPERM:
        for path, flags, what in ((name, AT_SYMLINK_NOFOLLOW, "it"), ("", AT_EMPTY_PATH, "its directory")):
            with suppress(OSError):
                found = statx(path, dir_fd=dir_fd, flags=flags)
                if found.immutable:
                    return f"{what} is immutable; chattr -i takes that away"
                if found.append_only:
                    return f"{what} is append-only; chattr -a takes that away"
    return error.strerror or str(error)


def shown(name: str) -> str:
    """Make a name that a tenant chose printable: escapes for control characters and what is not UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
