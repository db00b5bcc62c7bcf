"""The means that hold a volume's bytes. Limits, images and snapshots join here as further files.

A backend knows how the content of a volume is made, grown and found; names, records, promises, the
commit and the trash are the same for all and stand elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Layout:
    """What a new volume's root is to be. mode: permission bits, not subject to the umask."""

    capacity_bytes: int
    mode: int
    uid: int
    gid: int


class Backend(Protocol):
    """One means. Methods raise OSError; the caller undoes what they began."""

    name: str

    def build(self, entry_fd: int, layout: Layout) -> None:
        """Make the content below the staging entry `entry_fd`, durable but for the entry itself."""

    def resize(self, volumes_fd: int, folder: str, capacity_bytes: int) -> None:
        """Make room for `capacity_bytes` while the volume may be in use."""

    def open_source(self, volumes_fd: int, folder: str) -> int:
        """Give an O_PATH descriptor of what is bind-mounted into pods."""
