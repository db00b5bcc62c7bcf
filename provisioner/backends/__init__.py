"""The means that hold a volume's bytes, and hold it to its size: one file each, one Protocol.

A means knows how the content of a volume is made, grown, found, counted and taken apart; names, records, promises,
the commit and the trash are the same for all and stand elsewhere. `provisioner.backends.choosing` says which one a
new volume gets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from provisioner.model import Statistics
from provisioner.records import BackendName, Record


class Backend(Protocol):
    """One means on one pool. Methods raise OSError; the caller undoes what they began."""

    name: BackendName
    holds: bool  # whether a write past the size fails

    def refusal(self) -> str:
        """Say why no new volume can be made so on this pool and what to do about it, or '' where one can."""

    def build(self, entry_fd: int, record: Record) -> Record:
        """Make the content below the staging entry `entry_fd`, durable but for the entry itself.

        Gives the record back with what only this means knows of the volume.
        """

    def resize(self, record: Record, capacity_bytes: int) -> None:
        """Let a volume have `capacity_bytes`, while it may be in use; the record is written afterwards."""

    def open_source(self, folder: str) -> int:
        """Give an O_PATH descriptor of what is bind-mounted into pods."""

    def figures(self, record: Record) -> Statistics | None:
        """Give what the filesystem itself counts of a volume; None where only a walk over its files could."""

    def illness(self, record: Record) -> str:
        """Say what is wrong with a volume's limit, or '' where it holds."""

    def recover(self, records: Iterable[Record]) -> None:
        """Make every volume's limit what its record says; at the start, before anything else."""

    def tend(self) -> None:
        """Look after limits that tenants may have slipped out of; often, and cheap where nothing happened."""

    def dismantle(self, entry_fd: int) -> bool:
        """Take apart what an entry of the trash has besides files; False where the kernel is not done with it yet.

        The entry may be one that was never finished.
        """
