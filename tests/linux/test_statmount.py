"""statmount(2): which directory a mount shows, whatever has become of that directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from provisioner.linux import statmount as module
from provisioner.linux.mount import MS_BIND, mount, umount2
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.linux.statmount import MountDetails, statmount
from provisioner.linux.statx import STATX_MNT_ID_UNIQUE, statx
from tests.support.filesystems import Filesystem

# What mountinfo escapes: space, tab, newline, backslash; and what looks like an escape but is none.
_STRANGE = "a \t\n\\040#ü"


def _unique(path: Path) -> int:
    return statx(path, mask=STATX_MNT_ID_UNIQUE).mnt_id


def _listed_root(path: Path) -> str:
    mnt_id = statx(path).mnt_id
    return next(found.root for found in read_mountinfo() if found.mnt_id == mnt_id)


@pytest.fixture
def bound(folder: Path) -> tuple[Path, Path]:
    """Bind a directory of each kind of filesystem elsewhere on it; both have names that need escapes."""
    source, target = folder / f"source {_STRANGE}", folder / f"target {_STRANGE}"
    source.mkdir()
    target.mkdir()
    mount(source, target, flags=MS_BIND)
    return source, target


def test_number_and_structures_are_the_kernels() -> None:
    assert module._NR == 457
    assert module._REQUEST.size == 24
    assert module._REPLY.size == 112
    assert (module.STATMOUNT_MNT_ROOT, module.STATMOUNT_MNT_POINT, module.STATMOUNT_FS_TYPE) == (8, 16, 32)


def test_a_filesystem_shows_its_root(filesystem: Filesystem) -> None:
    assert statmount(_unique(filesystem.path)) == MountDetails("/", str(filesystem.path), filesystem.kind)


def test_a_bind_mount_shows_its_directory(filesystem: Filesystem, bound: tuple[Path, Path]) -> None:
    source, target = bound
    root = "/" + str(source.relative_to(filesystem.path))
    assert statmount(_unique(target)) == MountDetails(root, str(target), filesystem.kind)
    assert _listed_root(target) == root


def test_the_root_follows_a_rename(filesystem: Filesystem, bound: tuple[Path, Path]) -> None:
    """A volume that was moved to the trash while it is mounted shows from there."""
    source, target = bound
    trash = source.parent / "trash"
    trash.mkdir()
    source.rename(trash / "entry")
    root = "/" + str((trash / "entry").relative_to(filesystem.path))
    assert statmount(_unique(target)).root == _listed_root(target) == root


def test_an_unlinked_root_says_so(filesystem: Filesystem, bound: tuple[Path, Path]) -> None:
    """No path holds `//`: the ending cannot be part of a name."""
    source, target = bound
    source.rmdir()
    root = "/" + str(source.relative_to(filesystem.path)) + "//deleted"
    assert statmount(_unique(target)).root == _listed_root(target) == root
    assert statx(target).nlink in (0, 1), "btrfs counts no links of directories"
    source.mkdir()
    assert statmount(_unique(target)).root == root, "another directory of the same name is another one"


def test_the_mount_point_follows_a_rename(memory: Path) -> None:
    (memory / "before" / "target").mkdir(parents=True)
    mount(memory, memory / "before" / "target", flags=MS_BIND)
    (memory / "before").rename(memory / "after")
    assert statmount(_unique(memory / "after" / "target")).mount_point == str(memory / "after" / "target")


def test_names_may_be_any_bytes(memory: Path) -> None:
    target = memory / os.fsdecode(b"caf\xe9" + b"\xff" * 250)
    target.mkdir()
    mount(memory, target, flags=MS_BIND)
    assert statmount(_unique(target)).mount_point == str(target)


def test_long_paths_fit(memory: Path) -> None:
    """Two paths of nearly 4 KiB are more than the first try has room for."""
    names = ["n" * 250] * 15
    for top in ("source", "target"):
        memory.joinpath(top, *names).mkdir(parents=True)
    source, target = memory.joinpath("source", *names), memory.joinpath("target", *names)
    mount(source, target, flags=MS_BIND)
    assert len(str(target)) > 3700
    assert statmount(_unique(target)) == MountDetails(f"/source/{'/'.join(names)}", str(target), "tmpfs")


def test_a_mount_that_is_gone_is_named(memory: Path) -> None:
    (memory / "target").mkdir()
    mount(memory, memory / "target", flags=MS_BIND)
    mnt_id = _unique(memory / "target")
    umount2(memory / "target")
    with pytest.raises(FileNotFoundError, match=f"mount id {mnt_id}"):
        statmount(mnt_id)


def test_the_reused_kind_of_id_is_refused(memory: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        statmount(statx(memory).mnt_id)
    assert caught.value.errno == errno.EINVAL
