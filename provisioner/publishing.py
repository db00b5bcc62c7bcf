"""Volumes at paths: stage, publish, statistics, and back. What the Node service calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from provisioner import capabilities, health, mounts
from provisioner.backends.directory import look_at_data
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
from provisioner.linux.close import close_path
from provisioner.linux.statx import AT_EMPTY_PATH, Statx, statx
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
        with (
            self._pools.holding(identify(wanted.volume_id).pool_id) as contents,
            self._operations.claim(wanted.volume_id),
            disk_faults(f"volume {wanted.volume_id}: publish"),
        ):
            record = require(contents, wanted.volume_id)
            _check_usable(record, wanted.capability, contents.disk.fs_type)
            with self._roots.open(wanted.target_path, what="target_path") as target:
                self._ensure_published(contents, record, target, wanted, call)

    def _ensure_published(
        self, contents: Contents, record: Record, target: Target, wanted: Publication, call: Call
    ) -> None:
        mode = wanted.capability.access_mode
        asked = capabilities.attributes(wanted.capability, readonly=wanted.readonly)
        made = mounts.make_folder(target)
        found = None if made else target.look()
        if found and found.mount_root:
            with _opened_source(contents, record) as source_fd:
                _check_published_so(contents, record.folder, source_fd, target, found, asked, mode)
            return
        try:
            _check_access(contents, record.folder, target, mode)
            call.check()
            if not made:
                mounts.check_folder(target, found)
            _mount(contents, record, target, asked, mode)
        except BaseException:
            if made:
                _remove(target)
            raise

    def unpublish(self, volume_id: str, target_path: str, call: Call) -> None:
        """Take a volume away from a target, even where pool, record or volume is gone (spec, NodeUnpublishVolume)."""
        parsed = parse_volume_id(volume_id)
        with self._operations.claim(volume_id), disk_faults(f"volume {volume_id}: unpublish"), ExitStack() as stack:
            contents = self._contents_of(stack, parsed)
            target = self._target_of(stack, target_path)
            if target is not None:
                call.check()
                source = _source_of(contents, parsed)
                mounts.ensure_absent(target, parsed.folder if parsed else "", source)
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


def _mount(contents: Contents, record: Record, target: Target, asked: MountAttributes, mode: AccessMode) -> None:
    with _opened_source(contents, record) as source_fd:
        contents.publications.add(record.folder, target.path, mode)
        try:
            mounts.bind(source_fd, target, asked, private=contents.disk.detached)
        except OSError:
            contents.publications.remove(record.folder, target.path)
            contents.disk.check()  # of a mount that went meanwhile the kernel only says EINVAL
            raise


@contextmanager
def _opened_source(contents: Contents, record: Record) -> Iterator[int]:
    try:
        source_fd = contents.backends.of(record).open_source(record.folder)
    except OSError as error:
        raise VolumeQuarantined(f"volume {record.volume_id}: its data cannot be opened: {error.strerror}") from error
    try:
        yield source_fd
    finally:
        close_path(source_fd)


def _source_of(contents: Contents | None, parsed: VolumeId | None) -> Statx | None:
    """Examine the volume's directory where pool and volume are there; the mount's root must tell else."""
    if contents is None or parsed is None:
        return None
    try:
        return look_at_data(contents.disk.volumes_fd, parsed.folder)
    except OSError:
        return None


def _check_published_so(
    contents: Contents,
    folder: str,
    source_fd: int,
    target: Target,
    found: Statx,
    asked: MountAttributes,
    mode: AccessMode,
) -> None:
    """Raise VolumeConflict where something else is at a target, or the volume otherwise than asked."""
    if not mounts.is_same(found, statx("", dir_fd=source_fd, flags=AT_EMPTY_PATH)):
        raise VolumeConflict(f"target_path {target.path!r}: something else is mounted there; it is left alone")
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
