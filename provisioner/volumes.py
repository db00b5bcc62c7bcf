"""The life of volumes: create, look up, list, expand, delete.

The rename is the commit. Before it everything is undone on an error; after it nothing may say 'it
failed', so what cannot be synced then is NotDurable until it can. A retry that finds the work done
syncs as well: the process that did it may have been killed before it could.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Sequence

import msgspec

from provisioner import capabilities, health, listing, parameters, records
from provisioner.backends import Backend, Content
from provisioner.backends.choosing import content_of
from provisioner.capabilities import Nature
from provisioner.errors import (
    InvalidRequest,
    PoolUnavailable,
    VolumeConflict,
    VolumeInUse,
    VolumeQuarantined,
)
from provisioner.faults import disk_faults
from provisioner.identity import now
from provisioner.linux.renameat2 import rename_noreplace
from provisioner.model import (
    AvailableCapacity,
    Call,
    Capability,
    CapacityRange,
    HealthPage,
    NewVolume,
    Page,
    StorageProblem,
    Volume,
    VolumeHealth,
)
from provisioner.names import folder_for, identify, parse_volume_id
from provisioner.operations import Operations
from provisioner.parameters import ClassParameters
from provisioner.pool import Contents, has_own_filesystem, require
from provisioner.pools import Pools
from provisioner.records import SCHEMA, Record
from provisioner.sizing import check_range, is_large_enough, size_for

Condition = Callable[[Contents, Record], None]


class Volumes:
    """What the Controller service calls."""

    def __init__(self, pools: Pools, operations: Operations) -> None:
        """Work on `pools`; `operations` is shared with whoever publishes."""
        self._pools = pools
        self._operations = operations

    @property
    def ready(self) -> bool:
        """False until the first scan has ended."""
        return self._pools.ready

    def create(self, wanted: NewVolume, call: Call) -> Volume:
        """Give the volume of that name, new or as the first try made it (spec, CreateVolume)."""
        asked = parameters.parse(wanted.parameters)
        folder = folder_for(wanted.name)
        pool = self._pools.named(asked.pool)
        self._pools.check_ready()
        with pool.use() as contents:
            volume_id = f"{contents.disk.pool_id}.{folder}"
            content = content_of(asked, wanted.capabilities)
            with (
                self._operations.claim(volume_id),
                self._operations.claim(f"the name {wanted.name}"),  # in whichever pool
                disk_faults(f"volume {wanted.name!r}: create"),
            ):
                self._refuse_elsewhere(contents, folder, wanted.name)
                record = contents.find(folder)
                if record is None:
                    return _volume(self._make(contents, wanted, asked, content, call))
                for capability in wanted.capabilities:
                    capabilities.check(capability, contents.nature(record))
                _check_same(record, wanted, asked, content)
                contents.disk.settle("volumes", f"volumes/{folder}")
                return _volume(record)

    def _refuse_elsewhere(self, contents: Contents, folder: str, name: str) -> None:
        """Refuse a name that another pool of this node has: the class's 'pool' was changed."""
        for other in self._pools.pools:
            known = other.known
            if known and known is not contents and known.find(folder):
                raise VolumeConflict(
                    f"volume {name!r} exists in pool {other.settings.name!r}, "
                    f"wanted it in {contents.settings.name!r}; delete it there first"
                )

    def _make(
        self, contents: Contents, wanted: NewVolume, asked: ClassParameters, content: Content, call: Call
    ) -> Record:
        backend, folder = contents.backends.choose(asked, content), folder_for(wanted.name)
        size = size_for(
            wanted.capacity,
            contents.settings.default_size_bytes,
            least_bytes=backend.least_bytes(content),
            unit_bytes=backend.unit_bytes(content),
        )
        draft = Record(
            schema=SCHEMA,
            volume_id=f"{contents.disk.pool_id}.{folder}",
            name=wanted.name,
            capacity_bytes=size,
            backend=backend.name,
            enforce=contents.backends.enforce(asked),
            mode=f"{asked.mode:04o}",
            uid=asked.uid,
            gid=asked.gid,
            created_at=now(),
            claim=parameters.claim_of(wanted.parameters),
            access_mode=next((capability.access_mode.value for capability in wanted.capabilities), 0),
            ephemeral=wanted.ephemeral,
        )
        draft = backend.draft(draft, content)
        for capability in wanted.capabilities:
            capabilities.check(capability, contents.nature(draft))
        contents.ledger.reserve(size, what=f"volume {wanted.name!r}")
        try:
            record = self._build_and_commit(contents, draft, backend, call)
        except BaseException:
            contents.ledger.release(size)
            raise
        contents.put(folder, record)
        contents.disk.settle("volumes")
        return record

    def _build_and_commit(self, contents: Contents, draft: Record, backend: Backend, call: Call) -> Record:
        disk, entry = contents.disk, f"{draft.folder}.{secrets.token_hex(4)}"
        try:
            call.check()
            os.mkdir(entry, 0o700, dir_fd=disk.staging_fd)
            entry_fd = os.open(
                entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=disk.staging_fd
            )
            try:
                # The rename alone makes a volume of record and content: which of them is on the disk first is free,
                # so the record need not wait for the program that makes an image's filesystem.
                with backend.building(entry_fd, draft) as record:
                    records.write(entry_fd, records.FILE, record)
                os.fsync(entry_fd)
            finally:
                os.close(entry_fd)
            call.check()
            rename_noreplace(entry, draft.folder, src_dir_fd=disk.staging_fd, dst_dir_fd=disk.volumes_fd)
        except FileExistsError as error:
            _undo(contents, entry)
            raise VolumeQuarantined(
                f"volume {draft.volume_id}: an unknown folder stands in its place; left alone"
            ) from error
        except BaseException:
            _undo(contents, entry)
            raise
        return record

    def get(self, volume_id: str) -> Volume:
        """Look a volume up; VolumeNotFound where there is none."""
        with self._pools.holding(identify(volume_id).pool_id) as contents:
            return _volume(require(contents, volume_id))

    def validate(self, volume_id: str, asked: tuple[Capability, ...], given: dict[str, str]) -> str:
        """Say why a volume cannot be used so, or '' where it can (spec, ValidateVolumeCapabilities)."""
        with self._pools.holding(identify(volume_id).pool_id) as contents:
            record = require(contents, volume_id)
            try:
                parameters.parse(given)
                for capability in asked:
                    capabilities.check(capability, contents.nature(record))
            except InvalidRequest as error:
                return str(error)
        return ""

    def list(self, max_entries: int, starting_token: str) -> Page:
        """List volumes in the order of their ids; 0 entries means as many as fit."""
        found, token = listing.page(self._pools.in_order(), max_entries, starting_token)
        return Page([_volume(record) for record in found], token)

    def capacity(self, given: dict[str, str], asked: tuple[Capability, ...]) -> AvailableCapacity:
        """Say what one more volume of a class may have; nothing where its pool is away or cannot be written to."""
        wanted = parameters.parse(given)
        pool = self._pools.named(wanted.pool)
        self._pools.check_ready()
        try:
            with pool.use() as contents, disk_faults(f"pool {pool.settings.name!r}: capacity"):
                content = content_of(wanted, asked)
                backend = contents.backends.choose(wanted, content)
                own = backend.name == "image"
                nature = Nature(
                    content.block, content.fs_type, own_filesystem=own, preallocated=own and not content.thin
                )
                for capability in asked:
                    capabilities.check(capability, nature)
                left = 0 if contents.disk.illness else _promisable(contents, backend, content)
        except (PoolUnavailable, InvalidRequest):
            left = 0
        return AvailableCapacity(available_bytes=left, maximum_volume_bytes=left)

    def expand(self, volume_id: str, wanted: CapacityRange, capability: Capability | None, call: Call) -> Volume:
        """Grow a volume; one that is large enough already stays as it is."""
        with (
            self._pools.holding(identify(volume_id).pool_id) as contents,
            self._operations.claim(volume_id),
            disk_faults(f"volume {volume_id}: expand"),
        ):
            record = require(contents, volume_id)
            if capability:
                capabilities.check(capability, contents.nature(record))
            if is_large_enough(record, wanted):
                contents.disk.settle(f"volumes/{record.folder}")
                contents.backends.of(record).grown(record)
                return _volume(record)
            unit = contents.backends.of(record).unit_bytes(Content())
            return _volume(self._grow(contents, record, size_for(wanted, 0, unit_bytes=unit), call))

    def _grow(self, contents: Contents, record: Record, size: int, call: Call) -> Record:
        disk, folder, backend = contents.disk, record.folder, contents.backends.of(record)
        more = size - record.capacity_bytes
        contents.ledger.reserve(more, what=f"volume {record.volume_id}: expand to {size}")
        try:
            call.check()
            grown = msgspec.structs.replace(record, capacity_bytes=size)
            with backend.growing(record, size):
                records.replace(disk.staging_fd, disk.volumes_fd, folder, grown)
        except BaseException:
            contents.ledger.release(more)
            raise
        contents.put(folder, grown)
        disk.settle(f"volumes/{folder}")
        backend.grown(grown)
        return grown

    def health(self, volume_id: str) -> VolumeHealth:
        """Say what is wrong with a volume (spec, ControllerGetVolumeHealth)."""
        return health.of_volume(self._pools, volume_id)

    def list_health(self, max_entries: int, starting_token: str) -> HealthPage:
        """List all volumes, broken ones too, with what is wrong with each."""
        return health.page(self._pools, max_entries, starting_token)

    def storage_health(self) -> Sequence[StorageProblem]:
        """Say what is wrong with the pools (spec, NodeGetStorageHealth)."""
        return health.of_pools(self._pools)

    def delete(self, volume_id: str, call: Call, *, with_pod: bool = False, only_if: Condition | None = None) -> None:
        """Send a volume to the trash; what is not there is deleted already (spec, DeleteVolume).

        with_pod: an ephemeral one, whose pod is gone; others are then refused. only_if: raises where the volume is to
        be left alone.
        """
        parsed = parse_volume_id(volume_id)
        self._pools.check_ready()
        if parsed is None:
            return
        try:
            with self._pools.holding(parsed.pool_id) as contents, self._operations.claim(volume_id):
                self._delete(contents, parsed.folder, call, with_pod=with_pod, only_if=only_if)
        except PoolUnavailable:
            if not self._pools.is_gone(parsed.pool_id):
                raise

    def _delete(
        self, contents: Contents, folder: str, call: Call, *, with_pod: bool, only_if: Condition | None
    ) -> None:
        disk = contents.disk
        with disk_faults(f"volume {disk.pool_id}.{folder}: delete"):
            record = contents.find(folder)
            if record is None:
                _check_absent(contents, folder)
                held = contents.trash.held()  # by calls whose sync failed: if this one succeeds, they are safe
                disk.settle("trash", "volumes")
                for entry in held:
                    contents.trash.wake(entry)
                return
            _check_ends(record, with_pod=with_pod)
            if only_if:
                only_if(contents, record)
            targets = contents.publications.alive(folder)
            if targets:
                raise VolumeInUse(
                    f"volume {record.volume_id} is published at {', '.join(targets[:5])}; unpublish it first"
                )
            call.check()
            entry = contents.trash.take(disk.volumes_fd, folder)
            contents.drop(folder)
            contents.ledger.discard(entry, record.capacity_bytes)
            contents.usage.forget(folder)
            disk.settle("trash", "volumes")
            contents.trash.wake(entry)


