"""What volumes really use: the figures of one pool, kept in memory and in a file that may be lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

import msgspec
import structlog

from provisioner.directories import opened

log = structlog.get_logger(__name__)

SCHEMA = 1
FILE = "usage.json"
_DRAFT = "usage.json.new"
_STAGING = "staging"

_MOST_BYTES = 256 << 20  # of the file; a record takes about a hundred

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Measurement(msgspec.Struct, frozen=True, gc=False):
    """What a volume occupied at `measured_at` (Unix seconds)."""

    used_bytes: _Count
    inodes: _Count
    measured_at: float


class _Foreign(msgspec.Struct, frozen=True):
    """What strangers occupied of the pool's filesystem."""

    used_bytes: _Count
    measured_at: float


class _Content(msgspec.Struct):
    """Content of `usage.json`."""

    schema: int
    volumes: dict[str, Measurement]
    foreign: _Foreign | None = None
    lost: dict[str, str] = {}
    escaped: dict[str, str] = {}


_CONTENT = msgspec.json.Decoder(_Content)


class Usage:
    """The last measurements of one pool, by folder; safe to use from any thread."""

    def __init__(self, control_dir_fd: int) -> None:
        self._control_fd = control_dir_fd
        self._guard = threading.Lock()
        self._volumes: dict[str, Measurement] = {}
        self._used_bytes = 0
        self._lost: dict[str, str] = {}
        self._escaped: dict[str, str] = {}
        self._foreign: _Foreign | None = None
        self._saving = threading.Lock()  # there is one draft
        self._failure = ""

    @property
    def used_bytes(self) -> int:
        """Sum of the last measurements of all volumes."""
        return self._used_bytes

    @property
    def foreign_bytes(self) -> int | None:
        """Bytes of the filesystem that are no volume's data and no trash; None where never measured."""
        return self._foreign.used_bytes if self._foreign else None

    @property
    def foreign_measured_at(self) -> float | None:
        """When that was found, in Unix seconds."""
        return self._foreign.measured_at if self._foreign else None

    def get(self, folder: str) -> Measurement | None:
        """Give the last measurement of a volume."""
        return self._volumes.get(folder)

    def put(self, folder: str, measurement: Measurement) -> None:
        """Note a measurement."""
        with self._guard:
            self._drop(folder)
            self._volumes[folder] = measurement
            self._used_bytes += measurement.used_bytes

    @property
    def lost_count(self) -> int:
        """How many volumes had a limit that was lost when they were last looked at."""
        return len(self._lost)

    @property
    def escaped_count(self) -> int:
        """How many volumes had something that slipped out of their limit."""
        return len(self._escaped)

    def lost(self, folder: str) -> str:
        """Say what was wrong with a volume's limit when it was last looked at; '' for nothing."""
        return self._lost.get(folder, "")

    def escaped(self, folder: str) -> str:
        """Say what of a volume had slipped out of its limit when it was last looked at; '' for nothing."""
        return self._escaped.get(folder, "")

    def lost_folders(self) -> list[str]:
        """Name the volumes that had a limit that was lost when they were last looked at."""
        with self._guard:
            return list(self._lost)

    def put_lost(self, folder: str, finding: str) -> None:
        """Note what is wrong with a limit; '' for nothing."""
        self._find(self._lost, folder, finding)

    def put_escaped(self, folder: str, finding: str) -> None:
        """Note what slipped out; '' for nothing."""
        self._find(self._escaped, folder, finding)

    def _find(self, findings: dict[str, str], folder: str, finding: str) -> None:
        with self._guard:
            if finding:
                findings[folder] = finding
            else:
                findings.pop(folder, None)

    def put_foreign(self, used_bytes: int, measured_at: float) -> None:
        """Note what strangers use."""
        self._foreign = _Foreign(used_bytes, measured_at)

    def forget(self, folder: str) -> None:
        """Drop what is known of a volume."""
        with self._guard:
            self._forget(folder)

    def keep_only(self, folders: Iterable[str]) -> None:
        """Drop volumes that are not among `folders`: deleted while they were measured."""
        with self._guard:
            for folder in (self._volumes.keys() | self._lost.keys() | self._escaped.keys()) - set(folders):
                self._forget(folder)

    def _forget(self, folder: str) -> None:
        self._drop(folder)
        self._lost.pop(folder, None)
        self._escaped.pop(folder, None)

    def _drop(self, folder: str) -> None:
        known = self._volumes.pop(folder, None)
        if known:
            self._used_bytes -= known.used_bytes

    def load(self) -> None:
        """Read what an earlier process measured; a missing or broken file means that nothing is known."""
        try:
            fd = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._control_fd)
            with open(fd, "rb") as file:
                content = _CONTENT.decode(file.read(_MOST_BYTES))
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.info("measurements not read; they will be made anew", file=FILE, error=str(error))
            return
        if content.schema == SCHEMA:
            with self._guard:
                self._volumes, self._foreign = content.volumes, content.foreign
                self._lost, self._escaped = content.lost, content.escaped
                self._used_bytes = sum(measured.used_bytes for measured in content.volumes.values())

    def save(self) -> None:
        """Write the file anew; where that fails (a full disk) the old one stays.

        It is not synced: nothing is lost with it that the next walk does not bring back.
        """
        with self._saving:
            with self._guard:
                content = msgspec.json.encode(_Content(SCHEMA, self._volumes, self._foreign, self._lost, self._escaped))
            try:
                _replace(self._control_fd, content)
                failure = ""
            except OSError as error:
                failure = str(error)
            if failure and failure != self._failure:
                log.warning("measurements not saved", file=FILE, error=failure)
            self._failure = failure


def _replace(control_fd: int, content: bytes) -> None:
    with opened(_STAGING, control_fd) as staging_fd:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(_DRAFT, flags, 0o600, dir_fd=staging_fd), "wb") as file:
                file.write(content)
            os.rename(_DRAFT, FILE, src_dir_fd=staging_fd, dst_dir_fd=control_fd)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(_DRAFT, dir_fd=staging_fd)  # a full disk needs its room
            raise
