"""A trash in a folder, with what its owner was told; no entry needs privileges."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from provisioner.pace import Pace
from provisioner.trash import Trash
from tests.support.trees import directory_fd

PATIENCE_S = 60


def do_nothing() -> None:
    """Be what happens between two steps."""


class FakePace(Pace):
    """Never rests; calls `during` before each step."""

    def __init__(self) -> None:
        super().__init__(work_s=float("inf"))
        self.during: Callable[[], object] = do_nothing
        self.begun = 0

    def begin(self) -> None:
        """Count."""
        self.begun += 1

    def step(self) -> None:
        """Stop where it was told to."""
        self.during()
        super().step()


@dataclass
class Bench:
    """A trash in a folder, a source beside it, and what its owner was told."""

    folder: Path
    pace: FakePace = field(default_factory=FakePace)
    erased: list[str] = field(default_factory=list)
    now: float = 0.0
    settle: Callable[[], None] = do_nothing

    def __post_init__(self) -> None:
        self.source, self.path = self.folder / "volumes", self.folder / "trash"
        for path in (self.source, self.path):
            path.mkdir()
        self.told = threading.Event()
        with directory_fd(self.path) as fd:
            self.trash = Trash(fd, self.tell, self._settle, self.pace, clock=lambda: self.now)

    def _settle(self) -> None:
        self.settle()

    def tell(self, entry: str) -> None:
        """Be told that an entry is gone."""
        self.erased.append(entry)
        self.told.set()

    def volume(self, name: str) -> Path:
        """Make a volume with some data."""
        path = self.source / name
        (path / "data").mkdir(parents=True)
        (path / "volume.json").write_text("{}")
        (path / "data" / "file").write_text("content")
        return path

    def take(self, name: str) -> str:
        """Send something to the trash."""
        with directory_fd(self.source) as fd:
            return self.trash.take(fd, name)

    def wait(self) -> None:
        """Wait until told of an entry."""
        assert self.told.wait(PATIENCE_S)
        self.told.clear()
