"""After a power cut nothing is missing that was acknowledged, on each filesystem that pools lie on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.filesystems import LOOP_KINDS
from tests.support.powercut import power_disk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", LOOP_KINDS)
def test_the_method_works_what_is_not_synced_vanishes(kind: str, tmp_path: Path) -> None:
    with power_disk(kind, tmp_path) as disk:
        synced, lost = disk.path / "synced", disk.path / "lost"
        synced.mkdir()
        _sync(disk.path)
        lost.mkdir()
        disk.cut()
        disk.revive()
        assert synced.exists()
        assert not lost.exists()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
