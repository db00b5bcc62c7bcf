"""Somebody who renames, replaces, links and mounts at random while we erase and measure, on a seed that is printed."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from provisioner.directories import open_directory
from provisioner.erasing import erase
from provisioner.linux.mount import MS_BIND, mount
from provisioner.walking import measure
from tests.support.filesystems import unmount_all
from tests.support.paces import Unpaced, open_fds
from tests.support.trees import directory_fd, make_deep, make_wide

DEEDS = 1500


class Hostile:
    """Works in a volume, both as the pool sees it and through a bind mount as a pod does, and keeps it open.

    It never goes through its own mounts, for it would itself touch what lies outside.
    """

    def __init__(self, volume: Path, view: Path, outside: Path, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  chance, no secret
        self._outside = outside
        self._fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (volume, view)]
        self._deeds = (self._enter, self._make, self._link, self._swap, self._rename, self._hard_link, self._mount)

    def work(self) -> None:
        """Do random deeds; most fail, since what they are about is gone."""
        for _ in range(DEEDS):
            with suppress(OSError):
                self._random.choice(self._deeds)(self._random.choice(self._fds))
        for fd in self._fds:
            os.close(fd)

    def _name(self, fd: int) -> str:
        return self._random.choice([*os.listdir(f"/proc/self/fd/{fd}"), "new"])

    def _enter(self, fd: int) -> None:
        if len(self._fds) < 30:
            self._fds.append(open_directory(self._name(fd), fd))

    def _make(self, fd: int) -> None:
        os.mkdir(f"made-{self._random.random()}", dir_fd=fd)

    def _link(self, fd: int) -> None:
        os.symlink(self._outside, f"link-{self._random.random()}", dir_fd=fd)

    def _swap(self, fd: int) -> None:
        name = self._name(fd)
        os.rename(name, f"swapped-{self._random.random()}", src_dir_fd=fd, dst_dir_fd=fd)
        os.symlink(self._outside, name, dir_fd=fd)

    def _rename(self, fd: int) -> None:
        os.rename(self._name(fd), self._name(fd), src_dir_fd=fd, dst_dir_fd=self._random.choice(self._fds))

    def _hard_link(self, fd: int) -> None:
        os.link(self._outside / "precious", f"hard-{self._random.random()}", dst_dir_fd=fd)

    def _mount(self, fd: int) -> None:
        if self._random.random() < 0.1:
            mount(self._outside, f"/proc/self/fd/{fd}/{self._name(fd)}", flags=MS_BIND)


@pytest.fixture
def places(folder: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Give a volume, a pod's view of it, and a directory beside it; mounts are undone at the end."""
    paths = folder / "volume", folder / "view", folder / "outside"
    for path in paths:
        path.mkdir()
    mount(paths[0], paths[1], flags=MS_BIND)
    yield paths
    unmount_all(folder)


@pytest.mark.parametrize("round_", range(3))
def test_nothing_outside_is_touched_whatever_goes_on_inside(places: tuple[Path, Path, Path], round_: int) -> None:
    volume, view, outside = places
    seed = random.SystemRandom().randrange(2**32) + round_
    print(f"seed {seed}")
    make_deep(outside, 5, "precious-directory")
    (outside / "precious").write_text("precious")
    before = sorted(map(str, outside.rglob("*")))
    for number in range(20):
        make_deep(volume, 10, f"deep-{number}")
    make_wide(volume, 200)
    fds = open_fds()
    hostile = threading.Thread(target=Hostile(volume, view, outside, seed).work)
    hostile.start()
    with directory_fd(volume) as fd:
        while hostile.is_alive():
            measure(fd, Unpaced())
            erase(fd, Unpaced())
        hostile.join()
        unmount_all(volume.parent)
        assert erase(fd, Unpaced()) == []
    assert os.listdir(volume) == []
    assert sorted(map(str, outside.rglob("*"))) == before
    assert (outside / "precious").read_text() == "precious"
    assert open_fds() == fds
