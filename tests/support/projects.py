"""The project of a file, read and changed as its owner can. Needs no pytest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from provisioner.linux.fsxattr import FS_XFLAG_PROJINHERIT, get_fsxattr, set_fsxattr


def project_of(path: Path) -> int:
    """Give the project of a file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return get_fsxattr(fd).projid
    finally:
        os.close(fd)


def move_to_project(path: Path, project_id: int, *, inherit: bool = False) -> None:
    """Put a file or directory into a project; inherit: what is made in it gets that too, as it may have been before."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = get_fsxattr(fd)
        xflags = found.xflags | (FS_XFLAG_PROJINHERIT if inherit else 0)
        set_fsxattr(fd, replace(found, projid=project_id, xflags=xflags))
    finally:
        os.close(fd)
