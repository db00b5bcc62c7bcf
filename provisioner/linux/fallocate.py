"""fallocate(2): room for a file that no later write can lack, or given back; lseek(2): what was never written.

Not posix_fallocate(3), which writes zeros where a filesystem cannot do it.
"""

from __future__ import annotations

import ctypes
import errno
import os

from provisioner.linux.ioctl import path_of
from provisioner.linux.libc import function

FALLOC_FL_KEEP_SIZE = 0x1
FALLOC_FL_PUNCH_HOLE = 0x2  # together with FALLOC_FL_KEEP_SIZE
FALLOC_FL_ZERO_RANGE = 0x10

_fallocate = function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def fallocate(fd: int, mode: int, offset: int, length_bytes: int) -> None:
    """Allocate a range of an open file, or what `mode` says; the OSError names the file."""
    try:
        _fallocate(fd, mode, offset, length_bytes)
    except OSError as error:
        error.filename = path_of(fd)
        raise


def is_blank_from(fd: int, offset: int) -> bool:
    """Tell whether nothing was ever written to a file from an offset on; what is only allocated is not."""
    try:
        os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return True
    return False