def _promisable(contents: Contents, backend: Backend, content: Content) -> int:
    """Give the size of the largest volume that could be made; 0 where not even the smallest could."""
    unit = backend.unit_bytes(content)
    left = contents.ledger.promisable() // unit * unit
    return left if left >= backend.least_bytes(content) else 0


def _check_same(record: Record, wanted: NewVolume, asked: ClassParameters, content: Content) -> None:
    """Raise VolumeConflict unless the volume is what a retry of its creation would ask for."""
    if record.ephemeral != wanted.ephemeral:
        raise VolumeConflict(f"volume {record.name!r} exists and is {'not ' if wanted.ephemeral else ''}ephemeral")
    have = record.capacity_bytes
    low, high = wanted.capacity.required_bytes, wanted.capacity.limit_bytes
    check_range(wanted.capacity)
    if have < low or (high and have > high):
        raise VolumeConflict(f"volume {record.name!r} exists with {have} bytes, wanted {low} to {high or 'any'}")
    if (record.mode, record.uid, record.gid) != (f"{asked.mode:04o}", asked.uid, asked.gid):
        raise VolumeConflict(
            f"volume {record.name!r} exists with mode {record.mode}, uid {record.uid}, gid {record.gid}; "
            f"wanted {asked.mode:04o}, {asked.uid}, {asked.gid}"
        )
    if asked.backend not in ("auto", record.backend) or asked.enforce not in ("", record.enforce):
        raise VolumeConflict(
            f"volume {record.name!r} exists with backend {record.backend}, enforce {record.enforce}; "
            f"wanted {asked.backend}, {asked.enforce or 'any'}"
        )
    if (record.block, record.thin, record.inodes) != (content.block, content.thin, content.inodes):
        raise VolumeConflict(
            f"volume {record.name!r} exists with block {record.block}, thin {record.thin}, inodes {record.inodes}; "
            f"wanted {content.block}, {content.thin}, {content.inodes}"
        )


