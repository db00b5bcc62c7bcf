"""Operations without a provisioner: one that is right, others each wrong in a way that the matrix must notice."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from provisioner.errors import OutOfCapacity, ProvisionerError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.scenario import Operation, Scenario


class Careful:
    """Builds a folder aside, syncs it, renames it, syncs again; sweeps what a crash left."""

    commit = r"^rename.*volumes/a"
    only = ""

    def prepare(self, place: Path) -> Operation:
        """Make the two folders."""
        place.mkdir()
        (place / "staging").mkdir()
        (place / "volumes").mkdir()
        return _Creating(self, place)

    def create(self, place: Path) -> str:
        """Make `volumes/a` with a record, at once."""
        with _translated():
            if not os.path.lexists(place / "volumes/a"):
                shutil.rmtree(place / "staging/a", ignore_errors=True)
                self.build(place)
                os.rename(place / "staging/a", place / "volumes/a")
        with _translated(full=Unavailable):
            _sync(place / "volumes")
        return "a"

    def build(self, place: Path) -> None:
        """Make the folder in staging."""
        os.mkdir(place / "staging/a")
        _write(place / "staging/a/record", b"whole")
        _sync(place / "staging/a")

    def check(self, place: Path, answer: str | None) -> None:
        """Sweep, then hold the promises."""
        self.sweep(place)
        assert os.listdir(place / "staging") == []
        volume = place / "volumes/a"
        assert volume.exists() or answer is None, "the acknowledged volume is lost"
        assert not volume.exists() or (volume / "record").read_bytes() == b"whole", "half a volume is visible"
        assert self.create(place) == "a"
        assert os.listdir(place / "volumes") == ["a"]

    def sweep(self, place: Path) -> None:
        """Do what a start does."""
        for name in os.listdir(place / "staging"):
            shutil.rmtree(place / "staging" / name)

    def clean(self, place: Path) -> None:
        """Remove everything."""
        shutil.rmtree(place)


class _Creating:
    def __init__(self, toy: Careful, place: Path) -> None:
        self._toy, self._place = toy, place

    def __call__(self) -> str:
        return self._toy.create(self._place)

    def agree(self) -> None:
        """Nothing is kept in memory."""


class InPlace(Careful):
    """Wrong: builds where it can be seen."""

    commit = ""

    def create(self, place: Path) -> str:
        """Make `volumes/a` step by step."""
        with _translated():
            if not os.path.lexists(place / "volumes/a"):
                os.mkdir(place / "volumes/a")
                _write(place / "volumes/a/record", b"whole")
        return "a"


class NoSweep(Careful):
    """Wrong: leaves what a crash left."""

    def sweep(self, place: Path) -> None:
        """Forget to do anything."""


class Deaf(Careful):
    """Wrong: says done whatever the disk says."""

    def create(self, place: Path) -> str:
        """Swallow every error."""
        try:
            return super().create(place)
        except ProvisionerError:
            return "a"


class Bare(Careful):
    """Wrong: lets an OSError fly."""

    def create(self, place: Path) -> str:
        """Translate nothing."""
        try:
            return super().create(place)
        except ProvisionerError as error:
            raise OSError(str(error)) from error


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _translated(*, full: type[ProvisionerError] = OutOfCapacity) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise (full if error.errno == errno.ENOSPC else Unavailable)(str(error)) from error


TOYS: dict[str, Scenario] = {
    "careful": Careful(),
    "in-place": InPlace(),
    "no-sweep": NoSweep(),
    "deaf": Deaf(),
    "bare": Bare(),
}
