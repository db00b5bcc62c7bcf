"""Field limits: read off the interface, so tested over the whole interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from csi.pb import csi_pb2
from csi.wire.limits import COLLECTION_BYTES, NODE_ID_BYTES, PATH_BYTES, STRING_BYTES, Limits
from provisioner.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

REQUESTS = [method.input_type for service in csi_pb2.DESCRIPTOR.services_by_name.values() for method in service.methods]


def check(message: Message) -> None:
    descriptor: Any = message.DESCRIPTOR
    Limits(descriptor).check(message, message.ByteSize())


def text_fields(descriptor: Descriptor, *above: FieldDescriptor) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Every way from a message to a string, a list of strings or a map of strings."""
    for field in descriptor.fields:
        way = (*above, field)
        if field.type == FieldDescriptor.TYPE_STRING or is_map(field):
            yield way
        elif field.message_type is not None:
            yield from text_fields(field.message_type, *way)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def filled(descriptor: Descriptor, way: tuple[FieldDescriptor, ...], size: int) -> Message:
    """Give a message with `size` bytes in one field, and a small valid text in all its neighbours."""
    root = message = GetMessageClass(descriptor)()
    for field in way[:-1]:
        inner = getattr(message, field.name)
        message = inner.add() if field.is_repeated else inner
    last = way[-1]
    if is_map(last):
        getattr(message, last.name)["k"] = "x" * (size - 1)
    elif last.is_repeated:
        getattr(message, last.name).append("x" * size)
    else:
        setattr(message, last.name, "x" * size)
    return root


def limit_of(field: FieldDescriptor) -> int:
    if is_map(field) or field.name == "mount_flags":
        return COLLECTION_BYTES
    if field.name.endswith("_path"):
        return PATH_BYTES
    return NODE_ID_BYTES if field.name == "node_id" else STRING_BYTES


WAYS = [
    pytest.param(descriptor, way, id=f"{descriptor.name}.{'.'.join(field.name for field in way)}")
    for descriptor in REQUESTS
    for way in text_fields(descriptor)
]


@pytest.mark.parametrize(("descriptor", "way"), WAYS)
def test_each_text_of_each_request_has_its_limit(descriptor: Descriptor, way: tuple[FieldDescriptor, ...]) -> None:
    limit = limit_of(way[-1])
    check(filled(descriptor, way, limit))
    with pytest.raises(InvalidRequest) as caught:
        check(filled(descriptor, way, limit + 1))
    name = ".".join(field.name for field in way)
    assert str(caught.value).startswith(f"{name}: ")
    assert f"{limit} bytes" in str(caught.value)
    assert f"found {limit + 1}" in str(caught.value)


def test_all_requests_were_looked_at() -> None:
    assert len(REQUESTS) == 36
    assert len(WAYS) > 100


def test_bytes_count_not_characters() -> None:
    check(csi_pb2.CreateVolumeRequest(name="é" * 64))
    with pytest.raises(InvalidRequest, match="found 130"):
        check(csi_pb2.CreateVolumeRequest(name="é" * 65))


def test_many_entries_count_together() -> None:
    entries = {f"key-{i:04}": "v" * 12 for i in range(205)}  # 20 bytes each
    with pytest.raises(InvalidRequest, match=r"^parameters: .* found 4100"):
        check(csi_pb2.CreateVolumeRequest(parameters=entries))
    flags = ["x" * 10] * 410
    mount = csi_pb2.VolumeCapability.MountVolume(mount_flags=flags)
    request = csi_pb2.NodePublishVolumeRequest(volume_capability=csi_pb2.VolumeCapability(mount=mount))
    with pytest.raises(InvalidRequest, match=r"^volume_capability\.mount\.mount_flags: .* found 4100"):
        check(request)


def test_map_entries_may_be_longer_than_a_string() -> None:
    check(csi_pb2.NodePublishVolumeRequest(volume_context={"k" * 200: "v" * 2000}))


@pytest.mark.parametrize("size", [10, PATH_BYTES])
def test_paths_have_no_nul(size: int) -> None:
    with pytest.raises(InvalidRequest, match=r"target_path: .* NUL"):
        check(csi_pb2.NodePublishVolumeRequest(target_path="/" + "x" * (size - 2) + "\0"))


def test_keys_of_secrets_have_a_form() -> None:
    check(csi_pb2.DeleteVolumeRequest(secrets={"user.Name_1-a": "any\nvalue"}))


@pytest.mark.parametrize("key", ["", "a b", "a/b", "é", "a\n"])
@pytest.mark.parametrize("value", ["hidden", "hidden" * 650])
def test_other_keys_of_secrets_are_refused_without_showing_them(key: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(csi_pb2.DeleteVolumeRequest(secrets={key: value}))
    assert "hidden" not in str(caught.value)
    assert str(caught.value).startswith("secrets: wanted keys of letters")


@pytest.mark.parametrize("message", [csi_pb2.ProbeRequest(), csi_pb2.ListVolumesRequest(max_entries=3)])
def test_other_fields_have_no_limit(message: Any) -> None:
    check(message)
