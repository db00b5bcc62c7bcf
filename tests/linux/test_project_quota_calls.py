"""Project ids of files, and what a filesystem without project quotas says."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.linux import quotactl
from provisioner.linux.fsxattr import FS_XFLAG_PROJINHERIT, get_fsxattr, set_fsxattr
from tests.support.filesystems import loop_filesystem


def test_a_project_is_inherited_by_what_is_made_in_a_directory(tmp_path: Path) -> None:
    with loop_filesystem("xfs", tmp_path) as found:
        (found.path / "folder").mkdir()
        fd = os.open(found.path / "folder", os.O_RDONLY)
        try:
            before = get_fsxattr(fd)
            assert before.projid == 0
            set_fsxattr(fd, replace(before, projid=4711, xflags=before.xflags | FS_XFLAG_PROJINHERIT))
            assert get_fsxattr(fd).projid == 4711
            assert get_fsxattr(fd).xflags & FS_XFLAG_PROJINHERIT
            file = os.open("file", os.O_RDWR | os.O_CREAT, dir_fd=fd)
            assert get_fsxattr(file).projid == 4711
            os.close(file)
        finally:
            os.close(fd)


def test_a_filesystem_that_has_no_projects_says_so_with_its_path() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=r"/proc") as refused:
            get_fsxattr(fd)
        assert refused.value.errno in (errno.ENOTTY, errno.EOPNOTSUPP)
    finally:
        os.close(fd)


def test_a_filesystem_without_quotas_has_no_state(tmp_path: Path) -> None:
    with loop_filesystem("ext4", tmp_path) as found:
        fd = os.open(found.path, os.O_RDONLY)
        try:
            with pytest.raises(OSError, match=r"."):
                quotactl.project_state(fd)
        finally:
            os.close(fd)
