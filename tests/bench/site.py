"""Where the servers come from: our own, started on a fresh filesystem, or a peer that runs already."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.bench.target import Target
from tests.support.filesystems import unmount_all
from tests.support.served import Served, one_pool, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.bench.disks import Disk


class Site(Protocol):
    """Gives servers by name; each name has volumes of its own, which outlast its server.

    own: the server is ours, and a block starts and stops it.
    """

    own: bool

    def serving(self, name: str) -> AbstractContextManager[Target]:
        """Have the server `name` run for the length of a block."""


class PeerSite:
    """One server that somebody else runs: every name is the same server."""

    own = False

    def __init__(self, endpoint: str, work: Path, callers: int) -> None:
        self._target = Target(endpoint, work, callers)

    @contextmanager
    def serving(self, name: str) -> Iterator[Target]:  # noqa: ARG002 - there is but one
        """Give the server."""
        yield self._target


class OwnSite:
    """Servers of our own, each with one pool on the filesystem at `disk`.

    Targets and the server's files lie there too: what else writes to the machine's own filesystem then
    shows in no figure.
    """

    own = True

    def __init__(self, disk: Path, kind: Disk, callers: int) -> None:
        self.disk = disk
        self._kind = kind
        self._callers = callers
        self._targets: dict[str, Target] = {}

    @classmethod
    @contextmanager
    def fresh(cls, kind: Disk, folder: Path, callers: int) -> Iterator[OwnSite]:
        """Make a filesystem in a folder, which is made too."""
        folder.mkdir()
        with kind.mounted(folder) as disk:
            yield cls(disk, kind, callers)

    @contextmanager
    def another(self) -> Iterator[OwnSite]:
        """Have one more filesystem of the same kind for a while."""
        with self.fresh(self._kind, self.disk.parent / "another", self._callers) as site:
            yield site

    @contextmanager
    def serving(self, name: str) -> Iterator[Target]:
        """Start a server on the pool `name` and stop it in the end."""
        with self.prepared(name) as (server, target):
            server.start()
            yield target

    @contextmanager
    def prepared(self, name: str) -> Iterator[tuple[Served, Target]]:
        """Have a server that is not started yet."""
        tmp = self.disk / name
        tmp.mkdir(exist_ok=True)
        # Promises are not what is measured: without it 10,000 volumes would need a large disk.
        config = one_pool(tmp, overcommit=1000, **self._kind.pool)
        try:
            with served(config, tmp, start=False) as server:
                yield server, self._target(server)
        finally:
            unmount_all(tmp)

    def _target(self, server: Served) -> Target:
        trash = server.tmp / "pool" / ".csi-local-path" / "trash"
        target = Target(server.endpoint, server.tmp / "work", self._callers, trash)
        known = self._targets.setdefault(server.tmp.name, target)
        known.endpoint = server.endpoint
        return known
