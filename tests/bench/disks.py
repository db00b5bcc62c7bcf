"""The filesystems that figures are taken on: each fresh, in a sparse file."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.filesystems import loop_filesystem, tmpfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Disk:
    """One kind of filesystem. options: of its mount. pool: keys of the settings of pools on it.

    in_memory: the file below lies in memory: what is measured is then the way to the disk, and neither the disk nor who
    else uses it.
    """

    kind: str
    size_bytes: int = 8 * GIB
    mkfs_options: tuple[str, ...] = ()
    options: str = ""
    pool: dict[str, str] = field(default_factory=dict)
    in_memory: bool = False

    @contextmanager
    def mounted(self, folder: Path) -> Iterator[Path]:
        """Make it and have it mounted in a folder."""
        with ExitStack() as stack:
            if self.in_memory:
                stack.enter_context(tmpfs(folder, self.size_bytes + GIB))
            found = stack.enter_context(
                loop_filesystem(
                    self.kind, folder, self.size_bytes, mkfs_options=self.mkfs_options, options=self.options
                )
            )
            yield found.path


# Else the kernel writes the inode tables while figures are taken.
_WRITTEN_AT_ONCE = ("-E", "lazy_itable_init=0,lazy_journal_init=0")

PLAIN = Disk("ext4", mkfs_options=_WRITTEN_AT_ONCE)
BTRFS = Disk("btrfs", pool={"quota": "enable"})
# Small ones, for they lie in the memory of an emulated machine.
QUOTA_XFS = Disk("xfs", 2 * GIB, options="prjquota")
QUOTA_EXT4 = Disk(
    "ext4",
    2 * GIB,
    mkfs_options=("-O", "project,quota", "-E", "quotatype=prjquota,lazy_itable_init=0,lazy_journal_init=0"),
    options="prjquota",
)
FAST_EXT4 = Disk("ext4", 4 * GIB, mkfs_options=_WRITTEN_AT_ONCE, in_memory=True)
FAST_BTRFS = Disk("btrfs", 4 * GIB, options="nodiscard", pool={"quota": "enable"}, in_memory=True)
