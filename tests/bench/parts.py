"""The parts of the bench, what each is measured on, and which belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.bench import disks
from tests.bench.rows.deleting import deleting
from tests.bench.rows.images import images
from tests.bench.rows.limits import Limits
from tests.bench.rows.load import loads
from tests.bench.rows.memory import memory
from tests.bench.rows.publishing import publishing
from tests.bench.rows.scale import scale
from tests.bench.rows.starting import starting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.disks import Disk
    from tests.bench.extent import Extent
    from tests.bench.table import Row


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that are measured together. own_only: no peer can be measured so."""

    measure: Callable[[Any, Extent], list[Row]]
    disk: Disk = disks.PLAIN
    own_only: bool = False


# Memory first: it wants a server that has not worked yet.
_CALLS = {
    "memory": Part(memory),
    "scale": Part(scale),
    "start": Part(starting, own_only=True),
    "publish": Part(publishing),
    "delete": Part(deleting),
    "subvolume": Part(Limits("subvolume", "subvolume", 2.5), disks.BTRFS, own_only=True),
    "image": Part(images, own_only=True),
}
# Minutes for each row.
_LOADS = {
    name: Part(measure, disk, own_only=True)
    for disk, parts in (
        (disks.FAST_BTRFS, loads("subvolume")),
        (disks.FAST_EXT4, loads("image")),
    )
    for name, measure in parts.items()
}
# For a kernel with project quotas.
_QUOTAS = {
    "quota-xfs": Part(Limits("quota on XFS", "quota", 1.5), disks.QUOTA_XFS, own_only=True),
    "quota-ext4": Part(Limits("quota on ext4", "quota", 1.5), disks.QUOTA_EXT4, own_only=True),
}
PARTS = _CALLS | _LOADS | _QUOTAS
GROUPS = {"calls": _CALLS, "io": _LOADS, "quota": _QUOTAS}


def chosen(only: Sequence[str] | None, *, peer: bool) -> dict[str, Part]:
    """Give the parts of a run: those named, alone or as a group, else those that tell what calls cost."""
    named = [part for name in only or ("calls",) for part in GROUPS.get(name, (name,))]
    return {name: part for name, part in PARTS.items() if name in named and not (peer and part.own_only)}
