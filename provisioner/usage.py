"""What volumes really use: the figures of one pool, kept in memory and in a file that may be lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Annotated, Protocol

import msgspec
import structlog

from provisioner.backends import Occupied
from provisioner.directories import opened
from provisioner.errors import OperationPending, PoolUnavailable
from provisioner.names import VolumeId
from provisioner.operations import Operations
from provisioner.pace import Pace, Paced, Stopped
from provisioner.walking import measure

log = structlog.get_logger(__name__)

SCHEMA = 1
FILE = "usage.json"
_DRAFT = "usage.json.new"
_STAGING = "staging"
_DATA = "data"

_MOST_BYTES = 256 << 20  # of the file; a record takes about a hundred

# A thread that waits for a dead disk cannot be ended; whoever stops it has other things to do.
_STOP_S = 10.0

_STEPS_A_LOOK = 1000

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Measurement(msgspec.Struct, frozen=True, gc=False):
    """What a volume occupied at `measured_at` (Unix seconds)."""

    used_bytes: _Count
    inodes: _Count
    measured_at: float


class _Foreign(msgspec.Struct, frozen=True):
    """What strangers occupied of the pool's filesystem."""

    used_bytes: _Count
    measured_at: float


class _Content(msgspec.Struct):
    """Content of `usage.json`."""

    schema: int
    volumes: dict[str, Measurement]
    foreign: _Foreign | None = None
    lost: dict[str, str] = {}
    escaped: dict[str, str] = {}


_CONTENT = msgspec.json.Decoder(_Content)


class Usage:
    """The last measurements of one pool, by folder; safe to use from any thread."""

    def __init__(self, control_dir_fd: int) -> None:
        self._control_fd = control_dir_fd
        self._guard = threading.Lock()
        self._volumes: dict[str, Measurement] = {}
        self._used_bytes = 0
        self._lost: dict[str, str] = {}
        self._escaped: dict[str, str] = {}
        self._foreign: _Foreign | None = None
        self._failure = ""

    @property
    def used_bytes(self) -> int:
        """Sum of the last measurements of all volumes."""
        return self._used_bytes

    @property
    def foreign_bytes(self) -> int | None:
        """Bytes of the filesystem that are no volume's data and no trash; None where never measured."""
        return self._foreign.used_bytes if self._foreign else None

    @property
    def foreign_measured_at(self) -> float | None:
        """When that was found, in Unix seconds."""
        return self._foreign.measured_at if self._foreign else None

    def get(self, folder: str) -> Measurement | None:
        """Give the last measurement of a volume."""
        return self._volumes.get(folder)

    def put(self, folder: str, measurement: Measurement) -> None:
        """Note a measurement."""
        with self._guard:
            self._drop(folder)
            self._volumes[folder] = measurement
            self._used_bytes += measurement.used_bytes

    @property
    def lost_count(self) -> int:
        """How many volumes had a limit that was lost when they were last looked at."""
        return len(self._lost)

    @property
    def escaped_count(self) -> int:
        """How many volumes had something that slipped out of their limit."""
        return len(self._escaped)

    def lost(self, folder: str) -> str:
        """Say what was wrong with a volume's limit when it was last looked at; '' for nothing."""
        return self._lost.get(folder, "")

    def escaped(self, folder: str) -> str:
        """Say what of a volume had slipped out of its limit when it was last looked at; '' for nothing."""
        return self._escaped.get(folder, "")

    def lost_folders(self) -> list[str]:
        """Name the volumes that had a limit that was lost when they were last looked at."""
        with self._guard:
            return list(self._lost)

    def put_lost(self, folder: str, finding: str) -> None:
        """Note what is wrong with a limit; '' for nothing."""
        self._find(self._lost, folder, finding)

    def put_escaped(self, folder: str, finding: str) -> None:
        """Note what slipped out; '' for nothing."""
        self._find(self._escaped, folder, finding)

    def _find(self, findings: dict[str, str], folder: str, finding: str) -> None:
        with self._guard:
            if finding:
                findings[folder] = finding
            else:
                findings.pop(folder, None)

    def put_foreign(self, used_bytes: int, measured_at: float) -> None:
        """Note what strangers use."""
        self._foreign = _Foreign(used_bytes, measured_at)

    def forget(self, folder: str) -> None:
        """Drop what is known of a volume."""
        with self._guard:
            self._forget(folder)

    def keep_only(self, folders: Iterable[str]) -> None:
        """Drop volumes that are not among `folders`: deleted while they were measured."""
        with self._guard:
            for folder in (self._volumes.keys() | self._lost.keys() | self._escaped.keys()) - set(folders):
                self._forget(folder)

    def _forget(self, folder: str) -> None:
        self._drop(folder)
        self._lost.pop(folder, None)
        self._escaped.pop(folder, None)

    def _drop(self, folder: str) -> None:
        known = self._volumes.pop(folder, None)
        if known:
            self._used_bytes -= known.used_bytes

    def load(self) -> None:
        """Read what an earlier process measured; a missing or broken file means that nothing is known."""
        try:
            fd = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._control_fd)
            with open(fd, "rb") as file:
                content = _CONTENT.decode(file.read(_MOST_BYTES))
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.info("measurements not read; they will be made anew", file=FILE, error=str(error))
            return
        if content.schema == SCHEMA:
            with self._guard:
                self._volumes, self._foreign = content.volumes, content.foreign
                self._lost, self._escaped = content.lost, content.escaped
                self._used_bytes = sum(measured.used_bytes for measured in content.volumes.values())

    def save(self) -> None:
        """Write the file anew; where that fails (a full disk) the old one stays.

        It is not synced: nothing is lost with it that the next walk does not bring back.
        """
        with self._guard:
            content = msgspec.json.encode(_Content(SCHEMA, self._volumes, self._foreign, self._lost, self._escaped))
        try:
            _replace(self._control_fd, content)
            failure = ""
        except OSError as error:
            failure = str(error)
        if failure and failure != self._failure:
            log.warning("measurements not saved", file=FILE, error=failure)
        self._failure = failure


