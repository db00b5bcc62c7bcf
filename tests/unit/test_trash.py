"""The trash: names, order, retries, and a thread that nothing kills. No entry here needs privileges."""

from __future__ import annotations

import errno
import os
import re
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from provisioner import trash as trash_module
from provisioner.erasing import Obstacle
from provisioner.pace import Pace, Stopped
from provisioner.trash import Trash, retry_delay_s
from tests.support.paces import open_fds
from tests.support.trashes import PATIENCE_S, Bench, FakePace, do_nothing
from tests.support.trees import directory_fd, make_deep, make_wide


def resist(_fd: int, entry: str, _pace: object) -> list[Obstacle]:
    """Stand for an entry that cannot be erased."""
    return [Obstacle("data/file", errno.EPERM, f"{entry} resists")]


def test_taking_is_one_rename(bench: Bench) -> None:
    inode = bench.volume("pvc-1").stat().st_ino
    entry = bench.take("pvc-1")
    assert re.fullmatch(r"pvc-1\.\d{8}T\d{6}Z-\d+", entry)
    assert os.listdir(bench.source) == []
    assert bench.trash.entries() == [entry]
    assert (bench.path / entry).stat().st_ino == inode


def test_deletes_of_one_name_in_one_second_get_two_names(bench: Bench) -> None:
    """Also when the first is erased by then: whoever counts its room must not mistake one for the other."""
    entries = []
    for _ in range(3):
        bench.volume("pvc-1")
        entries.append(bench.take("pvc-1"))
    bench.trash.erase_all()
    bench.volume("pvc-1")
    entries.append(bench.take("pvc-1"))
    assert len(set(entries)) == 4


def test_what_an_earlier_process_left_is_never_replaced(bench: Bench) -> None:
    """A plain rename would replace an empty directory."""
    now = datetime.now(UTC)
    left = {f"pvc-1.{now + timedelta(seconds=later):%Y%m%dT%H%M%SZ}-0" for later in range(60)}
    for entry in left:
        (bench.path / entry).mkdir()
    bench.volume("pvc-1")
    entry = bench.take("pvc-1")
    assert entry.endswith("-1")
    assert set(bench.trash.entries()) == left | {entry}


def test_taking_what_is_not_there_says_so_and_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(FileNotFoundError):
        bench.take("pvc-1")
    assert bench.trash.entries() == []
    assert bench.trash._waits == {}


def test_the_record_goes_last(bench: Bench) -> None:
    """It says how much room is held until all is gone."""
    make_deep(bench.volume("pvc-1") / "data", 5)
    (bench.source / "pvc-1" / "more").write_text("of a later version")
    entry = bench.take("pvc-1")
    folder, seen = bench.path / entry, []
    bench.pace.during = lambda: seen.append(set(os.listdir(folder)))
    bench.trash.erase_all()
    assert all("volume.json" in names for names in seen)
    assert seen[-1] == {"volume.json"}
    assert not any(names - {"volume.json", "more", "data"} for names in seen)  # nothing leaves the data
    assert bench.erased == [entry]
    assert bench.trash.entries() == []


