"""A gRPC server with the services of a role; where it listens is its caller's choice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import structlog

from csi.pb import csi_pb2_grpc
from csi.server.interceptor import Interceptor
from csi.services.controller import Controller
from csi.services.identity import Identity
from csi.services.node import Node

if TYPE_CHECKING:
    from csi.server.interceptor import Observe
    from csi.services.domain import Provisioner

_IDENTITY_WORKERS = 2


def build_server(
    provisioner: Provisioner, node_id: str, *, workers: int = 8, observe: Observe | None = None
) -> grpc.Server:
    """Make the server of role `standalone`: Identity, Controller and Node. Logs must be set up before.

    observe: is told each call's method, code and seconds.

    workers: calls that run at once; more wait, for refusing them would need a code that means something else.
    Eight overlap the waits of a disk; with sixteen on two cores, each call cost a third more processor time, for
    threads that took the interpreter's lock from each other.
    """
    interceptor = Interceptor(
        structlog.get_logger().bind(), ThreadPoolExecutor(_IDENTITY_WORKERS, thread_name_prefix="identity"), observe
    )
    server = grpc.server(
        ThreadPoolExecutor(workers, thread_name_prefix="rpc"),
        interceptors=[interceptor],
    )
    csi_pb2_grpc.add_IdentityServicer_to_server(Identity(provisioner.volumes), server)
    csi_pb2_grpc.add_ControllerServicer_to_server(Controller(provisioner.volumes, node_id), server)
    csi_pb2_grpc.add_NodeServicer_to_server(Node(provisioner, node_id), server)
    return server
