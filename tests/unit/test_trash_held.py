"""Entries whose rename may not have reached the disk: a power cut must bring back whole volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from provisioner import trash as trash_module
from provisioner.errors import NotDurable
from provisioner.linux.renameat2 import rename_noreplace
from tests.support.trashes import Bench, do_nothing

if TYPE_CHECKING:
    import pytest


def test_an_entry_is_left_alone_until_it_is_woken(bench: Bench) -> None:
    """Its rename may not have reached the disk, and must then bring back a whole volume."""
    bench.volume("pvc-1")
    bench.volume("pvc-2")
    held, woken = bench.take("pvc-1"), bench.take("pvc-2")
    bench.trash.wake(woken)
    bench.trash._round()
    assert bench.erased == [woken]
    bench.trash.wake()
    bench.trash._round()
    assert bench.erased == [woken, held]


def test_an_entry_that_is_never_woken_is_synced_and_erased_after_a_while(bench: Bench) -> None:
    synced: list[list[str]] = []
    bench.settle = lambda: synced.append(bench.trash.entries())
    bench.volume("pvc-1")
    entry = bench.take("pvc-1")
    pause = bench.trash._pause_s()
    assert pause
    bench.now += pause
    bench.trash._round()
    assert synced == [[entry]]
    assert bench.erased == [entry]
    assert bench.trash._pause_s() is None


def test_an_entry_that_cannot_be_synced_is_never_erased(bench: Bench) -> None:
    """A power cut would bring it back, emptied; and the eraser does not spin meanwhile."""

    def fail() -> None:
        raise NotDurable("the disk is ill")

    bench.settle = fail
    bench.volume("pvc-1")
    entry = bench.take("pvc-1")
    for _ in range(3):
        bench.now += bench.trash._pause_s() or 0
        bench.trash._round()
        assert bench.erased == []
        assert bench.trash.held() == [entry]
        assert bench.trash._pause_s()
    assert (bench.path / entry / "data" / "file").exists()
    bench.settle = do_nothing
    bench.now += bench.trash._pause_s() or 0
    bench.trash._round()
    assert bench.erased == [entry]


def test_an_entry_that_came_after_the_sync_is_held_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs in a rename for longer than an entry is held must not make that rename look synced."""
    bench.volume("pvc-1")

    def slow(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        bench.now += bench.trash._pause_s() or 0
        bench.trash._round()
        rename_noreplace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(trash_module, "rename_noreplace", slow)
    late = bench.take("pvc-1")
    bench.trash._round()
    assert bench.erased == []
    assert bench.trash.held() == [late]
