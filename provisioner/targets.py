"""Paths that an orchestrator names: resolved below allowed roots, with no symlink on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from provisioner.errors import InvalidRequest, TargetNotFound
from provisioner.linux.close import close_path
from provisioner.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, open_path
from provisioner.linux.statx import AT_SYMLINK_NOFOLLOW, Statx, statx

_NAME_MAX = 255  # linux/limits.h
_STRAIGHT = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True)
class Target:
    """A path taken apart: its parent, opened, and its last name, which may not exist."""

    path: str
    parent_fd: int
    name: str

    def look(self) -> Statx | None:
        """Examine what stands there, on top of all mounts; None for nothing.

        Not by `glance`: a descriptor on a mount, be it for a moment, would make it busy.
        """
        try:
            return statx(self.name, dir_fd=self.parent_fd, flags=AT_SYMLINK_NOFOLLOW)
        except FileNotFoundError:
            return None

    @property
    def by_parent(self) -> str:
        """A path for calls that take no descriptor; it cannot be led astray by a rename further up."""
        return f"/proc/self/fd/{self.parent_fd}/{self.name}"


class TargetRoots:
    """The roots that the settings allow. A root itself may be or lie behind a symlink: it is the administrator's."""

    def __init__(self, roots: list[str]) -> None:
        """Keep the longest first, so that the nearest root of a path is found."""
        self._roots = sorted((root.rstrip("/") for root in roots), key=len, reverse=True)

    @contextmanager
    def open(self, path: str, *, what: str) -> Iterator[Target]:
        """Resolve `path`; `what` names the field in messages.

        InvalidRequest for a path that is malformed, outside the roots, or leads over a symlink;
        TargetNotFound where its parent does not exist.
        """
        path, root = self._checked(path, what)
        parent, _, name = path.rpartition("/")
        if len(os.fsencode(name)) > _NAME_MAX:  # those before it are looked up, and refused by the kernel
            raise InvalidRequest(f"{what}: wanted a last name of at most {_NAME_MAX} bytes, found {path!r}")
        parent_fd = self._open_parent(root, parent or "/", path, what)
        try:
            yield Target(path, parent_fd, name)
        finally:
            close_path(parent_fd)

    def _checked(self, path: str, what: str) -> tuple[str, str]:
        """Give a path without slashes at its end, and the root that it lies below."""
        if not path.startswith("/") or "\0" in path:
            raise InvalidRequest(f"{what}: wanted an absolute path, found {path!r}")
        path = path.rstrip("/")
        if any(part in ("", ".", "..") for part in path[1:].split("/")):
            raise InvalidRequest(f"{what}: wanted a path without empty, '.' and '..' parts, found {path!r}")
        for root in self._roots:
            if path.startswith(root + "/"):
                return path, root
        allowed = ", ".join(root or "/" for root in self._roots)
        raise InvalidRequest(
            f"{what}: {path!r} is outside the allowed roots ({allowed}); see targetRoots in the settings"
        )

    def _open_parent(self, root: str, parent: str, path: str, what: str) -> int:
        try:
            return _open_below(root, parent)
        except FileNotFoundError as error:
            raise TargetNotFound(f"{what}: the parent of {path!r} does not exist; the orchestrator makes it") from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EXDEV):
                raise InvalidRequest(
                    f"{what}: {path!r} does not lead over directories alone: {error.strerror}"
                ) from error
            raise


def _open_below(root: str, parent: str) -> int:
    """Open a directory below a root; a symlink may be on the way to the root, not below it."""
    try:
        return open_path(parent, os.O_DIRECTORY, resolve=_STRAIGHT)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    root_fd = os.open(root or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        below = parent[len(root) :].lstrip("/") or "."
        return open_path(below, os.O_DIRECTORY, resolve=_STRAIGHT | RESOLVE_BENEATH, dir_fd=root_fd)
    finally:
        close_path(root_fd)
