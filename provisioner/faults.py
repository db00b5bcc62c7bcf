"""What the errno of a disk means for the caller."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.commands import CommandError
from provisioner.errors import OutOfCapacity, PoolUnavailable, VolumeInUse

FULL = {errno.ENOSPC, errno.EDQUOT}
_GONE = {errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.ESTALE, errno.ENOTCONN}
# Nothing is wrong with the request or the disk: the process or the kernel is short of something.
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN}


@contextmanager
def disk_faults(what: str) -> Iterator[None]:
    """Translate the errnos that a full, dying or read-only disk gives; let the rest fly.

    `what` begins the message: '<volume or pool>: <what was wanted>'.
    """
    try:
        yield
    except CommandError as error:
        if "No space left" in error.output:
            raise OutOfCapacity(f"{what}: the disk is full: {error}; free some space or grow it") from error
        raise PoolUnavailable(f"{what}: {error}; see to that, then retry") from error
    except OSError as error:
        if error.errno in FULL:
            raise OutOfCapacity(f"{what}: the disk is full: {error.strerror}; free some space or grow it") from error
        if error.errno in _GONE:
            raise PoolUnavailable(f"{what}: the disk does not answer as it should: {error.strerror}") from error
        if error.errno == errno.EBUSY:
            raise VolumeInUse(f"{what}: something is mounted on it ({error.strerror}); unmount that first") from error
        if error.errno in _SHORT:
            raise PoolUnavailable(f"{what}: {error.strerror}; retry") from error
        raise
