"""Project ids of files, and what a filesystem without project quotas says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.linux import quotactl
from provisioner.linux.fsxattr import FS_XFLAG_PROJINHERIT, get_fsxattr, set_fsxattr
from tests.support.filesystems import loop_filesystem
from tests.support.projects import move_to_project, project_of

UNUSED = 4095  # as the number of a system call: ENOSYS

# Puts a file into project 0 by the bare ioctl, as a program in a pod can, and says the errno, 0 where it worked.
_MOVE = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
found = bytearray(fcntl.ioctl(fd, 0x801c581f, bytes(28)))  # FS_IOC_FSGETXATTR
struct.pack_into("=I", found, 12, 0)
try:
    fcntl.ioctl(fd, 0x401c5820, bytes(found))  # FS_IOC_FSSETXATTR
except OSError as error:
    print(error.errno)
else:
    print(0)
"""


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


@pytest.mark.parametrize(("prefix", "refused"), [((), 0), (("unshare", "-Ur"), errno.EINVAL)])
def test_a_user_namespace_keeps_its_files_in_their_project(
    tmp_path: Path, prefix: tuple[str, ...], refused: int
) -> None:
    """As a pod with `hostUsers: false` is in one: even its root, who owns the volume, cannot leave the limit."""
    with loop_filesystem("xfs", tmp_path) as found:
        folder = found.path / "folder"
        folder.mkdir()
        move_to_project(folder, 4711)
        command = [*prefix, sys.executable, "-c", _MOVE, folder.name]
        done = subprocess.run(command, cwd=found.path, check=True, capture_output=True, text=True)
        assert int(done.stdout) == refused
        assert project_of(folder) == (4711 if refused else 0)


def test_a_filesystem_that_has_no_projects_says_so_with_its_path() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=r"/proc") as refused:
            get_fsxattr(fd)
        assert refused.value.errno in (errno.ENOTTY, errno.EOPNOTSUPP)
    finally:
        os.close(fd)


def test_a_kernel_without_the_newer_call_is_asked_by_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own node of it, which is there without udev too."""
    asked: list[tuple[int, bytes, int]] = []

    def answer(command: int, device: bytes, project_id: int, _buffer: object) -> int:
        asked.append((command, device, project_id))
        return 0

    monkeypatch.setattr(quotactl, "_NR_QUOTACTL_FD", UNUSED)
    monkeypatch.setattr(quotactl, "_quotactl", answer)
    with loop_filesystem("ext4", tmp_path) as found:
        fd = os.open(found.path, os.O_RDONLY)
        try:
            quotactl.get_quota(fd, 4711)
        finally:
            os.close(fd)
        ((command, device, project_id),) = asked
        assert (command, project_id) == (quotactl.Q_XGETQUOTA << 8 | quotactl.PRJQUOTA, 4711)
        assert os.stat(device).st_rdev == found.path.stat().st_dev


def test_a_filesystem_on_no_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotactl, "_NR_QUOTACTL_FD", UNUSED)
    fd = os.open("/proc", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=r"/proc") as refused:
            quotactl.project_state(fd)
        assert refused.value.errno == errno.ENOTBLK
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
