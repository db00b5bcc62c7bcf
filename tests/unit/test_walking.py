"""Adding up trees of any shape, without privileges. What filesystems add to it is tested in tests/linux."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from provisioner import walking
from provisioner.pace import Paced, Stopped
from provisioner.walking import measure
from tests.support.paces import FdCounting, Unpaced, open_fds
from tests.support.trees import directory_fd, make_deep, make_wide


def measured(path: Path, pace: Paced | None = None) -> tuple[int, int]:
    """Measure a directory by its path."""
    with directory_fd(path) as fd:
        return measure(fd, pace or Unpaced())


def du(path: Path) -> tuple[int, int]:
    """Let du tell bytes and inodes."""
    asked = (["--block-size=1"], ["--inodes"])
    found = [subprocess.check_output(["du", "-sx", *arguments, str(path)]) for arguments in asked]
    used, inodes = (int(line.split()[0]) for line in found)
    return used, inodes


def test_a_tree_weighs_what_du_says(tmp_path: Path) -> None:
    make_deep(tmp_path, 60)
    for folder in ("a", "b", "b/c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "content").write_bytes(b"x" * 10_000)
        make_wide(tmp_path / folder, 40)
    (tmp_path / "link").symlink_to("/")
    os.mkfifo(tmp_path / "fifo")
    assert measured(tmp_path) == du(tmp_path)


def test_each_directory_is_visited_once_and_those_that_refuse_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c" / "below").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    visited: list[str] = []

    def visit(fd: int) -> None:
        visited.append(os.readlink(f"/proc/self/fd/{fd}"))
        if visited[-1].endswith("/c"):
            raise PermissionError(visited[-1])

    with directory_fd(tmp_path) as fd:
        assert measure(fd, Unpaced(), visit)[1] == 5  # `below` is not seen
    assert sorted(visited) == [str(tmp_path / name) for name in (".", "a", "a/b", "c")]


def test_depth_and_width_cost_no_descriptors(tmp_path: Path) -> None:
    """Deep directories that hold several deep ones each: the way back up is taken often."""
    make_deep(tmp_path, 100, "main")
    place = tmp_path
    for level in range(90):
        place = place / "main"
        if level % 10 == 0:
            make_deep(place, 40, "left")
            make_deep(place, 40, "right")
    before, pace = open_fds(), FdCounting()
    found = measured(tmp_path, pace)
    assert found[1] == 1 + 2 * (100 + 9 * 80)
    assert found == du(tmp_path)
    assert pace.most <= 2 * walking._OPEN_LEVELS + 8
    assert open_fds() == before


def test_a_file_with_several_links_counts_once(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 100_000)
    for link in ("a/second", "b/third"):
        (tmp_path / link).hardlink_to(tmp_path / "a" / "file")
    (tmp_path / "a" / "other").write_bytes(b"x" * 5_000)
    (tmp_path / "b" / "other").hardlink_to(tmp_path / "a" / "other")
    assert measured(tmp_path) == du(tmp_path)
    assert measured(tmp_path)[1] == 5


def test_links_from_outside_take_their_share(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").write_bytes(b"x" * (1 << 20))
    empty = measured(tmp_path / "inside")[0]
    (tmp_path / "inside" / "link").hardlink_to(tmp_path / "outside")
    assert measured(tmp_path / "inside")[0] - empty == (1 << 20) // 2


def test_holes_cost_nothing(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert measured(tmp_path)[0] < 1 << 20


def test_what_vanishes_meanwhile_is_not_counted(tmp_path: Path) -> None:
    for number in range(20):
        make_deep(tmp_path, 3, f"folder-{number}")

    def remove(steps: int) -> None:
        if steps % 5 == 0:
            shutil.rmtree(tmp_path / min(os.listdir(tmp_path)))

    assert measured(tmp_path, Unpaced(remove))[1] < 20 * 6


def test_a_directory_that_is_moved_out_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    """The way up from it would lead into directories that are not of the tree."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for path in (inside, outside):
        path.mkdir()
    make_deep(inside, 60, "d")
    make_wide(outside, 500)
    deep = inside.joinpath(*["d"] * 40)

    def move(steps: int) -> None:
        if steps == 100:
            deep.rename(outside / "moved")

    before = open_fds()
    assert measured(inside, Unpaced(move))[1] <= 1 + 2 * 60
    assert open_fds() == before


def test_it_ends_at_the_next_step(tmp_path: Path) -> None:
    make_deep(tmp_path, 40)

    def stop(steps: int) -> None:
        if steps == 70:
            raise Stopped

    before = open_fds()
    with pytest.raises(Stopped):
        measured(tmp_path, Unpaced(stop))
    assert open_fds() == before


def test_memory_is_bounded_against_a_tree_that_was_built_to_break_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies beyond the bounds is not counted, and the rest is."""
    monkeypatch.setattr(walking, "_MOST_NAMES", 10)
    monkeypatch.setattr(walking, "_MOST_LEVELS", 30)
    make_deep(tmp_path, 50)
    assert measured(tmp_path)[1] == 2 * 30
    wide = tmp_path.joinpath(*["d"] * 20)
    for number in range(100):
        make_deep(wide, 2, f"wide-{number}")
    found = measured(tmp_path)[1]
    assert 2 * 30 + 100 < found < 2 * 30 + 100 * 4
