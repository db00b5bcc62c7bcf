"""Requests become nouns of the domain. What is missing or malformed is INVALID_ARGUMENT, and named.

Sizes of fields were checked before (`csi.wire.limits`). Whether an id is one of ours, a path absolute, or a
capability possible, is for the domain to say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from provisioner.errors import InvalidRequest, Precondition
from provisioner.model import AccessMode, Capability, CapacityRange, Inline, NewVolume, Publication

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from csi.pb import csi_pb2

# CSI spec, CreateVolumeRequest.name: control characters other than tab, line feed and carriage return.
_BANNED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# The kubelet adds these to volume_context where the CSIDriver object has podInfoOnMount, over a tenant's own.
_POD = "csi.storage.k8s.io/"
_MODES = {mode.value: mode for mode in AccessMode if mode is not AccessMode.UNKNOWN}


def required(name: str, value: str) -> str:
    """Give a field that must not be empty."""
    if not value:
        raise InvalidRequest(f"{name}: wanted a value, found none")
    return value


def new_volume(request: csi_pb2.CreateVolumeRequest) -> NewVolume:
    """Read what is to be created; where it is wanted is for `csi.wire.topology`."""
    name = required("name", request.name)
    if banned := _BANNED.search(name):
        raise InvalidRequest(f"name: wanted no control characters, found U+{ord(banned[0]):04X}")
    if request.HasField("volume_content_source"):
        raise InvalidRequest("volume_content_source: wanted none, for this driver has no snapshots and clones yet")
    if refusal := mutable_refusal(request.mutable_parameters):
        raise InvalidRequest(refusal)
    return NewVolume(
        name=name,
        capacity=capacity_range(request.capacity_range),
        capabilities=capabilities(request.volume_capabilities),
        parameters=dict(request.parameters),
    )


def capacity_range(message: csi_pb2.CapacityRange) -> CapacityRange:
    """Read a range; an absent one asks for nothing."""
    for name, value in (("required_bytes", message.required_bytes), ("limit_bytes", message.limit_bytes)):
        if value < 0:
            raise InvalidRequest(f"capacity_range.{name}: wanted 0 or more, found {value}")
    return CapacityRange(message.required_bytes, message.limit_bytes)


def wanted_size(request: csi_pb2.ControllerExpandVolumeRequest) -> CapacityRange:
    """Read the range of an expansion, which must ask for something."""
    wanted = capacity_range(request.capacity_range)
    if wanted == CapacityRange():
        raise InvalidRequest("capacity_range: wanted required_bytes or limit_bytes, found neither")
    return wanted


def capabilities(messages: Iterable[csi_pb2.VolumeCapability]) -> tuple[Capability, ...]:
    """Read the capabilities of a volume, at least one."""
    found = optional_capabilities(messages)
    if not found:
        raise InvalidRequest("volume_capabilities: wanted at least one, found none")
    return found


def optional_capabilities(messages: Iterable[csi_pb2.VolumeCapability]) -> tuple[Capability, ...]:
    """Read capabilities, maybe none."""
    return tuple(_capability(message, f"volume_capabilities[{i}]") for i, message in enumerate(messages))


def capability(
    request: csi_pb2.NodeStageVolumeRequest | csi_pb2.NodePublishVolumeRequest,
) -> Capability:
    """Read the capability of a request that must have one."""
    if not request.HasField("volume_capability"):
        raise InvalidRequest("volume_capability: wanted an access mode and mount or block, found none")
    return _capability(request.volume_capability, "volume_capability")


def optional_capability(request: csi_pb2.ControllerExpandVolumeRequest) -> Capability | None:
    """Read the capability of a request that may have one."""
    if not request.HasField("volume_capability"):
        return None
    return _capability(request.volume_capability, "volume_capability")


def _capability(message: csi_pb2.VolumeCapability, name: str) -> Capability:
    access_mode = _MODES.get(message.access_mode.mode)
    if access_mode is None:
        raise InvalidRequest(f"{name}.access_mode: wanted a known mode, found {message.access_mode.mode}")
    access_type = message.WhichOneof("access_type")
    if access_type is None:
        raise InvalidRequest(f"{name}.access_type: wanted mount or block, found neither")
    if access_type == "block":
        return Capability(access_mode, block=True)
    mount = message.mount
    return Capability(
        access_mode,
        fs_type=mount.fs_type,
        mount_flags=tuple(mount.mount_flags),
        volume_mount_group=mount.volume_mount_group,
    )


def publication(request: csi_pb2.NodePublishVolumeRequest) -> Publication:
    """Read where and how a volume is wanted; a missing staging path is the caller's omitted step."""
    volume_id = required("volume_id", request.volume_id)
    target_path = required("target_path", request.target_path)
    wanted = capability(request)
    inline = None
    if not request.staging_target_path and (inline := _inline(request.volume_context)) is None:
        raise Precondition(
            "staging_target_path: wanted the path given to NodeStageVolume, found none;"
            " this driver has STAGE_UNSTAGE_VOLUME, so stage the volume first"
        )
    return Publication(volume_id, target_path, request.staging_target_path, wanted, request.readonly, inline)


def _inline(context: Mapping[str, str]) -> Inline | None:
    """Read what a pod's own manifest says; None where the kubelet does not call the volume ephemeral.

    Whoever may make pods wrote the other keys, so all but 'size' are left alone.
    """
    if context.get(_POD + "ephemeral") != "true":
        return None
    pod = f"{context.get(_POD + 'pod.namespace', '')}/{context.get(_POD + 'pod.name', '')}"
    return Inline(context.get("size", ""), context.get(_POD + "pod.uid", ""), pod)


def max_entries(value: int) -> int:
    """Give how many entries one page may have; 0 leaves it to the domain."""
    if value < 0:
        raise InvalidRequest(f"max_entries: wanted 0 or more, found {value}")
    return value


def mutable_refusal(mutable_parameters: Iterable[str]) -> str:
    """Say that nothing of a volume can be modified, or '' where nobody asks for it."""
    keys = ", ".join(sorted(mutable_parameters))
    return f"mutable_parameters: wanted none, for this driver has no MODIFY_VOLUME; found {keys}" if keys else ""
