"""`python -m tests.bench`: run the table of speed and memory, print it, write it as JSON."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.extent import Extent
from tests.bench.report import measured, write_report
from tests.bench.rows.deleting import deleting
from tests.bench.rows.memory import memory
from tests.bench.rows.publishing import publishing
from tests.bench.rows.scale import scale
from tests.bench.rows.starting import starting
from tests.bench.site import OwnSite, PeerSite
from tests.bench.table import render
from tests.support.filesystems import isolate_mounts, loop_filesystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.table import Row

# Memory first: it wants a server that has not worked yet.
ROWS: dict[str, Callable[[Any, Extent], list[Row]]] = {
    "memory": memory,
    "scale": scale,
    "start": starting,
    "publish": publishing,
    "delete": deleting,
}
OWN_ONLY = ("start",)
REPORT = Path("build/bench.json")
DISK_BYTES = 8 << 30
# Else the kernel writes the inode tables while figures are taken.
WRITTEN_AT_ONCE = ("-E", "lazy_itable_init=0,lazy_journal_init=0")


def main() -> int:
    """Run; exit status 1 if a row could not be measured. A figure that misses its mark is no error here."""
    options = _options()
    extent = Extent().scaled(options.scale) if options.scale != 1 else Extent()
    rows: list[Row] = []
    with _site(options, extent) as site:
        for name, measure in ROWS.items():
            if (options.only and name not in options.only) or (options.endpoint and name in OWN_ONLY):
                continue
            rows += measured(name, partial(measure, site, extent))
    print(render(rows))
    write_report(options.json, rows, endpoint=options.endpoint, scale=options.scale)
    return int(any(row.figure is None for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--endpoint", help="unix:///PATH of a peer that runs; without it our own server is started")
    parser.add_argument("--work", type=Path, help="folder for a peer's staging and target paths")
    parser.add_argument("--json", type=Path, default=REPORT, help="file for the figures [%(default)s]")
    parser.add_argument("--only", action="append", choices=sorted(ROWS), help="run this part alone; repeatable")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full extent, to try the bench itself")
    return parser.parse_args()


@contextmanager
def _site(options: argparse.Namespace, extent: Extent) -> Iterator[OwnSite | PeerSite]:
    with tempfile.TemporaryDirectory(prefix="csi-bench-") as folder:
        tmp = Path(folder)
        if options.endpoint:
            yield PeerSite(options.endpoint, options.work or tmp, extent.callers)
            return
        isolate_mounts()
        with loop_filesystem("ext4", tmp, DISK_BYTES, mkfs_options=WRITTEN_AT_ONCE) as disk:
            yield OwnSite(disk.path, extent.callers)


if __name__ == "__main__":
    sys.exit(main())
