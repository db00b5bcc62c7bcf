"""The project of a file, read and changed as its owner can. Needs no pytest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from provisioner.linux.fsxattr import get_fsxattr, set_fsxattr


def project_of(path: Path) -> int:
    """Give the project of a file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return get_fsxattr(fd).projid
    finally:
        os.close(fd)


def move_to_project(path: Path, project_id: int) -> None:
    """Put a file or directory into a project, and leave it as it is else."""
    fd = os.open(path, os.O_RDONLY)
    try:
        set_fsxattr(fd, replace(get_fsxattr(fd), projid=project_id))
    finally:
        os.close(fd)
