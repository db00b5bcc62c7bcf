"""The means that hold a volume's bytes, and hold it to its size: one file each, one Protocol.

A means knows how the content of a volume is made, grown, shown, counted and taken apart; names, records, promises,
the commit and the trash are the same for all and stand elsewhere. `provisioner.backends.choosing` says which one a
new volume gets.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from provisioner.linux.statx import Statx
from provisioner.model import Capability, Statistics
from provisioner.pace import Paced
from provisioner.records import BackendName, Record
from provisioner.targets import Target

# The one means whose volumes are no directories of the pool.
IMAGE_NAME = "image"


@dataclass(frozen=True, slots=True)
class Content:
    """What a new volume shall hold. fs_type: '' for whatever the means gives; inodes: 0 for no wish."""

    block: bool = False
    fs_type: str = ""
    thin: bool = False
    inodes: int = 0

    def needs_image(self, pool_fs_type: str) -> bool:
        """Tell whether nothing but an image could hold it."""
        return self.block or self.thin or self.fs_type not in ("", pool_fs_type)


@dataclass(frozen=True, slots=True)
class Occupied:
    """What a volume takes of its pool. inodes: 0 where nobody counts them."""

    used_bytes: int
    inodes: int


class Backend(Protocol):
    """One means on one pool. Methods raise OSError or CommandError; the caller undoes what they began."""

    name: BackendName
    holds: bool  # whether a write past the size fails

    def refusal(self, content: Content) -> str:
        """Say why no such volume can be made on this pool and what to do about it, or '' where it can."""

    def least_bytes(self, content: Content) -> int:
        """Give the size of the smallest such volume."""

    def unit_bytes(self, content: Content) -> int:
        """Give what sizes are multiples of."""

    def draft(self, record: Record, content: Content) -> Record:
        """Note in a new record what the volume shall hold."""

    def building(self, entry_fd: int, record: Record) -> AbstractContextManager[Record]:
        """Make the content below the staging entry `entry_fd`, durable but for the entry itself when the block ends.

        Gives the record back with what only this means knows of the volume. It is written within the block: a program
        may be at work on the content meanwhile.
        """

    def growing(self, record: Record, capacity_bytes: int) -> AbstractContextManager[None]:
        """Make room for a larger size, while the volume may be in use and a block writes the record.

        Where either fails, the volume has again what it had.
        """

    def grown(self, record: Record) -> None:
        """Let a volume in use have the size of its record, which lies on the disk; again, where that failed."""

    def stage(self, record: Record, target: Target, capability: Capability) -> bool:
        """Make a volume ready at its staging path; True where something is mounted there from now on."""

    def unstaged(self, record: Record) -> None:
        """Note that nothing is mounted at a staging path of the volume any more."""

    def grow(self, record: Record, target: Target) -> None:
        """Let what is staged or published at a path have the size of its record."""

    def open_source(self, record: Record, staged: Target | None, *, readonly: bool) -> int:
        """Give an O_PATH descriptor of what is bind-mounted into pods."""

    def shows(self, record: Record, found: Statx) -> bool:
        """Tell whether what was found at a path is the volume, mounted there."""

    def release(self, record: Record, targets: Iterable[str]) -> None:
        """Let go what was made for publications, but for those at `targets`."""

    def occupied(self, record: Record) -> Occupied | None:
        """Count what a volume takes; None where only a walk over its files could."""

    def statistics(self, record: Record, volume_path: str) -> Statistics | None:
        """Give a volume's figures as its filesystem tells them; None where only a walk could."""

    def illness(self, record: Record) -> str:
        """Say what is wrong with a volume's limit, or '' where it holds."""

    def escaped(self, record: Record, pace: Paced) -> str:
        """Say what of a volume slipped out of its limit, or '' where nothing did; for background work, a walk."""

    def recover(self, records: Iterable[Record]) -> None:
        """Make every volume's limit what its record says; at the start, before anything else."""

    def tend(self) -> None:
        """Look after limits that tenants may have slipped out of; often, and cheap where nothing happened."""

    def dismantle(self, entry_fd: int) -> bool:
        """Take apart what an entry of the trash has besides files; False where the kernel is not done with it yet.

        The entry may be one that was never finished.
        """
