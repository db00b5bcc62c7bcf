"""What a size that holds costs: beside a plain directory on the same filesystem, and as volumes become many."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from tests.bench.client import SIZE_BYTES, Client
from tests.bench.figures import timed_ms
from tests.bench.table import Row
from tests.bench.target import Target, stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.bench.client import Placed
    from tests.bench.extent import Extent
    from tests.bench.site import OwnSite

# What a class says that takes no limit.
PLAIN = {"backend": "directory", "enforce": "besteffort"}
_RECORD = b"x" * 512  # about as long as ours


@dataclass(slots=True)
class Samples:
    """Milliseconds of single calls; `few` and `many`: on a server with so many volumes."""

    plain: list[float] = field(default_factory=list)
    create_few: list[float] = field(default_factory=list)
    create_many: list[float] = field(default_factory=list)
    probe: list[float] = field(default_factory=list)
    record: list[float] = field(default_factory=list)
    expand: list[float] = field(default_factory=list)
    stats_few: list[float] = field(default_factory=list)
    stats_many: list[float] = field(default_factory=list)


class Limits:
    """The rows of one means.

    backend: its name in a class. create_at_most: what its create may be to a plain directory's.
    """

    def __init__(self, name: str, backend: str, create_at_most: float) -> None:
        self._name = name
        self._limited = {"backend": backend, "enforce": "required"}
        self._create_at_most = create_at_most

    def __call__(self, site: OwnSite, extent: Extent) -> list[Row]:
        """Measure on two filesystems with a server each, every call in turn with what it is compared to."""
        samples = Samples()
        with ExitStack() as stack:
            few = stack.enter_context(site.serving("few"))
            many = stack.enter_context(stack.enter_context(site.another()).serving("many"))
            self._populate(few, extent.limited)
            self._populate(many, extent.published_many)
            clients = few.client(), many.client()
            _ask(clients, (few.population, many.population), extent.creates, samples)
            with _open_folder(site.disk) as folder_fd:
                _grow(clients[0], few.population, folder_fd, extent.creates, samples)
            self._create(clients, (few, many), extent.creates, samples)
            for client in clients:
                client.close()
        return self._rows(samples, extent)

    def _populate(self, target: Target, count: int) -> None:
        target.populate(count, self._limited)
        with target.crew() as crew:
            stage(crew, target.population)
            crew.run(Client.publish, target.population)
        target.rest()

    def _create(
        self, clients: tuple[Client, Client], targets: tuple[Target, Target], count: int, samples: Samples
    ) -> None:
        plain, few, many = (iter(targets[i].new_names(count)) for i in (0, 0, 1))
        for _ in range(count):
            samples.plain.append(timed_ms(partial(clients[0].create, next(plain), **PLAIN)))
            samples.create_few.append(timed_ms(partial(clients[0].create, next(few), **self._limited)))
            samples.create_many.append(timed_ms(partial(clients[1].create, next(many), **self._limited)))

    def _rows(self, samples: Samples, extent: Extent) -> list[Row]:
        name, few, many = self._name, extent.limited, extent.published_many
        floor = [probe + record for probe, record in zip(samples.probe, samples.record, strict=True)]
        return [
            Row.ratio(
                f"{name}-create",
                f"{name}: create p50 with a limit / of a plain directory",
                samples.create_few,
                samples.plain,
                at_most=self._create_at_most,
            ),
            Row.ratio(
                f"{name}-create-many",
                f"{name}: create p50 with {many:,} volumes / with {few:,}",
                samples.create_many,
                samples.create_few,
                at_most=1.2,
            ),
            Row.ratio(
                f"{name}-expand",
                f"{name}: expand p50 / an empty RPC and one durable record",
                samples.expand,
                floor,
                at_most=1.5,
            ),
            Row.ratio(
                f"{name}-stats",
                f"{name}: stats p50 with {many:,} volumes published / with {few:,}",
                samples.stats_many,
                samples.stats_few,
                at_most=1.2,
            ),
        ]


def _ask(
    clients: tuple[Client, Client], volumes: tuple[Sequence[Placed], Sequence[Placed]], count: int, samples: Samples
) -> None:
    few, many = (cycle(some) for some in volumes)
    for _ in range(count):
        samples.stats_few.append(timed_ms(partial(clients[0].stats, next(few))))
        samples.stats_many.append(timed_ms(partial(clients[1].stats, next(many))))


def _grow(client: Client, volumes: Sequence[Placed], folder_fd: int, count: int, samples: Samples) -> None:
    for i in range(count):
        samples.probe.append(timed_ms(client.probe))
        samples.record.append(timed_ms(partial(_write_durably, folder_fd)))
        volume, size_bytes = volumes[i % len(volumes)], SIZE_BYTES * (2 + i // len(volumes))
        samples.expand.append(timed_ms(partial(client.expand, volume.volume_id, size_bytes)))


@contextmanager
def _open_folder(disk: Path) -> Iterator[int]:
    (disk / "records").mkdir()
    fd = os.open(disk / "records", os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _write_durably(folder_fd: int) -> None:
    """Write a record as any program has to that must not lose it: aside, synced, renamed, the folder synced."""
    fd = os.open("new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=folder_fd)
    try:
        os.write(fd, _RECORD)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename("new", "record", src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    os.fsync(folder_fd)
