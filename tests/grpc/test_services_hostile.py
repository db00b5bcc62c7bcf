"""Bad input through the socket, above the real domain: the right code, a text that helps, and no harm done."""

from __future__ import annotations

import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given, settings, strategies

from csi.pb import csi_pb2
from tests.support.fakes import InProcess, in_process, refusal
from tests.support.provisioned import GIB, MIB, running, settings_for, unmount_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from hypothesis.strategies import SearchStrategy

Code = grpc.StatusCode
Mode = csi_pb2.VolumeCapability.AccessMode
NAME = "pvc-1"
UNKNOWN_POOL = "f" * 16
METHODS = [
    (f"/csi.v1.{service}/{method.name}", method.input_type)
    for service in ("Identity", "Controller", "Node")
    for method in csi_pb2.DESCRIPTOR.services_by_name[service].methods
]


def capability(mode: Any = Mode.SINGLE_NODE_MULTI_WRITER, **mount: Any) -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(mount=csi_pb2.VolumeCapability.MountVolume(**mount), access_mode=Mode(mode=mode))


class Bench:
    """A real provisioner behind a socket, with a published volume, and one good request of each kind."""

    def __init__(self, served: InProcess, folder: Path) -> None:
        self.served = served
        self.folder = folder
        self.targets = folder / "targets"
        create = csi_pb2.CreateVolumeRequest(
            name=NAME,
            volume_capabilities=[capability()],
            capacity_range=csi_pb2.CapacityRange(required_bytes=MIB),
        )
        self.volume_id = served.controller.CreateVolume(create).volume.volume_id
        self.pool_id = self.volume_id.partition(".")[0]
        volume: dict[str, Any] = {"volume_id": self.volume_id}
        staging, target = str(self.targets / "staging"), str(self.targets / "target")
        self.good: dict[str, Any] = {
            "CreateVolume": create,
            "NodeStageVolume": csi_pb2.NodeStageVolumeRequest(
                **volume, staging_target_path=staging, volume_capability=capability()
            ),
            "NodePublishVolume": csi_pb2.NodePublishVolumeRequest(
                **volume, staging_target_path=staging, target_path=target, volume_capability=capability()
            ),
            "NodeGetVolumeStats": csi_pb2.NodeGetVolumeStatsRequest(**volume, volume_path=target),
            "NodeExpandVolume": csi_pb2.NodeExpandVolumeRequest(**volume, volume_path=target),
            "NodeGetVolumeHealth": csi_pb2.NodeGetVolumeHealthRequest(**volume),
            "ControllerGetVolume": csi_pb2.ControllerGetVolumeRequest(**volume),
            "ControllerGetVolumeHealth": csi_pb2.ControllerGetVolumeHealthRequest(**volume),
            "ControllerExpandVolume": csi_pb2.ControllerExpandVolumeRequest(
                **volume, capacity_range=csi_pb2.CapacityRange(required_bytes=MIB)
            ),
            "ValidateVolumeCapabilities": csi_pb2.ValidateVolumeCapabilitiesRequest(
                **volume, volume_capabilities=[capability()]
            ),
            "NodeUnpublishVolume": csi_pb2.NodeUnpublishVolumeRequest(**volume, target_path=target),
            "NodeUnstageVolume": csi_pb2.NodeUnstageVolumeRequest(**volume, staging_target_path=staging),
            "DeleteVolume": csi_pb2.DeleteVolumeRequest(**volume),
        }
        for method in ("NodeStageVolume", "NodePublishVolume"):
            self.call(method)

    def rpc(self, method: str) -> Any:
        return getattr(self.served.node if method.startswith("Node") else self.served.controller, method)

    def call(self, method: str, **fields: Any) -> Any:
        return self.rpc(method)(self.request(method, **fields))

    def request(self, method: str, **fields: Any) -> Any:
        """Give the good request with some fields changed."""
        request = type(self.good[method])()
        request.CopyFrom(self.good[method])
        for name, value in fields.items():
            request.ClearField(name)
            request.MergeFrom(type(request)(**{name: value}))
        return request

    def check_refused(self, method: str, code: Code, text: str, **fields: Any) -> None:
        """Try a bad request, then the good one."""
        caught = refusal(self.rpc(method), self.request(method, **fields))
        assert caught.code is code, caught.message
        assert text in caught.message
        self.call(method)

    def strangers(self) -> list[str]:
        """Name what lies outside of the pool and the targets."""
        return [path.name for path in self.folder.iterdir() if path.name not in {"pool", "targets"}]


