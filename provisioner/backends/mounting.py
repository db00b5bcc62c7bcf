"""Mounting the filesystem of an image: mended before, and where the kernel will not, its checker says why."""

from __future__ import annotations

import errno
import os
import time

from provisioner import filesystems
from provisioner.errors import InvalidRequest, OutOfCapacity, VolumeConflict, VolumeQuarantined
from provisioner.filesystems import Corrupt, OutOfRoom
from provisioner.linux import loop
from provisioner.linux.mount import mount
from provisioner.records import IMAGE, Record
from provisioner.targets import Target

_OPTIONS = "options"  # beside an image: those of its last mount


def mount_patiently(device: str, target: Target, fs_type: str, options: str) -> None:
    """Mount, and wait a moment where somebody looks at the new device by himself, as udev's programs do."""
    for pause_s in (0.05, 0.1, 0.2, 0.4, 0.8, 0.0):
        try:
            mount(device, target.by_parent, fs_type, data=options or None)
        except OSError as error:
            if error.errno != errno.EBUSY or not pause_s:
                raise
            time.sleep(pause_s)
        else:
            return


def repair(record: Record, number: int, device_fd: int, staging_fd: int) -> None:
    """Have a filesystem that nobody has mounted mended, and grown where it cannot once it is mounted."""
    device = loop.device_path(number)
    try:
        filesystems.repair(record.fs_type, device, device_fd, staging_fd)
        filesystems.grow_unmounted(record.fs_type, device, device_fd, staging_fd, record.capacity_bytes)
    except OutOfRoom as error:
        raise OutOfCapacity(
            f"volume {record.volume_id}: its filesystem has to be checked, and the pool has no room to note what that "
            f"changes, so it was left alone; free some space: {error}"
        ) from error
    except Corrupt as error:
        raise VolumeQuarantined(
            f"volume {record.volume_id}: its filesystem is corrupt and was left alone; copy the image, "
            f".csi-local-path/volumes/{record.folder}/{IMAGE} in its pool, then have 'e2fsck -f' mend it, with '-y' "
            f"where a growth was cut short; the checker says: {error}"
        ) from error


def note_options(volumes_fd: int, record: Record, options: str) -> None:
    """Keep the options that a filesystem is about to be mounted with, for the kernel shows them in its own words."""
    if _noted(volumes_fd, record) == options:  # a disk that is full has no room for them once more
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(f"{record.folder}/{_OPTIONS}", flags, 0o600, dir_fd=volumes_fd), "wb") as file:
        file.write(os.fsencode(options))


def check_options(volumes_fd: int, record: Record, options: str) -> None:
    """Raise VolumeConflict where a filesystem is mounted with other options than it should be mounted with."""
    noted = _noted(volumes_fd, record)
    if noted not in (options, None):
        raise VolumeConflict(
            f"volume {record.volume_id}: it is mounted with options {noted!r}, wanted {options!r}; unstage it first"
        )


def _noted(volumes_fd: int, record: Record) -> str | None:
    """Give the options of the last mount, None where an earlier release made it."""
    try:
        fd = os.open(f"{record.folder}/{_OPTIONS}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=volumes_fd)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        return os.fsdecode(file.read())


def refused(record: Record, number: int, device_fd: int, options: str, error: OSError) -> Exception:
    """Say why the kernel would not mount a filesystem."""
    if error.errno not in (errno.EINVAL, errno.EUCLEAN, errno.EIO):
        return error
    device = loop.device_path(number)
    if options and error.errno == errno.EINVAL and filesystems.looks_sound(record.fs_type, device, device_fd):
        return InvalidRequest(
            f"mount flags {options!r}: the {record.fs_type} of volume {record.volume_id} cannot be mounted with them "
            f"({error.strerror}), and nothing is wrong with it; the kernel's log names the one that it refuses"
        )
    said = filesystems.examine(record.fs_type, device, device_fd)
    return VolumeQuarantined(
        f"volume {record.volume_id}: its {record.fs_type} cannot be mounted ({error.strerror}; options {options!r}); "
        f"the checker says: {said}"
    )
