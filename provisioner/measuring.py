"""Measures what the volumes of a pool use, whether their limits hold, and what strangers use beside them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from provisioner.backends import Occupied
from provisioner.directories import opened
from provisioner.errors import OperationPending
from provisioner.names import VolumeId
from provisioner.operations import Operations
from provisioner.pace import Paced
from provisioner.usage import Measurement, Usage
from provisioner.walking import measure

_DATA = "data"


class MeasuredDisk(Protocol):
    """The directories of a pool."""

    @property
    def pool_id(self) -> str:
        """What its volumes' ids begin with."""

    @property
    def path(self) -> str:
        """Where the pool is, for the log."""

    def check(self) -> None:
        """Raise PoolUnavailable where it is not in its place any more."""

    @property
    def volumes_fd(self) -> int:
        """The volumes, each a folder with a directory `data`."""

    @property
    def staging_fd(self) -> int:
        """What is being built."""

    @property
    def trash_fd(self) -> int:
        """What waits to be erased."""


class MeasuredPool(Protocol):
    """A pool as the measurer sees it; its descriptors stay open while the iterator that gave it stands there."""

    @property
    def disk(self) -> MeasuredDisk:
        """Its directories."""

    @property
    def usage(self) -> Usage:
        """Where the figures go."""

    def folders(self) -> Iterable[str]:
        """Name its volumes."""

    def occupied(self, folder: str) -> Occupied | None:
        """Count what a volume takes; None where only a walk over its files could."""

    def illness(self, folder: str) -> str:
        """Say what is wrong with a volume's limit, or ''."""

    def escaped(self, folder: str, pace: Paced) -> str:
        """Say what of a volume slipped out of its limit, or ''."""


class Measuring:
    """The work of one round; its figures go into the pool's `usage`."""

    def __init__(self, operations: Operations | None = None, clock: Callable[[], float] = time.time) -> None:
        self._operations = operations or Operations()
        self._clock = clock

    def measure(self, pool: MeasuredPool, pace: Paced) -> None:
        """Measure a pool; what no volume, nor the trash, explains of its filesystem's use is foreign.

        So are our own records and directories, for no promise covers them. The trash comes last, since it
        is what shrinks fastest meanwhile.
        """
        disk, usage = pool.disk, pool.usage
        first = list(pool.folders())
        ours = sum(self._measure_volume(pool, folder, pace) for folder in first)
        usage.keep_only(pool.folders())
        ours += sum(measure(dir_fd, pace)[0] for dir_fd in (disk.staging_fd, disk.trash_fd))
        space = os.fstatvfs(disk.volumes_fd)
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        # Volumes that came meanwhile are in `used`: an image has its whole size at once.
        late = set(pool.folders()).difference(first)
        ours += sum(self._measure_volume(pool, folder, pace) for folder in late)
        usage.put_foreign(max(0, used - ours), self._clock())
        for folder in first:
            pace.step()
            with suppress(OSError, OperationPending):  # deleted meanwhile, or growing
                usage.put_lost(folder, self._illness(pool, folder))
        usage.keep_only(pool.folders())
        usage.save()

    def _illness(self, pool: MeasuredPool, folder: str) -> str:
        """Say what is wrong with a volume's limit, and not only while it is being set anew."""
        if not pool.illness(folder):
            return ""
        with self._operations.claim(str(VolumeId(pool.disk.pool_id, folder))):
            return pool.illness(folder)

    def _measure_volume(self, pool: MeasuredPool, folder: str, pace: Paced) -> int:
        """Measure a volume and give its bytes; the last figure where it cannot be read, 0 where there is none."""
        usage = pool.usage
        try:
            found = pool.occupied(folder)
            used_bytes, inodes = (found.used_bytes, found.inodes) if found else _walked(pool, folder, pace)
        except OSError:
            last = usage.get(folder)
            return last.used_bytes if last else 0
        usage.put(folder, Measurement(used_bytes, inodes, self._clock()))
        return used_bytes


def _walked(pool: MeasuredPool, folder: str, pace: Paced) -> tuple[int, int]:
    with opened(f"{folder}/{_DATA}", pool.disk.volumes_fd) as fd:
        return measure(fd, pace)


def look_for_escaped(pool: MeasuredPool, pace: Paced) -> None:
    """Note of each volume of a pool what slipped out of its limit. It reads all directories: no figure waits for it."""
    usage, changed = pool.usage, False
    folders = list(pool.folders())
    for folder in folders:
        known = usage.escaped(folder)
        with suppress(OSError):  # deleted meanwhile
            usage.put_escaped(folder, pool.escaped(folder, pace))
        changed |= usage.escaped(folder) != known
    for folder in set(folders).difference(pool.folders()):
        usage.put_escaped(folder, "")
    if changed:
        usage.save()
