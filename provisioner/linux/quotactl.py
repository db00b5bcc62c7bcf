"""Project quotas: quotactl_fd(2), or quotactl(2) by the device where the kernel has only that (before Linux 5.14).

The requests of XFS (linux/dqblk_xfs.h) work on ext4 as well, and count in bytes divided by 512 on both.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from provisioner.linux.ioctl import path_of
from provisioner.linux.libc import function, system_call

PRJQUOTA = 2

Q_XGETQUOTA = 0x5803
Q_XSETQLIM = 0x5804
Q_XGETQSTATV = 0x5808
Q_XGETNEXTQUOTA = 0x5809

FS_QUOTA_PDQ_ACCT = 0x10  # what projects use is counted
FS_QUOTA_PDQ_ENFD = 0x20  # their limits hold

_NR_QUOTACTL_FD = 443
_BASIC_BLOCK_BYTES = 512

_FS_DQUOT_VERSION = 1
_FS_PROJ_QUOTA = 2
_FS_DQ_ISOFT, _FS_DQ_IHARD, _FS_DQ_BSOFT, _FS_DQ_BHARD = 0x1, 0x2, 0x4, 0x8
_FS_QSTATV_VERSION1 = 1

# struct fs_disk_quota: version, flags, fieldmask, id, blk_hardlimit, blk_softlimit, ino_hardlimit, ino_softlimit,
# bcount, icount; timers, warnings and the realtime figures are not ours.
_FS_DISK_QUOTA = struct.Struct("=bbHIQQQQQQ56x")
# struct fs_quota_statv: version, flags, incoredqs; the rest is where the quotas are stored.
_FS_QUOTA_STATV = struct.Struct("=bxHI152x")

_quotactl_fd = system_call("quotactl_fd", ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, since="5.14")
_quotactl = function("quotactl", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, paths=(1,))


@dataclass(frozen=True, slots=True)
class ProjectQuota:
    """Limits and use of one project; a limit of 0 is none."""

    project_id: int
    limit_bytes: int
    limit_inodes: int
    used_bytes: int
    used_inodes: int


def project_state(fd: int) -> int:
    """Give the FS_QUOTA_PDQ_ bits that are on in the filesystem of `fd`.

    ENOSYS, EOPNOTSUPP, ENOTTY or ESRCH where it has no quotas, or the kernel has none.
    """
    request = _FS_QUOTA_STATV.pack(_FS_QSTATV_VERSION1, 0, 0)
    flags: int = _FS_QUOTA_STATV.unpack(_quota(fd, Q_XGETQSTATV, 0, request))[1]
    return flags


def get_quota(fd: int, project_id: int) -> ProjectQuota:
    """Read a project's limits and use; ENOENT where the filesystem never heard of it."""
    return _parsed(_quota(fd, Q_XGETQUOTA, project_id, bytes(_FS_DISK_QUOTA.size)))


def get_next_quota(fd: int, project_id: int) -> ProjectQuota:
    """Read those of the first project from `project_id` on that is known; ENOENT after the last."""
    return _parsed(_quota(fd, Q_XGETNEXTQUOTA, project_id, bytes(_FS_DISK_QUOTA.size)))


def set_limits(fd: int, project_id: int, limit_bytes: int, limit_inodes: int) -> None:
    """Set the hard limits of a project, and take soft ones away: 0 means no limit.

    ext4 rounds bytes up to a kibibyte, XFS to a block of the filesystem.
    """
    blocks = -(-limit_bytes // _BASIC_BLOCK_BYTES)
    mask = _FS_DQ_ISOFT | _FS_DQ_IHARD | _FS_DQ_BSOFT | _FS_DQ_BHARD
    limits = (blocks, 0, limit_inodes, 0)
    wanted = _FS_DISK_QUOTA.pack(_FS_DQUOT_VERSION, _FS_PROJ_QUOTA, mask, project_id, *limits, 0, 0)
    _quota(fd, Q_XSETQLIM, project_id, wanted)


def _parsed(answer: bytes) -> ProjectQuota:
    _, _, _, project_id, hard, _, inodes, _, used, used_inodes = _FS_DISK_QUOTA.unpack(answer)
    return ProjectQuota(project_id, hard * _BASIC_BLOCK_BYTES, inodes, used * _BASIC_BLOCK_BYTES, used_inodes)


def _quota(fd: int, command: int, project_id: int, structure: bytes) -> bytes:
    """Make a request about projects; the OSError names the file."""
    buffer = ctypes.create_string_buffer(structure, len(structure))
    command = command << 8 | PRJQUOTA  # QCMD
    try:
        _quotactl_fd(_NR_QUOTACTL_FD, fd, command, project_id, buffer)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            _quota_by_device(fd, command, project_id, buffer)
        else:
            error.filename = path_of(fd)
            raise
    return buffer.raw


def _quota_by_device(fd: int, command: int, project_id: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    """Do the same through the node of the device that the filesystem is on."""
    _quotactl(command, os.fsencode(_device_of(fd)), project_id, buffer)


def _device_of(fd: int) -> str:
    """Give the node that the kernel itself makes (devtmpfs): links by number are udev's, which not every machine has.

    ENOTBLK where the filesystem is on no block device.
    """
    dev = os.fstat(fd).st_dev
    try:
        with open(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}/uevent", encoding="utf-8") as lines:
            told = dict(line.rstrip("\n").split("=", 1) for line in lines)
    except FileNotFoundError as error:
        raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK), path_of(fd)) from error
    return f"/dev/{told['DEVNAME']}"
