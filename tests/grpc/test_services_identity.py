"""Identity through the socket."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest

from csi.pb import csi_pb2
from tests.support.fakes import ServedFakes, served_fakes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from provisioner.model import Call


@pytest.fixture
def served() -> Iterator[ServedFakes]:
    with served_fakes(workers=1) as found:
        yield found


def test_the_plugin_has_a_name_and_a_version(served: ServedFakes) -> None:
    """The pattern is csi-sanity's, which is stricter than the spec."""
    info = served.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    assert info.name == "local-path.csi.dev"
    assert re.fullmatch(r"[a-zA-Z][A-Za-z0-9\-._]{0,61}[a-zA-Z]", info.name)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", info.vendor_version)


def test_the_plugin_offers_what_it_has(served: ServedFakes) -> None:
    found = served.identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest()).capabilities
    service, expansion = csi_pb2.PluginCapability.Service, csi_pb2.PluginCapability.VolumeExpansion
    assert [service.Type.Name(c.service.type) for c in found if c.HasField("service")] == [
        "CONTROLLER_SERVICE",
        "VOLUME_ACCESSIBILITY_CONSTRAINTS",
    ]
    assert [expansion.Type.Name(c.volume_expansion.type) for c in found if c.HasField("volume_expansion")] == ["ONLINE"]


@pytest.mark.parametrize("ready", [True, False])
def test_probe_says_whether_the_scan_has_ended(served: ServedFakes, *, ready: bool) -> None:
    served.volumes.ready = ready
    answer = served.identity.Probe(csi_pb2.ProbeRequest())
    assert answer.HasField("ready")
    assert answer.ready.value is ready


def test_probe_answers_while_every_worker_waits_for_a_disk(served: ServedFakes) -> None:
    """Otherwise the kubelet would restart the driver, below running pods, for a disk that hangs."""
    hanging, disk = threading.Event(), threading.Event()

    def hang(_call: Call) -> None:
        hanging.set()
        assert disk.wait(30)

    served.volumes.during = hang
    pending = served.controller.DeleteVolume.future(csi_pb2.DeleteVolumeRequest(volume_id="v"))
    assert hanging.wait(30)
    assert served.identity.Probe(csi_pb2.ProbeRequest(), timeout=30).ready.value
    assert not pending.done()
    disk.set()
    pending.result(30)