@contextmanager
def bench_in(folder: Path) -> Iterator[Bench]:
    try:
        with running(settings_for(folder)) as provisioner, in_process(provisioner) as served:
            yield Bench(served, folder)
    finally:
        unmount_below(folder)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_in(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"name": "x" * MIB}, Code.INVALID_ARGUMENT, "name: wanted at most 128 bytes, found 1048576"),
        ({"name": "ü" * 65}, Code.INVALID_ARGUMENT, "name: wanted at most 128 bytes, found 130"),
        ({"name": ""}, Code.INVALID_ARGUMENT, "name: wanted a value"),
        ({"name": "a\0b"}, Code.INVALID_ARGUMENT, "found U+0000"),
        ({"name": "\x1b[2J"}, Code.INVALID_ARGUMENT, "found U+001B"),
        ({"name": "a\x85"}, Code.INVALID_ARGUMENT, "found U+0085"),
        ({"volume_capabilities": []}, Code.INVALID_ARGUMENT, "volume_capabilities: wanted at least one"),
        ({"volume_capabilities": [capability(77)]}, Code.INVALID_ARGUMENT, "volume_capabilities[0].access_mode"),
        (
            {"volume_capabilities": [capability(fs_type="../ext4")]},
            Code.INVALID_ARGUMENT,
            "fs_type '../ext4'",
        ),
        (
            {"volume_capabilities": [capability(mount_flags=["noatime", "errors=panic"])]},
            Code.INVALID_ARGUMENT,
            "errors=panic",
        ),
        (
            {"volume_capabilities": [capability(mount_flags=["x" * 5000])]},
            Code.INVALID_ARGUMENT,
            "volume_capabilities.mount.mount_flags: wanted at most 4096 bytes",
        ),
        (
            {"volume_capabilities": [capability(Mode.MULTI_NODE_MULTI_WRITER)]},
            Code.INVALID_ARGUMENT,
            "MULTI_NODE_MULTI_WRITER",
        ),
        ({"parameters": {"pol": "default"}}, Code.INVALID_ARGUMENT, "'pool'"),
        ({"parameters": {"pool": "../../etc"}}, Code.INVALID_ARGUMENT, "../../etc"),
        ({"parameters": {"mode": "rwx"}}, Code.INVALID_ARGUMENT, "mode"),
        ({"parameters": {"k" * 4097: ""}}, Code.INVALID_ARGUMENT, "parameters: wanted at most 4096 bytes"),
        ({"capacity_range": {"required_bytes": -1}}, Code.INVALID_ARGUMENT, "required_bytes: wanted 0 or more"),
        ({"capacity_range": {"required_bytes": 2, "limit_bytes": 1}}, Code.OUT_OF_RANGE, "limit_bytes"),
        ({"capacity_range": {"required_bytes": GIB}}, Code.ALREADY_EXISTS, NAME),
        (
            {"name": "large", "capacity_range": {"required_bytes": 2**63 - 1}},
            Code.RESOURCE_EXHAUSTED,
            str(2**63 - 1),
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_creations(bench: Bench, fields: dict[str, Any], code: Code, text: str) -> None:
    bench.check_refused("CreateVolume", code, text, **fields)


@pytest.mark.parametrize(
    "name",
    [
        *(".", "..", "/", "a/b", "../../../../etc/cron.d/x", "/etc/passwd", "-rf", "~", "$(reboot)", "a b"),
        *("ünïcödé", "😀" * 32, "\n", "\t", "\u202egpj", "x" * 128, "A", "_" + "0" * 64, "volume.json", "CON"),
    ],
)
def test_any_other_name_is_a_name_like_all(bench: Bench, name: str) -> None:
    """It ends up as a folder of the pool, under an id that works everywhere, and nowhere else."""
    volume_id = bench.call("CreateVolume", name=name).volume.volume_id
    assert volume_id.isascii()
    assert "/" not in volume_id
    assert len(volume_id) <= 128
    assert bench.call("CreateVolume", name=name).volume.volume_id == volume_id
    assert bench.call("ControllerGetVolume", volume_id=volume_id).volume.volume_id == volume_id
    folders = {path.name for path in (bench.folder / "pool/.csi-local-path/volumes").iterdir()}
    assert folders == {NAME, volume_id.partition(".")[2]}
    bench.call("DeleteVolume", volume_id=volume_id)
    assert not bench.strangers()


WITH_ID = [
    *("ControllerGetVolume", "ControllerGetVolumeHealth", "ControllerExpandVolume", "ValidateVolumeCapabilities"),
    *("NodeStageVolume", "NodePublishVolume", "NodeGetVolumeStats", "NodeExpandVolume", "NodeGetVolumeHealth"),
]
UNDOING = ["NodeUnpublishVolume", "NodeUnstageVolume", "DeleteVolume"]
NEVER_OURS = ["x", "fake-vol-id-0123456789", "..", "/", "../../etc", "\0", "😀", "{pool}", "{pool}.", "{pool}.../x"]


@pytest.mark.parametrize("volume_id", [*NEVER_OURS, "{pool}.unknown", "{pool}.PVC-1"])
def test_ids_of_nothing(bench: Bench, volume_id: str) -> None:
    """NOT_FOUND wherever something is wanted of a volume, OK wherever its absence is."""
    wrong = volume_id.format(pool=bench.pool_id)
    for method in WITH_ID:
        bench.check_refused(method, Code.NOT_FOUND, "volume", volume_id=wrong)
    bench.call("DeleteVolume", volume_id=wrong)
    bench.call("NodeUnstageVolume", volume_id=wrong)
    bench.call("NodeGetVolumeStats")
    assert not bench.strangers()


@pytest.mark.parametrize("method", [name for name in [*WITH_ID, "DeleteVolume"] if not name.endswith("Health")])
def test_a_pool_that_is_not_here_may_come_back(bench: Bench, method: str) -> None:
    """Nothing is known of its volumes, so neither 'there is none' nor 'it is deleted' would be true."""
    wrong = bench.request(method, volume_id=f"{UNKNOWN_POOL}.{NAME}")
    assert refusal(bench.rpc(method), wrong).code is Code.UNAVAILABLE


@pytest.mark.parametrize("method", ["ControllerGetVolumeHealth", "NodeGetVolumeHealth"])
def test_health_tells_of_a_pool_that_is_not_here(bench: Bench, method: str) -> None:
    (found,) = bench.call(method, volume_id=f"{UNKNOWN_POOL}.{NAME}").volume_health.health_statuses
    assert (found.status, found.reason) == (csi_pb2.INACCESSIBLE, "PoolUnavailable")
    assert len(found.message.encode()) <= 128


@pytest.mark.parametrize("method", [*WITH_ID, *UNDOING])
def test_ids_that_cannot_be(bench: Bench, method: str) -> None:
    for wrong, text in (("", "volume_id: wanted a value"), ("x" * MIB, "volume_id: wanted at most 128 bytes")):
        caught = refusal(bench.rpc(method), bench.request(method, volume_id=wrong))
        assert caught.code is Code.INVALID_ARGUMENT
        assert text in caught.message


PATHS = {
    "NodeStageVolume": "staging_target_path",
    "NodePublishVolume": "target_path",
    "NodeUnstageVolume": "staging_target_path",
    "NodeUnpublishVolume": "target_path",
}


@pytest.mark.parametrize("method", PATHS)
@pytest.mark.parametrize(
    "path",
    [
        *("", "some/path", ".", "..", "/", "/etc", "/etc/passwd", "{targets}", "{targets}/../x", "{targets}/a/../b"),
        *("{targets}//x", "{targets}/./x", "{targets}x/y", "{targets}/a\0b", "{targets}/" + "x/" * 2100 + "x"),
        *("{targets}/" + "x" * 256, "{targets}/" + "x" * 256 + "/y", "{targets}/file/x", "{targets}/link/x"),
    ],
    ids=lambda path: path[:40],
)
def test_paths_that_may_not_be(bench: Bench, method: str, path: str) -> None:
    (bench.targets / "file").touch()
    (bench.targets / "link").symlink_to(bench.folder)
    wrong = path.format(targets=bench.targets)
    bench.check_refused(method, Code.INVALID_ARGUMENT, PATHS[method], **{PATHS[method]: wrong})
    assert not bench.strangers()


def test_a_parent_that_does_not_exist(bench: Bench) -> None:
    """The orchestrator makes it; where it is gone, there is nothing left to undo."""
    missing = str(bench.targets / "nobody/made/this")
    bench.check_refused("NodePublishVolume", Code.NOT_FOUND, "target_path", target_path=missing)
    bench.call("NodeUnpublishVolume", target_path=missing)


@pytest.mark.parametrize("method", ["NodeGetVolumeStats", "NodeExpandVolume"])
@pytest.mark.parametrize(
    "path",
    ["some/path", "/", "/etc", "{targets}/nothing", "{targets}/../target", "{targets}/" + "x" * 256, "..", "😀"],
    ids=lambda path: path[:40],
)
def test_paths_where_nothing_is_published(bench: Bench, method: str, path: str) -> None:
    bench.check_refused(method, Code.NOT_FOUND, "volume_path", volume_path=path.format(targets=bench.targets))


def test_requests_of_a_wrong_shape_are_refused(bench: Bench) -> None:
    """Bytes that are no message, and fields of other types than the interface's."""
    number_as_id, broken_utf8, cut_short = b"\x08\x05", b"\x0a\x02\xc3\x28", b"\x0a\x7fabc"
    for method, _ in METHODS:
        rpc: Any = bench.served.channel.unary_unary(method)
        if "Node/NodeGetVolumeStats" in method:
            assert refusal(rpc, number_as_id).code is Code.INVALID_ARGUMENT
            assert refusal(rpc, broken_utf8).code is Code.INVALID_ARGUMENT
        caught = refusal(rpc, cut_short)
        assert caught.code is Code.INVALID_ARGUMENT
        assert method.rpartition("/")[2] in caught.message


def test_noise_is_never_our_failure(bench: Bench) -> None:
    noise = random.Random(20)  # noqa: S311 - the same noise each time
    for method, _ in METHODS:
        rpc: Any = bench.served.channel.unary_unary(method)
        for length in (1, 2, 5, 40, 3000):
            assert outcome(rpc, noise.randbytes(length)) not in {Code.INTERNAL, Code.UNKNOWN}


def outcome(rpc: Any, request: Any) -> Code:
    """Give the code of a call that may succeed."""
    try:
        rpc(request)
    except grpc.RpcError as error:
        call: Any = error
        assert call.details()
        code: Code = call.code()
        return code
    return Code.OK


NASTY = ["", NAME, "..", "/", "a/b", "\0", "\n", "😀", "x" * 129, "x" * 5000, "after:", "ro", "ext4", "pool", "0770"]


def messages(descriptor: Descriptor, texts: list[str]) -> SearchStrategy[dict[str, Any]]:
    """Give fields for a message of a type: each may be absent, right, or nasty."""
    optional = {field.name: values(field, texts) for field in descriptor.fields}
    return strategies.fixed_dictionaries({}, optional=optional)


def values(field: FieldDescriptor, texts: list[str]) -> SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        text = strategies.sampled_from(texts)
        return strategies.dictionaries(text, text, max_size=3)
    if field.message_type is not None:
        one: SearchStrategy[Any] = messages(field.message_type, texts)
    elif field.type == field.TYPE_STRING:
        one = strategies.sampled_from(texts)
    elif field.type == field.TYPE_BOOL:
        one = strategies.booleans()
    elif field.type == field.TYPE_ENUM:
        one = strategies.integers(0, 8)
    else:
        one = strategies.sampled_from([-1, 0, 1, MIB, 2**31 - 1])
    return strategies.lists(one, max_size=2) if field.is_repeated else one


@pytest.fixture(scope="module")
def long_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench_in(tmp_path_factory.mktemp("hostile")) as found:
        yield found


@given(data=strategies.data())
@settings(max_examples=400, deadline=None)
def test_no_request_makes_us_fail(long_bench: Bench, data: strategies.DataObject) -> None:
    """Requests of right and nasty values in all fields, of all methods, in any order."""
    method, descriptor = data.draw(strategies.sampled_from(METHODS))
    texts = [*NASTY, long_bench.volume_id, *(str(long_bench.targets / name) for name in ("staging", "target", "t2"))]
    fields = data.draw(messages(descriptor, texts))
    request = getattr(csi_pb2, descriptor.name)(**fields)
    rpc: Any = long_bench.served.channel.unary_unary(method, type(request).SerializeToString)
    code = outcome(rpc, request)
    assert code not in {Code.INTERNAL, Code.UNKNOWN}, long_bench.served.log[-1]
    assert not long_bench.strangers()
