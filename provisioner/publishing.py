"""Volumes at paths: stage, publish, statistics, and back. What the Node service calls."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

from provisioner import capabilities, health, mounts
from provisioner.backends.directory import open_data
from provisioner.capabilities import MountAttributes
from provisioner.errors import (
    CapacityOutOfRange,
    InvalidRequest,
    Precondition,
    TargetNotFound,
    Unavailable,
    Unsupported,
    VolumeConflict,
    VolumeQuarantined,
)
from provisioner.faults import disk_faults
from provisioner.model import (
    AccessMode,
    Call,
    Capability,
    CapacityRange,
    Publication,
    Statistics,
    Usage,
    VolumeHealth,
)
from provisioner.names import VolumeId, identify, parse_volume_id
from provisioner.operations import Operations
from provisioner.pool import Contents, require
from provisioner.pools import Pools
from provisioner.records import Record
from provisioner.sizing import is_large_enough
from provisioner.targets import Target, TargetRoots


class Publishing:
    """Publications of the volumes of this node."""

    def __init__(self, pools: Pools, operations: Operations, roots: TargetRoots) -> None:
        """Work on `pools`; `operations` is shared with Volumes, `roots` bound what a caller may name."""
        self._pools = pools
        self._operations = operations
        self._roots = roots

    def stage(self, volume_id: str, staging_target_path: str, capability: Capability) -> None:
        """Find everything as it should be; a directory needs no staging (spec, NodeStageVolume)."""
        with (
            self._pools.holding(identify(volume_id).pool_id) as contents,
            self._operations.claim(volume_id),
            disk_faults(f"volume {volume_id}: stage"),
        ):
            record = require(contents, volume_id)
            _check_usable(record, capability, contents.disk.fs_type)
            with self._roots.open(staging_target_path, what="staging_target_path"):
                return

    def unstage(self, volume_id: str, staging_target_path: str) -> None:
        """Undo nothing; the orchestrator made the directory and takes it away."""
        with self._operations.claim(volume_id), disk_faults(f"volume {volume_id}: unstage"):
            self._check_path(staging_target_path, "staging_target_path")

    def _check_path(self, path: str, what: str) -> None:
        try:
            with self._roots.open(path, what=what):
                return
        except TargetNotFound:
            return

    def publish(self, wanted: Publication, call: Call) -> None:
        """Show a volume at a target, just so; the same again is OK (spec, NodePublishVolume)."""
        if not wanted.staging_target_path:
            raise Precondition("staging_target_path: wanted the path that NodeStageVolume got, found none")
        folder = identify(wanted.volume_id).folder
        with (
            self._pools.holding(identify(wanted.volume_id).pool_id) as contents,
            self._operations.claim(wanted.volume_id),
            disk_faults(f"volume {wanted.volume_id}: publish"),
        ):
            record = require(contents, wanted.volume_id)
            _check_usable(record, wanted.capability, contents.disk.fs_type)
            with self._roots.open(wanted.target_path, what="target_path") as target:
                source_fd = self._open_source(contents, record)
                try:
                    self._ensure_published(contents, folder, source_fd, target, wanted, call)
                finally:
                    os.close(source_fd)

    def _open_source(self, contents: Contents, record: Record) -> int:
        try:
            return contents.backends.of(record).open_source(record.folder)
        except OSError as error:
            raise VolumeQuarantined(
                f"volume {record.volume_id}: its data cannot be opened: {error.strerror}"
            ) from error

    def _ensure_published(
        self, contents: Contents, folder: str, source_fd: int, target: Target, wanted: Publication, call: Call
    ) -> None:
        asked = capabilities.attributes(wanted.capability, readonly=wanted.readonly)
        found = target.look()
        if found is not None and found.mount_root:
            if not mounts.is_same(found, source_fd):
                raise VolumeConflict(f"target_path {target.path!r}: something else is mounted there; it is left alone")
            _check_published_so(contents, folder, source_fd, target, asked, wanted.capability.access_mode)
            return
        _check_access(contents, folder, target, wanted.capability.access_mode)
        call.check()
        made = mounts.ensure_folder(target)
        contents.publications.add(folder, target.path, wanted.capability.access_mode)
        try:
            mounts.bind(source_fd, target, asked)
        except OSError:
            contents.publications.remove(folder, target.path)
            if made:
                _remove(target)
            contents.disk.check()  # of a mount that went meanwhile the kernel only says EINVAL
            raise

    def unpublish(self, volume_id: str, target_path: str, call: Call) -> None:
        """Take a volume away from a target, even where pool, record or volume is gone (spec, NodeUnpublishVolume)."""
        parsed = parse_volume_id(volume_id)
        with self._operations.claim(volume_id), disk_faults(f"volume {volume_id}: unpublish"), ExitStack() as stack:
            contents = self._contents_of(stack, parsed)
            target = self._target_of(stack, target_path)
            if target is not None:
                call.check()
                source_fd = self._source_of(stack, contents, parsed)
                mounts.ensure_absent(target, parsed.folder if parsed else "", source_fd)
            if contents and parsed:  # else the next start drops hints without a mount
                contents.publications.remove(parsed.folder, target_path.rstrip("/"))

    def _contents_of(self, stack: ExitStack, parsed: VolumeId | None) -> Contents | None:
        if parsed is None:
            return None
        try:
            return stack.enter_context(self._pools.holding(parsed.pool_id))
        except Unavailable:
            return None

    def _target_of(self, stack: ExitStack, target_path: str) -> Target | None:
        try:
            return stack.enter_context(self._roots.open(target_path, what="target_path"))
        except TargetNotFound:
            return None

    def _source_of(self, stack: ExitStack, contents: Contents | None, parsed: VolumeId | None) -> int | None:
        """Open the volume's directory where pool and volume are there; the mount's root must tell else."""
        if contents is None or parsed is None:
            return None
        try:
            source_fd = open_data(contents.disk.volumes_fd, parsed.folder)
        except OSError:
            return None
        stack.callback(os.close, source_fd)
        return source_fd

    def statistics(self, volume_id: str, volume_path: str) -> Statistics:
        """Give the figures of a publication; what is used is as old as the last measurement."""
        folder = identify(volume_id).folder
        with (
            self._pools.holding(identify(volume_id).pool_id) as contents,
            disk_faults(f"volume {volume_id}: statistics"),
        ):
            record = require(contents, volume_id)
            if not volume_path.startswith("/") or not contents.publications.is_at(folder, volume_path):
                raise TargetNotFound(f"volume_path {volume_path!r}: volume {volume_id} is not published there")
            return _statistics(contents, record)

    def expand(self, volume_id: str, volume_path: str, wanted: CapacityRange) -> int:
        """Give the size; a directory has grown when its record has (spec, NodeExpandVolume)."""
        with (
            self._pools.holding(identify(volume_id).pool_id) as contents,
            disk_faults(f"volume {volume_id}: expand"),
        ):
            record = require(contents, volume_id)
            self._check_exists(volume_path)
            if not is_large_enough(record, wanted):
                raise CapacityOutOfRange(
                    f"volume {volume_id} has {record.capacity_bytes} bytes, wanted {wanted.required_bytes}; "
                    "call ControllerExpandVolume first"
                )
            return record.capacity_bytes

    def health(self, volume_id: str, publish_path: str) -> VolumeHealth:
        """Say what is wrong with a volume as it is seen from its path (spec, NodeGetVolumeHealth)."""
        found = health.of_volume(self._pools, volume_id)
        if found.problems or not publish_path:
            return found
        parsed = identify(volume_id)
        with self._pools.holding(parsed.pool_id) as contents:
            if contents.publications.is_at(parsed.folder, publish_path):
                return found
        return VolumeHealth(volume_id, (health.not_mounted(publish_path),))

    def _check_exists(self, volume_path: str) -> None:
        try:
            with self._roots.open(volume_path, what="volume_path") as target:
                if target.look():
                    return
        except InvalidRequest as error:
            raise TargetNotFound(str(error)) from error
        raise TargetNotFound(f"volume_path {volume_path!r}: nothing is there; wanted a staged or published volume")


def _check_usable(record: Record, capability: Capability, fs_type: str) -> None:
    """Raise Unsupported where a volume cannot be used so, InvalidRequest where no mount could."""
    reason = capabilities.refusal(capability)
    if reason:
        raise Unsupported(f"volume {record.volume_id}: {reason}")
    capabilities.check_mount(capability, fs_type)


def _check_published_so(
    contents: Contents, folder: str, source_fd: int, target: Target, asked: MountAttributes, mode: AccessMode
) -> None:
    """Raise VolumeConflict where the volume is at its target, but otherwise than asked."""
    known = contents.publications.mode_at(folder, target.path)
    if known not in (mode, None) or not mounts.has_attributes(target, source_fd, asked):
        raise VolumeConflict(
            f"target_path {target.path!r}: the volume is published there with another access mode, "
            "mount flags or readonly; unpublish it first"
        )
    if known is None:
        contents.publications.add(folder, target.path, mode)


def _check_access(contents: Contents, folder: str, target: Target, mode: AccessMode) -> None:
    """Raise Precondition where the access mode of either publication forbids a second target."""
    multi = AccessMode.SINGLE_NODE_MULTI_WRITER
    others = contents.publications.others(folder, target.path)
    if not others or (mode is multi and all(other in (multi, None) for other in others.values())):
        return
    living = [path for path in contents.publications.alive(folder) if path != target.path]
    if living:
        raise Precondition(
            f"volume {contents.disk.pool_id}.{folder} is published at {living[0]!r}; a second target "
            f"needs access mode {multi.name} at both, found {mode.name}"
        )


def _remove(target: Target) -> None:
    try:
        os.rmdir(target.name, dir_fd=target.parent_fd)
    except OSError:
        return  # empty, and the retry or the unpublish takes it


def _statistics(contents: Contents, record: Record) -> Statistics:
    counted = contents.backends.of(record).figures(record)
    space = contents.disk.space()
    if counted:
        left = min(counted.bytes.available, space.free_bytes)
        return replace(counted, bytes=replace(counted.bytes, available=left))
    measured = contents.usage.get(record.folder)
    used, inodes = (measured.used_bytes, measured.inodes) if measured else (0, 0)
    left = max(0, min(record.capacity_bytes - used, space.free_bytes))
    return Statistics(
        bytes=Usage(total=record.capacity_bytes, used=used, available=left),
        inodes=Usage(inodes + space.free_inodes, inodes, space.free_inodes) if space.inodes else None,
    )
