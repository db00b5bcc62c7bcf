"""What is wrong with volumes and pools, looked at when asked."""

from __future__ import annotations

from collections.abc import Mapping

from provisioner import records
from provisioner.erasing import shown
from provisioner.errors import NotReady, PoolUnavailable
from provisioner.listing import AFTER, parse_token
from provisioner.model import (
    HealthPage,
    HealthProblem,
    HealthStatus,
    StorageProblem,
    StorageStatus,
    VolumeHealth,
)
from provisioner.names import identify
from provisioner.pool import Contents, Pool, require
from provisioner.pools import Pools
from provisioner.records import Record

# Messages may be long, and gRPC takes 4 MiB a reply.
_MAX_PAGE = 1000


def of_volume(pools: Pools, volume_id: str) -> VolumeHealth:
    """Examine one volume; VolumeNotFound where its pool is there and has none of this name."""
    parsed = identify(volume_id)
    try:
        with pools.holding(parsed.pool_id) as contents:
            if parsed.folder not in contents.quarantined:
                require(contents, volume_id)
            return VolumeHealth(volume_id, _examine(contents, parsed.folder))
    except PoolUnavailable as error:
        return VolumeHealth(volume_id, (_pool_away(str(error)),))


def page(pools: Pools, max_entries: int, starting_token: str) -> HealthPage:
    """List the volumes that are not well; the healthy ones are left out (spec, ControllerListVolumeHealth).

    A call examines a bounded number of volumes, so a page may be short, or empty, and not be the last.
    """
    after = parse_token(starting_token)
    size = min(max_entries, _MAX_PAGE) if max_entries else _MAX_PAGE
    found: list[VolumeHealth] = []
    for pool in pools.in_order():
        if after and pool.pool_id < after.pool_id:
            continue
        folder = after.folder if after and pool.pool_id == after.pool_id else ""
        found += _examine_after(pool, folder, size + 1 - len(found))
        if len(found) > size:
            return HealthPage(_unwell(found[:size]), AFTER + found[size - 1].volume_id)
    return HealthPage(_unwell(found), "")


def _unwell(examined: list[VolumeHealth]) -> list[VolumeHealth]:
    return [volume for volume in examined if volume.problems]


def _examine_after(pool: Pool, folder: str, count: int) -> list[VolumeHealth]:
    known = pool.known
    if known is None:
        return []
    names = known.after_with_broken(folder, count)
    try:
        with pool.use() as contents:
            return [VolumeHealth(f"{pool.pool_id}.{name}", _examine(contents, name)) for name in names]
    except PoolUnavailable as error:
        away = (_pool_away(str(error)),)
        return [VolumeHealth(f"{pool.pool_id}.{name}", away) for name in names]


def _examine(contents: Contents, folder: str) -> tuple[HealthProblem, ...]:
    if folder in contents.quarantined:
        reason = contents.quarantined[folder]
        return (HealthProblem(HealthStatus.INACCESSIBLE, "RecordBroken", f"the record is broken: {reason}"),)
    record = contents.find(folder)
    if record is None:
        return ()
    if problem := records.missing(contents.disk.volumes_fd, record):
        return (HealthProblem(HealthStatus.DATA_LOSS, "DataMissing", problem),)
    backend = contents.backends.of(record)
    if not backend.holds:
        return _over_use(contents, record)
    if illness := backend.illness(record):
        return (HealthProblem(HealthStatus.DEGRADED, "LimitLost", illness),)
    escaped = contents.usage.escaped(record.folder)
    return (HealthProblem(HealthStatus.DEGRADED, "LimitEscaped", escaped),) if escaped else ()


def _over_use(contents: Contents, record: Record) -> tuple[HealthProblem, ...]:
    measured = contents.usage.get(record.folder)
    if measured is None or measured.used_bytes <= record.capacity_bytes:
        return ()
    message = f"{measured.used_bytes} bytes are used of {record.capacity_bytes}; a directory has no hard limit"
    return (HealthProblem(HealthStatus.DEGRADED, "OverCapacity", message),)


def _pool_away(reason: str) -> HealthProblem:
    return HealthProblem(HealthStatus.INACCESSIBLE, "PoolUnavailable", reason)


def not_mounted(publish_path: str) -> HealthProblem:
    """Give the finding that a volume is not where it was published."""
    return HealthProblem(HealthStatus.INACCESSIBLE, "NotMounted", f"the volume is not mounted at {publish_path!r}")


def of_pools(pools: Pools) -> list[StorageProblem]:
    """Examine every pool."""
    return [problem for pool in pools.pools for problem in _of_pool(pool)]


def _of_pool(pool: Pool) -> list[StorageProblem]:
    name = pool.settings.name
    try:
        with pool.use() as contents:
            return _of_contents(contents, name)
    except (PoolUnavailable, NotReady, OSError) as error:
        return [StorageProblem(StorageStatus.UNREACHABLE, "PoolUnavailable", str(error))]


def _of_contents(known: Contents, name: str) -> list[StorageProblem]:
    found = []
    if known.disk.space().readonly:
        found.append(StorageProblem(StorageStatus.DEGRADED, "ReadOnly", f"pool {name!r} is mounted read-only"))
    elif known.disk.illness:
        found.append(StorageProblem(StorageStatus.DEGRADED, "WritesFail", known.disk.illness))
    if known.quarantined:
        message = f"pool {name!r}: {len(known.quarantined)} volumes have broken records: {_some(known.quarantined)}"
        found.append(StorageProblem(StorageStatus.DEGRADED, "VolumesQuarantined", message))
    if known.trash.obstacles:
        message = f"pool {name!r}: in the trash cannot be erased: {_some(known.trash.obstacles)}"
        found.append(StorageProblem(StorageStatus.DEGRADED, "TrashObstructed", message))
    return found


def _some(names: Mapping[str, object]) -> str:
    return ", ".join(map(shown, sorted(names)[:5])) + (" and more" if len(names) > 5 else "")  # noqa: PLR2004 - a sentence's worth
