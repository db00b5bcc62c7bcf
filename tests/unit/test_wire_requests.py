"""Requests become nouns of the domain, and bad ones are refused with a text that helps."""

from __future__ import annotations

from typing import Any

import pytest

from csi.pb import csi_pb2
from csi.wire import requests
from provisioner.errors import InvalidRequest, Precondition
from provisioner.model import AccessMode, Capability, CapacityRange, Inline, NewVolume, Publication

Mode = csi_pb2.VolumeCapability.AccessMode
MOUNT = csi_pb2.VolumeCapability.MountVolume


def mount_capability(mode: Any = Mode.SINGLE_NODE_WRITER, **mount: Any) -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(mount=MOUNT(**mount), access_mode=Mode(mode=mode))


def create_request(**fields: Any) -> csi_pb2.CreateVolumeRequest:
    whole: dict[str, Any] = {"name": "v", "volume_capabilities": [mount_capability()], **fields}
    return csi_pb2.CreateVolumeRequest(**whole)


def test_a_create_request_is_read_in_full() -> None:
    request = create_request(
        name="pvc-1",
        capacity_range=csi_pb2.CapacityRange(required_bytes=5, limit_bytes=9),
        volume_capabilities=[
            mount_capability(fs_type="ext4", mount_flags=["noatime"], volume_mount_group="7"),
            csi_pb2.VolumeCapability(
                block=csi_pb2.VolumeCapability.BlockVolume(), access_mode=Mode(mode=Mode.SINGLE_NODE_SINGLE_WRITER)
            ),
        ],
        parameters={"pool": "fast"},
        secrets={"password": "x"},
    )
    assert requests.new_volume(request) == NewVolume(
        name="pvc-1",
        capacity=CapacityRange(5, 9),
        capabilities=(
            Capability(AccessMode.SINGLE_NODE_WRITER, fs_type="ext4", mount_flags=("noatime",), volume_mount_group="7"),
            Capability(AccessMode.SINGLE_NODE_SINGLE_WRITER, block=True),
        ),
        parameters={"pool": "fast"},
    )


@pytest.mark.parametrize("name", ["a b", "../x", "/", "ä€😀", "tab\there", "line\nbreak", "cr\r", "\u2028", "x" * 128])
def test_names_may_be_any_text(name: str) -> None:
    """Tab, line feed and carriage return are not among the characters that the spec bans."""
    assert requests.new_volume(create_request(name=name)).name == name


