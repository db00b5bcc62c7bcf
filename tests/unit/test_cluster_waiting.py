"""Claims that no node can serve."""

from __future__ import annotations

import pytest

from csi.cluster.directory import Directory
from csi.cluster.waiting import WaitingClaims
from tests.support.announced import facts, node_lease
from tests.support.kubeapi import MemoryApi
from tests.support.told import Told

POOL = "00000000000000aa"


class Waiting:
    """A cluster whose node a has the pool 'fast', and 'away' without its disk, classes, and a claim of each."""

    def __init__(self, **parameters: str) -> None:
        self.api, self.told, self.directory = MemoryApi(), Told(), Directory()
        self.directory.replaced([node_lease("a", facts(POOL, "fast"), facts("", "away", means=()))])
        self.put_class("c", "local-path.csi.dev", parameters)
        self.put_claim("waits", "c")
        self.waiting = WaitingClaims(lambda: self.api, self.directory, self.told, lambda: True, 60)

    def put_class(self, name: str, provisioner: str, parameters: dict[str, str]) -> None:
        body = {"metadata": {"name": name}, "provisioner": provisioner, "parameters": parameters}
        self.api.put(f"/apis/storage.k8s.io/v1/storageclasses/{name}", body)

    def put_claim(self, name: str, of: str, volume: str = "") -> None:
        body = {"metadata": {"name": name, "namespace": "ns"}, "spec": {"storageClassName": of, "volumeName": volume}}
        self.api.put(f"/api/v1/namespaces/ns/persistentvolumeclaims/{name}", body)


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"pool": "slow"}, "class 'c': no node has a pool 'slow'"),
        ({"pool": "away"}, "class 'c': the disk of pool 'away' is not there, and so for each node that has it"),
        ({"pool": "fast", "enforce": "required"}, "class 'c': pool 'fast' has no means for enforce: required"),
        ({"poool": "fast"}, "class 'c': parameter 'poool' is unknown; did you mean 'pool'"),
    ],
)
def test_a_claim_that_nobody_can_serve_is_told_why(parameters: dict[str, str], why: str) -> None:
    world = Waiting(**parameters)
    world.put_claim("bound", "c", "pv-1")
    world.put_claim("other", "unknown")
    world.put_class("foreign", "other.csi.dev", {"poool": "x"})
    world.put_claim("foreign", "foreign")
    world.waiting.look()
    ((name, message),) = world.told.claims
    assert name == "waits"
    assert message.startswith(f"ClassCannotBeServed: {why}")


def test_of_many_claims_each_is_told_in_time() -> None:
    world = Waiting(pool="slow")
    for number in range(120):
        world.put_claim(f"c{number}", "c")
    world.waiting.look()
    assert 0 < len(world.told.claims) < 100, "no flood"
    world.waiting.look()
    world.waiting.look()
    assert len(world.told.claims) == 121


def test_where_all_is_well_no_claim_is_read() -> None:
    world = Waiting(pool="fast")
    world.waiting.look()
    assert not world.told.claims
    assert [path for _, path in world.api.calls] == ["/apis/storage.k8s.io/v1/storageclasses"]


def test_without_any_node_that_is_the_reason() -> None:
    world = Waiting(pool="fast")
    world.directory.replaced([])
    world.waiting.look()
    assert "no node of the cluster runs this driver's agent" in world.told.claims[0][1]
