"""A file of the volume's size, as a block device with a filesystem of its own: no tenant gets beyond it.

Staged, its filesystem is mounted once; pods get binds of that. A raw block volume is the device itself. Devices of
filesystems go by themselves with the last mount (LO_FLAGS_AUTOCLEAR); those of raw block volumes, which nobody may
have open for a while, when the last publication ends.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec
import structlog

from provisioner import filesystems, image_files, loops
from provisioner.backends import Content, Occupied
from provisioner.backends.directory import finish_root
from provisioner.backends.mounting import check_options, mount_patiently, note_options, refused, repair
from provisioner.capabilities import filesystem_options
from provisioner.devices import Devices
from provisioner.disk import Disk
from provisioner.errors import Precondition, TargetOccupied, Unavailable
from provisioner.filesystems import KINDS
from provisioner.linux import loop
from provisioner.linux.fallocate import is_blank_from
from provisioner.linux.openat2 import openat2
from provisioner.linux.statx import AT_SYMLINK_NOFOLLOW, Statx, statx
from provisioner.loops import Image
from provisioner.model import Capability, Statistics, Usage
from provisioner.names import folder_of_entry
from provisioner.pace import Paced
from provisioner.records import IMAGE, WITHIN, BackendName, Record
from provisioner.targets import Target

log = structlog.get_logger(__name__)

_DEFAULT_FS = "ext4"
_FRESH = "fresh"  # beside an image that was never mounted: its root has no owner and mode yet
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 512  # of st_blocks


class ImageBackend:
    """The content is `disk.img`; a write past the size is ENOSPC, and a tenant's tricks end in it."""

    name: BackendName = "image"
    holds = True

    def __init__(self, disk: Disk) -> None:
        """Work on a pool's disk."""
        self._volumes_fd, self._staging_fd = disk.volumes_fd, disk.staging_fd
        self._loops = Devices()

    def refusal(self, content: Content) -> str:
        """Refuse filesystems that we cannot make, and machines without loop devices."""
        fs_type = content.fs_type or _DEFAULT_FS
        if not loops.is_available():
            return "this process cannot make loop devices (/dev/loop-control)"
        if fs_type not in KINDS:
            return f"fs_type {fs_type!r}: wanted {' or '.join(KINDS)}"
        if content.inodes and (content.block or not KINDS[fs_type].inodes):
            return f"parameter 'inodes': only an ext4 has a fixed number of inodes, not {fs_type!r} or raw block"
        return "" if content.block else filesystems.missing(fs_type)

    def least_bytes(self, content: Content) -> int:
        """Give the least size that a volume can have: that of the smallest filesystem of its kind."""
        return loops.BLOCK_BYTES if content.block else KINDS[content.fs_type or _DEFAULT_FS].least_bytes

    def unit_bytes(self, content: Content) -> int:  # noqa: ARG002  the Protocol names it
        """Give the unit of sizes: that of the device."""
        return loops.BLOCK_BYTES

    def draft(self, record: Record, content: Content) -> Record:
        """Note what the image is to be."""
        fs_type = "" if content.block else content.fs_type or _DEFAULT_FS
        return msgspec.structs.replace(
            record, fs_type=fs_type, thin=content.thin, block=content.block, inodes=content.inodes
        )

    @contextmanager
    def building(self, entry_fd: int, record: Record) -> Iterator[Record]:
        """Make the file and its filesystem; what its program could not bring to the disk, our own sync tells."""
        fd = os.open(IMAGE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=entry_fd)
        try:
            image_files.prepare(fd)
            image_files.set_size(fd, record.capacity_bytes, thin=record.thin)
            if record.block:
                yield record
            else:
                os.mknod(_FRESH, 0o600, dir_fd=entry_fd)
                with filesystems.making(record.fs_type, fd, record.inodes):
                    yield record
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextmanager
    def growing(self, record: Record, capacity_bytes: int) -> Iterator[None]:
        """Enlarge the file; nothing shows that yet."""
        before = self._look(record.folder).size_bytes
        try:
            with self._opened(record) as fd:
                image_files.set_size(fd, capacity_bytes, thin=record.thin)
                os.fsync(fd)
            yield
        except OSError:
            with suppress(OSError):  # else that is done at its next mount
                self._cut(record, before)
            raise

    def grown(self, record: Record) -> None:
        """Show a raw block volume's size on its devices; a filesystem grows by `grow`."""
        if not record.block:
            return
        try:
            self._fit_device(record)
        except OSError as error:
            raise Unavailable(
                f"volume {record.volume_id} has grown, but its device does not show it: {error.strerror}; retry"
            ) from error

    def _fit_device(self, record: Record) -> None:
        """Cut off what a file has beyond its record, if nobody can have written there; then let its devices show it.

        What a kill may leave of a growth, no device has shown. Where one has, its user may count on it.
        """
        numbers = self._devices(record)
        if any(loops.size_of(number) > record.capacity_bytes for number in numbers):
            return
        if self._cut(record, record.capacity_bytes, only_blank=True):
            for number in numbers:
                loops.let_grow(number)

    @contextmanager
    def _opened(self, record: Record) -> Iterator[int]:
        fd = openat2(f"{record.folder}/{IMAGE}", os.O_RDWR | os.O_NONBLOCK, resolve=WITHIN, dir_fd=self._volumes_fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def _look(self, folder: str) -> Statx:
        return statx(f"{folder}/{IMAGE}", dir_fd=self._volumes_fd, flags=AT_SYMLINK_NOFOLLOW)

    def _devices(self, record: Record) -> list[int]:
        """List the devices that show the image."""
        return self._loops.of(self._image(record))

    def _image(self, record: Record) -> Image:
        return _key(self._look(record.folder))

    def stage(self, record: Record, target: Target, capability: Capability) -> bool:
        """Mount the filesystem at the staging path, mended and grown; True where it stays there until `unstage`."""
        if record.block:
            return False
        found = target.look()
        if found is None:
            os.mkdir(target.name, 0o750, dir_fd=target.parent_fd)
        elif not stat.S_ISDIR(found.mode):
            raise TargetOccupied(f"staging_target_path {target.path!r}: wanted a directory, found something else")
        elif found.mount_root and not self.shows(record, found):
            raise TargetOccupied(f"staging_target_path {target.path!r}: something else is mounted there")
        options = filesystem_options(capability)
        if found is None or not found.mount_root:
            self._mount(record, target, options)
        else:
            check_options(self._volumes_fd, record, options)
        self.grow(record, target)
        self._finish(record, target)
        return True

    def _mount(self, record: Record, target: Target, options: str) -> None:
        with self._device(record) as (number, device_fd):
            if loops.is_mounted(number, record.fs_type):  # it lives on, perhaps where we cannot see it
                check_options(self._volumes_fd, record, options)
            else:
                repair(record, number, device_fd, self._staging_fd)
                note_options(self._volumes_fd, record, options)
            try:
                mount_patiently(loop.device_path(number), target, record.fs_type, options)
            except OSError as error:
                raise refused(record, number, device_fd, options, error) from error

    @contextmanager
    def _device(self, record: Record) -> Iterator[tuple[int, int]]:
        """Open the device that shows the image, the mounted one if any; a new one only where there is none.

        Two would destroy it: what one of them was told to write may lie in its cache for a while.
        """
        image = self._image(record)
        numbers = sorted(self._loops.of(image), key=lambda number: not loops.is_mounted(number, record.fs_type))
        for number in numbers:
            with loops.opened(number) as device_fd:
                if loop.get_status(device_fd).image == image:  # as long as it is open
                    if not loops.is_mounted(number, record.fs_type):
                        loops.look_again(device_fd)
                    yield number, device_fd
                    return
        with self._opened(record) as image_fd, loops.attached(image_fd, autoclear=True) as device_fd:
            yield self._loops.note(device_fd), device_fd

    def _finish(self, record: Record, target: Target) -> None:
        """Give the root of a new filesystem its owner and mode, once."""
        fresh = f"{record.folder}/{_FRESH}"
        try:
            os.stat(fresh, dir_fd=self._volumes_fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        fd = os.open(target.name, _DIRECTORY, dir_fd=target.parent_fd)
        try:
            finish_root(fd, record)
        finally:
            os.close(fd)
        os.unlink(fresh, dir_fd=self._volumes_fd)

    def grow(self, record: Record, target: Target) -> None:
        """Let the filesystem have what its record says, and the file no more than either of them.

        Now that it is mounted, and its journal replayed, its size can be believed.
        """
        found = target.look()
        number = loops.number_of(found) if found else None
        if record.block or number is None:
            return
        fd = os.open(target.name, _DIRECTORY, dir_fd=target.parent_fd)
        try:
            with loops.opened(number, readonly=True) as device_fd:
                loop.set_capacity(device_fd)
                has_bytes = KINDS[record.fs_type].grow(fd, device_fd, record.capacity_bytes)
                self._cut(record, max(has_bytes, record.capacity_bytes))
                loop.set_capacity(device_fd)
        except PermissionError as error:  # ext4 asks for more than being root
            raise Precondition(
                f"volume {record.volume_id}: a mounted {record.fs_type} grows neither for a process without "
                "CAP_SYS_RESOURCE nor after an error in it; it grows when it is staged the next time"
            ) from error
        except OSError as error:
            if error.errno == errno.EROFS:
                raise Precondition(
                    f"volume {record.volume_id}: {target.path!r} is read-only; it grows when it is staged the next time"
                ) from error
            raise
        finally:
            os.close(fd)

    def _cut(self, record: Record, size_bytes: int, *, only_blank: bool = False) -> bool:
        """Cut off what an unfinished growth left beyond a size, or only blank room; False where it stays."""
        if self._look(record.folder).size_bytes <= size_bytes:
            return True
        with self._opened(record) as fd:
            if only_blank and not is_blank_from(fd, size_bytes):
                return False
            os.ftruncate(fd, size_bytes)
        return True

    def unstaged(self, record: Record) -> None:
        """Forget the device, if it went with that mount."""
        self._devices(record)

    def open_source(self, record: Record, staged: Target | None, *, readonly: bool) -> int:
        """Open the root of the staged filesystem, or the node of a device, made if need be."""
        if record.block:
            return self._open_device(record, readonly=readonly)
        found = staged.look() if staged else None
        if staged is None or found is None or not found.mount_root or not self.shows(record, found):
            raise Precondition(
                f"volume {record.volume_id}: it is not staged at {staged.path if staged else ''!r}; stage it first"
            )
        return os.open(staged.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.parent_fd)

    def _open_device(self, record: Record, *, readonly: bool) -> int:
        """A bind of a device node that is read-only still lets writes through: read-only ones are devices apart."""
        image = self._image(record)
        for number in self._loops.of(image):
            if self._serves(number, image, readonly=readonly):
                self._loops.hold(number, image)
                return os.open(loop.device_path(number), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._fit_device(record)
        with self._opened(record) as image_fd, loops.attached(image_fd, autoclear=False, readonly=readonly) as fd:
            number = self._loops.note(fd)
            self._loops.hold(number, image)
            return os.open(loop.device_path(number), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _serves(self, number: int, image: Image, *, readonly: bool) -> bool:
        """Tell whether a device can be published once more: one with autoclear that nobody holds may go any time."""
        found = loops.status_of(number)
        stays = self._loops.is_held(number) or not found.flags & loop.LO_FLAGS_AUTOCLEAR
        return stays and found.image == image and bool(found.flags & loop.LO_FLAGS_READ_ONLY) == readonly

    def shows(self, record: Record, found: Statx) -> bool:
        """Tell whether a mount, or the node of a device, is of this volume."""
        number = loops.number_of(found) if found.mount_root else None
        if number is None:
            return False
        return self._loops.is_of(number, self._image(record))

    def release(self, record: Record, targets: Iterable[str]) -> None:
        """Detach the devices of a raw block volume that none of its targets shows."""
        if not record.block:
            return
        used = set()
        for target in targets:
            with suppress(OSError):
                used.add(loops.number_of(statx(target, flags=AT_SYMLINK_NOFOLLOW)))
        image = self._image(record)
        for number in self._loops.of(image):
            if number not in used:
                self._loops.let_go(number, image)

    def occupied(self, record: Record) -> Occupied | None:
        """Give what the file occupies of the pool."""
        return Occupied(self._look(record.folder).blocks * _BLOCK_BYTES, 1)

    def statistics(self, record: Record, volume_path: str) -> Statistics | None:
        """Ask the volume's own filesystem; of a raw block volume only the size is known."""
        if record.block:
            return Statistics(Usage(record.capacity_bytes, 0, 0), None)
        found = os.statvfs(volume_path)
        unit = found.f_frsize
        return Statistics(
            Usage(found.f_blocks * unit, (found.f_blocks - found.f_bfree) * unit, found.f_bavail * unit),
            Usage(found.f_files, found.f_files - found.f_ffree, found.f_favail) if found.f_files else None,
        )

    def illness(self, record: Record) -> str:
        """Find an image that lost its end, or shows more than its record says; the file alone may, while it grows."""
        wanted, found = record.capacity_bytes, self._look(record.folder).size_bytes
        if found < wanted:
            return f"the image has {found} bytes, wanted {wanted}"
        shown = self._shown_bytes(record)
        return "" if shown <= wanted else f"it has {shown} bytes, wanted {wanted}; expand the volume to them"

    def _shown_bytes(self, record: Record) -> int:
        if record.block:
            return max(map(loops.size_of, self._devices(record)), default=0)
        with self._opened(record) as fd:
            return KINDS[record.fs_type].size_bytes(fd)

    def escaped(self, record: Record, pace: Paced) -> str:  # noqa: ARG002  the Protocol names it
        """Find nothing: nobody slips out of an image."""
        return ""

    def recover(self, records: Iterable[Record]) -> None:
        """See which devices an earlier process left, and whether raw block volumes have their size.

        A filesystem gets what its record says when it is staged, and never more: not before can its size be believed.
        """
        if ours := [record for record in records if record.backend == self.name]:
            self._loops.find()
        for record in ours:
            try:
                self._hold(record)
                self.grown(record)
            except (OSError, Unavailable) as error:  # one volume must not keep the others from being served
                log.warning("size not set", volume_id=record.volume_id, error=str(error))

    def _hold(self, record: Record) -> None:
        image = self._image(record)
        for number in self._loops.of(image) if record.block else ():
            self._loops.hold(number, image)

    def tend(self) -> None:
        """Do nothing: nobody slips out of an image."""

    def dismantle(self, entry_fd: int) -> bool:
        """Detach what is left of the image's devices; not done while one is in use."""
        try:
            image = _key(statx(IMAGE, dir_fd=entry_fd, flags=AT_SYMLINK_NOFOLLOW))
        except FileNotFoundError:
            return True
        if _folder_of(entry_fd) in self._loops.find():
            raise OSError(errno.EIO, "what a loop device of this volume shows cannot be told")
        left = self._loops.of(image)
        for number in left:
            self._loops.let_go(number, image)
        return not left

    def close(self) -> None:
        """Hold no device any more."""
        self._loops.close()


def _folder_of(entry_fd: int) -> str:
    return folder_of_entry(os.path.basename(os.readlink(f"/proc/self/fd/{entry_fd}")))


def _key(image: Statx) -> Image:
    return image.dev, image.ino
