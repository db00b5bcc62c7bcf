"""Figures of use: kept, saved, lost without harm, and made by the measurer."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provisioner.backends import Occupied
from provisioner.errors import PoolUnavailable
from provisioner.measuring import Measuring, look_for_escaped
from provisioner.operations import Operations
from provisioner.pace import Pace, Paced
from provisioner.rounds import Rounds
from provisioner.usage import Measurement, Usage
from tests.support.paces import open_fds
from tests.support.trees import make_wide

MIB = 1 << 20
PATIENCE_S = 60

ONE = Measurement(4096, 3, 1700000000.5)
TWO = Measurement(0, 1, 1700000001.0)


@dataclass
class FakeDisk:
    """The directories of a pool, opened."""

    path: str
    control_fd: int = field(init=False)
    volumes_fd: int = field(init=False)
    staging_fd: int = field(init=False)
    trash_fd: int = field(init=False)
    pool_id: str = "00000000000000aa"
    gone: bool = False

    def __post_init__(self) -> None:
        for name in ("volumes", "staging", "trash"):
            Path(self.path, name).mkdir()
            setattr(self, f"{name}_fd", os.open(f"{self.path}/{name}", os.O_RDONLY))
        self.control_fd = os.open(self.path, os.O_RDONLY)

    def check(self) -> None:
        """Say that it is gone, where it is."""
        if self.gone:
            raise PoolUnavailable(f"pool {self.path}: gone")

    def close(self) -> None:
        """Close them."""
        for fd in (self.control_fd, self.volumes_fd, self.staging_fd, self.trash_fd):
            os.close(fd)


@dataclass
class FakePool:
    """A pool of folders."""

    disk: FakeDisk
    names: list[str] = field(default_factory=list)
    figures: dict[str, Occupied] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.usage = Usage(self.disk.control_fd)

    def folders(self) -> list[str]:
        """Name the volumes."""
        return list(self.names)

    def occupied(self, folder: str) -> Occupied | None:
        """Give what its filesystem counts of a volume."""
        return self.figures.get(folder)

    def illness(self, folder: str) -> str:
        """Give what is wrong with a volume's limit."""
        return self.lost.get(folder, "")

    def escaped(self, folder: str, pace: Paced) -> str:
        """Give what was found to have left a volume's limit; a step is a look."""
        pace.step()
        return self.left.get(folder, "")

    def volume(self, name: str, size_bytes: int = 0) -> Path:
        """Make a volume with so much data."""
        data = Path(self.disk.path, "volumes", name, "data")
        data.mkdir(parents=True)
        (data / "content").write_bytes(b"x" * size_bytes)
        self.names.append(name)
        return data


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FakePool]:
    """Give an empty pool."""
    disk = FakeDisk(str(tmp_path))
    yield FakePool(disk)
    disk.close()


def again(pool: FakePool) -> Usage:
    """Load what was saved, as a new process does."""
    usage = Usage(pool.disk.control_fd)
    usage.load()
    return usage


def measurer(*pools: FakePool, during: Callable[[], None] | None = None) -> Rounds:
    """Give a measurer without pauses."""

    class FakePace(Pace):
        def step(self) -> None:
            if during:
                during()
            super().step()

    measuring = Measuring(clock=lambda: 1700000000.0)
    return Rounds(measuring.measure, lambda: pools, 3600, FakePace(work_s=float("inf")))


def test_nothing_is_known_at_first(pool: FakePool) -> None:
    usage = again(pool)
    assert usage.get("pvc-1") is None
    assert (usage.foreign_bytes, usage.foreign_measured_at) == (None, None)


def test_what_is_saved_is_loaded(pool: FakePool) -> None:
    pool.usage.put("pvc-1", ONE)
    pool.usage.put("pvc-2", TWO)
    pool.usage.put_foreign(7, 1700000002.0)
    pool.usage.save()
    found = again(pool)
    assert (found.get("pvc-1"), found.get("pvc-2")) == (ONE, TWO)
    assert (found.foreign_bytes, found.foreign_measured_at) == (7, 1700000002.0)


def test_what_the_filesystem_counts_is_not_walked(pool: FakePool) -> None:
    pool.volume("pvc-1", 5000)
    pool.figures["pvc-1"] = Occupied(4711, 7)
    pool.volume("pvc-2", 5000)
    pool.figures["pvc-2"] = Occupied(4712, 0)
    measurer(pool).run_once()
    found = [pool.usage.get(name) for name in ("pvc-1", "pvc-2")]
    assert found == [Measurement(4711, 7, 1700000000.0), Measurement(4712, 0, 1700000000.0)]


