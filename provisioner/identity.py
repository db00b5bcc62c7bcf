"""Who a pool is: a random id and the filesystem it was made on, in `pool.json`."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime

import msgspec

from provisioner.errors import PoolUnavailable
from provisioner.linux.fsuuid import filesystem_uuid
from provisioner.linux.renameat2 import rename_noreplace
from provisioner.names import is_pool_id, new_pool_id

CONTROL = ".csi-local-path"
FOLDERS = ("volumes", "staging", "trash", "published", "retired")
SCHEMA = 1

_FILE = "pool.json"


class PoolIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `pool.json`. filesystem_uuid: None where the filesystem tells none."""

    schema: int
    pool_id: str
    filesystem_uuid: str | None
    created_at: str


_IDENTITY = msgspec.json.Decoder(PoolIdentity)


class AlreadyInitialised(PoolUnavailable):
    """The directory is a pool already."""


def now() -> str:
    """Give the time as records keep it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def read_identity(control_fd: int, path: str) -> PoolIdentity:
    """Read and judge `pool.json`; PoolUnavailable says what is wrong with it."""
    try:
        with open(os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=control_fd), "rb") as file:
            identity = _IDENTITY.decode(file.read(65536))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PoolUnavailable(f"pool {path}: its identity {CONTROL}/{_FILE} cannot be read: {error}") from error
    if identity.schema > SCHEMA:
        raise PoolUnavailable(
            f"pool {path}: its schema is {identity.schema}, this version knows up to {SCHEMA}; use a newer version"
        )
    if not is_pool_id(identity.pool_id):
        raise PoolUnavailable(f"pool {path}: {identity.pool_id!r} is no pool id (16 hexadecimal digits)")
    _check_filesystem(identity, control_fd, path)
    return identity


def _check_filesystem(identity: PoolIdentity, control_fd: int, path: str) -> None:
    """Refuse a pool that lies on another filesystem than it was made on: a copy, or a wrong disk."""
    found = filesystem_uuid(control_fd)
    if found and identity.filesystem_uuid and found != identity.filesystem_uuid:
        raise PoolUnavailable(
            f"pool {path}: made on filesystem {identity.filesystem_uuid}, found on {found}; mount the right disk, "
            f"or, if the pool was moved on purpose, write the new UUID into {CONTROL}/{_FILE}"
        )


def init_pool(path: str) -> PoolIdentity:
    """Give the directory `path` its identity; safe against a crash at any step, and to repeat after one.

    Raises AlreadyInitialised where it has one, PoolUnavailable where it cannot have one.
    """
    try:
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PoolUnavailable(f"pool {path}: wanted a directory, found: {error.strerror}") from error
    try:
        return init_at(root_fd, path)
    finally:
        os.close(root_fd)


def init_at(root_fd: int, path: str) -> PoolIdentity:
    """Do the same to an opened directory, whatever is mounted over its path meanwhile."""
    try:
        return _init(root_fd, path)
    except FileExistsError:
        raise AlreadyInitialised(f"pool {path}: it is one already; nothing was changed") from None
    except OSError as error:
        raise PoolUnavailable(f"pool {path}: cannot be initialised: {error.strerror}") from error


def _init(root_fd: int, path: str) -> PoolIdentity:
    _make_folder(root_fd, CONTROL)
    control_fd = os.open(CONTROL, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        fcntl.flock(control_fd, fcntl.LOCK_EX)  # two at once would write one draft
        if _exists(control_fd, _FILE):
            raise FileExistsError(_FILE)
        for folder in FOLDERS:
            _make_folder(control_fd, folder)
            _check_empty(control_fd, folder, path)
        identity = PoolIdentity(
            schema=SCHEMA,
            pool_id=new_pool_id(),
            filesystem_uuid=filesystem_uuid(control_fd),
            created_at=now(),
        )
        os.fsync(root_fd)  # before the identity, which says that all of it is there
        _write_identity(control_fd, identity)
        return identity
    finally:
        os.close(control_fd)


def _write_identity(control_fd: int, identity: PoolIdentity) -> None:
    draft = f"{_FILE}.new"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=control_fd)
    with open(fd, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    rename_noreplace(draft, _FILE, src_dir_fd=control_fd, dst_dir_fd=control_fd)
    os.fsync(control_fd)


def _make_folder(dir_fd: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        return


def _check_empty(control_fd: int, folder: str, path: str) -> None:
    """Raise PoolUnavailable where something lies in a folder: a pool that had an identity, and lost it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=control_fd)
    try:
        if os.listdir(fd):
            raise PoolUnavailable(
                f"pool {path}: {CONTROL}/{_FILE} is missing, but {CONTROL}/{folder} is not empty: a new identity would "
                f"orphan its volumes; restore {_FILE} (its pool_id is the first part of each volume_id)"
            )
    finally:
        os.close(fd)


def _exists(dir_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def retire(path: str, pool_id: str) -> None:
    """Note in the pool at `path` that the pool `pool_id` never comes back; repeating it is OK.

    Its volumes can then be deleted although nobody can see them. PoolUnavailable where `path` is no pool.
    """
    try:
        fd = os.open(
            f"{path}/{CONTROL}/retired/{pool_id}",
            os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
        os.close(fd)
        folder_fd = os.open(f"{path}/{CONTROL}/retired", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder_fd)
        finally:
            os.close(folder_fd)
    except OSError as error:
        raise PoolUnavailable(f"pool {path}: cannot note that {pool_id} is retired: {error.strerror}") from error
