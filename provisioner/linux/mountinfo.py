"""/proc/PID/mountinfo (proc(5)): every mount that a process can see. Its cost grows with their number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OCTAL = frozenset(b"01234567")
_ESCAPE_LENGTH = 3
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class MountInfo:
    """One line. `root` is the directory of the filesystem that the mount shows, `dev` is as in os.stat.

    `options` belong to the mount, `super_options` to the filesystem. A directory that was unlinked while it
    was mounted has a root that ends in `//deleted`.
    """

    mnt_id: int
    parent_id: int
    dev: int
    root: str
    mount_point: str
    options: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]


def read_mountinfo(pid: int | str = "self") -> Iterator[MountInfo]:
    """Read the mounts of a process, in the order in which they were made, parents first."""
    # The kernel says that a block of this file has 1,024 bytes; thousands of mounts would take a read for each six.
    with Path(f"/proc/{pid}/mountinfo").open("rb", buffering=_BUFFER_BYTES) as lines:
        for line in lines:
            yield parse_line(line)


def parse_line(line: bytes) -> MountInfo:
    """Parse one line; ValueError where it has not the form that proc(5) gives."""
    # Between the sixth field and a lone hyphen stand as many optional fields as the kernel likes.
    before, _, after = line.rstrip(b"\n").partition(b" - ")
    mnt_id, parent_id, dev, root, mount_point, options = before.split(b" ")[:6]
    fs_type, source, super_options = after.split(b" ", 2)
    major, _, minor = dev.partition(b":")
    return MountInfo(
        mnt_id=int(mnt_id),
        parent_id=int(parent_id),
        dev=os.makedev(int(major), int(minor)),
        root=_text(root),
        mount_point=_text(mount_point),
        options=_texts(options),
        fs_type=_text(fs_type),
        source=_text(source),
        super_options=_texts(super_options),
    )


def _texts(field: bytes) -> tuple[str, ...]:
    return tuple(_text(part) for part in field.split(b","))


def _text(field: bytes) -> str:
    r"""Undo the kernel's escapes: space, tab, newline, backslash and more are written as `\040`."""
    if b"\\" not in field:
        return os.fsdecode(field)
    first, *rest = field.split(b"\\")
    return os.fsdecode(first + b"".join(_unescape(part) for part in rest))


def _unescape(part: bytes) -> bytes:
    digits, rest = part[:_ESCAPE_LENGTH], part[_ESCAPE_LENGTH:]
    if len(digits) == _ESCAPE_LENGTH and _OCTAL.issuperset(digits):
        return bytes([int(digits, 8) & 0xFF]) + rest
    return b"\\" + part
