"""What errnos of a disk become."""

from __future__ import annotations

import errno
import os

import pytest

from provisioner.errors import OutOfCapacity, PoolUnavailable, ProvisionerError, VolumeConflict, VolumeInUse
from provisioner.faults import disk_faults

FULL = ("ENOSPC", "EDQUOT")
GONE = ("EIO", "EROFS", "ENODEV", "ENXIO", "ESHUTDOWN", "ESTALE", "ENOTCONN")
SHORT = ("EMFILE", "ENFILE", "ENOMEM", "EINTR", "EAGAIN")


def translated(number: int) -> BaseException:
    with pytest.raises(Exception) as caught, disk_faults("volume 'x': create"):  # noqa: PT011 - which one is the question
        raise OSError(number, os.strerror(number), "some/path")
    return caught.value


@pytest.mark.parametrize(
    ("name", "family"),
    [(name, OutOfCapacity) for name in FULL]
    + [(name, PoolUnavailable) for name in GONE + SHORT]
    + [("EBUSY", VolumeInUse)],
)
def test_an_ill_disk_is_told_in_a_sentence(name: str, family: type[ProvisionerError]) -> None:
    number = getattr(errno, name)
    error = translated(number)
    assert type(error) is family
    assert str(error).startswith("volume 'x': create: ")
    assert os.strerror(number) in str(error)
    assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize("name", sorted(set(errno.errorcode.values()) - {*FULL, *GONE, *SHORT, "EBUSY"}))
def test_what_is_no_fault_of_the_disk_flies_on(name: str) -> None:
    error = translated(getattr(errno, name))
    assert isinstance(error, OSError)
    assert error.errno == getattr(errno, name)


def test_own_errors_and_good_ends_pass() -> None:
    with pytest.raises(VolumeConflict, match="as it was"), disk_faults("x"):
        raise VolumeConflict("as it was")
    with disk_faults("x"):
        pass
