"""Volumes at paths: stage, publish, statistics, and back. What the Node service calls."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from provisioner import capabilities, health, loops, marks, mounts
from provisioner.backends import IMAGE_NAME
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
from provisioner.pool import Contents, has_own_filesystem, require
from provisioner.pools import Pools
from provisioner.publications import STAGED
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
        """Make a volume ready to be published; most means need no more than a look (spec, NodeStageVolume)."""
        with (
            self._pools.holding(identify(volume_id).pool_id) as contents,
            self._operations.claim(volume_id),
            disk_faults(f"volume {volume_id}: stage"),
        ):
            record = require(contents, volume_id)
            _check_usable(contents, record, capability)
            with self._roots.open(staging_target_path, what="staging_target_path") as target:
                if contents.backends.of(record).stage(record, target, capability):
                    contents.publications.add(record.folder, target.path, STAGED)

    def unstage(self, volume_id: str, staging_target_path: str) -> None:
        """Undo `stage`; the orchestrator made the directory and takes it away."""
        parsed = parse_volume_id(volume_id)
        with self._operations.claim(volume_id), disk_faults(f"volume {volume_id}: unstage"), ExitStack() as stack:
            contents = self._contents_of(stack, parsed)
            target = self._target_of(stack, staging_target_path, "staging_target_path")
            if parsed and target:
                mounts.ensure_unmounted(target, partial(_is_image_of, contents, parsed.folder))
            if contents and parsed:
                contents.publications.remove(parsed.folder, staging_target_path.rstrip("/"))
                record = contents.known(parsed.folder)
                if record:
                    contents.backends.of(record).unstaged(record)

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
            _check_usable(contents, record, wanted.capability)
            with self._roots.open(wanted.target_path, what="target_path") as target:
                if record.ephemeral and has_own_filesystem(record):
                    _stage_at_target(contents, record, target, wanted)
                try:
                    self._ensure_published(contents, record, target, wanted, call)
                except BaseException:
                    _release(contents, record)
                    raise

    def _ensure_published(
        self, contents: Contents, record: Record, target: Target, wanted: Publication, call: Call
    ) -> None:
        make, check = (
            (mounts.make_file, mounts.check_file) if record.block else (mounts.make_folder, mounts.check_folder)
        )
        made = make(target)
        found = None if made else target.look()
        if found and found.mount_root:
            with self._opened_source(contents, record, wanted) as source_fd:
                _check_published_so(contents, record, source_fd, target, found, wanted)
            return
        try:
            _check_access(contents, record.folder, target, wanted)
            call.check()
            marks.mark(contents.disk.volumes_fd, record.folder)
            if not made:
                check(target, found)
            with self._opened_source(contents, record, wanted) as source_fd:
                _mount(contents, record, source_fd, target, wanted)
        except BaseException:
            if made:
                _remove(target, block=record.block)
            raise

    @contextmanager
    def _opened_source(self, contents: Contents, record: Record, wanted: Publication) -> Iterator[int]:
        """Open what is to be bound; what is mounted for a volume must be at its staging path."""
        readonly = capabilities.is_readonly(wanted.capability, readonly=wanted.readonly)
        backend = contents.backends.of(record)
        with ExitStack() as stack:
            staged = None
            if has_own_filesystem(record):
                staged = self._target_of(stack, wanted.staging_target_path, "staging_target_path")
            try:
                source_fd = backend.open_source(record, staged, readonly=readonly)
            except OSError as error:
                raise VolumeQuarantined(
                    f"volume {record.volume_id}: its data cannot be opened: {error.strerror}"
                ) from error
            try:
                yield source_fd
            finally:
                close_path(source_fd)

    def unpublish(self, volume_id: str, target_path: str, call: Call) -> None:
        """Take a volume away from a target, even where pool, record or volume is gone (spec, NodeUnpublishVolume)."""
        parsed = parse_volume_id(volume_id)
        with self._operations.claim(volume_id), disk_faults(f"volume {volume_id}: unpublish"), ExitStack() as stack:
            contents = self._contents_of(stack, parsed)
            target = self._target_of(stack, target_path, "target_path")
            if target is not None:
                call.check()
                source = _source_of(contents, parsed)
                device = None if contents else _device_at(target)
                mounts.ensure_absent(target, partial(_is_shown_by, contents, parsed, target, source))
                if device is not None:
                    loops.detach_unless_mounted(device)
            if contents and parsed:  # else the next start drops hints without a mount
                contents.publications.remove(parsed.folder, target_path.rstrip("/"))
                record = contents.known(parsed.folder)
                if record:
                    _release(contents, record)

    def _contents_of(self, stack: ExitStack, parsed: VolumeId | None) -> Contents | None:
        if parsed is None:
            return None
        try:
            return stack.enter_context(self._pools.holding(parsed.pool_id))
        except Unavailable:
            return None

    def _target_of(self, stack: ExitStack, path: str, what: str) -> Target | None:
        try:
            return stack.enter_context(self._roots.open(path, what=what))
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
            return _statistics(contents, record, volume_path)

    def expand(self, volume_id: str, volume_path: str, wanted: CapacityRange) -> int:
        """Give the size; a directory has grown when its record has (spec, NodeExpandVolume)."""
        with (
            self._pools.holding(identify(volume_id).pool_id) as contents,
            self._operations.claim(volume_id),  # a size that is about to change is no measure
            disk_faults(f"volume {volume_id}: expand"),
        ):
            record = require(contents, volume_id)
            if not has_own_filesystem(record):
                self._check_exists(volume_path)
            if not is_large_enough(record, wanted):
                raise CapacityOutOfRange(
                    f"volume {volume_id} has {record.capacity_bytes} bytes, wanted {wanted.required_bytes}; "
                    "call ControllerExpandVolume first"
                )
            if has_own_filesystem(record):
                self._grow(contents, record, volume_path)
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

    def _grow(self, contents: Contents, record: Record, volume_path: str) -> None:
        try:
            with self._roots.open(volume_path, what="volume_path") as target:
                found = target.look()
                if found and contents.shows(record.folder, found):
                    contents.backends.of(record).grow(record, target)
                    return
        except InvalidRequest as error:
            raise TargetNotFound(str(error)) from error
        raise TargetNotFound(f"volume_path {volume_path!r}: the volume is neither staged nor published there")

    def _check_exists(self, volume_path: str) -> None:
        try:
            with self._roots.open(volume_path, what="volume_path") as target:
                if target.look():
                    return
        except InvalidRequest as error:
            raise TargetNotFound(str(error)) from error
        raise TargetNotFound(f"volume_path {volume_path!r}: nothing is there; wanted a staged or published volume")


def _attributes(record: Record, wanted: Publication) -> MountAttributes:
    return capabilities.attributes(
        wanted.capability, readonly=wanted.readonly, own_filesystem=has_own_filesystem(record)
    )


def _stage_at_target(contents: Contents, record: Record, target: Target, wanted: Publication) -> None:
    """Mount an image where it is published: what stands in a pod's manifest is staged nowhere, and shown once."""
    contents.backends.of(record).stage(record, target, wanted.capability)
    mounts.set_attributes(target, _attributes(record, wanted))


