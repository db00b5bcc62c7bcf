"""Mutual TLS between controllers and nodes, each pinning the other's certificate.

A channel to a node trusts that node's certificate alone; a node's port trusts those of the controllers' slots.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import grpc

from csi.pb import csi_pb2_grpc
from provisioner.errors import NodeUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from csi.cluster.certificates import Credentials
    from csi.cluster.directory import Node

_MOST_CHANNELS = 512
_STUCK_CALLS = 16
_STUCK_S = 3.0
_CHANNEL_OPTIONS = (
    # A node that is cut off must not cost each caller the 20 s that gRPC gives a connection at first.
    ("grpc.min_reconnect_backoff_ms", 3000),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10000),
    # A node that falls silent in the middle of a call is noticed before the sidecars' deadline of 10 s.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
SERVER_OPTIONS = (
    ("grpc.http2.min_ping_interval_without_data_ms", 4000),
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 5000),  # two minutes, else, for whoever connects and says nothing
    # A controller whose certificate is no longer trusted is asked for it again within this time.
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_age_grace_ms", 120_000),
)


class Waiting:
    """The calls to a node that wait for its answer; there are never so many that other nodes' calls find no thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._since: dict[object, float] = {}

    @contextmanager
    def calling(self, node_name: str, patience_s: float) -> Iterator[float]:
        """Count a call while it waits, and give how long it may.

        Behind many others that is not long; NodeUnavailable where one of those has been waiting for that long already.
        """
        call, now = object(), monotonic()
        with self._guard:
            ahead, first = len(self._since), min(self._since.values(), default=now)
            if ahead >= _STUCK_CALLS and now - first > _STUCK_S:
                raise NodeUnavailable(f"node {node_name} keeps {ahead} calls waiting; retry later")
            self._since[call] = now
        try:
            yield patience_s if ahead < _STUCK_CALLS else min(patience_s, _STUCK_S)
        finally:
            with self._guard:
                del self._since[call]


class Peer:
    """A channel to one node. waiting: of the node, whatever its channel; calls: that run on this channel."""

    def __init__(self, node: Node, ours: Credentials, waiting: Waiting) -> None:
        self.node, self.waiting, self.calls = node, waiting, 0
        credentials = grpc.ssl_channel_credentials(
            root_certificates=node.certificate.encode(),
            private_key=ours.private_key,
            certificate_chain=ours.certificate,
        )
        options = (*_CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", node.server_name))
        self.channel = grpc.secure_channel(node.address, credentials, options)
        self.controller = csi_pb2_grpc.ControllerStub(self.channel)


class Peers:
    """Channels to nodes, made when they are needed; the longest unused one is closed when they are many.

    One that is replaced stays open for the calls that still run on it: so there are never more of these than calls,
    and a node may change its certificate as often as it likes.
    """

    def __init__(self, ours: Credentials, most: int = _MOST_CHANNELS) -> None:
        self._ours, self._most = ours, most
        self._guard = threading.Lock()
        self._peers: OrderedDict[str, Peer] = OrderedDict()
        self._replaced: set[Peer] = set()

    @contextmanager
    def calling(self, node: Node) -> Iterator[Peer]:
        """Give the way to a node for one call; a new one where its address or certificate is new."""
        with self._guard:
            peer, unused = self._peer(node)
            peer.calls += 1
        for old in unused:
            old.channel.close()
        try:
            yield peer
        finally:
            with self._guard:
                peer.calls -= 1
                is_spent = not peer.calls and peer in self._replaced
                if is_spent:
                    self._replaced.remove(peer)
            if is_spent:
                peer.channel.close()

    def _peer(self, node: Node) -> tuple[Peer, list[Peer]]:
        """Give the way to a node, and those that are replaced and have no call."""
        old: list[Peer] = []
        peer = self._peers.get(node.name)
        if peer is None or (peer.node.address, peer.node.certificate) != (node.address, node.certificate):
            if peer:
                old.append(peer)
            peer = self._peers[node.name] = Peer(node, self._ours, peer.waiting if peer else Waiting())
        self._peers.move_to_end(node.name)
        while len(self._peers) > self._most:
            old.append(self._peers.popitem(last=False)[1])
        self._replaced.update(one for one in old if one.calls)
        return peer, [one for one in old if not one.calls]

    def close(self) -> None:
        """Close all channels; calls that run are cancelled."""
        with self._guard:
            peers = [*self._peers.values(), *self._replaced]
            self._peers.clear()
            self._replaced.clear()
        for peer in peers:
            peer.channel.close()


def server_credentials(
    ours: Credentials, trusted: Callable[[], Sequence[str]], on_handshake: Callable[[], None]
) -> grpc.ServerCredentials:
    """Give what a node's port is opened with. trusted: the certificates to let in, at hand without any I/O.

    on_handshake is called at each: anyone on the network can cause one, so it must cost nothing.
    """
    pair = [(ours.private_key, ours.certificate)]

    def configuration() -> grpc.ServerCertificateConfiguration:
        # With no anchor at all gRPC would refuse to serve; our own lets in whoever has our key, and nobody else.
        anchors = "".join(trusted()).encode() or ours.certificate
        return grpc.ssl_server_certificate_configuration(pair, root_certificates=anchors)

    def fetch() -> grpc.ServerCertificateConfiguration:
        on_handshake()
        return configuration()

    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client_authentication=True)
