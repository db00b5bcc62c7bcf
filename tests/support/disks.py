"""Disks that come, go, fill and change places under a pool, and ways to look at what is left on them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from provisioner.assembly import Provisioner
from provisioner.linux.mount import MNT_DETACH, MS_BIND, MS_RDONLY, MS_REMOUNT, UMOUNT_NOFOLLOW, mount, umount2
from provisioner.model import StorageStatus
from provisioner.pool import Pool
from provisioner.settings import Settings
from provisioner.volumes import Volumes


def until(true: Callable[[], bool], patience_s: float = 30.0) -> None:
    """Wait until something is so that another thread brings about."""
    ends = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < ends, f"not so within {patience_s} seconds"
        time.sleep(0.01)


def bind(source: Path, target: Path) -> None:
    """Mount a folder at another one, as a disk that comes."""
    target.mkdir(exist_ok=True)
    mount(source, target, flags=MS_BIND)


def pull(path: Path) -> None:
    """Take the topmost mount off a path at once, whoever uses it: a disk that goes."""
    umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)


@contextmanager
def readonly(path: Path) -> Iterator[None]:
    """Bind a folder to itself, read-only, for a while."""
    mount(path, path, flags=MS_BIND)
    try:
        mount(None, path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
        yield
    finally:
        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill a filesystem until not even a small file finds room, and give the room back at the end."""
    hogs: list[Path] = []
    try:
        for size in (1 << 26, 1 << 20, 1 << 16, 1 << 12):
            while _hog(folder / f"hog{len(hogs)}", size):
                hogs.append(folder / f"hog{len(hogs)}")
        yield
    finally:
        for hog in hogs:
            hog.unlink()


def _hog(path: Path, size: int) -> bool:
    try:
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def tree(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Give each path below a folder with its mode, inode, time of change, and content or target."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            at = path.lstat()
            content = b""
            if path.is_symlink():
                content = os.fsencode(os.readlink(path))
            elif path.is_file():
                content = path.read_bytes()
            found[str(path.relative_to(folder))] = (at.st_mode, at.st_ino, at.st_mtime_ns, content)
    return found


def with_pool(settings: Settings, **keys: Any) -> Settings:
    """Give settings with other keys of their first pool."""
    first, *others = settings.pools
    return msgspec.structs.replace(settings, pools=[msgspec.structs.replace(first, **keys), *others])


def is_reachable(volumes: Volumes) -> bool:
    """Tell whether every pool can be used."""
    return all(problem.status is not StorageStatus.UNREACHABLE for problem in volumes.storage_health())


def two_pools(settings: Settings, tmp_path: Path, **keys: Any) -> Settings:
    """Add a pool named 'second' at tmp_path/second."""
    (tmp_path / "second").mkdir(exist_ok=True)
    second = with_pool(settings, name="second", path=str(tmp_path / "second"), **keys).pools[0]
    both = with_pool(settings)
    both.pools.append(second)
    return both


def watched(provisioner: Provisioner) -> Callable[[], bool]:
    """Give what becomes true when the watcher has gone over all pools several times more."""
    finder = provisioner._pools
    looks: list[Pool] = []
    look_again = finder._look_again

    def counted(pool: Pool) -> None:
        look_again(pool)
        looks.append(pool)

    finder._look_again = counted  # type: ignore[method-assign]  # nothing else tells what its thread did
    return lambda: len(looks) >= 4 * len(finder.pools)
