"""What pools hold, read without their locks and without changing anything: for people and scripts."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field

from provisioner import records
from provisioner.capacity import promisable
from provisioner.disk import Disk, read_owner
from provisioner.errors import PoolUnavailable
from provisioner.records import Broken, Record
from provisioner.settings import PoolSettings, Settings
from provisioner.usage import Measurement, Usage


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """One volume. state: 'ok', 'degraded', 'quarantined' or 'trash'; times are ISO 8601, measured_at Unix seconds.

    pod: 'namespace/name' of the pod that an ephemeral one ends with. access_mode: by its number in the CSI spec, or 0.
    """

    volume_id: str
    name: str
    claim: str
    capacity_bytes: int
    used_bytes: int | None
    measured_at: float | None
    created_at: str
    state: str
    reason: str = ""
    pod: str = ""
    access_mode: int = 0
    block: bool = False

    @property
    def is_sound(self) -> bool:
        """Tell whether its record and its data are as they should be, whatever its limit is."""
        return self.state in ("ok", "degraded")


@dataclass(frozen=True, slots=True)
class PoolReport:
    """One pool. state: 'served', 'idle' (no process serves it) or 'unavailable', then `reason` says why."""

    name: str
    path: str
    state: str
    reason: str = ""
    pool_id: str = ""
    owner: str = ""
    fs_type: str = ""
    size_bytes: int = 0
    free_bytes: int = 0
    promised_bytes: int = 0
    trash_bytes: int = 0
    foreign_bytes: int | None = None
    foreign_measured_at: float | None = None
    promisable_bytes: int = 0
    volumes: list[VolumeReport] = field(default_factory=list)


def survey(settings: Settings) -> list[PoolReport]:
    """Read all pools of the settings."""
    return [_survey(pool) for pool in settings.pools]


def _survey(settings: PoolSettings) -> PoolReport:
    try:
        disk = Disk(settings, readonly=True)
    except PoolUnavailable as error:
        return PoolReport(settings.name, settings.path, "unavailable", str(error))
    try:
        return _read(settings, disk)
    except OSError as error:
        return PoolReport(settings.name, settings.path, "unavailable", f"cannot be read: {error}")
    finally:
        disk.close()


def _read(settings: PoolSettings, disk: Disk) -> PoolReport:
    usage = Usage(disk.control_fd)
    usage.load()
    volumes = [
        _volume(item, usage, disk.pool_id)
        for item in records.scan(disk.volumes_fd, disk.pool_id)
        if isinstance(item, Record) or _is_there(item.folder, disk.volumes_fd)
    ]
    trash = [_trashed(entry, disk) for entry in os.listdir(disk.trash_fd)]
    promised, held = (sum(volume.capacity_bytes for volume in found) for found in (volumes, trash))
    space, served, owner = disk.space(), _is_locked(disk), read_owner(disk.control_fd)
    return PoolReport(
        name=settings.name,
        path=settings.path,
        state="served" if served else "idle",
        pool_id=disk.pool_id,
        owner=f"{owner.host} (process {owner.pid}) since {owner.since}" if owner and served else "",
        fs_type=disk.fs_type,
        size_bytes=space.size_bytes,
        free_bytes=space.free_bytes,
        promised_bytes=promised,
        trash_bytes=held,
        foreign_bytes=usage.foreign_bytes,
        foreign_measured_at=usage.foreign_measured_at,
        promisable_bytes=promisable(settings, space, promised, held, usage.foreign_bytes),
        volumes=sorted(volumes, key=lambda volume: volume.volume_id)
        + sorted(trash, key=lambda volume: volume.volume_id),
    )


def _volume(item: Record | Broken, usage: Usage, pool_id: str) -> VolumeReport:
    if isinstance(item, Broken):
        return _nameless(f"{pool_id}.{item.folder}", "quarantined", item.reason)
    measured = usage.get(item.folder)
    if lost := usage.lost(item.folder):
        return _report(item, "degraded", measured, f"LimitLost: {lost}")
    if escaped := usage.escaped(item.folder):
        return _report(item, "degraded", measured, f"LimitEscaped: {escaped}")
    return _report(item, "ok", measured)


def _is_there(folder: str, volumes_fd: int) -> bool:
    """Tell a broken volume from one that was deleted while we read."""
    try:
        os.stat(folder, dir_fd=volumes_fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _trashed(entry: str, disk: Disk) -> VolumeReport:
    try:
        return _report(records.read(disk.trash_fd, entry), "trash", None)
    except ValueError:
        return _nameless(f"{disk.pool_id}.{entry}", "trash", "left by an unfinished operation")


def _report(record: Record, state: str, measured: Measurement | None, reason: str = "") -> VolumeReport:
    return VolumeReport(
        volume_id=record.volume_id,
        name=record.name,
        claim=record.claim,
        capacity_bytes=record.capacity_bytes,
        used_bytes=measured.used_bytes if measured else None,
        measured_at=measured.measured_at if measured else None,
        created_at=record.created_at,
        state=state,
        reason=reason,
        access_mode=record.access_mode,
        block=record.block,
        pod=record.ephemeral.pod if record.ephemeral else "",
    )


def _nameless(volume_id: str, state: str, reason: str) -> VolumeReport:
    return VolumeReport(volume_id, "", "", 0, None, None, "", state, reason)


def _is_locked(disk: Disk) -> bool:
    """Tell whether a process holds the pool: a shared try that is let go at once harms no owner."""
    try:
        fd = os.open("lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=disk.control_fd)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