def _check_ends(record: Record, *, with_pod: bool) -> None:
    """Raise VolumeInUse where a pod's volume would be deleted by a claim's call, or the other way round."""
    if record.ephemeral and not with_pod:
        raise VolumeInUse(f"volume {record.volume_id} is ephemeral and ends with pod {record.ephemeral.pod}")
    if with_pod and not record.ephemeral:
        raise VolumeInUse(f"volume {record.volume_id} is not ephemeral: no pod takes it along")


def _check_absent(contents: Contents, folder: str) -> None:
    """Raise VolumeQuarantined where something that was not read at the start stands in a volume's place."""
    try:
        os.stat(folder, dir_fd=contents.disk.volumes_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise VolumeQuarantined(
        f"volume {contents.disk.pool_id}.{folder}: its folder came while the driver ran "
        "and is not known; restart the driver"
    )


def _undo(contents: Contents, entry: str) -> None:
    """Take a staging entry away; what resists stays for the sweep at the next start."""
    try:
        found = os.stat(entry, dir_fd=contents.disk.staging_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            contents.trash.wake(contents.trash.take(contents.disk.staging_fd, entry))
    except OSError:
        return


def _volume(record: Record) -> Volume:
    return Volume(
        record.volume_id,
        record.name,
        record.capacity_bytes,
        is_ephemeral=record.ephemeral is not None,
        grows_on_node=has_own_filesystem(record),
    )
