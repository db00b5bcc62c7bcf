"""Nouns of the domain become responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.wrappers_pb2 import Int64Value

from csi.pb import csi_pb2
from csi.wire.limits import STRING_BYTES
from provisioner.model import HealthStatus, StorageStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from enum import Enum

    from provisioner.model import (
        AvailableCapacity,
        HealthPage,
        HealthProblem,
        Page,
        Statistics,
        StorageProblem,
        Usage,
        Volume,
        VolumeHealth,
    )

# Any: the values are members of two enums of the interface.
_ERROR_TYPES: dict[Enum, Any] = {
    HealthStatus.DEGRADED: csi_pb2.DEGRADED,
    HealthStatus.INACCESSIBLE: csi_pb2.INACCESSIBLE,
    HealthStatus.DATA_LOSS: csi_pb2.DATA_LOSS,
    StorageStatus.DEGRADED: csi_pb2.STORAGE_DEGRADED,
    StorageStatus.UNREACHABLE: csi_pb2.STORAGE_UNREACHABLE,
}

# As the kubelet itself calls such a volume.
_EPHEMERAL = {"csi.storage.k8s.io/ephemeral": "true"}


def volume(found: Volume, topology: csi_pb2.Topology) -> csi_pb2.Volume:
    """Tell of one volume and where it can be reached; of a pod's own, that no claim is missing."""
    return csi_pb2.Volume(
        volume_id=found.volume_id,
        capacity_bytes=found.capacity_bytes,
        accessible_topology=[topology],
        volume_context=_EPHEMERAL if found.is_ephemeral else None,
    )


def volumes(page: Page, topology: csi_pb2.Topology) -> csi_pb2.ListVolumesResponse:
    """Tell of a page of volumes."""
    entry = csi_pb2.ListVolumesResponse.Entry
    return csi_pb2.ListVolumesResponse(
        entries=[entry(volume=volume(found, topology)) for found in page.volumes], next_token=page.next_token
    )


def confirmed(request: csi_pb2.ValidateVolumeCapabilitiesRequest) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
    """Confirm everything that was asked: the spec counts as confirmed only what is repeated."""
    return csi_pb2.ValidateVolumeCapabilitiesResponse(
        confirmed=csi_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
        )
    )


def unconfirmed(reason: str) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
    """Tell why a volume cannot be used as asked."""
    return csi_pb2.ValidateVolumeCapabilitiesResponse(message=_short(reason))


def capacity(available: AvailableCapacity) -> csi_pb2.GetCapacityResponse:
    """Tell what one more volume may have."""
    return csi_pb2.GetCapacityResponse(
        available_capacity=available.available_bytes,
        maximum_volume_size=Int64Value(value=available.maximum_volume_bytes),
    )


def statistics(found: Statistics) -> csi_pb2.NodeGetVolumeStatsResponse:
    """Tell the figures of a volume, with inodes where there are any."""
    usage = [_usage(found.bytes, csi_pb2.VolumeUsage.BYTES)]
    if found.inodes is not None:
        usage.append(_usage(found.inodes, csi_pb2.VolumeUsage.INODES))
    return csi_pb2.NodeGetVolumeStatsResponse(usage=usage)


def _usage(found: Usage, unit: csi_pb2.VolumeUsage.Unit) -> csi_pb2.VolumeUsage:
    return csi_pb2.VolumeUsage(total=found.total, used=found.used, available=found.available, unit=unit)


def health(found: VolumeHealth) -> csi_pb2.VolumeHealth:
    """Tell what is wrong with a volume; nothing listed means healthy."""
    entry = csi_pb2.VolumeHealth.VolumeHealthEntry
    return csi_pb2.VolumeHealth(
        volume_id=found.volume_id,
        health_statuses=[
            entry(status=_ERROR_TYPES[status], reason=reason, message=message)
            for status, reason, message in _merged(found.problems)
        ],
    )


def health_page(page: HealthPage) -> csi_pb2.ControllerListVolumeHealthResponse:
    """Tell of a page of volumes what is wrong with each."""
    return csi_pb2.ControllerListVolumeHealthResponse(
        entries=[health(found) for found in page.volumes], next_token=page.next_token
    )


def storage_health(problems: Iterable[StorageProblem]) -> csi_pb2.NodeGetStorageHealthResponse:
    """Tell what is wrong with the node's pools."""
    backend = csi_pb2.NodeGetStorageHealthResponse.StorageBackendHealth
    return csi_pb2.NodeGetStorageHealthResponse(
        backend_health=[
            backend(status=_ERROR_TYPES[status], reason=reason, message=message)
            for status, reason, message in _merged(problems)
        ]
    )


def _merged(problems: Iterable[HealthProblem | StorageProblem]) -> Iterator[tuple[Enum, str, str]]:
    """Give each status and reason once, as the spec wants it, with the messages of all that share them."""
    messages: dict[tuple[Enum, str], list[str]] = {}
    for problem in problems:
        messages.setdefault((problem.status, problem.reason), []).append(problem.message)
    return ((status, reason, _short("; ".join(found))) for (status, reason), found in messages.items())


def _short(text: str) -> str:
    """Cut a text to what the spec lets a string field of a response have."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= STRING_BYTES:
        return data.decode()
    return data[: STRING_BYTES - 3].decode("utf-8", "ignore") + "..."