def _device_at(target: Target) -> int | None:
    """Give the device whose node is bound to a target, for it has to go though its volume cannot be asked."""
    found = mounts.look(target)
    return loops.number_of(found) if found and stat.S_ISBLK(found.mode) else None


def _release(contents: Contents, record: Record) -> None:
    """Let go what was made for publications of a volume that are not, or not any more."""
    if record.block:
        contents.backends.of(record).release(record, contents.publications.alive(record.folder))


def _is_shown_by(
    contents: Contents | None, parsed: VolumeId | None, target: Target, source: Statx | None, found: Statx
) -> bool:
    """Tell whether a mount at a target is of a volume; of one that nobody knows by what the kernel says of it."""
    folder = parsed.folder if parsed else ""
    if mounts.is_of_folder(target, folder, source, found):
        return True
    return stat.S_ISBLK(found.mode) and contents is not None and contents.shows(folder, found)


def _is_image_of(contents: Contents | None, folder: str, found: Statx) -> bool:
    """Tell whether a mount is of a volume's image; by the name of its file where the volume is not known."""
    number = loops.number_of(found)
    if number is None or loops.folder_behind(number) != folder:
        return False
    return contents is None or contents.known(folder) is None or contents.shows(folder, found)


def _check_usable(contents: Contents, record: Record, capability: Capability) -> None:
    """Raise Unsupported where a volume cannot be used so, InvalidRequest where no mount could."""
    nature = contents.nature(record)
    reason = capabilities.refusal(capability, nature)
    if reason:
        raise Unsupported(f"volume {record.volume_id}: {reason}")
    capabilities.check_mount(capability, nature)


