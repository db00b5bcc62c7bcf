"""`python -m tests.bench`: run the table of speed and memory, print it, write it as JSON."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.extent import Extent, scaled
from tests.bench.parts import GROUPS, PARTS, Part, chosen
from tests.bench.report import measured, write_report
from tests.bench.site import OwnSite, PeerSite
from tests.bench.table import all_good, render
from tests.support.filesystems import isolate_mounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.disks import Disk
    from tests.bench.table import Row

REPORT = Path("build/bench.json")


def main() -> int:
    """Run; exit status 1 if a row missed its mark or could not be measured."""
    options = _options()
    extent = scaled(Extent(), options.scale, at_least=2)
    rows: list[Row] = []
    with ExitStack() as stack:
        sites = _Sites(options, extent, stack)
        for name, part in chosen(options.only, peer=bool(options.endpoint)).items():
            rows += measured(name, partial(_measure, part, sites, extent))
            # An hour's figures are not lost with the last part.
            write_report(options.json, rows, endpoint=options.endpoint, scale=options.scale)
    print(render(rows))
    return int(not all_good(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--endpoint", help="unix:///PATH of a peer that runs; without it our own server is started")
    parser.add_argument("--work", type=Path, help="folder for a peer's staging and target paths")
    parser.add_argument("--json", type=Path, default=REPORT, help="file for the figures [%(default)s]")
    names = [*PARTS, *GROUPS]
    parser.add_argument("--only", action="append", choices=names, help="run this part or group alone; repeatable")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full extent, to try the bench itself")
    return parser.parse_args()


class _Sites:
    """Where each part is measured: on a fresh filesystem of the kind that it asks for, or at the one peer."""

    def __init__(self, options: argparse.Namespace, extent: Extent, stack: ExitStack) -> None:
        self._callers = extent.callers
        self._stack = stack
        self._own: dict[str, OwnSite] = {}
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="csi-bench-")))
        self._peer = None
        if options.endpoint:
            self._peer = PeerSite(options.endpoint, options.work or self._folder, extent.callers)
        else:
            isolate_mounts()

    def of(self, disk: Disk) -> OwnSite | PeerSite:
        """Give the site of a disk; parts of one disk share it."""
        if self._peer:
            return self._peer
        key = repr(disk)
        if key not in self._own:
            folder = self._folder / str(len(self._own))
            self._own[key] = self._stack.enter_context(OwnSite.fresh(disk, folder, self._callers))
        return self._own[key]


def _measure(part: Part, sites: _Sites, extent: Extent) -> list[Row]:
    measure: Callable[[Any, Extent], list[Row]] = part.measure
    return measure(sites.of(part.disk), extent)


if __name__ == "__main__":
    sys.exit(main())
