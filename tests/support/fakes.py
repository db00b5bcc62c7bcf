"""Fakes of the domain, and a real server above them: the services can be tested without a disk.

They keep the rules that a service can see (idempotency, paging, NOT_FOUND) and nothing else.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import grpc
import structlog

from csi.pb import csi_pb2_grpc
from csi.server.server import build_server
from provisioner.errors import BadToken, CapacityOutOfRange, TargetNotFound, VolumeConflict, VolumeNotFound
from provisioner.model import (
    AvailableCapacity,
    Call,
    Capability,
    CapacityRange,
    HealthPage,
    NewVolume,
    Page,
    Publication,
    Statistics,
    StorageProblem,
    Usage,
    Volume,
    VolumeHealth,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from csi.services.domain import Provisioner

POOL_ID = "0123456789abcdef"
DEFAULT_BYTES = 1 << 30
NODE_ID = "node-1"


def _wait_for_nothing(_call: Call) -> None:
    """Be the `during` of calls that nothing shall happen in."""


@dataclass
class FakeVolumes:
    """Volumes in a dictionary. `failure` is raised by every call; `during` runs inside a create."""

    ready: bool = True
    volumes: dict[str, Volume] = field(default_factory=dict)
    asked: list[object] = field(default_factory=list)
    failure: Exception | None = None
    during: Callable[[Call], None] = _wait_for_nothing
    refusal: str = ""
    problems: dict[str, VolumeHealth] = field(default_factory=dict)
    storage_problems: list[StorageProblem] = field(default_factory=list)
    available: AvailableCapacity = field(default_factory=lambda: AvailableCapacity(10 << 30, 5 << 30))

    def _note(self, *asked: object) -> None:
        self.asked.append(asked)
        if self.failure is not None:
            raise self.failure

    def create(self, new_volume: NewVolume, call: Call, /) -> Volume:
        """Make a volume, or find it."""
        self._note(new_volume)
        self.during(call)
        wanted = new_volume.capacity
        if 0 < wanted.limit_bytes < wanted.required_bytes:
            raise CapacityOutOfRange(f"wanted {wanted.required_bytes} to {wanted.limit_bytes} bytes")
        volume_id = f"{POOL_ID}.{new_volume.name}"
        size = wanted.required_bytes or DEFAULT_BYTES
        found = self.volumes.setdefault(volume_id, Volume(volume_id, new_volume.name, size))
        if wanted.required_bytes > found.capacity_bytes or 0 < wanted.limit_bytes < found.capacity_bytes:
            raise VolumeConflict(f"volume {volume_id} has {found.capacity_bytes} bytes")
        return found

    def delete(self, volume_id: str, call: Call, /) -> None:
        """Forget a volume."""
        self._note(volume_id)
        self.during(call)
        self.volumes.pop(volume_id, None)

    def get(self, volume_id: str, /) -> Volume:
        """Look a volume up."""
        self._note(volume_id)
        if volume_id not in self.volumes:
            raise VolumeNotFound(f"volume {volume_id!r}: there is none")
        return self.volumes[volume_id]

    def list(self, max_entries: int, starting_token: str, /) -> Page:
        """Give a page; a token is 'after:<volume id>'."""
        self._note(max_entries, starting_token)
        last, ids = _page(sorted(self.volumes), max_entries, starting_token)
        return Page([self.volumes[volume_id] for volume_id in ids], last)

    def expand(self, volume_id: str, capacity: CapacityRange, capability: Capability | None, call: Call, /) -> Volume:
        """Let a volume grow."""
        found = self.get(volume_id)
        self._note(capacity, capability)
        self.during(call)
        size = max(found.capacity_bytes, capacity.required_bytes)
        self.volumes[volume_id] = replace(found, capacity_bytes=size)
        return self.volumes[volume_id]

    def validate(self, volume_id: str, capabilities: tuple[Capability, ...], parameters: dict[str, str], /) -> str:
        """Give `refusal`."""
        self.get(volume_id)
        self._note(capabilities, parameters)
        return self.refusal

    def capacity(self, parameters: dict[str, str], capabilities: tuple[Capability, ...], /) -> AvailableCapacity:
        """Give `available`."""
        self._note(parameters, capabilities)
        return self.available

    def health(self, volume_id: str, /) -> VolumeHealth:
        """Give the volume's entry in `problems`."""
        self.get(volume_id)
        return self.problems.get(volume_id, VolumeHealth(volume_id, ()))

    def list_health(self, max_entries: int, starting_token: str, /) -> HealthPage:
        """Give a page of `problems`."""
        self._note(max_entries, starting_token)
        last, ids = _page(sorted(self.problems), max_entries, starting_token)
        return HealthPage([self.problems[volume_id] for volume_id in ids], last)

    def storage_health(self) -> Sequence[StorageProblem]:
        """Give `storage_problems`."""
        self._note()
        return self.storage_problems


def _page(ids: list[str], max_entries: int, token: str) -> tuple[str, list[str]]:
    prefix, _, after = token.partition(":")
    if prefix not in {"", "after"}:
        raise BadToken(f"starting_token {token!r}: wanted one that this driver gave")
    rest = [volume_id for volume_id in ids if volume_id > after]
    page = rest[: max_entries or None]
    return (f"after:{page[-1]}" if len(rest) > len(page) else ""), page


