"""Deleting a volume that is full of files, and creating others while it is erased."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.client import Client, Placed
from tests.bench.figures import p50, p99, spread, timed_ms
from tests.bench.table import Row
from tests.bench.target import Target, delete, stage, unstage
from tests.support.strace import attached, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.extent import Extent
    from tests.bench.site import Site

FILES_OF_A_FOLDER = 1000
ROUNDS = 3
MOST_CREATES = 500  # of one round; erasing is waited for all the same
# Calls that depend on who runs beside the thread, not on what it does: they wait for the interpreter's lock,
# or do a part of the transport's work that any thread of gRPC may do.
BESIDE = ("futex", "sched_yield", "restart_syscall", "sendmsg", "recvmsg", "epoll_wait", "epoll_ctl", "poll")


class Samples:
    """Milliseconds of single calls."""

    def __init__(self) -> None:
        self.delete_empty: list[float] = []
        self.delete_full: list[float] = []
        self.quiet: list[float] = []
        self.erasing: list[float] = []


def deleting(site: Site, extent: Extent) -> list[Row]:
    """Delete empty and full volumes in turns."""
    samples = Samples()
    with site.serving("deleting") as target:
        for _ in range(ROUNDS):
            _round(target, extent, samples)
        empty, full = _traced_delete(target, 0), _traced_delete(target, extent.files)
    return [_syscalls(empty, full, extent), *_times(samples, extent)]


def _round(target: Target, extent: Extent, samples: Samples) -> None:
    client = target.client()
    full, empty = _filled(target, extent.files), _filled(target, 0)
    created = _creates(client, target, samples.quiet, extent.creates)
    samples.delete_empty.append(timed_ms(lambda: client.delete(empty.volume_id)))
    target.rest()
    samples.delete_full.append(timed_ms(lambda: client.delete(full.volume_id)))
    most = len(created) + MOST_CREATES
    while target.erasing() and len(created) < most:
        created += _creates(client, target, samples.erasing, 10)
    client.close()
    target.rest()
    with target.crew() as crew:
        delete(crew, created)
    target.rest()


def _creates(client: Client, target: Target, samples: list[float], count: int) -> list[Placed]:
    created: list[Placed] = []
    for name in target.new_names(count):
        began = time.perf_counter_ns()
        created.append(client.create(name))
        samples.append((time.perf_counter_ns() - began) / 1e6)
    return created


def _filled(target: Target, files: int) -> Placed:
    """Give a new volume that holds `files` files, written through its mount."""
    with target.crew() as crew:
        volumes = crew.run(Client.create, target.new_names(1))
        stage(crew, volumes)
        crew.run(Client.publish, volumes)
        for first in range(0, files, FILES_OF_A_FOLDER):
            folder = Path(volumes[0].target, f"{first:06}")
            folder.mkdir()
            for i in range(first, min(first + FILES_OF_A_FOLDER, files)):
                (folder / f"{i:06}").touch()
        crew.run(Client.unpublish, volumes)
        unstage(crew, volumes)
    target.rest()
    return volumes[0]


def _traced_delete(target: Target, files: int) -> Counter[str]:
    """Give the system calls of the thread that deletes, by name.

    It is the one that renames the volume's folder; where none does (a peer), all threads count.
    """
    volume = _filled(target, files)
    client = target.client()
    client.probe()
    with tempfile.TemporaryDirectory() as folder:
        with attached(target.pid, Path(folder, "trace"), threads=True):
            client.delete(volume.volume_id)
        threads = [path.read_text(errors="replace") for path in Path(folder).iterdir()]
    client.close()
    target.rest()
    name = volume.volume_id.partition(".")[2]
    own = [text for text in threads if any(_renames(line, name) for line in text.splitlines())]
    calls = [call for text in own or threads for call in parse(text)]
    return Counter(call.name for call in calls if call.name not in BESIDE and not call.wakes)


def _renames(line: str, folder: str) -> bool:
    return line.startswith("rename") and f'"{folder}"' in line


def _syscalls(empty: Counter[str], full: Counter[str], extent: Extent) -> Row:
    more, fewer = full - empty, empty - full
    different = ", ".join(
        [f"+{count} {call}" for call, count in more.items()] + [f"-{count} {call}" for call, count in fewer.items()]
    )
    return Row(
        "delete-syscalls",
        f"delete of a volume holding {extent.files:,} files / of an empty one: system calls",
        full.total() / max(1, empty.total()),
        at_most=1.0,
        note=f"{full.total()} / {empty.total()}{': ' if different else ''}{different}",
        details={"empty": dict(empty), "full": dict(full)},
    )


def _times(samples: Samples, extent: Extent) -> list[Row]:
    measure = f"create while {extent.files:,} files are erased / quiet: {{}}"
    return [
        Row(
            "delete-time",
            f"delete of a volume holding {extent.files:,} files, longest of {ROUNDS}",
            max(samples.delete_full),
            "ms",
            100,
            note=f"empty: {max(samples.delete_empty):.1f} ms",
            details={"full_ms": spread(samples.delete_full), "empty_ms": spread(samples.delete_empty)},
        ),
        _compared("erase-p50", measure.format("p50"), p50, 1.5, samples),
        _compared("erase-p99", measure.format("p99"), p99, 5.0, samples),
    ]


def _compared(
    name: str, measure: str, figure: Callable[[Sequence[float]], float], at_most: float, samples: Samples
) -> Row:
    if not samples.erasing:
        return Row(name, measure, None, note="nothing was left to erase once the delete had ended")
    erasing, quiet = figure(samples.erasing), figure(samples.quiet)
    return Row(
        name,
        measure,
        erasing / quiet,
        at_most=at_most,
        note=f"{erasing:.2f} ms / {quiet:.2f} ms",
        details={"erasing_ms": spread(samples.erasing), "quiet_ms": spread(samples.quiet)},
    )
