"""statmount(2): what one mount shows, without reading the whole mount table (Linux 6.8)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from provisioner.linux.libc import system_call

STATMOUNT_MNT_ROOT = 0x08
STATMOUNT_MNT_POINT = 0x10
STATMOUNT_FS_TYPE = 0x20

_NR = 457
_WANTED = STATMOUNT_MNT_ROOT | STATMOUNT_MNT_POINT | STATMOUNT_FS_TYPE
_REQUEST = struct.Struct("=IIQQ")  # struct mnt_id_req, first version: size, spare, mnt_id, param
# struct statmount: 36 bytes on, the offset of fs_type; 104 bytes on, those of mnt_root and mnt_point; they
# count from the end of the structure, 512 bytes on, where strings end in NUL.
_REPLY = struct.Struct("=36xI64xII")
_STRINGS = 512
_ROOM_BYTES = 4096
_MOST_ROOM_BYTES = 1 << 20

_statmount = system_call(
    "statmount",
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_uint,
    since="6.8",
)


@dataclass(frozen=True, slots=True)
class MountDetails:
    """One mount. `root` is the directory of its filesystem that it shows, `mount_point` where we see it."""

    root: str
    mount_point: str
    fs_type: str


def statmount(mnt_id_unique: int) -> MountDetails:
    """Look at the mount whose id statx(2) gives for STATX_MNT_ID_UNIQUE.

    A directory that was unlinked while it was mounted has a root that ends in `//deleted`. ENOENT for an id
    that is gone or not in this mount namespace.
    """
    reply = _ask(mnt_id_unique)
    fs_type, root, mount_point = _REPLY.unpack_from(reply)
    return MountDetails(_string(reply, root), _string(reply, mount_point), _string(reply, fs_type))


def _ask(mnt_id_unique: int) -> bytes:
    request = _REQUEST.pack(_REQUEST.size, 0, mnt_id_unique, _WANTED)
    room = _ROOM_BYTES
    while True:
        buffer = ctypes.create_string_buffer(room)
        try:
            _statmount(_NR, request, buffer, room, 0)
        except OSError as error:
            if error.errno != errno.EOVERFLOW or room >= _MOST_ROOM_BYTES:
                raise OSError(error.errno, error.strerror, f"mount id {mnt_id_unique}") from None
            room *= 2
        else:
            return buffer.raw


def _string(reply: bytes, offset: int) -> str:
    start = _STRINGS + offset
    return os.fsdecode(reply[start : reply.index(b"\0", start)])
