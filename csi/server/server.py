"""A gRPC server with the services of a role; where it listens is its caller's choice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import structlog

from csi.pb import csi_pb2_grpc
from csi.server.interceptor import Interceptor
from csi.server.workers import Workers
from csi.services.controller import Controller
from csi.services.identity import Identity
from csi.services.node import Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi.server.interceptor import Observe
    from csi.services.domain import Provisioner

_IDENTITY_WORKERS = 3
_WORKERS = 3
_SPARE_WORKERS = 64  # pools let few calls wait for a disk that hangs: enough for several such disks


def build_server(
    provisioner: Provisioner, node_id: str, *, workers: int = _WORKERS, observe: Observe | None = None
) -> grpc.Server:
    """Make the server of role `standalone`: Identity, Controller and Node."""
    server = build_node_server(provisioner, node_id, workers=workers, observe=observe)
    csi_pb2_grpc.add_ControllerServicer_to_server(Controller(provisioner.volumes, node_id), server)
    return server


def build_node_server(
    provisioner: Provisioner, node_id: str, *, workers: int = _WORKERS, observe: Observe | None = None
) -> grpc.Server:
    """Make the server that a kubelet calls: Identity and Node."""
    server = new_server(workers=workers, observe=observe)
    csi_pb2_grpc.add_IdentityServicer_to_server(Identity(provisioner.volumes), server)
    csi_pb2_grpc.add_NodeServicer_to_server(Node(provisioner, node_id), server)
    return server


def new_server(
    *,
    workers: int = _WORKERS,
    observe: Observe | None = None,
    inner: Sequence[grpc.ServerInterceptor] = (),
    options: Sequence[tuple[str, int]] = (),
) -> grpc.Server:
    """Make a server without services. Logs must be set up before.

    observe: is told each call's method, code and seconds. inner: interceptors nearer to the services than ours.

    workers: calls that run at once; more wait, for refusing them would need a code that means something else.
    Three overlap the waits of a disk. With eight, on two cores, each call cost a third more processor time, for
    threads that took the interpreter's lock from each other, and fewer volumes were created in a second. Calls that
    take seconds, as on a disk that hangs, are not counted.
    """
    interceptor = Interceptor(
        structlog.get_logger().bind(), ThreadPoolExecutor(_IDENTITY_WORKERS, thread_name_prefix="identity"), observe
    )
    return grpc.server(
        Workers(workers, spare=_SPARE_WORKERS, name="rpc"),  # type: ignore[arg-type]  # any Executor will do
        interceptors=[interceptor, *inner],
        options=options,
    )
