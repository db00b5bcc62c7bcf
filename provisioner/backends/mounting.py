"""Mounting the filesystem of an image: mended before, and where the kernel will not, its checker says why."""

from __future__ import annotations

import errno
import time

from provisioner import filesystems
from provisioner.errors import OutOfCapacity, VolumeQuarantined
from provisioner.filesystems import Corrupt, OutOfRoom
from provisioner.linux import loop
from provisioner.linux.mount import mount
from provisioner.records import Record
from provisioner.targets import Target


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
    """Have a filesystem that nobody has mounted mended, and grown to its volume's size."""
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
            f"volume {record.volume_id}: its filesystem is corrupt and was left alone: {error}"
        ) from error


def refused(record: Record, number: int, device_fd: int, options: str, error: OSError) -> Exception:
    """Say why the kernel would not mount a filesystem."""
    if error.errno not in (errno.EINVAL, errno.EUCLEAN, errno.EIO):
        return error
    said = filesystems.examine(record.fs_type, loop.device_path(number), device_fd)
    return VolumeQuarantined(
        f"volume {record.volume_id}: its {record.fs_type} cannot be mounted ({error.strerror}; options {options!r}); "
        f"the checker says: {said}"
    )
