"""The name under which this node is known to the CO: `node_id`, and the value of the topology key.

Both are one string, so it must be what a topology value may be: at most 63 characters of a Kubernetes
label value. It must also stay the same over restarts, for volumes are bound to it.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
# Two underscores: no DNS name, and so no Kubernetes node, can have this form.
_DIGEST = re.compile(r"node__[0-9a-f]{32}")


class NodeIdError(ValueError):
    """A node id that was asked for cannot be used."""


def node_id(wanted: str = "", environ: Mapping[str, str] = os.environ, host_name: str | None = None) -> str:
    """Give the id: `wanted` (flag or configuration), else NODE_NAME, else the host's name.

    A name that was given to the node and is no label value becomes a digest; a `wanted` one that is none
    is an error, for whoever chose it can choose another.
    """
    if wanted:
        return _checked(wanted)
    return suited(node_name(environ, host_name))


def node_name(environ: Mapping[str, str] = os.environ, host_name: str | None = None) -> str:
    """Give the name that this node has in its cluster: NODE_NAME, else the host's name."""
    # The kubelet, too, lower-cases the host's name; NODE_NAME is already as Kubernetes has it.
    found = environ.get("NODE_NAME", "").strip()
    return found or (os.uname().nodename if host_name is None else host_name).strip().lower()


def _checked(wanted: str) -> str:
    if _LABEL_VALUE.fullmatch(wanted) is None:
        raise NodeIdError(
            "nodeId: wanted at most 63 letters, digits, '-', '_' or '.', with a letter or digit"
            f" first and last, found {wanted!r}"
        )
    return wanted


def is_digest(node_id: str) -> bool:
    """Tell whether an id was made of a name that is no label value."""
    return _DIGEST.fullmatch(node_id) is not None


def suited(name: str) -> str:
    """Give the node id of a node of that name: the name itself, or a digest where it is no label value."""
    if _LABEL_VALUE.fullmatch(name) and not _DIGEST.fullmatch(name):
        return name
    if not name:
        raise NodeIdError("nodeId: this host has no name; give --node-id or nodeId in the configuration")
    return "node__" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
