"""Filesystems made once for all tests of this folder; each test gets a folder of its own in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.filesystems import LOOP_KINDS, Filesystem, loop_filesystem, tmpfs


@pytest.fixture(scope="session")
def filesystems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Filesystem]]:
    """Mount one filesystem of each kind."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("filesystems")
        yield {kind: stack.enter_context(loop_filesystem(kind, folder)) for kind in LOOP_KINDS}


@pytest.fixture(params=LOOP_KINDS)
def filesystem(request: pytest.FixtureRequest, filesystems: dict[str, Filesystem]) -> Filesystem:
    """Give each kind of filesystem in turn; other tests use it too."""
    found: Filesystem = filesystems[request.param]
    return found


@pytest.fixture
def folder(filesystem: Filesystem) -> Path:
    """Give an empty folder on each kind of filesystem in turn."""
    return Path(tempfile.mkdtemp(dir=filesystem.path))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Give a tmpfs, for what is the same on every filesystem; all mounts in it end with the test."""
    with tmpfs(tmp_path / "memory") as path:
        yield path
