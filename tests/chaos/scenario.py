"""What the matrix wants to know of an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Operation(Protocol):
    """One operation on what was prepared."""

    def __call__(self) -> str:
        """Do it, or do it again; the answer is what a caller would be told."""

    def agree(self) -> None:
        """Assert that what the process holds in memory is what lies on disk; called after it was done."""


class Scenario(Protocol):
    """One operation, where it starts from, and what must hold after it was cut short.

    Each method runs in a process of its own; only what lies below `place` connects them.
    """

    commit: str
    """A pattern of the system call that commits, as strace shows it; '' where none does."""

    only: str
    """A pattern of the calls that are points; '' where all are."""

    def prepare(self, place: Path) -> Operation:
        """Make everything that the operation starts from."""

    def check(self, place: Path, answer: str | None) -> None:
        """Start again on what is left, and assert all that must hold; the operation is retried here.

        answer: what the operation answered, None where it never did.
        """

    def clean(self, place: Path) -> None:
        """Take away whatever is left below `place`, mounts too."""