def _mount(contents: Contents, record: Record, source_fd: int, target: Target, wanted: Publication) -> None:
    contents.publications.add(record.folder, target.path, wanted.capability.access_mode)
    detached = contents.disk.detached and record.backend != IMAGE_NAME  # an image's source is mounted elsewhere
    try:
        mounts.bind(source_fd, target, _attributes(record, wanted), private=detached)
    except OSError:
        contents.publications.remove(record.folder, target.path)
        contents.disk.check()  # of a mount that went meanwhile the kernel only says EINVAL
        raise


def _source_of(contents: Contents | None, parsed: VolumeId | None) -> Statx | None:
    """Examine the volume's directory where pool and volume are there; the mount's root must tell else."""
    if contents is None or parsed is None:
        return None
    try:
        return look_at_data(contents.disk.volumes_fd, parsed.folder)
    except OSError:
        return None


def _check_published_so(
    contents: Contents, record: Record, source_fd: int, target: Target, found: Statx, wanted: Publication
) -> None:
    """Raise VolumeConflict where something else is at a target, or the volume otherwise than asked."""
    if not mounts.is_same(found, statx("", dir_fd=source_fd, flags=AT_EMPTY_PATH)):
        raise VolumeConflict(f"target_path {target.path!r}: something else is mounted there; it is left alone")
    mode, known = wanted.capability.access_mode, contents.publications.mode_at(record.folder, target.path)
    if known not in (mode, None) or not mounts.has_attributes(target, source_fd, _attributes(record, wanted)):
        raise VolumeConflict(
            f"target_path {target.path!r}: the volume is published there with another access mode, "
            "mount flags or readonly; unpublish it first"
        )
    if known is None:
        contents.publications.add(record.folder, target.path, mode)


def _check_access(contents: Contents, folder: str, target: Target, wanted: Publication) -> None:
    """Raise Precondition where the access mode of either publication forbids a second target."""
    mode, multi = wanted.capability.access_mode, AccessMode.SINGLE_NODE_MULTI_WRITER
    others = contents.publications.others(folder, target.path)
    others.pop(wanted.staging_target_path.rstrip("/"), None)  # staged by an earlier process
    if not others or (mode is multi and all(other in (multi, None) for other in others.values())):
        return
    living = [path for path in contents.publications.alive(folder) if path in others]
    if living:
        raise Precondition(
            f"volume {contents.disk.pool_id}.{folder} is published at {living[0]!r}; a second target "
            f"needs access mode {multi.name} at both, found {mode.name}"
        )


def _remove(target: Target, *, block: bool) -> None:
    try:
        (os.unlink if block else os.rmdir)(target.name, dir_fd=target.parent_fd)
    except OSError:
        return  # empty, and the retry or the unpublish takes it


def _statistics(contents: Contents, record: Record, volume_path: str) -> Statistics:
    told = contents.backends.of(record).statistics(record, volume_path)
    if told:
        return told
    space = contents.disk.space()
    measured = contents.usage.get(record.folder)
    used, inodes = (measured.used_bytes, measured.inodes) if measured else (0, 0)
    left = max(0, min(record.capacity_bytes - used, space.free_bytes))
    return Statistics(
        bytes=Usage(total=record.capacity_bytes, used=used, available=left),
        inodes=Usage(inodes + space.free_inodes, inodes, space.free_inodes) if space.inodes else None,
    )
