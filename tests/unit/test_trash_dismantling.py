"""What the trash does with entries that hold more than files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.pace import Pace
from provisioner.trash import Trash


class Bench:
    """A trash, its clock, and how often an entry has to be asked until the kernel is done with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.patience: dict[str, int] = {}
        self.erased: list[str] = []
        self.asked: list[str] = []
        self._fd = os.open(path, os.O_RDONLY)
        pace = Pace(work_s=float("inf"))
        self.trash = Trash(
            self._fd, self.erased.append, os.sync, pace, dismantle=self._dismantle, clock=lambda: self.now
        )

    def _dismantle(self, entry_fd: int) -> bool:
        name = Path(os.readlink(f"/proc/self/fd/{entry_fd}")).name
        self.asked.append(name)
        self.patience[name] = self.patience.get(name, 0) - 1
        return self.patience[name] < 0

    def close(self) -> None:
        """End it."""
        self.trash.stop()
        os.close(self._fd)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.close()


def test_an_entry_waits_until_it_is_taken_apart_and_others_do_not(bench: Bench) -> None:
    for name in ("slow", "quick"):
        (bench.path / name).mkdir()
        (bench.path / name / "file").touch()
    bench.patience["slow"] = 2
    bench.trash._round()
    assert bench.erased == ["quick"]
    assert (bench.path / "slow" / "file").exists()
    assert bench.trash.obstacles == {}  # nothing that an administrator could do anything about
    bench.trash._round()  # too early
    assert bench.asked.count("slow") == 1
    for _ in range(2):
        bench.now += 2
        bench.trash._round()
    assert bench.erased == ["quick", "slow"]
    assert os.listdir(bench.path) == []


def test_what_is_no_directory_is_not_taken_apart(bench: Bench) -> None:
    (bench.path / "file").touch()
    (bench.path / "link").symlink_to("/etc")
    bench.trash._round()
    assert (sorted(bench.erased), bench.asked) == (["file", "link"], [])


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
def test_an_entry_that_cannot_be_taken_apart_is_an_obstacle(bench: Bench, number: int) -> None:
    """Also where something within it is missing: that is not the entry."""
    (bench.path / "bad").mkdir()
    (bench.path / "bad" / "mark").touch()

    def refuse(_entry_fd: int) -> bool:
        raise OSError(number, "refused", "data")

    bench.trash._dismantle = refuse
    bench.trash._round()
    assert [found.message for found in bench.trash.obstacles["bad"]] == ["refused"]
    assert bench.erased == []
    assert (bench.path / "bad" / "mark").exists()
