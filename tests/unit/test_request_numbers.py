"""Numbers of requests, against what the kernel's own headers say on x86-64 and arm64."""

from __future__ import annotations

import pytest

from provisioner.linux import blkdev, btrfs, fsxattr, loop, quotactl

NUMBERS = [
    (fsxattr.FS_IOC_FSGETXATTR, 0x801C581F),
    (fsxattr.FS_IOC_FSSETXATTR, 0x401C5820),
    (blkdev.BLKROGET, 0x125E),
    (blkdev.BLKFLSBUF, 0x1261),
    (blkdev.BLKSSZGET, 0x1268),
    (blkdev.BLKGETSIZE64, 0x80081272),
    (btrfs.BTRFS_IOC_SYNC, 0x9408),
    (btrfs.BTRFS_IOC_SUBVOL_CREATE, 0x5000940E),
    (btrfs.BTRFS_IOC_SNAP_DESTROY, 0x5000940F),
    (btrfs.BTRFS_IOC_SNAP_DESTROY_V2, 0x5000943F),
    (btrfs.BTRFS_IOC_TREE_SEARCH_V2, 0xC0709411),
    (btrfs.BTRFS_IOC_INO_LOOKUP, 0xD0009412),
    (btrfs.BTRFS_IOC_SUBVOL_GETFLAGS, 0x80089419),
    (btrfs.BTRFS_IOC_SUBVOL_SETFLAGS, 0x4008941A),
    (btrfs.BTRFS_IOC_QUOTA_CTL, 0xC0109428),
    (btrfs.BTRFS_IOC_QGROUP_ASSIGN, 0x40189429),
    (btrfs.BTRFS_IOC_QGROUP_CREATE, 0x4010942A),
    (btrfs.BTRFS_IOC_QGROUP_LIMIT, 0x8030942B),
    (btrfs.BTRFS_IOC_QUOTA_RESCAN, 0x4040942C),
    (btrfs.BTRFS_IOC_QUOTA_RESCAN_WAIT, 0x942E),
]


@pytest.mark.parametrize(("computed", "literal"), NUMBERS)
def test_request_numbers_are_the_kernels(computed: int, literal: int) -> None:
    assert computed == literal


def test_structures_have_the_kernels_sizes() -> None:
    assert quotactl._FS_DISK_QUOTA.size == 112
    assert quotactl._FS_QUOTA_STATV.size == 160
    assert loop._LOOP_INFO64.size == 232
    assert loop._LOOP_CONFIG.size == 304
