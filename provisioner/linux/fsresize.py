"""Growing a mounted filesystem: EXT4_IOC_RESIZE_FS (linux/ext4.h) and XFS_IOC_FSGROWFSDATA (xfs_fs.h).

Both are no work where it is large enough already, and both give the size that it has then.
"""

from __future__ import annotations

import os
import struct

from provisioner.linux.blkdev import size_bytes
from provisioner.linux.ioctl import ioctl, ior, iow

# struct ext4_super_block, 1,024 bytes after 1,024: s_blocks_count_lo, s_log_block_size, s_blocks_count_hi.
_SUPERBLOCK_BYTES = 1024
_EXT4_BLOCKS_LO_LOGSIZE_BLOCKS_HI = (0x4, 0x18, 0x150)

# s_magic at 0x38, s_state, s_feature_incompat.
_EXT4_STATE_INCOMPAT = ((0x3A, 0x3C), (0x60, 0x64))
_MAGIC, _VALID_FS, _INCOMPAT_RECOVER = b"\x53\xef", 1, 0x4
_CAP_SYS_RESOURCE = 24  # linux/capability.h
_XFS_SUPERBLOCK = struct.Struct(">4sIQ")  # struct xfs_dsb: sb_magicnum, sb_blocksize, sb_dblocks

_U64 = struct.Struct("=Q")
_XFS_GEOMETRY_V1 = struct.Struct("=IIIIIIIIQ72x")  # blocksize, 6 not ours, imaxpct, datablocks
_XFS_GROWFS_DATA = struct.Struct("=QI4x")  # newblocks, imaxpct

EXT4_IOC_RESIZE_FS = iow("f", 16, _U64.size)
XFS_IOC_FSGEOMETRY_V1 = ior("X", 100, _XFS_GEOMETRY_V1.size)
XFS_IOC_FSGROWFSDATA = iow("X", 110, _XFS_GROWFS_DATA.size)


def ext4_bytes(device_fd: int) -> int:
    """Read from its superblock how large an ext4 is, mounted or not; 0 where there is none."""
    head = os.pread(device_fd, _SUPERBLOCK_BYTES, _SUPERBLOCK_BYTES)
    low, shift, high = (int.from_bytes(head[at : at + 4], "little") for at in _EXT4_BLOCKS_LO_LOGSIZE_BLOCKS_HI)
    return (high << 32 | low) * (1024 << shift) if head[0x38:0x3A] == _MAGIC else 0


def xfs_bytes(device_fd: int) -> int:
    """Read from its superblock how large an XFS is; of a mounted one it may lag behind. 0 where there is none."""
    magic, block_bytes, blocks = _XFS_SUPERBLOCK.unpack(os.pread(device_fd, _XFS_SUPERBLOCK.size, 0))
    return blocks * block_bytes if magic == b"XFSB" else 0


def ext4_is_clean(device_fd: int) -> bool:
    """Tell whether an ext4 was unmounted, and has met no error."""
    head = os.pread(device_fd, _SUPERBLOCK_BYTES, _SUPERBLOCK_BYTES)
    state, incompat = (int.from_bytes(head[at:end], "little") for at, end in _EXT4_STATE_INCOMPAT)
    return (head[0x38:0x3A], state, incompat & _INCOMPAT_RECOVER) == (_MAGIC, _VALID_FS, 0)


def may_grow_ext4() -> bool:
    """Tell whether this process has CAP_SYS_RESOURCE (capabilities(7)), without which `grow_ext4` is refused."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
        effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return bool(effective >> _CAP_SYS_RESOURCE & 1)


def grow_ext4(fd: int, device_fd: int, most_bytes: int) -> int:
    """Let the ext4 of an open directory fill its device, up to a size; its journal makes that whole after a crash.

    EPERM without CAP_SYS_RESOURCE, and where it has met an error since it was mounted.
    """
    block_bytes = os.fstatvfs(fd).f_bsize
    blocks = min(size_bytes(device_fd), most_bytes) // block_bytes
    found = ext4_bytes(device_fd)
    if blocks * block_bytes <= found:
        return found
    ioctl(fd, EXT4_IOC_RESIZE_FS, _U64.pack(blocks))
    return ext4_bytes(device_fd)


def grow_xfs(fd: int, device_fd: int, most_bytes: int) -> int:
    """Let the XFS of an open directory fill its device, up to a size."""
    blocks, block_bytes, imaxpct = _xfs_geometry(fd)
    wanted = min(size_bytes(device_fd), most_bytes) // block_bytes
    if wanted <= blocks:
        return blocks * block_bytes
    ioctl(fd, XFS_IOC_FSGROWFSDATA, _XFS_GROWFS_DATA.pack(wanted, imaxpct))
    return _xfs_geometry(fd)[0] * block_bytes


def _xfs_geometry(fd: int) -> tuple[int, int, int]:
    """Give the number of blocks, the bytes of one, and the share of inodes."""
    fields = _XFS_GEOMETRY_V1.unpack(ioctl(fd, XFS_IOC_FSGEOMETRY_V1, bytes(_XFS_GEOMETRY_V1.size)))
    return fields[8], fields[0], fields[7]