def _replace(control_fd: int, content: bytes) -> None:
    with opened(_STAGING, control_fd) as staging_fd:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(_DRAFT, flags, 0o600, dir_fd=staging_fd), "wb") as file:
                file.write(content)
            os.rename(_DRAFT, FILE, src_dir_fd=staging_fd, dst_dir_fd=control_fd)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(_DRAFT, dir_fd=staging_fd)  # a full disk needs its room
            raise


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


class _WhileThere:
    """A pace that ends the walk over a disk that went: whoever takes it back waits until nobody uses the old one."""

    def __init__(self, pace: Paced, disk: MeasuredDisk) -> None:
        self._pace = pace
        self._disk = disk
        self._steps = 0

    def step(self) -> None:
        """Step; PoolUnavailable where the disk is not there any more."""
        if self._steps % _STEPS_A_LOOK == 0:
            self._disk.check()
        self._steps += 1
        self._pace.step()


class Measurer:
    """Measures all pools in the background: at the start, then `interval_s` after each end."""

    def __init__(
        self,
        pools: Callable[[], Iterable[MeasuredPool]],
        interval_s: float,
        pace: Pace | None = None,
        *,
        operations: Operations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pools = pools
        self._interval_s = interval_s
        self._pace = pace or Pace()
        self._operations = operations or Operations()
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="measurer", daemon=False)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End at the next step."""
        self._pace.stop()
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def run_once(self) -> None:
        """Measure all pools, here and now."""
        for pool in self._pools():
            self._pace.begin()
            try:
                self._measure(pool)
            except (OSError, PoolUnavailable) as error:
                log.warning("pool not measured", pool=pool.disk.path, error=str(error))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.run_once()
            except Stopped:
                return
            except Exception:
                log.exception("measurer failed; it tries again")
            self._stopping.wait(self._interval_s)

    def _measure(self, pool: MeasuredPool) -> None:
        """Measure a pool; what no volume, nor the trash, explains of its filesystem's use is foreign.

        So are our own records and directories, for no promise covers them. The trash comes last, since it
        is what shrinks fastest meanwhile.
        """
        disk, usage, pace = pool.disk, pool.usage, _WhileThere(self._pace, pool.disk)
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
        # Last, for it takes the longest, and no figure waits for it.
        if self._look_for_escaped(pool, first, pace):
            usage.keep_only(pool.folders())
            usage.save()

    def _illness(self, pool: MeasuredPool, folder: str) -> str:
        """Say what is wrong with a volume's limit, and not only while it is being set anew."""
        if not pool.illness(folder):
            return ""
        with self._operations.claim(str(VolumeId(pool.disk.pool_id, folder))):
            return pool.illness(folder)

    def _look_for_escaped(self, pool: MeasuredPool, folders: Iterable[str], pace: Paced) -> bool:
        """Note of each volume what slipped out of its limit; True where that is not what was known."""
        changed = False
        for folder in folders:
            known = pool.usage.escaped(folder)
            with suppress(OSError):  # deleted meanwhile
                pool.usage.put_escaped(folder, pool.escaped(folder, pace))
            changed |= pool.usage.escaped(folder) != known
        return changed

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
