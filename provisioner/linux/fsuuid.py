"""FS_IOC_GETFSUUID (linux/fs.h): the UUID of a filesystem, whatever its kind (Linux 6.9)."""

from __future__ import annotations

import errno
import fcntl
import struct
from uuid import UUID

_FSUUID2 = struct.Struct("=B16s")  # struct fsuuid2: length, uuid
_READ = 2
FS_IOC_GETFSUUID = _READ << 30 | _FSUUID2.size << 16 | 0x15 << 8 | 0  # _IOR(0x15, 0, struct fsuuid2)

# ENOTTY where the filesystem has none to give (btrfs, proc) or the kernel is older; the rest is how some
# filesystems say the same.
_NONE = {errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def filesystem_uuid(fd: int) -> str | None:
    """Tell the UUID of the filesystem that `fd` (no O_PATH) lies on, or None where it has none.

    tmpfs draws a new one at every mount.
    """
    try:
        reply = fcntl.ioctl(fd, FS_IOC_GETFSUUID, bytes(_FSUUID2.size))
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    return _text(reply)


def _text(reply: bytes) -> str | None:
    length, raw = _FSUUID2.unpack(reply)
    if not any(raw[:length]):
        return None
    return str(UUID(bytes=raw)) if length == len(raw) else raw[:length].hex()
