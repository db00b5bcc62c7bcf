"""A node that lies: a Controller that answers what a test wants, behind real TLS, and how nodes are dialled."""

# ruff: noqa: N802 - the methods have the RPCs' names

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from csi.cluster.peers import server_credentials
from csi.cluster.room import KEY as ROOM
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.wire.topology import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi.cluster.certificates import Credentials

MIB = 2**20


class Liar(csi_pb2_grpc.ControllerServicer):
    """A node's Controller. answers: by the method's name, a message or a function that makes one of the request."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.room = "{}"
        self.metadata: list[dict[str, str | bytes]] = []  # of each call that came
        self.held = threading.Event()  # no answer comes while it is not set
        self.held.set()

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        self.held.wait()
        context.set_trailing_metadata(((ROOM, self.room),))
        if method not in self.answers:
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing")
        answer = self.answers[method]
        return answer(request) if callable(answer) else answer

    def CreateVolume(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer("CreateVolume", request, context)

    def DeleteVolume(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer("DeleteVolume", request, context)

    def ControllerGetVolume(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer("ControllerGetVolume", request, context)

    def ListVolumes(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer("ListVolumes", request, context)

    def ControllerExpandVolume(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer("ControllerExpandVolume", request, context)

    def ControllerListVolumeHealth(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer("ControllerListVolumeHealth", request, context)


@contextmanager
def lying(liar: Liar, credentials: Credentials, trusted: Callable[[], list[str]], host: str) -> Iterator[int]:
    """Serve as a node's port does, and give the port."""
    server = grpc.server(ThreadPoolExecutor(40))
    csi_pb2_grpc.add_ControllerServicer_to_server(liar, server)
    port = server.add_secure_port(f"{host}:0", server_credentials(credentials, trusted, lambda: None))
    server.start()
    try:
        yield port
    finally:
        liar.held.set()
        server.stop(None).wait()


def volume(volume_id: str, node: str, size: int = MIB, context: dict[str, str] | None = None) -> csi_pb2.Volume:
    """Give a volume as a node tells of it."""
    place = csi_pb2.Topology(segments={KEY: node})
    return csi_pb2.Volume(volume_id=volume_id, capacity_bytes=size, accessible_topology=[place], volume_context=context)


@contextmanager
def dialled(
    address: str, certificate: str, server_name: str, ours: Credentials | None
) -> Iterator[csi_pb2_grpc.ControllerStub]:
    """Dial a node with a key, or with none; its address and certificate are no secret."""
    pair = (ours.private_key, ours.certificate) if ours else (None, None)
    credentials = grpc.ssl_channel_credentials(certificate.encode(), *pair)
    options = (("grpc.ssl_target_name_override", server_name), ("grpc.use_local_subchannel_pool", 1))
    with grpc.secure_channel(address, credentials, options) as channel:
        yield csi_pb2_grpc.ControllerStub(channel)