@pytest.mark.parametrize(
    "code", [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0)], ids="U+{:04X}".format
)
def test_names_have_no_control_characters(code: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"^name: wanted no control characters, found U\+{code:04X}$"):
        requests.new_volume(create_request(name=f"a{chr(code)}b"))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": ""}, "name: wanted a value, found none"),
        ({"volume_capabilities": []}, "volume_capabilities: wanted at least one, found none"),
        (
            {"volume_capabilities": [mount_capability(), mount_capability(Mode.UNKNOWN)]},
            r"volume_capabilities\[1\].access_mode: wanted a known mode, found 0",
        ),
        (
            {"volume_capabilities": [mount_capability(99)]},
            r"volume_capabilities\[0\].access_mode: wanted a known mode, found 99",
        ),
        (
            {"volume_capabilities": [csi_pb2.VolumeCapability(access_mode=Mode(mode=Mode.SINGLE_NODE_WRITER))]},
            r"volume_capabilities\[0\].access_type: wanted mount or block, found neither",
        ),
        (
            {"volume_capabilities": [csi_pb2.VolumeCapability(mount=MOUNT())]},
            r"volume_capabilities\[0\].access_mode: wanted a known mode, found 0",
        ),
        (
            {"capacity_range": csi_pb2.CapacityRange(required_bytes=-1)},
            "capacity_range.required_bytes: wanted 0 or more, found -1",
        ),
        (
            {"capacity_range": csi_pb2.CapacityRange(limit_bytes=-(2**63))},
            "capacity_range.limit_bytes: wanted 0 or more, found -9223372036854775808",
        ),
        (
            {"volume_content_source": csi_pb2.VolumeContentSource()},
            "volume_content_source: wanted none, for this driver has no snapshots and clones yet",
        ),
        ({"mutable_parameters": {"b": "1", "a": "2"}}, "mutable_parameters: wanted none, .* found a, b"),
    ],
)
def test_bad_create_requests_say_what_is_wrong(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{text}$"):
        requests.new_volume(create_request(**fields))


def test_an_absent_range_asks_for_nothing() -> None:
    assert requests.new_volume(create_request()).capacity == CapacityRange(0, 0)


@pytest.mark.parametrize("range_", [None, csi_pb2.CapacityRange()])
def test_an_expansion_asks_for_something(range_: csi_pb2.CapacityRange | None) -> None:
    with pytest.raises(InvalidRequest, match=r"^capacity_range: wanted required_bytes or limit_bytes"):
        requests.wanted_size(csi_pb2.ControllerExpandVolumeRequest(capacity_range=range_))


def test_an_expansion_may_have_a_limit_alone() -> None:
    request = csi_pb2.ControllerExpandVolumeRequest(capacity_range=csi_pb2.CapacityRange(limit_bytes=7))
    assert requests.wanted_size(request) == CapacityRange(0, 7)
    assert requests.optional_capability(request) is None


def publish_request(**fields: Any) -> csi_pb2.NodePublishVolumeRequest:
    whole: dict[str, Any] = {
        "volume_id": "id",
        "target_path": "/t",
        "staging_target_path": "/s",
        "volume_capability": mount_capability(),
        **fields,
    }
    return csi_pb2.NodePublishVolumeRequest(**whole)


def test_a_publish_request_is_read_in_full() -> None:
    capability = Capability(AccessMode.SINGLE_NODE_WRITER)
    assert requests.publication(publish_request()) == Publication("id", "/t", "/s", capability, readonly=False)
    assert requests.publication(publish_request(readonly=True)).readonly


@pytest.mark.parametrize(("field", "value"), [("volume_id", ""), ("target_path", ""), ("volume_capability", None)])
def test_bad_publish_requests_say_what_is_missing(field: str, value: Any) -> None:
    """The missing staging path is a matter of order, so what is malformed comes first."""
    with pytest.raises(InvalidRequest, match=f"^{field}: wanted .* found none$"):
        requests.publication(publish_request(**{field: value, "staging_target_path": ""}))


def test_publishing_without_a_staging_path_is_out_of_order() -> None:
    with pytest.raises(Precondition, match=r"^staging_target_path: .* stage the volume first$"):
        requests.publication(publish_request(staging_target_path=""))


EPHEMERAL = "csi.storage.k8s.io/ephemeral"
OF_POD = {
    "csi.storage.k8s.io/pod.uid": "u1",
    "csi.storage.k8s.io/pod.name": "web-0",
    "csi.storage.k8s.io/pod.namespace": "shop",
}


def test_a_pod_s_own_volume_is_not_staged() -> None:
    context = {EPHEMERAL: "true", "size": "1Gi", "pool": "fast", **OF_POD}
    found = requests.publication(publish_request(staging_target_path="", volume_context=context))
    assert (found.inline, found.staging_target_path) == (Inline("1Gi", "u1", "shop/web-0"), "")
    bare = requests.publication(publish_request(staging_target_path="", volume_context={EPHEMERAL: "true"}))
    assert bare.inline == Inline("", "", "/")


@pytest.mark.parametrize("context", [{}, OF_POD, {EPHEMERAL: "false"}, {EPHEMERAL: ""}, {EPHEMERAL: "True"}])
def test_only_what_the_kubelet_calls_ephemeral_is(context: dict[str, str]) -> None:
    with pytest.raises(Precondition, match="staging_target_path"):
        requests.publication(publish_request(staging_target_path="", volume_context=context))
    assert requests.publication(publish_request(volume_context=context)).inline is None


def test_what_is_staged_is_not_a_pod_s_own() -> None:
    assert requests.publication(publish_request(volume_context={EPHEMERAL: "true", **OF_POD})).inline is None


@pytest.mark.parametrize("asked", [0, 1, 2**31 - 1])
def test_the_domain_decides_what_a_page_can_hold(asked: int) -> None:
    assert requests.max_entries(asked) == asked


def test_pages_have_no_negative_length() -> None:
    with pytest.raises(InvalidRequest, match=r"^max_entries: wanted 0 or more, found -1$"):
        requests.max_entries(-1)
