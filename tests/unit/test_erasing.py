"""Erasing what a tenant may leave, or change meanwhile, without privileges."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from provisioner.erasing import Obstacle, erase, shown
from provisioner.pace import Paced, Stopped
from tests.support.paces import FdCounting, Unpaced, open_fds
from tests.support.trees import directory_fd, make_deep, make_wide


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Give the directory to erase."""
    path = tmp_path / "top"
    path.mkdir()
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Give a directory beside it that must not be touched."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "precious").write_text("precious")
    return path


def erased(path: Path, pace: Paced | None = None, keep: frozenset[str] = frozenset()) -> list[Obstacle]:
    """Erase a directory by its path."""
    with directory_fd(path) as fd:
        return erase(fd, pace or Unpaced(), keep)


def intact(outside: Path) -> bool:
    return os.listdir(outside) == ["precious"] and (outside / "precious").read_text() == "precious"


def test_an_empty_directory_is_fine(top: Path) -> None:
    assert erased(top) == []


def test_every_kind_of_file_goes(top: Path) -> None:
    (top / "file").write_text("content")
    (top / "empty").mkdir()
    (top / "folder").mkdir()
    (top / "folder" / "file").write_text("content")
    os.mkfifo(top / "fifo")
    (top / "dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(top / "socket"))
    assert erased(top) == []
    assert os.listdir(top) == []


def test_names_to_keep_are_kept_at_the_top_only(top: Path) -> None:
    (top / "volume.json").write_text("record")
    (top / "data").mkdir()
    (top / "data" / "volume.json").write_text("a tenant's")
    (top / "data" / "more").mkdir()
    (top / "data" / "more" / "volume.json").write_text("a tenant's")
    assert erased(top, keep=frozenset({"volume.json"})) == []
    assert os.listdir(top) == ["volume.json"]
    assert (top / "volume.json").read_text() == "record"


def test_symlinks_are_unlinked_and_never_followed(top: Path, outside: Path) -> None:
    (top / "to-folder").symlink_to(outside)
    (top / "to-file").symlink_to(outside / "precious")
    (top / "up").symlink_to("..")
    (top / "magic").symlink_to("/proc/self/cwd")
    (top / "folder").mkdir()
    (top / "folder" / "to-folder").symlink_to(outside)
    assert erased(top) == []
    assert os.listdir(top) == []
    assert intact(outside)


def test_other_links_to_a_file_keep_it(top: Path, outside: Path) -> None:
    (top / "link").hardlink_to(outside / "precious")
    (top / "again").hardlink_to(outside / "precious")
    assert erased(top) == []
    assert intact(outside)


@pytest.mark.parametrize(
    "name",
    [b"x" * 255, b"\xff\xfe", b"new\nline", b"-rf", b" ", b"\x01", "\u00e9\u4e16".encode(), b".erase-0-1", b"..."],
)
def test_any_name_can_be_erased(top: Path, name: bytes) -> None:
    raw = os.fsencode(top)
    for path in (raw + b"/" + name, raw + b"/" + name + b"/" + name):
        os.mkdir(path)
    with open(raw + b"/" + name + b"/" + name + b"/" + name, "wb"):
        pass
    assert erased(top) == []
    assert os.listdir(top) == []


def test_depth_and_width_cost_no_descriptors(top: Path) -> None:
    make_deep(top, 200, "x" * 255)
    (top / "wide").mkdir()
    make_wide(top / "wide", 300)
    for number in range(50):
        make_deep(top / "wide", 5, f"deep-{number}")
    before, pace = open_fds(), FdCounting()
    assert erased(top, pace) == []
    assert os.listdir(top) == []
    assert pace.most <= 6
    assert open_fds() == before


def test_each_file_is_one_step(top: Path) -> None:
    """The pace would else be no measure of the work."""
    make_wide(top, 100)
    pace = Unpaced()
    erased(top, pace)
    assert pace.steps == 100


def test_a_directory_that_becomes_a_symlink_meanwhile_leads_nowhere(top: Path, outside: Path) -> None:
    """At each step another directory is replaced: before, while and after it is looked at."""
    for number in range(30):
        make_deep(top, 3, f"folder-{number}")

    def replace(steps: int) -> None:
        names = sorted(name for name in os.listdir(top) if not (top / name).is_symlink())
        if names and steps < 60:
            victim = top / names[steps % len(names)]
            victim.rename(top.parent / f"moved-{steps}")
            victim.symlink_to(outside)

    assert erased(top, Unpaced(replace)) == []
    assert os.listdir(top) == []
    assert intact(outside)


def test_a_symlink_planted_below_a_moved_directory_leads_nowhere(top: Path, outside: Path) -> None:
    """A process that sits in a directory follows it wherever it is moved."""
    make_deep(top, 4, "d")
    inside = os.open(top / "d" / "d", os.O_RDONLY | os.O_DIRECTORY)

    def plant(steps: int) -> None:
        if steps < 20:
            os.symlink(outside, f"planted-{steps}", dir_fd=inside)

    try:
        assert erased(top, Unpaced(plant)) == []
    finally:
        os.close(inside)
    assert os.listdir(top) == []
    assert intact(outside)


def test_files_that_are_written_meanwhile_go_too(top: Path) -> None:
    make_wide(top, 50)
    (top / "folder").mkdir()
    make_wide(top / "folder", 50)

    def write(steps: int) -> None:
        if steps <= 100:
            (top / f"new-{steps}").touch()
            (top / f"new-folder-{steps}" / "deeper").mkdir(parents=True)

    assert erased(top, Unpaced(write)) == []
    assert os.listdir(top) == []


def test_an_endless_writer_does_not_keep_us_for_ever(top: Path) -> None:
    """In passes, since whether a listing shows what came after its beginning is up to the filesystem."""
    (top / "first").touch()
    found = erased(top, Unpaced(lambda steps: (top / f"new-{steps}").touch() if not _full(top) else None))
    assert [(obstacle.path, obstacle.errno) for obstacle in found] == [(".", errno.ENOTEMPTY)]
    assert erased(top) == []


def _full(top: Path) -> bool:
    return len(os.listdir(top)) > 1


def test_it_ends_at_the_next_step_and_goes_on_later(top: Path) -> None:
    make_deep(top, 20)
    make_wide(top, 20)

    def stop(steps: int) -> None:
        if steps == 15:
            raise Stopped

    before = open_fds()
    with pytest.raises(Stopped):
        erased(top, Unpaced(stop))
    assert open_fds() == before
    assert os.listdir(top)
    assert erased(top) == []
    assert os.listdir(top) == []


def test_what_vanishes_meanwhile_is_no_obstacle(top: Path) -> None:
    for number in range(10):
        make_deep(top, 2, f"folder-{number}")
    elsewhere = top.parent / "elsewhere"
    elsewhere.mkdir()

    def steal(steps: int) -> None:
        for name in os.listdir(top)[:1]:
            (top / name).rename(elsewhere / str(steps))

    assert erased(top, Unpaced(steal)) == []
    assert os.listdir(top) == []


def test_a_file_counts_as_gone_whatever_its_size(top: Path) -> None:
    with (top / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert erased(top) == []


def test_names_are_made_printable() -> None:
    raw = b"a \xc3\xa9 \xff\n\x1b[31m"
    assert shown(os.fsdecode(raw)) == "a é \\udcff\\n\\x1b[31m"
