"""The ledger: sums that are right whatever happens at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from provisioner.capacity import Ledger, promisable
from provisioner.disk import Space
from provisioner.errors import OutOfCapacity
from provisioner.settings import PoolSettings

GIB = 2**30


@dataclass
class FakeDisk:
    """A filesystem whose figures a test chooses."""

    now: Space = field(default_factory=lambda: space(100 * GIB))
    foreign_bytes: int | None = 0

    def space(self) -> Space:
        return self.now

    def foreign(self) -> int | None:
        return self.foreign_bytes


def space(size: int, free: int | None = None, *, used: int = 0, readonly: bool = False) -> Space:
    return Space(size, size - used if free is None else free, used, inodes=0, free_inodes=0, readonly=readonly)


def pool(*, reserve: str = "0", overcommit: float = 1.0) -> PoolSettings:
    return PoolSettings(name="default", path="/pool", reserve=reserve, overcommit=overcommit)


def ledger_on(disk: FakeDisk, asked: PoolSettings | None = None) -> Ledger:
    return Ledger(asked or pool(), disk.space, disk.foreign)


sizes = st.integers(0, 2**50)


@given(
    reserve=st.integers(0, 100).map(lambda share: f"{share}%") | sizes.map(str),
    overcommit=st.floats(0.1, 1000),
    size=sizes,
    free=sizes,
    promised=sizes,
    trash=sizes,
    foreign=sizes,
)
def test_the_formula_is_the_one_that_is_written_down(
    reserve: str, overcommit: float, size: int, free: int, promised: int, trash: int, foreign: int
) -> None:
    asked = pool(reserve=reserve, overcommit=overcommit)
    found = promisable(asked, space(size, free), promised, trash, foreign)
    left = int(size * overcommit) - asked.reserve_bytes(size) - promised - trash - foreign
    assert found == max(0, min(left, free) if overcommit <= 1 else left)


@given(used=sizes, promised=sizes, trash=sizes)
def test_strangers_that_were_never_measured_use_what_no_volume_explains(used: int, promised: int, trash: int) -> None:
    disk = space(2**52, used=used)
    unexplained = max(0, used - promised - trash)
    assert promisable(pool(), disk, promised, trash, None) == promisable(pool(), disk, promised, trash, unexplained)


def test_a_read_only_disk_promises_nothing() -> None:
    assert promisable(pool(overcommit=100), space(GIB, readonly=True), 0, 0, 0) == 0


def test_a_promise_that_does_not_fit_is_refused_and_not_counted() -> None:
    ledger = ledger_on(FakeDisk(space(10 * GIB)))
    ledger.reserve(7 * GIB, what="volume 'a'")
    with pytest.raises(OutOfCapacity, match=rf"volume 'b': wanted {4 * GIB} bytes, .* can promise {3 * GIB}"):
        ledger.reserve(4 * GIB, what="volume 'b'")
    assert ledger.promised_bytes == 7 * GIB
    ledger.reserve(3 * GIB, what="volume 'c'")
    assert ledger.promisable() == 0


def test_trash_holds_its_room_until_it_is_erased() -> None:
    ledger = ledger_on(FakeDisk(space(10 * GIB)))
    ledger.reserve(10 * GIB, what="volume 'a'")
    ledger.discard("a.1", 10 * GIB)
    assert (ledger.promised_bytes, ledger.trash_bytes, ledger.promisable()) == (0, 10 * GIB, 0)
    for _ in range(2):  # the eraser may tell twice
        ledger.erased("a.1")
        assert (ledger.trash_bytes, ledger.promisable()) == (0, 10 * GIB)


def test_what_a_restart_finds_counts_even_where_it_does_not_fit() -> None:
    disk = FakeDisk(space(GIB))
    ledger = ledger_on(disk)
    ledger.promise(5 * GIB)
    ledger.hold("b.1", 2 * GIB)
    ledger.hold("b.1", 2 * GIB)
    assert (ledger.promised_bytes, ledger.trash_bytes, ledger.promisable()) == (5 * GIB, 2 * GIB, 0)
    disk.now = space(10 * GIB)
    assert ledger.promisable() == 3 * GIB


class LedgerMachine(RuleBasedStateMachine):
    """Any sequence of what a pool does, against plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = FakeDisk()
        self.ledger = ledger_on(self.disk)
        self.volumes: list[int] = []
        self.trash: dict[str, int] = {}
        self.deleted = 0

    @rule(size=st.integers(0, 200 * GIB))
    def reserve(self, size: int) -> None:
        left = self.ledger.promisable()
        try:
            self.ledger.reserve(size, what="volume")
        except OutOfCapacity:
            assert size > left
        else:
            assert size <= left
            self.volumes.append(size)

    @rule(size=st.integers(0, 10 * GIB))
    def find_at_the_start(self, size: int) -> None:
        self.ledger.promise(size)
        self.volumes.append(size)

    @rule(size=st.integers(0, 10 * GIB))
    def find_trash_at_the_start(self, size: int) -> None:
        self.deleted += 1
        self.trash[f"t.{self.deleted}"] = size
        self.ledger.hold(f"t.{self.deleted}", size)

    @precondition(lambda self: self.volumes)
    @rule()
    def undo(self) -> None:
        self.ledger.release(self.volumes.pop())

    @precondition(lambda self: self.volumes)
    @rule()
    def delete(self) -> None:
        self.deleted += 1
        size = self.volumes.pop(0)
        self.trash[f"t.{self.deleted}"] = size
        self.ledger.discard(f"t.{self.deleted}", size)

    @rule(number=st.integers(0, 20))
    def erase(self, number: int) -> None:
        self.trash.pop(f"t.{number}", None)
        self.ledger.erased(f"t.{number}")

    @rule(free=st.integers(0, 100 * GIB), foreign=st.none() | st.integers(0, 100 * GIB))
    def others_write(self, free: int, foreign: int | None) -> None:
        self.disk.now = replace(self.disk.now, free_bytes=free, used_bytes=100 * GIB - free)
        self.disk.foreign_bytes = foreign

    @invariant()
    def sums_are_right(self) -> None:
        assert self.ledger.promised_bytes == sum(self.volumes)
        assert self.ledger.trash_bytes == sum(self.trash.values())
        assert self.ledger.promisable() >= 0


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=40, deadline=None)


def test_threads_never_promise_more_than_there_is() -> None:
    disk, begin = FakeDisk(space(1000)), Barrier(8)
    ledger = ledger_on(disk)

    def work(worker: int) -> int:
        begin.wait()
        kept = 0
        for i in range(400):
            try:
                ledger.reserve(7, what="volume")
            except OutOfCapacity:
                continue
            assert ledger.promised_bytes + ledger.trash_bytes <= 1000
            if i % 3 == 0:
                ledger.release(7)
            elif i % 3 == 1:
                ledger.discard(f"{worker}.{i}", 7)
                ledger.erased(f"{worker}.{i}")
            else:
                kept += 7
        return kept

    with ThreadPoolExecutor(8) as threads:
        kept = sum(threads.map(work, range(8)))
    assert (ledger.promised_bytes, ledger.trash_bytes) == (kept, 0)
    assert kept == 994
