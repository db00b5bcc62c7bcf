"""Filesystems made once for all tests of this folder; each test gets a folder of its own in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from provisioner.assembly import Provisioner
from provisioner.settings import Settings
from tests.support.filesystems import LOOP_KINDS, Filesystem, loop_filesystem, tmpfs
from tests.support.means import IMAGES, Means, Served, serving
from tests.support.provisioned import running, settings_for, unmount_below


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


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of one pool; whatever a test leaves mounted is taken away after it."""
    yield settings_for(tmp_path)
    unmount_below(tmp_path)


@pytest.fixture
def provisioner(settings: Settings) -> Iterator[Provisioner]:
    """A provisioner at work on that pool."""
    with running(settings) as provisioner:
        yield provisioner


@pytest.fixture
def control(settings: Settings) -> Path:
    """The pool's own folder."""
    return Path(settings.pools[0].path) / ".csi-local-path"


@pytest.fixture
def targets(settings: Settings) -> Path:
    """The folder below which targets may lie."""
    return Path(settings.target_roots[0])


@pytest.fixture
def images() -> Means:
    """What `pool` and `served` are made of; a file of tests may say otherwise."""
    return IMAGES


@pytest.fixture
def pool(images: Means, tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own for a pool of images."""
    with images.filesystem(tmp_path) as found:
        yield found


@pytest.fixture
def served(pool: Path, images: Means, tmp_path: Path) -> Iterator[Served]:
    """That pool at work."""
    assert pool.exists()
    with serving(images, tmp_path) as found:
        yield found