def test_anything_can_be_an_entry(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (bench.source / "draft").write_text("a record that was being written")
    (bench.source / "link").symlink_to(outside)
    (bench.source / "empty").mkdir()
    (bench.source / "odd" / "volume.json" / "deeper").mkdir(parents=True)
    (bench.source / "odd" / "data").symlink_to(outside)
    entries = [bench.take(name) for name in ("draft", "link", "empty", "odd")]
    bench.trash.erase_all()
    assert sorted(bench.erased) == sorted(entries)
    assert bench.trash.entries() == []
    assert os.listdir(outside) == ["precious"]


def test_an_entry_that_somebody_else_removed_is_erased(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.trash, "entries", lambda: ["gone"])
    bench.trash.erase_all()
    assert bench.erased == ["gone"]


def test_the_eraser_begins_with_what_was_there_and_goes_on_with_what_comes(bench: Bench) -> None:
    (bench.path / "left").mkdir()
    bench.volume("early")
    early = bench.take("early")
    bench.trash.start()
    while len(bench.erased) < 2:
        bench.wait()
    assert sorted(bench.erased) == sorted(["left", early])
    bench.told.clear()
    bench.volume("late")
    late = bench.take("late")
    bench.trash.wake(late)
    bench.wait()
    assert bench.erased[-1] == late
    assert bench.trash.entries() == []


def test_obstructed_entries_are_tried_again_ever_later_and_others_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def resist_if_bad(fd: int, entry: str, pace: object) -> list[Obstacle]:
        tries.append((bench.now, entry))
        return resist(fd, entry, pace) if entry == "bad" else []

    monkeypatch.setattr(trash_module, "_erase_entry", resist_if_bad)
    (bench.path / "bad").mkdir()
    (bench.path / "good").mkdir()
    for _ in range(9):
        bench.trash._round()
        bench.trash._round()  # not due: nothing happens
        pause = bench.trash._pause_s()
        assert pause
        bench.now += pause
    times = [now for now, entry in tries if entry == "bad"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert "good" in bench.erased
    assert bench.trash.obstacles == {"bad": [Obstacle("data/file", errno.EPERM, "bad resists")]}


def test_waking_does_not_hurry_what_is_obstructed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delete wakes the eraser; obstacles would be tried at each of them."""
    monkeypatch.setattr(trash_module, "_erase_entry", resist)
    (bench.path / "bad").mkdir()
    bench.trash._round()
    begun = bench.pace.begun
    bench.trash.wake()
    bench.trash._round()
    assert bench.pace.begun == begun


def test_an_obstacle_that_goes_away_is_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.path / "bad").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(trash_module, "_erase_entry", resist)
        bench.trash.erase_all()
    assert list(bench.trash.obstacles) == ["bad"]
    bench.trash.erase_all()
    assert bench.trash.obstacles == {}
    assert bench.erased == ["bad"]


def test_an_obstructed_entry_that_vanishes_is_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash_module, "_erase_entry", resist)
    (bench.path / "bad").mkdir()
    bench.trash._round()
    (bench.path / "bad").rmdir()
    bench.now += 60
    bench.trash._round()
    assert bench.trash.obstacles == {}
    assert bench.trash._pause_s() is None


def test_delays_grow_to_an_hour() -> None:
    assert [retry_delay_s(tries) for tries in (1, 2, 3, 7, 8, 1000)] == [60, 120, 240, 3600, 3600, 3600]


def test_an_error_of_one_entry_is_an_obstacle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int, _entry: str, _pace: object) -> list[Obstacle]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(trash_module, "_erase_entry", fail)
    (bench.path / "bad").mkdir()
    bench.trash._round()
    assert bench.trash.obstacles == {"bad": [Obstacle("", errno.EIO, "Input/output error")]}


def test_the_thread_survives_what_nobody_expected(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail() -> list[str]:
        failed.set()
        monkeypatch.undo()
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(bench.trash, "entries", fail)
    (bench.path / "left").mkdir()
    bench.trash.start()
    assert failed.wait(PATIENCE_S)
    bench.trash.wake()
    bench.wait()
    assert bench.erased == ["left"]


def test_a_volume_that_never_ends_gives_others_their_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash_module, "_STEPS_A_TURN", 30)
    for name in ("big", "small"):
        bench.volume(name)
    make_wide(bench.source / "big" / "data", 200)
    big, small = bench.take("big"), bench.take("small")
    bench.trash.wake()
    assert bench.trash._round()
    assert bench.erased == [small]
    while bench.trash._round():
        pass
    assert bench.erased == [small, big]


def test_stopping_ends_the_thread_in_the_middle_and_the_next_start_goes_on(bench: Bench) -> None:
    make_wide(bench.volume("big") / "data", 200)
    entry = bench.take("big")
    reached = threading.Event()
    steps = iter(range(1000))

    def look() -> None:
        if next(steps) == 50:
            reached.set()
            with suppress(Stopped):
                Pace.step(bench.pace)
            bench.pace._stopping.wait(PATIENCE_S)

    bench.pace.during = look
    bench.trash.start()
    assert reached.wait(PATIENCE_S)
    bench.trash.stop()
    assert not bench.trash._thread.is_alive()
    assert bench.erased == []
    assert (bench.path / entry / "volume.json").exists()
    again: list[str] = []
    with directory_fd(bench.path) as fd:
        trash = Trash(fd, again.append, do_nothing, FakePace())
    trash.erase_all()
    trash.stop()
    assert again == [entry]


def test_it_keeps_no_descriptor_and_uses_none_that_is_closed(tmp_path: Path) -> None:
    before = open_fds()
    bench = Bench(tmp_path)
    bench.volume("pvc-1")
    bench.trash.start()
    bench.trash.stop()
    bench.trash.stop()
    assert open_fds() == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        bench.take("pvc-1")
    assert os.listdir(bench.source) == ["pvc-1"]
