"""The unix socket that a CO dials: claimed without taking it from anyone who lives, given back when ours.

gRPC removes whatever socket stands at the path before it binds and again when it stops, so it would take
over a live server's socket, and one started later would lose its own to our stop. Here gRPC is shown the
directory through a descriptor (`/proc/self/fd/N/csi.sock`) that afterwards points to nothing: binding,
replacing and removing stay with this module.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONGEST_PATH = 107  # bytes of sockaddr_un.sun_path less the final zero, unix(7)
_LOCK_WAIT_S = 5.0
_CONNECT_WAIT_S = 2.0
_UCRED = struct.Struct("3i")


class EndpointError(Exception):
    """The socket cannot be served; the message says what was wanted, what was found, and what to do."""


@dataclass(frozen=True, slots=True)
class ClaimedSocket:
    """A bound socket; `identity` is the device and inode of its file."""

    path: Path
    identity: tuple[int, int]

    def withdraw(self) -> None:
        """Remove the file if it is still ours; calls that run go on."""
        try:
            with _locked(self.path.parent) as folder:
                if _identity(self.path.name, folder) == self.identity:
                    os.unlink(self.path.name, dir_fd=folder)
        except (EndpointError, OSError):
            return  # the directory is gone, or busy: a file that stays is stale and will be replaced


def parse_endpoint(endpoint: str) -> Path:
    """Give the path of `unix:///path`, `unix:/path` or `/path`; EndpointError if it is none we can serve."""
    path = endpoint.removeprefix("unix://" if endpoint.startswith("unix://") else "unix:")
    if not path.startswith("/") or "\0" in path:
        raise EndpointError(f"endpoint: wanted unix:///path/to/csi.sock, found {endpoint!r}")
    if not path.endswith(".sock") or path.endswith("/.sock"):
        raise EndpointError(f"endpoint: wanted a file name that ends in .sock (CSI), found {endpoint!r}")
    if (size := len(os.fsencode(path))) > _LONGEST_PATH:
        raise EndpointError(f"endpoint: wanted a path of at most {_LONGEST_PATH} bytes, found {size}: {path}")
    return Path(path)


def claim_socket(endpoint: str, bind: Callable[[str], object]) -> ClaimedSocket:
    """Bind the endpoint, mode 0600 from its first moment, and listen.

    bind: `add_insecure_port` of a grpc.Server. A socket that nobody listens on is replaced; a live one,
    or a path that is no socket, is left alone and an EndpointError. The directory is made (0700) if its
    parent exists.
    """
    path = parse_endpoint(endpoint)
    _ensure_folder(path.parent)
    with _locked(path.parent) as folder:
        _remove_stale(path, folder)
        try:
            _bind(f"unix:{quote(_inside(folder, path.name))}", bind)
            return ClaimedSocket(path, _identity(path.name, folder))
        except (OSError, RuntimeError) as error:
            raise EndpointError(f"{path}: cannot be bound: {error}") from error
        finally:
            _point_to_nothing(folder)


def _bind(address: str, bind: Callable[[str], object]) -> None:
    before = os.umask(0o177)  # a chmod after the bind would leave a moment in which others may connect
    try:
        bind(address)
    finally:
        os.umask(before)


def _point_to_nothing(folder: int) -> None:
    """Make the descriptor useless for the removal that gRPC does at its end, and never reuse its number."""
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, folder, inheritable=False)
    os.close(nothing)


def _ensure_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EndpointError(f"{folder}: wanted a directory for the socket: {error.strerror}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Open a directory and hold its flock: two of our processes never look and bind at once.

    The descriptor stays open if it was pointed elsewhere meanwhile; that also lets the lock go.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise EndpointError(f"{folder}: wanted a directory for the socket: {error.strerror}") from error
    try:
        _lock(fd, folder)
        yield fd
    finally:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)


def _lock(fd: int, folder: Path) -> None:
    end = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise EndpointError(f"{folder}: another process keeps this directory locked (flock)") from None
        time.sleep(0.01)


def _remove_stale(path: Path, folder: int) -> None:
    try:
        mode = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise EndpointError(f"{path}: wanted a socket or nothing, found {_kind(mode)}; it is left alone")
    _refuse_live(path, folder)
    try:
        os.unlink(path.name, dir_fd=folder)
    except OSError as error:
        raise EndpointError(f"{path}: the stale socket cannot be removed: {error.strerror}") from error


def _refuse_live(path: Path, folder: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_WAIT_S)
        try:
            probe.connect(_inside(folder, path.name))
        except (ConnectionRefusedError, FileNotFoundError):
            return  # nobody listens
        except OSError as error:  # a full backlog, another type of socket, no permission: somebody's
            raise EndpointError(f"{path}: another process uses this socket ({error.strerror or error})") from error
        pid, _, _ = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    raise EndpointError(f"{path}: another process listens on this socket (pid {pid}); stop it first")


def _inside(folder: int, name: str) -> str:
    return f"/proc/self/fd/{folder}/{name}"


def _identity(name: str, folder: int) -> tuple[int, int]:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return found.st_dev, found.st_ino


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFREG: "a file", stat.S_IFLNK: "a symbolic link"}
    return kinds.get(stat.S_IFMT(mode), "something else")
