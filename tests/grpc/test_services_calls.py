"""What every call goes through: statuses, one line in the log, deadlines, and no secrets anywhere."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from csi.pb import csi_pb2, csi_pb2_grpc
from provisioner.errors import Cancelled, DeadlineExceeded, OperationPending, PoolUnavailable, ProvisionerError
from provisioner.model import Volume
from tests.support.fakes import POOL_ID, ServedFakes, refusal, served_fakes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from provisioner.model import Call

Code = grpc.StatusCode
ID = f"{POOL_ID}.v"
SECRET = "open-sesame-7c1f"  # noqa: S105 - a word to look for
SECRETS = {"password": SECRET, "token": SECRET}
MOUNT = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)
DELETE = csi_pb2.DeleteVolumeRequest(volume_id=ID)


@pytest.fixture
def served() -> Iterator[ServedFakes]:
    with served_fakes(workers=1) as found:
        found.volumes.volumes[ID] = Volume(ID, "v", 400)
        yield found


def test_a_call_ends_with_one_line(served: ServedFakes) -> None:
    served.controller.DeleteVolume(DELETE)
    (line,) = served.rpc_lines()
    assert line.pop("duration_ms") > 0
    assert line.pop("request_id") == 1
    assert line == {"event": "rpc", "level": "info", "method": "DeleteVolume", "volume_id": ID, "code": "OK"}


def test_a_creation_s_line_has_the_name_asked_and_the_id_given(served: ServedFakes) -> None:
    served.controller.CreateVolume(csi_pb2.CreateVolumeRequest(name="pvc-1", volume_capabilities=[MOUNT]))
    (line,) = served.rpc_lines()
    assert (line["name"], line["volume_id"]) == ("pvc-1", f"{POOL_ID}.pvc-1")


def test_request_ids_tell_calls_apart(served: ServedFakes) -> None:
    for _ in range(5):
        served.controller.DeleteVolume(DELETE)
    assert [line["request_id"] for line in served.rpc_lines()] == [1, 2, 3, 4, 5]


def test_calls_that_come_every_few_seconds_are_for_debugging(served: ServedFakes) -> None:
    served.identity.Probe(csi_pb2.ProbeRequest())
    served.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    served.identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest())
    served.controller.ControllerGetCapabilities(csi_pb2.ControllerGetCapabilitiesRequest())
    served.node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest())
    served.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
    assert [line["level"] for line in served.rpc_lines()] == ["debug"] * 5 + ["info"]


def test_lines_of_the_domain_carry_the_call(served: ServedFakes) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        served.volumes.during = lambda _call: structlog.get_logger().info("renamed to the trash")
        served.controller.DeleteVolume(DELETE)
    assert [(line["event"], line["method"], line["volume_id"], line["request_id"]) for line in lines] == [
        ("renamed to the trash", "DeleteVolume", ID, 1)
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [(PoolUnavailable("pool x: not mounted"), Code.UNAVAILABLE), (OperationPending("still running"), Code.ABORTED)],
)
def test_an_error_is_told_and_logged_once(served: ServedFakes, error: ProvisionerError, code: Code) -> None:
    served.volumes.failure = error
    assert refusal(served.controller.DeleteVolume, DELETE) == (code, str(error))
    (line,) = served.rpc_lines()
    assert (line["level"], line["code"], line["error"]) == ("warning", code.name, str(error))
    assert "exc_info" not in line
    assert not served.log


def test_an_unexpected_error_is_told_in_general_and_logged_in_full(served: ServedFakes) -> None:
    served.volumes.failure = OSError(5, "Input/output error", "/pool/volumes/v")
    caught = refusal(served.controller.DeleteVolume, DELETE)
    (line,) = served.rpc_lines()
    assert caught.code is Code.INTERNAL
    assert "/pool" not in caught.message
    assert f"request_id {line['request_id']}" in caught.message
    assert (line["level"], line["exc_info"]) == ("error", served.volumes.failure)
    assert "Input/output error" in line["error"]


def test_the_next_call_works_after_any_error(served: ServedFakes) -> None:
    served.volumes.failure = RuntimeError("boom")
    refusal(served.controller.DeleteVolume, DELETE)
    served.volumes.failure = None
    served.controller.DeleteVolume(DELETE)
    assert [line["code"] for line in served.rpc_lines()] == ["INTERNAL", "OK"]


@pytest.mark.parametrize(
    ("service", "method", "request_"),
    [
        (csi_pb2_grpc.ControllerStub, "ControllerPublishVolume", csi_pb2.ControllerPublishVolumeRequest()),
        (csi_pb2_grpc.ControllerStub, "ControllerUnpublishVolume", csi_pb2.ControllerUnpublishVolumeRequest()),
        (csi_pb2_grpc.ControllerStub, "ControllerModifyVolume", csi_pb2.ControllerModifyVolumeRequest()),
        (csi_pb2_grpc.ControllerStub, "CreateSnapshot", csi_pb2.CreateSnapshotRequest(name="s")),
        (csi_pb2_grpc.ControllerStub, "DeleteSnapshot", csi_pb2.DeleteSnapshotRequest(snapshot_id="s")),
        (csi_pb2_grpc.ControllerStub, "ListSnapshots", csi_pb2.ListSnapshotsRequest()),
        (csi_pb2_grpc.ControllerStub, "GetSnapshot", csi_pb2.GetSnapshotRequest(snapshot_id="s")),
        (
            csi_pb2_grpc.GroupControllerStub,
            "GroupControllerGetCapabilities",
            csi_pb2.GroupControllerGetCapabilitiesRequest(),
        ),
    ],
)
def test_what_is_not_offered_says_so(served: ServedFakes, service: Any, method: str, request_: Any) -> None:
    caught = refusal(getattr(service(served.channel), method), request_)
    assert caught.code is Code.UNIMPLEMENTED
    assert method in caught.message
    (line,) = served.rpc_lines()
    assert line["code"] == "UNIMPLEMENTED"


def test_streams_are_not_offered_either(served: ServedFakes) -> None:
    stub = csi_pb2_grpc.SnapshotMetadataStub(served.channel)
    caught = refusal(lambda request: list(stub.GetMetadataDelta(request)), csi_pb2.GetMetadataDeltaRequest())
    assert caught.code is Code.UNIMPLEMENTED


def wait_until_given_up(found: list[ProvisionerError], done: threading.Event) -> Any:
    """Give a `during` that looks at its call until that says that nobody waits."""

    def wait(call: Call) -> None:
        pause = threading.Event()
        try:
            while not pause.wait(0.005):
                call.check()
        except ProvisionerError as error:
            found.append(error)
            raise
        finally:
            done.set()

    return wait


def test_a_passed_deadline_stops_the_work(served: ServedFakes) -> None:
    found: list[ProvisionerError] = []
    done = threading.Event()
    served.volumes.during = wait_until_given_up(found, done)
    caught = refusal(lambda request: served.controller.DeleteVolume(request, timeout=0.1), DELETE)
    assert caught.code is Code.DEADLINE_EXCEEDED
    assert done.wait(30)
    assert [type(error) for error in found] == [DeadlineExceeded]


def test_a_caller_that_leaves_stops_the_work(served: ServedFakes) -> None:
    found: list[ProvisionerError] = []
    begun, done = threading.Event(), threading.Event()
    wait = wait_until_given_up(found, done)

    def during(call: Call) -> None:
        begun.set()
        wait(call)

    served.volumes.during = during
    pending = served.controller.DeleteVolume.future(DELETE)
    assert begun.wait(30)
    pending.cancel()
    assert done.wait(30)
    assert [type(error) for error in found] == [Cancelled]


def every_request_with_secrets() -> Iterator[tuple[str, Any]]:
    """Fill each request that has secrets with some, and with a volume that exists."""
    for service in ("Controller", "Node"):
        for method in csi_pb2.DESCRIPTOR.services_by_name[service].methods:
            fields = method.input_type.fields_by_name
            if "secrets" in fields:
                request = getattr(csi_pb2, method.input_type.name)(secrets=SECRETS)
                for name in ("volume_id", "name", "target_path", "staging_target_path", "volume_path"):
                    if name in fields:
                        setattr(request, name, ID)
                if "volume_capability" in fields:
                    request.volume_capability.CopyFrom(MOUNT)
                if "volume_capabilities" in fields:
                    request.volume_capabilities.append(MOUNT)
                yield f"/csi.v1.{service}/{method.name}", request


@pytest.mark.parametrize("failure", [None, OperationPending("still running"), ValueError("a bug")])
def test_secrets_are_never_logged_nor_told(served: ServedFakes, failure: Exception | None) -> None:
    """Through every RPC that takes secrets, with good and bad ones, whether it works or fails."""
    served.volumes.failure = failure
    told = []
    count = 0
    for method, request in every_request_with_secrets():
        count += 1
        rpc: Any = served.channel.unary_unary(method, request_serializer=type(request).SerializeToString)
        too_long = type(request)()
        too_long.CopyFrom(request)
        too_long.secrets["password"] = SECRET * 1000
        bad_key = type(request)()
        bad_key.CopyFrom(request)
        bad_key.secrets[f"{SECRET} {SECRET}"] = SECRET
        cut_short = request.SerializeToString()[:-1]
        told += [answer(rpc, variant) for variant in (request, too_long, bad_key)]
        told.append(answer(served.channel.unary_unary(method), cut_short))
    assert count == 17
    assert SECRET not in repr(told)
    assert len(served.log) == 4 * count
    assert SECRET not in repr([{**line, "exc_info": traceback_of(line)} for line in served.log])


def answer(rpc: Any, request: Any) -> str:
    try:
        return repr(rpc(request))
    except grpc.RpcError as error:
        return repr(error)


def traceback_of(line: dict[str, Any]) -> str:
    return str(structlog.processors.format_exc_info(None, "", dict(line)).get("exception", ""))
