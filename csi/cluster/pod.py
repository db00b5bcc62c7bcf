"""Who we are in the cluster: what the pod's environment and its token say."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from csi.cluster.leases import OwnerReference, name_for
from csi.surroundings import SurroundingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod that this process runs in. node_name and address are '' where the role does not need them."""

    name: str
    namespace: str
    node_name: str = ""
    ip: str = ""

    def address(self, port: int) -> str:
        """Give 'ip:port', as gRPC wants it."""
        return f"[{self.ip}]:{port}" if ":" in self.ip else f"{self.ip}:{port}"


def pod_of_node(environ: Mapping[str, str] = os.environ) -> Pod:
    """Read what role `node` needs: POD_NAME, POD_NAMESPACE, NODE_NAME, POD_IP."""
    ip = _required(environ, "POD_IP")
    try:
        ipaddress.ip_address(ip)
    except ValueError as error:
        raise SurroundingsError(f"POD_IP: wanted an IP address, found {ip!r}") from error
    node_name = _required(environ, "NODE_NAME")
    name_for(node_name)  # or it could not be announced
    return Pod(_required(environ, "POD_NAME"), _required(environ, "POD_NAMESPACE"), node_name, ip)


def pod_of_controller(environ: Mapping[str, str] = os.environ) -> Pod:
    """Read what role `controller` needs: POD_NAME, POD_NAMESPACE."""
    return Pod(_required(environ, "POD_NAME"), _required(environ, "POD_NAMESPACE"))


def _required(environ: Mapping[str, str], key: str) -> str:
    value = environ.get(key, "").strip()
    if not value:
        raise SurroundingsError(
            f"{key}: wanted in the environment, found nothing; the pod's manifest must set it (downward API)"
        )
    return value


class _Node(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""


class _Kubernetes(msgspec.Struct, frozen=True):
    node: _Node = _Node()


class _Claims(msgspec.Struct, rename={"kubernetes": "kubernetes.io"}):
    kubernetes: _Kubernetes = _Kubernetes()


_CLAIMS = msgspec.json.Decoder(_Claims)


def node_in_token(path: Path = TOKEN) -> OwnerReference | None:
    """Give the Node that our token was made for; None where there is no token, or it names none.

    It is read, not verified: the API server does that, and a policy compares.
    """
    try:
        _, claims, _ = path.read_bytes().split(b".")
        node = _CLAIMS.decode(base64.urlsafe_b64decode(claims + b"==")).kubernetes.node
    except (OSError, ValueError, binascii.Error, msgspec.MsgspecError):
        return None
    return OwnerReference("Node", node.name, node.uid) if node.name and node.uid else None
