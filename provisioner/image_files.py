"""The files that images are: how they are made, and how they get their size."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from provisioner.errors import InvalidRequest
from provisioner.linux.fallocate import fallocate
from provisioner.linux.fsflags import FS_NOATIME_FL, FS_NOCOW_FL, get_flags, set_flags


def prepare(fd: int) -> None:
    """Let btrfs overwrite the file where it lies, so that what is allocated is there when it is needed.

    And let nobody's reads be written down: mkfs reads first, and would have the pool's journal commit just that.
    """
    for flag in (FS_NOCOW_FL, FS_NOATIME_FL):  # where a filesystem does not know one, nothing is lost
        with suppress(OSError):
            set_flags(fd, get_flags(fd) | flag)


def set_size(fd: int, size: int, *, thin: bool) -> None:
    """Let the file have at least this size; where room is lacking, it keeps the one it had."""
    before = os.fstat(fd).st_size
    if size <= before:
        return
    if thin:
        os.ftruncate(fd, size)
        return
    try:
        fallocate(fd, 0, before, size - before)
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(fd, before)
        if error.errno == errno.EOPNOTSUPP:
            raise InvalidRequest(
                "parameter 'thin': the pool's filesystem cannot allocate a file ahead; say thin: 'true'"
            ) from error
        raise
