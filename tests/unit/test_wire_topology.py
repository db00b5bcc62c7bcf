"""Volumes are where their node is, and requests that exclude it are for another one."""

from __future__ import annotations

import pytest

from csi.pb import csi_pb2
from csi.wire import topology
from provisioner.errors import NodeNotInTopology

HERE = csi_pb2.Topology(segments={topology.KEY: "node-1"})
HERE_IN_CAPITALS = csi_pb2.Topology(segments={topology.KEY.upper(): "node-1"})
THERE = csi_pb2.Topology(segments={topology.KEY: "node-2"})
ZONE = csi_pb2.Topology(segments={topology.KEY: "node-1", "zone": "z1"})
ANYWHERE = csi_pb2.Topology()


def test_a_node_lies_in_its_own_topology() -> None:
    assert topology.admits(topology.topology_of("node-1"), "node-1")


@pytest.mark.parametrize(
    ("place", "admitted"),
    [(HERE, True), (HERE_IN_CAPITALS, True), (ANYWHERE, True), (THERE, False), (ZONE, False)],
)
def test_every_segment_must_be_ours(place: csi_pb2.Topology, *, admitted: bool) -> None:
    assert topology.admits(place, "node-1") is admitted


@pytest.mark.parametrize(
    ("requisite", "preferred"),
    [([], []), ([HERE], []), ([THERE, HERE], [THERE]), ([], [THERE, HERE]), ([HERE_IN_CAPITALS], [])],
)
def test_a_requirement_with_this_node_is_met(
    requisite: list[csi_pb2.Topology], preferred: list[csi_pb2.Topology]
) -> None:
    requirement = csi_pb2.TopologyRequirement(requisite=requisite, preferred=preferred)
    topology.check_requirement(requirement, "node-1")


@pytest.mark.parametrize(("requisite", "preferred"), [([THERE], []), ([], [THERE]), ([THERE], [HERE])])
def test_a_requirement_without_this_node_is_for_another(
    requisite: list[csi_pb2.Topology], preferred: list[csi_pb2.Topology]
) -> None:
    requirement = csi_pb2.TopologyRequirement(requisite=requisite, preferred=preferred)
    with pytest.raises(NodeNotInTopology, match=f"wanted {topology.KEY}=node-2, but .*node-1 only$"):
        topology.check_requirement(requirement, "node-1")


def test_a_cluster_of_other_nodes_is_told_in_short() -> None:
    places = [csi_pb2.Topology(segments={topology.KEY: f"other-{i}"}) for i in range(5000)]
    with pytest.raises(NodeNotInTopology, match=r"other-0 or .*other-2 or 4997 more, but"):
        topology.check_requirement(csi_pb2.TopologyRequirement(requisite=places), "node-1")