@dataclass
class FakePublishing:
    """Publications in a dictionary, by path."""

    volumes: FakeVolumes
    published: dict[str, Publication] = field(default_factory=dict)
    staged: dict[str, tuple[str, Capability]] = field(default_factory=dict)
    asked: list[object] = field(default_factory=list)
    inodes: Usage | None = None

    def stage(self, volume_id: str, staging_target_path: str, capability: Capability, /) -> None:
        """Note a staging path."""
        self.volumes.get(volume_id)
        self.staged[staging_target_path] = (volume_id, capability)

    def unstage(self, volume_id: str, staging_target_path: str, /) -> None:
        """Forget a staging path."""
        self.asked.append((volume_id, staging_target_path))
        self.staged.pop(staging_target_path, None)

    def publish(self, publication: Publication, call: Call, /) -> None:
        """Note a publication."""
        self.volumes.get(publication.volume_id)
        call.check()
        self.published[publication.target_path] = publication

    def unpublish(self, volume_id: str, target_path: str, call: Call, /) -> None:
        """Forget a publication."""
        self.asked.append((volume_id, target_path))
        call.check()
        self.published.pop(target_path, None)

    def statistics(self, volume_id: str, volume_path: str, /) -> Statistics:
        """Give figures of the volume."""
        size = self._published(volume_id, volume_path).capacity_bytes
        return Statistics(Usage(size, size // 4, size - size // 4), self.inodes)

    def expand(self, volume_id: str, volume_path: str, capacity: CapacityRange, /) -> int:
        """Give the volume's size."""
        self.asked.append(capacity)
        return self._published(volume_id, volume_path).capacity_bytes

    def health(self, volume_id: str, publish_path: str, /) -> VolumeHealth:
        """Give the volume's health."""
        self.asked.append(publish_path)
        return self.volumes.health(volume_id)

    def _published(self, volume_id: str, path: str) -> Volume:
        volume = self.volumes.get(volume_id)
        if path not in self.published:
            raise TargetNotFound(f"{path}: wanted a publication of {volume_id}")
        return volume


@dataclass
class FakeProvisioner:
    """What `build_server` needs."""

    volumes: FakeVolumes = field(default_factory=FakeVolumes)
    publishing: FakePublishing = field(init=False)

    def __post_init__(self) -> None:
        self.publishing = FakePublishing(self.volumes)


@dataclass
class InProcess:
    """A server in this process, and stubs of its services. `log` gets its lines, from debug on."""

    channel: grpc.Channel
    log: list[dict[str, Any]]

    def __post_init__(self) -> None:
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)
        self.controller = csi_pb2_grpc.ControllerStub(self.channel)
        self.node = csi_pb2_grpc.NodeStub(self.channel)

    def rpc_lines(self) -> list[dict[str, Any]]:
        """Give the lines that ended an RPC, and empty the log."""
        lines = [line for line in self.log if line["event"] == "rpc"]
        self.log.clear()
        return lines


@dataclass
class ServedFakes(InProcess):
    """A real server above the fakes."""

    volumes: FakeVolumes
    publishing: FakePublishing


class Refusal(NamedTuple):
    """What a caller is told of a call that failed."""

    code: grpc.StatusCode
    message: str


def refusal(rpc: Callable[[Any], object], request: object) -> Refusal:
    """Make a call that must fail, and give its status; its details are empty, as the spec wants them."""
    try:
        answer = rpc(request)
    except grpc.RpcError as error:
        failed = cast("grpc.Call", error)
        metadata = dict(failed.trailing_metadata() or ())
        assert "grpc-status-details-bin" not in metadata
        return Refusal(failed.code(), failed.details() or "")
    raise AssertionError(f"the call succeeded: {answer}")


@contextmanager
def in_process(provisioner: Provisioner, *, workers: int = 4, node_id: str = NODE_ID) -> Iterator[InProcess]:
    """Serve a domain, real or fake, on a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="csi-"))  # sockets need short paths
    with captured_log() as log:
        server = build_server(provisioner, node_id, workers=workers)
    server.add_insecure_port(f"unix://{folder}/csi.sock")
    server.start()
    try:
        with grpc.insecure_channel(f"unix://{folder}/csi.sock") as channel:
            yield InProcess(channel, log)
    finally:
        server.stop(grace=None).wait()
        shutil.rmtree(folder)


@contextmanager
def served_fakes(*, workers: int = 4) -> Iterator[ServedFakes]:
    """Serve fakes on a unix socket."""
    fakes = FakeProvisioner()
    with in_process(fakes, workers=workers) as served:
        yield ServedFakes(served.channel, served.log, fakes.volumes, fakes.publishing)


@contextmanager
def captured_log() -> Iterator[list[dict[str, Any]]]:
    """Let loggers that are bound here write into a list, whatever the configuration is before and after."""
    lines: list[dict[str, Any]] = []

    def catch(_logger: object, method: str, event: Any) -> Any:
        lines.append({**event, "level": method})
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, catch],
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        cache_logger_on_first_use=False,
    )
    try:
        yield lines
    finally:
        structlog.configure(**before)
