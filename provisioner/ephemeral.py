"""Ephemeral volumes that stand in a pod's own manifest: made when they are published, gone when that ends.

The kubelet names such a volume itself ('csi-<digest>', without a pool), stages nothing, and tells whose it is at
NodePublishVolume alone. So the record says that it is ephemeral, of which pod, and where; NodeUnpublishVolume
deletes only what its record calls so. What no call will end any more, `provisioner.pod_sweep` does.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from provisioner.errors import (
    InvalidRequest,
    ProvisionerError,
    TargetOccupied,
    Unsupported,
    VolumeConflict,
    VolumeQuarantined,
)
from provisioner.faults import disk_faults
from provisioner.model import (
    Call,
    Capability,
    CapacityRange,
    Ephemeral,
    Inline,
    NewVolume,
    Patient,
    Publication,
    Statistics,
    VolumeHealth,
)
from provisioner.names import folder_for
from provisioner.operations import Operations
from provisioner.pod_sweep import claim_of, end
from provisioner.pools import Pools
from provisioner.publishing import Publishing
from provisioner.records import Record
from provisioner.settings import Settings
from provisioner.sizes import parse_quantity
from provisioner.targets import TargetRoots
from provisioner.volumes import Volumes

# One pod alone sees the volume, whatever its user is; the folders above it are root's.
_MODE = "0777"

# Of no pool: what is mounted must then tell by its root whether it is the volume's.
_NO_POOL = "0" * 16


class EphemeralPublishing:
    """Publishing, for volumes that have a claim and for those that have a pod; the former are handed on at once."""

    def __init__(
        self,
        settings: Settings,
        pools: Pools,
        operations: Operations,
        volumes: Volumes,
        publishing: Publishing,
    ) -> None:
        """Work on `pools`; `operations` is shared with all others."""
        self._settings = settings.ephemeral
        self._roots = TargetRoots(settings.target_roots)
        self._pools = pools
        self._operations = operations
        self._volumes = volumes
        self._publishing = publishing

    def publish(self, wanted: Publication, call: Call) -> None:
        """Show a volume at a path; make it first where it stands in a pod's manifest."""
        if wanted.inline is None:
            self._publishing.publish(wanted, call)
            return
        with self._operations.claim(claim_of(wanted.volume_id)):
            self._publish(wanted, wanted.inline, call)

    def _publish(self, wanted: Publication, inline: Inline, call: Call) -> None:
        name, target_path = wanted.volume_id, wanted.target_path.rstrip("/")
        self._pools.check_ready()
        record = self._find(name)
        if record is None:
            volume_id = self._make(name, Ephemeral(inline.pod_uid, inline.pod, target_path), wanted, inline, call)
        else:
            _check_same(record, target_path)
            volume_id = record.volume_id
        try:
            self._publishing.publish(replace(wanted, volume_id=volume_id, staging_target_path=target_path), call)
        except BaseException:
            if record is None:
                self._undo(name, volume_id, target_path)
            raise

    def _undo(self, name: str, volume_id: str, target_path: str) -> None:
        """Leave nothing behind of a call that failed; it may have failed after the mount."""
        with suppress(ProvisionerError, OSError):
            with suppress(TargetOccupied):  # by something else
                self._publishing.unpublish(volume_id, target_path, Patient())
            end(self._volumes, name, volume_id)

    def _make(self, name: str, owner: Ephemeral, wanted: Publication, inline: Inline, call: Call) -> str:
        self._check_allowed(name, owner)
        self._check_target(name, wanted.target_path)
        if wanted.capability.block:
            raise InvalidRequest(
                f"ephemeral volume {name}: wanted a raw block volume; only one with a claim can be that"
            )
        pool = self._pools.named(self._settings.pool)
        size = self._size(inline.size, pool.settings.default_size_bytes)
        new = NewVolume(
            name, CapacityRange(size), (wanted.capability,), {"pool": pool.settings.name, "mode": _MODE}, owner
        )
        with (
            pool.use() as contents,
            contents.pods.making(owner.pod_uid, folder_for(name), size, self._settings.max_bytes_per_pod),
        ):
            return self._volumes.create(new, call).volume_id

    def _check_allowed(self, name: str, owner: Ephemeral) -> None:
        if not self._settings.allow:
            raise Unsupported(
                f"ephemeral volume {name}: volumes in a pod's own manifest are not allowed on this node; "
                "use a claim, or let the administrator set ephemeral.allow"
            )
        if _has_pool(name):
            raise InvalidRequest(f"volume_id {name!r}: is that of a volume with a claim; an ephemeral one has its own")
        if not owner.pod_uid:
            raise InvalidRequest(
                f"ephemeral volume {name}: wanted csi.storage.k8s.io/pod.uid in volume_context, found none; "
                "the CSIDriver object needs podInfoOnMount"
            )

    def _check_target(self, name: str, target_path: str) -> None:
        """Raise what a publication there would: nothing shall be made for a path that cannot be used."""
        with disk_faults(f"ephemeral volume {name}: publish"), self._roots.open(target_path, what="target_path"):
            return

    def _size(self, text: str, default_bytes: int) -> int:
        most = self._settings.max_bytes_per_volume
        if not text:
            return min(default_bytes, most)
        try:
            size = parse_quantity(text)
        except ValueError as error:
            raise InvalidRequest(f"volume attribute 'size': {error}") from error
        if not 1 <= size <= most:
            raise InvalidRequest(
                f"volume attribute 'size': wanted 1 to {most} bytes (ephemeral.maxSizePerVolume), found {text!r}"
            )
        return size

    def unpublish(self, volume_id: str, target_path: str, call: Call) -> None:
        """Take a volume away from a path, and delete it where its record says that it ends there."""
        if _has_pool(volume_id):
            self._publishing.unpublish(volume_id, target_path, call)
            return
        self._pools.check_ready()
        with self._operations.claim(claim_of(volume_id)):
            record = None
            with suppress(VolumeQuarantined):  # what cannot be trusted is unmounted, and its data left alone
                record = self._find(volume_id)
            if record is None:
                self._publishing.unpublish(f"{_NO_POOL}.{folder_for(volume_id)}", target_path, call)
                self._end_again(volume_id)
            elif record.ephemeral is None:  # a claim's, which has another id
                self._publishing.unpublish(volume_id, target_path, call)
            else:
                self._publishing.unpublish(record.volume_id, target_path, call)
                end(self._volumes, volume_id, record.volume_id)

    def _end_again(self, name: str) -> None:
        """Make safe what an earlier try deleted and could not sync."""
        for pool in self._pools.pools:
            if pool.pool_id:
                end(self._volumes, name, f"{pool.pool_id}.{folder_for(name)}")

    def _find(self, name: str) -> Record | None:
        """Give the record of that name, in whichever pool; VolumeQuarantined where it cannot be trusted."""
        folder = folder_for(name)
        for pool in self._pools.pools:
            known = pool.known
            record = known.find(folder) if known else None
            if record:
                return record
        return None

    def stage(self, volume_id: str, staging_target_path: str, capability: Capability) -> None:
        """Hand on: what is ephemeral is not staged."""
        self._publishing.stage(volume_id, staging_target_path, capability)

    def unstage(self, volume_id: str, staging_target_path: str) -> None:
        """Hand on."""
        self._publishing.unstage(volume_id, staging_target_path)

    def statistics(self, volume_id: str, volume_path: str) -> Statistics:
        """Give the figures of a publication."""
        return self._publishing.statistics(self._known_as(volume_id), volume_path)

    def expand(self, volume_id: str, volume_path: str, wanted: CapacityRange) -> int:
        """Give the size."""
        return self._publishing.expand(self._known_as(volume_id), volume_path, wanted)

    def health(self, volume_id: str, publish_path: str) -> VolumeHealth:
        """Say what is wrong with a volume as it is seen from its path."""
        return replace(self._publishing.health(self._known_as(volume_id), publish_path), volume_id=volume_id)

    def _known_as(self, volume_id: str) -> str:
        """Give the id with the pool in it, by which the others know a volume."""
        if _has_pool(volume_id):
            return volume_id
        self._pools.check_ready()
        record = self._find(volume_id)
        return record.volume_id if record and record.ephemeral else volume_id


def _has_pool(volume_id: str) -> bool:
    """Tell at a glance whether an id may be '<pool id>.<folder>'; the others then look at it closely."""
    return volume_id[16:17] == "."


def _check_same(record: Record, target_path: str) -> None:
    if record.ephemeral is None:
        raise VolumeConflict(f"volume {record.name!r} exists and is not ephemeral; it is left alone")
    if record.ephemeral.target_path != target_path:
        raise VolumeConflict(
            f"ephemeral volume {record.name!r} belongs at {record.ephemeral.target_path!r}, "
            f"found target_path {target_path!r}; unpublish it there first"
        )
