"""The parameters of a StorageClass: one table, from which they are parsed and refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from provisioner.errors import InvalidRequest

# External-provisioner adds these; they are never the class's own (its README, "--extra-create-metadata").
METADATA_PREFIX = "csi.storage.k8s.io/"
_CLAIM_NAMESPACE = METADATA_PREFIX + "pvc/namespace"
_CLAIM_NAME = METADATA_PREFIX + "pvc/name"

_MAX_ID = 2**32 - 2  # -1 means 'leave it' in chown(2)


@dataclass(frozen=True, slots=True)
class ClassParameters:
    """Parsed parameters. pool: '' for the default one; mode: of the volume's root, as a number.

    A root that others may not enter is the safe default; a pod's fsGroup, or uid and gid here, open it
    for those who are not root.
    """

    pool: str = ""
    enforce: str = "besteffort"
    mode: int = 0o770
    uid: int = 0
    gid: int = 0


def parse(parameters: dict[str, str]) -> ClassParameters:
    """Parse a class's parameters; InvalidRequest names the one that is wrong and what was wanted."""
    values: dict[str, Any] = {}  # each parser gives its field's type
    for key, text in parameters.items():
        if key.startswith(METADATA_PREFIX):
            continue
        if key not in _KNOWN:
            raise InvalidRequest(f"parameter {key!r} is unknown; {_nearest(key)}")
        try:
            values[key] = _KNOWN[key](text)
        except ValueError as error:
            raise InvalidRequest(f"parameter {key!r}: {error}, found {text!r}") from error
    return ClassParameters(**values)


def claim_of(parameters: dict[str, str]) -> str:
    """Name the claim that a volume is made for: 'namespace/name', or '' where nobody says."""
    namespace, name = parameters.get(_CLAIM_NAMESPACE, ""), parameters.get(_CLAIM_NAME, "")
    return f"{namespace}/{name}" if namespace and name else ""


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key.lower(), _KNOWN, n=1, cutoff=0.5)
    known = ", ".join(_KNOWN)
    return f"did you mean {near[0]!r}? Known are {known}" if near else f"known are {known}"


def _pool(text: str) -> str:
    if not text:
        raise ValueError("wanted the name of a pool")
    return text


def _enforce(text: str) -> str:
    if text != "besteffort":
        raise ValueError("wanted 'besteffort': a plain directory has no hard limit")
    return text


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}|[0-7]{4}", text):
        raise ValueError("wanted three or four octal digits such as '0770'")
    return int(text, 8)


def _owner(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _MAX_ID:
        raise ValueError(f"wanted a number from 0 to {_MAX_ID}")
    return int(text)


_KNOWN: dict[str, Callable[[str], str | int]] = {
    "pool": _pool,
    "enforce": _enforce,
    "mode": _mode,
    "uid": _owner,
    "gid": _owner,
}
