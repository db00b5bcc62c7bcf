"""The nouns of the domain: plain, frozen, free of protobuf. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class AccessMode(Enum):
    """How many may use a volume, and how (csi.v1.VolumeCapability.AccessMode; same numbers)."""

    UNKNOWN = 0
    SINGLE_NODE_WRITER = 1
    SINGLE_NODE_READER_ONLY = 2
    MULTI_NODE_READER_ONLY = 3
    MULTI_NODE_SINGLE_WRITER = 4
    MULTI_NODE_MULTI_WRITER = 5
    SINGLE_NODE_SINGLE_WRITER = 6
    SINGLE_NODE_MULTI_WRITER = 7


@dataclass(frozen=True, slots=True)
class Capability:
    """One way a volume is to be used."""

    access_mode: AccessMode
    block: bool = False
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()
    volume_mount_group: str = ""


@dataclass(frozen=True, slots=True)
class CapacityRange:
    """Sizes asked for; 0 means 'not given'."""

    required_bytes: int = 0
    limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """Whose an ephemeral volume is, and the only path it is ever published at. pod: 'namespace/name'."""

    pod_uid: str
    pod: str
    target_path: str


@dataclass(frozen=True, slots=True)
class NewVolume:
    """What a caller asks to have created. `parameters` are the class's, as given."""

    name: str
    capacity: CapacityRange
    capabilities: tuple[Capability, ...]
    parameters: dict[str, str] = field(default_factory=dict)
    ephemeral: Ephemeral | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume that exists.

    is_ephemeral: it stands in a pod's own manifest and ends with it. grows_on_node: its filesystem grows by
    NodeExpandVolume alone.
    """

    volume_id: str
    name: str
    capacity_bytes: int
    is_ephemeral: bool = False
    grows_on_node: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing; `next_token` is empty on the last one."""

    volumes: list[Volume]
    next_token: str


@dataclass(frozen=True, slots=True)
class AvailableCapacity:
    """What one more volume of a class may have."""

    available_bytes: int
    maximum_volume_bytes: int


@dataclass(frozen=True, slots=True)
class Inline:
    """What a pod's own manifest says of a volume, and the kubelet of the pod. size: a quantity; '' for the default."""

    size: str
    pod_uid: str
    pod: str


@dataclass(frozen=True, slots=True)
class Publication:
    """A wish to see a volume at a path. inline: of one that stands in a pod's own manifest; it is not staged."""

    volume_id: str
    target_path: str
    staging_target_path: str
    capability: Capability
    readonly: bool
    inline: Inline | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Figures of one unit; `used` is as old as the last background measurement."""

    total: int
    used: int
    available: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of a published volume; `inodes` is None where the filesystem has none."""

    bytes: Usage
    inodes: Usage | None


class HealthStatus(Enum):
    """What is wrong with a volume (csi.v1.VolumeHealthErrorType; same numbers)."""

    DEGRADED = 1
    INACCESSIBLE = 2
    DATA_LOSS = 3


@dataclass(frozen=True, slots=True)
class HealthProblem:
    """One finding: `reason` is a CamelCase word for machines, `message` a sentence for people."""

    status: HealthStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class VolumeHealth:
    """A volume and what is wrong with it; no problems means healthy."""

    volume_id: str
    problems: tuple[HealthProblem, ...]


@dataclass(frozen=True, slots=True)
class HealthPage:
    """Part of a listing of health; `next_token` is empty on the last one."""

    volumes: list[VolumeHealth]
    next_token: str


class StorageStatus(Enum):
    """What is wrong with a pool (csi.v1.StorageHealthErrorType; same numbers)."""

    DEGRADED = 1
    UNREACHABLE = 2


@dataclass(frozen=True, slots=True)
class StorageProblem:
    """One finding about a pool."""

    status: StorageStatus
    reason: str
    message: str


class Call(Protocol):
    """The caller's patience: `check` raises DeadlineExceeded or Cancelled once it has ended."""

    def check(self) -> None:
        """Raise where going on is pointless; called before each step that cannot be undone."""


class Patient:
    """A Call that waits for ever."""

    def check(self) -> None:
        """Do nothing."""
