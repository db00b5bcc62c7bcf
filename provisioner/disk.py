"""An opened pool: file descriptors that stay on the disk whatever is mounted or renamed around it.

Everything is done relative to these descriptors, so nothing can land on a wrong filesystem; `check`
notices when the pool's path no longer leads here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from provisioner.directories import open_directory
from provisioner.errors import NotDurable, PoolUnavailable, Unavailable
from provisioner.faults import FULL
from provisioner.identity import (
    CONTROL,
    FOLDERS,
    AlreadyInitialised,
    PoolIdentity,
    init_at,
    now,
    read_identity,
)
from provisioner.linux.mount import MS_PRIVATE, OPEN_TREE_CLONE, mount_setattr, open_tree
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.linux.statx import AT_EMPTY_PATH, Statx, glance, statx
from provisioner.settings import PoolSettings

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLONE = OPEN_TREE_CLONE | AT_EMPTY_PATH
_LOCK = "lock"
_PROBE = "probe"
_LOCK_POLL_S = 0.1


class PoolLocked(Unavailable):
    """Another process serves this pool."""


class Owner(msgspec.Struct, frozen=True):
    """Content of the lock file: who serves the pool, since when."""

    host: str
    pid: int
    since: str


_OWNER = msgspec.json.Decoder(Owner)


@dataclass(frozen=True, slots=True)
class Space:
    """Figures of the filesystem under a pool."""

    size_bytes: int
    free_bytes: int
    used_bytes: int
    inodes: int
    free_inodes: int
    readonly: bool


class Disk:
    """The descriptors of one pool, its identity, and its lock."""

    def __init__(self, settings: PoolSettings, *, readonly: bool = False) -> None:
        """Open the pool; PoolUnavailable says why that cannot be. readonly: never give it an identity."""
        self.path = settings.path
        self.illness = ""  # why the last call failed that the disk let down; `probe` ends it
        self._fds: dict[str, int] = {}
        self._failed_syncs: dict[str, object] = {}
        try:
            self._open(settings, may_init=settings.init == "if-empty" and not readonly)
        except BaseException:
            self.close()
            raise

    def _open(self, settings: PoolSettings, *, may_init: bool) -> None:
        try:
            root_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PoolUnavailable(f"pool {self.path}: wanted a directory, found: {error.strerror}") from error
        try:
            try:
                self._open_at(root_fd, settings, may_init=may_init)
            finally:
                os.close(root_fd)
        except OSError as error:
            raise PoolUnavailable(f"pool {self.path}: {error.filename}: {error.strerror}") from error

    def _open_at(self, root_fd: int, settings: PoolSettings, *, may_init: bool) -> None:
        root = statx("", dir_fd=root_fd, flags=AT_EMPTY_PATH)
        if settings.require_mount and not root.mount_root:
            raise PoolUnavailable(f"pool {self.path}: wanted a mounted disk (requireMount), found a plain directory")
        self.control_fd = self._open_control(root_fd, may_init=may_init)
        self.identity: PoolIdentity = read_identity(self.control_fd, self.path)
        for folder in FOLDERS:
            self._fds[folder] = open_directory(folder, self.control_fd)  # renames need them on one mount
        self._place = _place(statx("", dir_fd=self.control_fd, flags=AT_EMPTY_PATH))
        self.fs_type = _fs_type(self._place[2])

    def _open_control(self, root_fd: int, *, may_init: bool) -> int:
        if may_init and _is_blank(root_fd):
            with suppress(AlreadyInitialised):  # somebody else did it in the same moment
                init_at(root_fd, self.path)
        try:
            fd = os.open(CONTROL, _DIRECTORY, dir_fd=root_fd)
        except FileNotFoundError as error:
            raise PoolUnavailable(
                f"pool {self.path}: it holds no {CONTROL}: no pool, or its disk is not mounted; "
                f"run 'csi-local-path pools init {self.path}' to make it one"
            ) from error
        self._fds["control"] = fd
        return fd

    @property
    def pool_id(self) -> str:
        """The pool's own random id."""
        return self.identity.pool_id

    @property
    def volumes_fd(self) -> int:
        """Directory of the volumes."""
        return self._fds["volumes"]

    @property
    def tree_fd(self) -> int:
        """Directory of the volumes to clone mounts from: on one that is attached nowhere, if the kernel can."""
        return self._fds.get("tree", self._fds["volumes"])

    @property
    def detached(self) -> bool:
        """Tell whether `tree_fd` is on a mount of its own, which has no peers."""
        return "tree" in self._fds

    @property
    def staging_fd(self) -> int:
        """Directory of what is being built."""
        return self._fds["staging"]

    @property
    def trash_fd(self) -> int:
        """Directory of what waits to be erased."""
        return self._fds["trash"]

    @property
    def published_fd(self) -> int:
        """Directory of the hints about publications."""
        return self._fds["published"]

    def lock(self, wait_s: float) -> None:
        """Become the only process that serves this pool; PoolLocked names the other one."""
        fd = _open_lock(self.control_fd, self.path)
        self._fds["lock"] = fd
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise PoolLocked(f"pool {self.path}: {describe_owner(self.control_fd)}; stop it first") from None
                time.sleep(_LOCK_POLL_S)
            except OSError as error:
                raise PoolUnavailable(f"pool {self.path}: cannot be locked: {error.strerror}") from error
        _write_owner(fd)
        self._detach_tree()

    def _detach_tree(self) -> None:
        """Give the volumes a mount that is attached nowhere, to be cloned for each publication.

        To clone a mount the kernel looks at every mount on it, and the pool's own may carry all publications:
        with it, a publish would cost more with each one there is. Linux before 6.15 cannot clone a detached
        mount (EINVAL); the pool's own serves there.
        """
        try:
            tree_fd = open_tree("", dir_fd=self.volumes_fd, flags=_CLONE)
        except OSError:
            return
        try:
            mount_setattr(tree_fd, "", flags=AT_EMPTY_PATH, propagation=MS_PRIVATE)
            os.close(open_tree("", dir_fd=tree_fd, flags=_CLONE))
        except OSError:
            os.close(tree_fd)
        else:
            self._fds["tree"] = tree_fd

    def check(self) -> None:
        """Raise PoolUnavailable where the pool's path does not lead here any more."""
        try:
            found = glance(f"{self.path}/{CONTROL}")
        except OSError as error:
            raise PoolUnavailable(f"pool {self.path}: {error.strerror}; is its disk mounted?") from error
        if _place(found) != self._place:
            raise PoolUnavailable(f"pool {self.path}: another disk is mounted there; wanted pool {self.pool_id}")

    def space(self) -> Space:
        """Ask the filesystem for its figures (statvfs(3)); what it reserves for root counts nowhere."""
        found = os.fstatvfs(self.control_fd)
        unit = found.f_frsize
        return Space(
            size_bytes=(found.f_blocks - found.f_bfree + found.f_bavail) * unit,
            free_bytes=found.f_bavail * unit,
            used_bytes=(found.f_blocks - found.f_bfree) * unit,
            inodes=found.f_files,
            free_inodes=found.f_favail,
            readonly=bool(found.f_flag & os.ST_RDONLY),
        )

    def settle(self, *folders: str) -> None:
        """Make renames in `folders` survive a power cut, and those that failed to before.

        NotDurable where a folder cannot be synced: the change is visible and must not be denied, nor
        may it be called done; the retry comes here again.
        """
        for folder in {*folders, *self._failed_syncs}:
            before = self._failed_syncs.get(folder)
            try:
                self._fsync(folder)
            except FileNotFoundError:
                pass  # a volume that was expanded, and deleted since
            except OSError as error:
                self._failed_syncs[folder] = object()
                raise NotDurable(f"pool {self.path}: {folder} cannot be synced: {error.strerror}; retry") from error
            if before is not None and self._failed_syncs.get(folder) is before:
                self._failed_syncs.pop(folder, None)

    def probe(self) -> None:
        """See whether an ill disk can be written to again; a full one is not ill.

        No figure tells: statvfs(3) of an ext4 that gave its journal up is as it was before.
        """
        try:
            with suppress(FileExistsError):
                os.mkdir(_PROBE, dir_fd=self.staging_fd)
            os.rmdir(_PROBE, dir_fd=self.staging_fd)
            os.fsync(self.staging_fd)
            self.settle()
        except OSError as error:
            self.illness = "" if error.errno in FULL else f"pool {self.path}: cannot be written to: {error.strerror}"
        except NotDurable as error:
            self.illness = str(error)
        else:
            self.illness = ""

    def _fsync(self, folder: str) -> None:
        if folder in self._fds:
            os.fsync(self._fds[folder])
            return
        fd = os.open(folder, _DIRECTORY, dir_fd=self.control_fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def is_retired(self, pool_id: str) -> bool:
        """Tell whether an administrator said that the pool `pool_id` never comes back."""
        try:
            os.stat(pool_id, dir_fd=self._fds["retired"], follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        """Let the descriptors and the lock go."""
        self.control_fd = -1  # the number may soon be another file's
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def _place(found: Statx) -> tuple[int, int, int]:
    return found.dev, found.ino, found.mnt_id


def _is_blank(root_fd: int) -> bool:
    """Tell whether a directory is empty, but for what mkfs leaves and an initialisation that a crash cut short."""
    names = set(os.listdir(root_fd)) - {"lost+found"}
    return not names or (names == {CONTROL} and _is_unfinished(root_fd))


def _is_unfinished(root_fd: int) -> bool:
    """Tell whether CONTROL never got its identity; one with volumes did have one, and lost it."""
    control_fd = os.open(CONTROL, _DIRECTORY, dir_fd=root_fd)
    try:
        names = set(os.listdir(control_fd))
        return names <= {*FOLDERS, "pool.json.new"} and not any(
            os.listdir(fd) for fd in _opened(control_fd, names & set(FOLDERS))
        )
    finally:
        os.close(control_fd)


def _opened(dir_fd: int, folders: Iterable[str]) -> Iterator[int]:
    for folder in folders:
        fd = os.open(folder, _DIRECTORY, dir_fd=dir_fd)
        try:
            yield fd
        finally:
            os.close(fd)


def _fs_type(mnt_id: int) -> str:
    """Name the filesystem of a mount as the kernel does ('ext4', 'xfs', 'btrfs')."""
    return next((mount.fs_type for mount in read_mountinfo() if mount.mnt_id == mnt_id), "")


def _open_lock(control_fd: int, path: str) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(_LOCK, os.O_RDWR | os.O_CREAT | flags, 0o600, dir_fd=control_fd)
    except OSError as error:
        if error.errno not in {errno.EROFS, *FULL}:
            raise PoolUnavailable(f"pool {path}: cannot be locked: {error.strerror}") from error
    try:  # a full or read-only disk: the file of an earlier owner serves as well
        return os.open(_LOCK, os.O_RDONLY | flags, dir_fd=control_fd)
    except OSError as error:
        raise PoolUnavailable(f"pool {path}: cannot be locked: {error.strerror}") from error


def _write_owner(fd: int) -> None:
    content = msgspec.json.encode(Owner(socket.gethostname(), os.getpid(), now()))
    try:
        os.pwrite(fd, content, 0)  # first, for on a full disk an emptied file could not be written again
        os.ftruncate(fd, len(content))
    except OSError:
        return  # who it is, is a courtesy; the lock itself holds


def read_owner(control_fd: int) -> Owner | None:
    """Give the last owner by its own word, whether it still lives or not."""
    try:
        with open(os.open(_LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=control_fd), "rb") as file:
            return _OWNER.decode(file.read(4096))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def describe_owner(control_fd: int) -> str:
    """Say in a sentence who holds a locked pool."""
    owner = read_owner(control_fd)
    if owner is None:
        return "another process serves it"
    return f"process {owner.pid} on host {owner.host} serves it since {owner.since}"