def test_what_is_forgotten_is_not_known(pool: FakePool) -> None:
    pool.usage.put("pvc-1", ONE)
    pool.usage.put("pvc-2", TWO)
    pool.usage.put("pvc-3", TWO)
    pool.usage.forget("pvc-1")
    pool.usage.forget("pvc-1")
    pool.usage.keep_only(["pvc-3", "pvc-4"])
    assert [pool.usage.get(f"pvc-{number}") for number in (1, 2, 3, 4)] == [None, None, TWO, None]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"schema": 1}',
        b'{"schema": 1, "volumes": {"pvc-1": {"used_bytes": -1, "inodes": 1, "measured_at": 1.0}}}',
        b'{"schema": 1, "volumes": {"pvc-1": {"used_bytes": "1", "inodes": 1, "measured_at": 1.0}}}',
        b'{"schema": 2, "volumes": {"pvc-1": {"used_bytes": 1, "inodes": 1, "measured_at": 1.0}}}',
        b'{"schema": 1, "volumes": {}, "unknown": ' + b"[" * 100_000,
    ],
)
def test_a_broken_file_means_that_nothing_is_known(pool: FakePool, content: bytes) -> None:
    Path(pool.disk.path, "usage.json").write_bytes(content)
    found = again(pool)
    assert found.get("pvc-1") is None
    assert found.foreign_bytes is None
    found.put("pvc-1", ONE)
    found.save()
    assert again(pool).get("pvc-1") == ONE


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_something_else_in_the_place_of_the_file_means_the_same(pool: FakePool, make: Callable[[Path], None]) -> None:
    make(Path(pool.disk.path, "usage.json"))
    assert again(pool).get("pvc-1") is None


