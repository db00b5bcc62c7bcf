"""Cut the power of a filesystem: whatever was not synced is gone, as kill -9 never shows it.

ext4 and XFS are told to shut down without writing their log (ioctl_xfs_goingdown(2); ext4 has the same
request by another name). btrfs has no such request: its backing file is copied while it is mounted, which
is what a disk would hold. Needs no pytest.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.support.filesystems import Filesystem, make_image, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOING_DOWN = 0x8004587D  # _IOR('X', 125, __u32): XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN
_NOLOGFLUSH = 2
# btrfs shall not commit of itself while it is copied.
_OPTIONS = {"ext4": "commit=300", "xfs": "", "btrfs": "commit=300"}


class PowerDisk:
    """A mounted filesystem whose power can be cut: `cut`, end whoever uses it, `revive`."""

    def __init__(self, kind: str, folder: Path) -> None:
        """Make the filesystem; it is mounted at folder/KIND."""
        self.kind = kind
        self.path = folder / kind
        self._image = folder / f"{kind}.img"
        self._stack = ExitStack()
        self.cuts = 0
        make_image(kind, self._image)
        self._mount()

    def _mount(self) -> None:
        self._filesystem: Filesystem = self._stack.enter_context(
            mounted(self.kind, self._image, self.path, _OPTIONS[self.kind])
        )

    def cut(self) -> None:
        """Cut the power now. Nothing that is written later reaches the disk."""
        self.cuts += 1
        if self.kind == "btrfs":
            # The original stays as it is until nobody uses it any more.
            subprocess.run(["cp", "--sparse=always", self._image, f"{self._image}.cut"], check=True)
            return
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, GOING_DOWN, struct.pack("=I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def revive(self) -> None:
        """Mount what the disk holds; every mount of the filesystem is gone by then, as after a boot."""
        self._stack.close()
        if self.kind == "btrfs":
            os.replace(f"{self._image}.cut", self._image)
        self._mount()

    def close(self) -> None:
        """Unmount and remove it."""
        self._stack.close()
        self._image.unlink()


@contextmanager
def power_disk(kind: str, folder: Path) -> Iterator[PowerDisk]:
    """Give a PowerDisk and take it away at the end."""
    disk = PowerDisk(kind, folder)
    try:
        yield disk
    finally:
        disk.close()
