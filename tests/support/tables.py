"""What filesystems know of limits: the tables that nothing may be left in. Needs no pytest."""

from __future__ import annotations

import errno

from provisioner.linux import btrfs
from provisioner.linux.quotactl import get_next_quota

_QUOTA_TREE = 8
_QGROUP_INFO = 242


def quota_groups(fd: int) -> list[int]:
    """List the quota groups of a btrfs."""
    return [item.offset for item in btrfs.search(fd, _QUOTA_TREE, 0, _QGROUP_INFO)]


def limited_projects(fd: int) -> set[int]:
    """List the projects that have a limit or hold something, but for the one that everybody is in."""
    found: set[int] = set()
    project_id = 1
    while True:
        try:
            quota = get_next_quota(fd, project_id)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH):
                raise
            return found
        if quota.limit_bytes or quota.limit_inodes or quota.used_inodes:
            found.add(quota.project_id)
        project_id = quota.project_id + 1