def test_a_file_that_cannot_be_written_is_no_error(pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes no room on the full disk; the old one stays."""
    pool.usage.put("pvc-1", ONE)
    pool.usage.save()

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        pool.usage.put("pvc-1", TWO)
        pool.usage.save()
    assert os.listdir(pool.disk.staging_fd) == []
    assert again(pool).get("pvc-1") == ONE
    Path(pool.disk.path, "staging").rmdir()
    pool.usage.save()


def test_all_volumes_are_measured(pool: FakePool) -> None:
    pool.volume("pvc-1", MIB)
    make_wide(pool.volume("pvc-2"), 10)
    measurer(pool).run_once()
    one, two = pool.usage.get("pvc-1"), pool.usage.get("pvc-2")
    assert one
    assert two
    assert MIB <= one.used_bytes < MIB + 65536
    assert (one.inodes, two.inodes) == (2, 12)
    assert one.measured_at == pool.usage.foreign_measured_at == 1700000000.0
    assert again(pool).get("pvc-1") == one


def test_a_volume_that_cannot_be_read_keeps_its_last_figure(pool: FakePool, tmp_path: Path) -> None:
    pool.volume("pvc-1")
    pool.names.append("missing")
    measurer(pool).run_once()
    assert pool.usage.get("missing") is None
    found = pool.usage.get("pvc-1")
    data = Path(pool.disk.path, "volumes", "pvc-1", "data")
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "more").touch()
    measurer(pool).run_once()
    assert pool.usage.get("pvc-1") == found


def test_a_volume_that_is_deleted_meanwhile_is_forgotten(pool: FakePool) -> None:
    pool.volume("pvc-1")
    pool.volume("pvc-2")

    def delete() -> None:
        if "pvc-1" in pool.names:
            pool.names.remove("pvc-1")
            pool.usage.forget("pvc-1")

    measurer(pool, during=delete).run_once()
    assert pool.usage.get("pvc-1") is None
    assert pool.usage.get("pvc-2")


def test_a_pool_that_fails_does_not_keep_the_others_from_it(pool: FakePool, tmp_path: Path) -> None:
    dead_path = tmp_path / "dead"
    dead_path.mkdir()
    dead = FakePool(FakeDisk(str(dead_path)))
    dead.disk.close()
    dead.disk.staging_fd = -1
    pool.volume("pvc-1")
    measurer(dead, pool).run_once()
    assert pool.usage.get("pvc-1")
    assert dead.usage.foreign_bytes is None


def test_a_walk_over_a_disk_that_goes_is_ended(pool: FakePool, tmp_path: Path) -> None:
    """Its pool can only be had back when nobody uses what is left of it."""
    gone_path = tmp_path / "gone"
    gone_path.mkdir()
    gone = FakePool(FakeDisk(str(gone_path)))
    make_wide(gone.volume("pvc-1"), 5000)
    pool.volume("pvc-1")
    steps: list[None] = []

    def go() -> None:
        gone.disk.gone = True
        steps.append(None)

    before = open_fds()
    measurer(gone, pool, during=go).run_once()
    assert open_fds() == before
    assert len(steps) < 3000
    assert gone.usage.get("pvc-1") is None
    assert gone.usage.foreign_bytes is None
    assert pool.usage.get("pvc-1")
    gone.disk.close()


def test_the_thread_measures_at_its_start_and_stops_in_the_middle(pool: FakePool) -> None:
    make_wide(pool.volume("pvc-1"), 100)
    reached = threading.Event()

    def wait() -> None:
        reached.set()
        running._stopping.wait(PATIENCE_S)

    running = measurer(pool, during=wait)
    before = open_fds()
    running.start()
    assert reached.wait(PATIENCE_S)
    running.stop()
    running.join()
    assert not running._thread.is_alive()
    assert pool.usage.get("pvc-1") is None
    assert open_fds() == before


def test_it_measures_again_and_survives_what_nobody_expected(pool: FakePool) -> None:
    """The first time, the pools cannot even be told."""
    pool.volume("pvc-1")
    calls: list[int] = []
    done = threading.Event()

    def pools() -> list[FakePool]:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        if len(calls) == 3:
            done.set()
        return [pool]

    running = Rounds(Measuring().measure, pools, 0.001, Pace())
    running.start()
    try:
        assert done.wait(PATIENCE_S)
    finally:
        running.stop()
        running.join()
    assert pool.usage.get("pvc-1")


def test_the_sum_follows_each_change(pool: FakePool) -> None:
    usage = pool.usage
    usage.put("a", ONE)
    usage.put("b", Measurement(100, 1, 1.0))
    usage.put("a", Measurement(5000, 3, 2.0))
    assert usage.used_bytes == 5100
    usage.save()
    assert again(pool).used_bytes == 5100
    usage.forget("a")
    usage.forget("a")
    assert usage.used_bytes == 100
    usage.keep_only(["c"])
    assert usage.used_bytes == 0


def test_what_left_its_limit_is_kept_until_it_is_back_or_the_volume_gone(pool: FakePool) -> None:
    pool.volume("pvc-1")
    pool.volume("pvc-2")
    pool.left = {"pvc-1": "a directory left", "pvc-2": "another left"}
    search = Rounds(look_for_escaped, lambda: [pool], 60)
    search.run_once()
    assert [pool.usage.escaped(name) for name in ("pvc-1", "pvc-2")] == ["a directory left", "another left"]
    assert (pool.usage.escaped_count, pool.usage.lost_count) == (2, 0)
    assert again(pool).escaped("pvc-1") == "a directory left"
    pool.left.clear()
    pool.names.remove("pvc-2")
    search.run_once()
    measurer(pool).run_once()
    assert [pool.usage.escaped(name) for name in ("pvc-1", "pvc-2")] == ["", ""]


def test_a_lost_limit_is_told_until_it_holds_again(pool: FakePool) -> None:
    """Of one that is deleted nothing is told."""
    pool.volume("pvc-1")
    pool.volume("pvc-2")
    pool.lost = {"pvc-1": "the limit is lost", "pvc-2": "the limit is 0"}
    measurer(pool).run_once()
    for usage in (pool.usage, again(pool)):
        assert (usage.lost("pvc-1"), usage.lost("pvc-2"), usage.lost_count) == (
            "the limit is lost",
            "the limit is 0",
            2,
        )
    pool.usage.forget("pvc-2")
    assert pool.usage.lost_count == 1
    pool.lost.clear()
    measurer(pool).run_once()
    assert (pool.usage.lost("pvc-1"), pool.usage.lost_count) == ("", 0)


def test_a_limit_that_is_being_set_anew_is_not_lost(pool: FakePool) -> None:
    """Its record is written a moment later."""
    pool.volume("pvc-1")
    pool.lost = {"pvc-1": "the limit is 2, wanted 1"}
    operations = Operations()
    with operations.claim(f"{pool.disk.pool_id}.pvc-1"):
        Rounds(Measuring(operations).measure, lambda: [pool], 60).run_once()
    assert pool.usage.lost_count == 0
    Rounds(Measuring(operations).measure, lambda: [pool], 60).run_once()
    assert pool.usage.lost("pvc-1") == "the limit is 2, wanted 1"
