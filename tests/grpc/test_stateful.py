"""Random sequences of all RPCs, with retries, duplicates, concurrent callers and restarts, against a plain model."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from csi.pb import csi_pb2, csi_pb2_grpc
from csi.server.server import build_server
from provisioner.assembly import Provisioner
from tests.support.plain_model import MULTI, OK, READER, Model
from tests.support.provisioned import MIB, settings_for, unmount_below

ABORTED = grpc.StatusCode.ABORTED
NAMES = ["pvc-1", "Größe/../x"]
TARGETS = ["t0", "t1"]
MODES = [MULTI, 1, READER, 6]

names = st.sampled_from(NAMES)
targets = st.sampled_from(TARGETS)
sizes = st.sampled_from([0, MIB, 2 * MIB, 3 * MIB])
modes = st.sampled_from(MODES)


def capability(mode: int) -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(),
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=mode),  # type: ignore[arg-type] # by number
    )


class Driver(RuleBasedStateMachine):
    """The served driver beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="stateful-"))
        self.settings = settings_for(self.folder)
        self.model = Model()
        self.ids: dict[str, str] = {}
        self.threads = ThreadPoolExecutor(4)
        self.start()

    def start(self) -> None:
        self.provisioner = Provisioner(self.settings)
        self.provisioner.lock()
        self.server = build_server(self.provisioner, "node-1", workers=4)
        endpoint = f"unix://{self.folder}/csi.sock"
        self.server.add_insecure_port(endpoint)
        self.server.start()
        self.provisioner.start()
        self.channel = grpc.insecure_channel(endpoint)
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)
        self.controller = csi_pb2_grpc.ControllerStub(self.channel)
        self.node = csi_pb2_grpc.NodeStub(self.channel)

    def stop(self) -> None:
        self.channel.close()
        self.server.stop(None).wait()
        self.provisioner.stop()

    def teardown(self) -> None:
        self.stop()
        self.threads.shutdown()
        unmount_below(self.folder)
        shutil.rmtree(self.folder)

    def call(self, method: Any, request: Any) -> tuple[grpc.StatusCode, Any]:
        try:
            return OK, method(request, timeout=20)
        except grpc.RpcError as error:
            return (error.code(), None) if error.details() else (grpc.StatusCode.UNKNOWN, None)

    def calls(self, method: Any, request: Any, callers: int) -> tuple[grpc.StatusCode, Any]:
        """Make the same call by so many callers at once; each answer is the one, or ABORTED."""
        answers = list(self.threads.map(lambda _: self.call(method, request), range(callers)))
        decided = [answer for answer in answers if answer[0] is not ABORTED]
        if not decided:  # each was in another's way, which the same call again is the answer to
            decided = [self.call(method, request)]
        assert len({code for code, _ in decided}) == 1, answers
        return decided[0]

    def id_of(self, name: str) -> str:
        return self.ids.get(name, "0123456789abcdeg.never")

    def at(self, place: str) -> str:
        return str(self.folder / "targets" / place)

    @initialize(first=st.sampled_from(NAMES[:2]))
    def begin_with_a_volume(self, first: str) -> None:
        """Most of what can be asked needs one; half of all rules are left out of each sequence."""
        self.create(first, MIB, 0, "0770", 1)

    @rule(name=names, required=sizes, limit=sizes, mode=st.sampled_from(["0770", "0700"]), callers=st.integers(1, 3))
    def create(self, name: str, required: int, limit: int, mode: str, callers: int) -> None:
        request = csi_pb2.CreateVolumeRequest(
            name=name,
            capacity_range=csi_pb2.CapacityRange(required_bytes=required, limit_bytes=limit),
            volume_capabilities=[capability(MULTI)],
            parameters={"mode": mode},
        )
        code, reply = self.calls(self.controller.CreateVolume, request, callers)
        assert code is self.model.create(name, required, limit, mode)
        if code is OK:
            assert reply.volume.capacity_bytes == self.model.volumes[name].size
            assert self.ids.setdefault(name, reply.volume.volume_id) == reply.volume.volume_id

    def create_beyond_the_disk(self, name: str) -> None:
        request = csi_pb2.CreateVolumeRequest(
            name=f"{name[:100]}-huge",
            capacity_range=csi_pb2.CapacityRange(required_bytes=2**60),
            volume_capabilities=[capability(1)],
        )
        assert self.call(self.controller.CreateVolume, request)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED

    @rule(name=names, callers=st.integers(1, 3))
    def delete(self, name: str, callers: int) -> None:
        request = csi_pb2.DeleteVolumeRequest(volume_id=self.id_of(name))
        code, _ = self.calls(self.controller.DeleteVolume, request, callers)
        assert code is self.model.delete(name)

    @rule(name=names, required=st.sampled_from([MIB, 4 * MIB]), limit=sizes, callers=st.integers(1, 2))
    def expand(self, name: str, required: int, limit: int, callers: int) -> None:
        wish = csi_pb2.CapacityRange(required_bytes=required, limit_bytes=limit)
        request = csi_pb2.ControllerExpandVolumeRequest(volume_id=self.id_of(name), capacity_range=wish)
        code, reply = self.calls(self.controller.ControllerExpandVolume, request, callers)
        assert code is self.model.expand(name, required, limit)
        if code is OK:
            assert reply.capacity_bytes == self.model.volumes[name].size

    @rule(name=names, place=targets, mode=modes, readonly=st.booleans(), callers=st.integers(1, 3))
    def publish(self, name: str, place: str, mode: int, readonly: bool, callers: int) -> None:
        staged = csi_pb2.NodeStageVolumeRequest(
            volume_id=self.id_of(name), staging_target_path=self.at("staged"), volume_capability=capability(mode)
        )
        expected = OK if name in self.model.volumes else grpc.StatusCode.NOT_FOUND
        assert self.calls(self.node.NodeStageVolume, staged, callers)[0] is expected
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=self.id_of(name),
            staging_target_path=self.at("staged"),
            target_path=self.at(place),
            volume_capability=capability(mode),
            readonly=readonly,
        )
        code, _ = self.calls(self.node.NodePublishVolume, request, callers)
        assert code is self.model.publish(name, place, mode, readonly=readonly)
        self.write(name)

    def write(self, name: str) -> None:
        """Leave something that must never be lost."""
        kept = self.model.volumes.get(name)
        for place, shown in kept.shown.items() if kept else ():
            if kept and not shown.readonly and not kept.content:
                kept.content = f"{name} at {place}"
                Path(self.at(place), "file").write_text(kept.content)

    @rule(name=names, place=targets, callers=st.integers(1, 3))
    def unpublish(self, name: str, place: str, callers: int) -> None:
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=self.id_of(name), target_path=self.at(place))
        code, _ = self.calls(self.node.NodeUnpublishVolume, request, callers)
        assert code is self.model.unpublish(name, place)
        unstage = csi_pb2.NodeUnstageVolumeRequest(volume_id=self.id_of(name), staging_target_path=self.at("staged"))
        assert self.calls(self.node.NodeUnstageVolume, unstage, callers)[0] is OK

    @rule(name=names, place=targets)
    def look_around(self, name: str, place: str) -> None:
        """Make every call that changes nothing."""
        self.look_at_the_node(name, place)
        self.look_at_the_controller(name)
        self.look_at_the_identity()
        self.create_beyond_the_disk(name)

    def look_at_the_node(self, name: str, place: str) -> None:
        volume_id, path = self.id_of(name), self.at(place)
        known = name in self.model.volumes
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=path)
        code, reply = self.call(self.node.NodeGetVolumeStats, request)
        assert code is self.model.statistics(name, place)
        if code is OK:
            assert reply.usage[0].total == self.model.volumes[name].size
        health = csi_pb2.NodeGetVolumeHealthRequest(volume_id=volume_id)
        assert self.call(self.node.NodeGetVolumeHealth, health)[0] is (OK if known else grpc.StatusCode.NOT_FOUND)
        grow = csi_pb2.NodeExpandVolumeRequest(volume_id=volume_id, volume_path=path)
        shown = known and bool(self.model.at(place))
        assert self.call(self.node.NodeExpandVolume, grow)[0] is (OK if shown else grpc.StatusCode.NOT_FOUND)
        assert self.call(self.node.NodeGetStorageHealth, csi_pb2.NodeGetStorageHealthRequest())[1] is not None
        assert self.call(self.node.NodeGetCapabilities, csi_pb2.NodeGetCapabilitiesRequest())[0] is OK
        assert self.call(self.node.NodeGetInfo, csi_pb2.NodeGetInfoRequest())[1].node_id == "node-1"

    def look_at_the_controller(self, name: str) -> None:
        expected = OK if name in self.model.volumes else grpc.StatusCode.NOT_FOUND
        volume_id = self.id_of(name)
        get = csi_pb2.ControllerGetVolumeRequest(volume_id=volume_id)
        validate = csi_pb2.ValidateVolumeCapabilitiesRequest(
            volume_id=volume_id, volume_capabilities=[capability(MULTI)]
        )
        health = csi_pb2.ControllerGetVolumeHealthRequest(volume_id=volume_id)
        assert self.call(self.controller.ControllerGetVolume, get)[0] is expected
        assert self.call(self.controller.ValidateVolumeCapabilities, validate)[0] is expected
        assert self.call(self.controller.ControllerGetVolumeHealth, health)[0] is expected
        sick = self.call(self.controller.ControllerListVolumeHealth, csi_pb2.ControllerListVolumeHealthRequest())[1]
        assert list(sick.entries) == []
        assert self.call(self.controller.GetCapacity, csi_pb2.GetCapacityRequest())[1].available_capacity > 0
        attach = csi_pb2.ControllerPublishVolumeRequest(volume_id=volume_id, node_id="node-1")
        assert self.call(self.controller.ControllerPublishVolume, attach)[0] is grpc.StatusCode.UNIMPLEMENTED

    def look_at_the_identity(self) -> None:
        assert self.identity.Probe(csi_pb2.ProbeRequest()).ready.value
        assert self.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest()).name == "local-path.csi.dev"
        assert self.identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest()).capabilities

    @rule()
    def restart(self) -> None:
        self.stop()
        self.start()

    @invariant()
    def lists_what_the_model_has(self) -> None:
        found: dict[str, int] = {}
        request = csi_pb2.ListVolumesRequest(max_entries=2)
        while True:
            reply = self.controller.ListVolumes(request)
            found |= {entry.volume.volume_id: entry.volume.capacity_bytes for entry in reply.entries}
            if not reply.next_token:
                break
            request.starting_token = reply.next_token
        assert found == {self.ids[name]: kept.size for name, kept in self.model.volumes.items()}

    @invariant()
    def shows_what_was_written(self) -> None:
        for kept in self.model.volumes.values():
            for place in kept.shown if kept.content else ():
                assert Path(self.at(place), "file").read_text() == kept.content

    @invariant()
    def shows_nothing_else(self) -> None:
        shown = {place for kept in self.model.volumes.values() for place in kept.shown}
        assert {path.name for path in (self.folder / "targets").iterdir()} == shown


Driver.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_driver_agrees_with_the_model = Driver.TestCase
