"""The ways to nodes, over real TLS, and what is known of nodes that do not answer."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from csi.cluster import announcement
from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.certificates import new_credentials
from csi.cluster.directory import Directory
from csi.cluster.nodes import Nodes
from csi.cluster.peers import Peers
from csi.pb import csi_pb2
from csi.wire.statuses import ForwardedStatus
from provisioner.errors import NodeUnavailable
from tests.support.announced import credentials_of, facts, node_lease
from tests.support.clustered import eventually
from tests.support.liar import Liar, lying

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi.cluster.directory import Node

P = "00000000000000aa"
LOOKUP = csi_pb2.ControllerGetVolumeRequest(volume_id=f"{P}.a")


class World:
    """Nodes of a directory, with a way to one of them at a time. A node is given up as soon as it is silent."""

    def __init__(self, stack: ExitStack) -> None:
        self.directory = Directory()
        self.peers = Peers(credentials_of("controller"), most=1)
        self.nodes = Nodes(self.directory, self.peers, give_up_s=0)
        stack.callback(self.peers.close)
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))
        self.closed_port = closed.getsockname()[1]

    def announce(self, name: str, port: int = 0, certificate: str = "") -> Node:
        """Let a node say where it is; at no address that answers, with a certificate that is new, unless said."""
        certificate = certificate or new_credentials().certificate.decode()
        address = f"127.0.0.1:{port or self.closed_port}"
        said = announcement.encode(Announcement(SCHEMA, certificate, address, (facts(P),)))
        self.directory.changed(node_lease(name, said=said, renewal=certificate))
        node = self.directory.node(name)
        assert node is not None
        return node

    def fail(self, node: Node) -> None:
        """Call a node that does not answer."""
        with pytest.raises(NodeUnavailable):
            self.ask(node)

    def ask(self, node: Node) -> Any:
        """Call a node."""
        return self.nodes.call(node, "ControllerGetVolume", LOOKUP, 10.0)


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def test_an_agent_that_starts_again_and_again_is_as_silent_as_before(world: World) -> None:
    node = world.announce("a")
    assert not world.nodes.is_given_up(node)
    world.fail(node)
    assert world.nodes.is_given_up(world.announce("a"))


@pytest.mark.parametrize("says", ["yes", "no"])
def test_an_answer_ends_the_silence(world: World, says: str) -> None:
    world.fail(world.announce("a"))
    liar = Liar()
    liar.answers = {"ControllerGetVolume": csi_pb2.ControllerGetVolumeResponse()} if says == "yes" else {}
    ours, trusted = credentials_of("a"), [credentials_of("controller").certificate.decode()]
    with lying(liar, ours, lambda: trusted, "127.0.0.1") as port:
        node = world.announce("a", port, ours.certificate.decode())
        assert world.nodes.is_given_up(node)
        with suppress(ForwardedStatus):
            world.ask(node)
        assert not world.nodes.is_given_up(node)


def test_who_is_silent_is_known_of_more_nodes_than_there_are_ways_to(world: World) -> None:
    nodes = [world.announce(name) for name in "abc"]
    for node in nodes:
        world.fail(node)
    assert all(map(world.nodes.is_given_up, nodes))
    assert world.nodes.silence.count() == 3
    world.directory.removed(node_lease("b"))
    assert world.nodes.silence.count() == 2


def test_a_call_that_runs_is_not_cut_off_however_often_the_certificate_changes(world: World) -> None:
    liar = Liar()
    liar.answers = {"ControllerGetVolume": csi_pb2.ControllerGetVolumeResponse()}
    liar.held.clear()
    ours, trusted = credentials_of("a"), [credentials_of("controller").certificate.decode()]
    with lying(liar, ours, lambda: trusted, "127.0.0.1") as port, ThreadPoolExecutor(1) as caller:
        running = caller.submit(world.ask, world.announce("a", port, ours.certificate.decode()))
        eventually(lambda: liar.metadata, "the call")
        for _ in range(40):
            world.fail(world.announce("a"))
        liar.held.set()
        assert running.result() == csi_pb2.ControllerGetVolumeResponse()
