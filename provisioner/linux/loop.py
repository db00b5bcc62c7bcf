"""Loop devices (linux/loop.h, loop(4)): a file as a block device.

A number that LOOP_CTL_GET_FREE gives is free for a moment only: LOOP_CONFIGURE says EBUSY where somebody
else was quicker.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from provisioner.linux.ioctl import ioctl, ioctl_number

LOOP_CLR_FD = 0x4C01
LOOP_GET_STATUS64 = 0x4C05
LOOP_SET_CAPACITY = 0x4C07
LOOP_CONFIGURE = 0x4C0A  # Linux 5.8
LOOP_CTL_GET_FREE = 0x4C82

LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4  # the device goes with the last who has it open or mounted
LO_FLAGS_PARTSCAN = 8
LO_FLAGS_DIRECT_IO = 16

LOOP_MAJOR = 7

# struct loop_info64: lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit, lo_number, lo_encrypt_type,
# lo_encrypt_key_size, lo_flags, lo_file_name, lo_crypt_name, lo_encrypt_key, lo_init.
_LOOP_INFO64 = struct.Struct("=QQQQQIIII64s64s32s2Q")
_LOOP_CONFIG = struct.Struct(f"=II{_LOOP_INFO64.size}s64x")  # struct loop_config: fd, block_size, info


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """What a device shows. image: device and inode of its file, as in os.stat."""

    number: int
    image: tuple[int, int]
    flags: int


def device_path(number: int) -> str:
    """Give the path of a loop device."""
    return f"/dev/loop{number}"


def get_free(control_fd: int) -> int:
    """Give the number of a device that is free now, made if need be; `control_fd` is of /dev/loop-control."""
    return ioctl_number(control_fd, LOOP_CTL_GET_FREE)


def configure(loop_fd: int, backing_fd: int, *, block_bytes: int, flags: int, name: str = "") -> None:
    """Attach a file; LO_FLAGS_DIRECT_IO falls back to buffered IO where the file cannot do it: read the status.

    EBUSY: the device is somebody's.
    """
    info = _LOOP_INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, os.fsencode(name)[:63], b"", b"", 0, 0)
    ioctl(loop_fd, LOOP_CONFIGURE, _LOOP_CONFIG.pack(backing_fd, block_bytes, info))


def get_status(loop_fd: int) -> LoopStatus:
    """Tell what a device shows; ENXIO where nothing is attached."""
    fields = _LOOP_INFO64.unpack(ioctl(loop_fd, LOOP_GET_STATUS64, bytes(_LOOP_INFO64.size)))
    return LoopStatus(number=fields[5], image=(fields[0], fields[1]), flags=fields[8])


def set_capacity(loop_fd: int) -> None:
    """Let a device have the size that its file has now."""
    ioctl_number(loop_fd, LOOP_SET_CAPACITY)


def clear(loop_fd: int) -> None:
    """Detach the file; where others have the device open, once the last of them has closed it."""
    ioctl_number(loop_fd, LOOP_CLR_FD)
