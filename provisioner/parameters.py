"""The parameters of a StorageClass: one table, from which they are parsed and refused."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from provisioner.errors import InvalidRequest
from provisioner.names import POOL_NAME
from provisioner.records import Enforce

# External-provisioner adds these; they are never the class's own (its README, "--extra-create-metadata").
METADATA_PREFIX = "csi.storage.k8s.io/"
_CLAIM_NAMESPACE = METADATA_PREFIX + "pvc/namespace"
_CLAIM_NAME = METADATA_PREFIX + "pvc/name"


@dataclass(frozen=True, slots=True)
class ClassParameters:
    """Parsed parameters. pool, enforce, fs_type: '' for the default; inodes: 0 for it; mode: of the volume's root.

    on_node_gone: whether a volume counts as deleted when its node is gone for good; a cluster's controller reads it.

    A root that others may not enter is the safe default; a pod's fsGroup, or uid and gid here, open it
    for those who are not root.
    """

    pool: str = ""
    enforce: Enforce | Literal[""] = ""
    backend: str = "auto"
    fs_type: str = ""
    thin: bool = False
    inodes: int = 0
    mode: int = 0o770
    uid: int = 0
    gid: int = 0
    on_node_gone: str = "keep"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one parameter may be, so that an admission policy can hold it as well.

    wanted: that in words. pattern: of the whole text, the same to `re` and to RE2. highest: of a number.
    """

    wanted: str
    pattern: str
    convert: Callable[[str], str | int] = str
    highest: int | None = None

    def value(self, text: str) -> str | int:
        """Give the value of `text`; ValueError says what was wanted."""
        if not re.fullmatch(self.pattern, text) or (self.highest is not None and int(text) > self.highest):
            raise ValueError(f"wanted {self.wanted}, found {text!r}")
        return self.convert(text)


_HIGHEST_ID = 2**32 - 2  # -1 means 'leave it' in chown(2)
_OWNER = Parameter(f"a number from 0 to {_HIGHEST_ID}", "[0-9]{1,10}", int, highest=_HIGHEST_ID)

SCHEMA: dict[str, Parameter] = {
    "pool": Parameter("the name of a pool", POOL_NAME),
    "enforce": Parameter("'required' or 'besteffort'", "required|besteffort"),
    "backend": Parameter(
        "'auto', 'quota', 'subvolume', 'image' or 'directory'", "auto|quota|subvolume|image|directory"
    ),
    "fsType": Parameter("a filesystem such as 'ext4'", "[a-z0-9]{1,16}"),
    "thin": Parameter("'true' or 'false'", "true|false", "true".__eq__),
    "inodes": Parameter(f"a number from 1 to {_HIGHEST_ID}", "[1-9][0-9]{0,9}", int, highest=_HIGHEST_ID),
    "mode": Parameter("three or four octal digits such as '0770'", "0?[0-7]{3}|[0-7]{4}", partial(int, base=8)),
    "uid": _OWNER,
    "gid": _OWNER,
    "onNodeGone": Parameter("'keep' or 'delete'", "keep|delete"),
}


def parse(parameters: dict[str, str]) -> ClassParameters:
    """Parse a class's parameters; InvalidRequest names the one that is wrong and what was wanted."""
    values: dict[str, Any] = {}  # each parameter gives its field's type
    for key, text in parameters.items():
        if key.startswith(METADATA_PREFIX):
            continue
        if key not in SCHEMA:
            raise InvalidRequest(f"parameter {key!r} is unknown; {_nearest(key)}")
        try:
            values[_field(key)] = SCHEMA[key].value(text)
        except ValueError as error:
            raise InvalidRequest(f"parameter {key!r}: {error}") from error
    return ClassParameters(**values)


def _field(key: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", key)


def claim_of(parameters: dict[str, str]) -> str:
    """Name the claim that a volume is made for: 'namespace/name', or '' where nobody says."""
    namespace, name = parameters.get(_CLAIM_NAMESPACE, ""), parameters.get(_CLAIM_NAME, "")
    return f"{namespace}/{name}" if namespace and name else ""


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key.lower(), SCHEMA, n=1, cutoff=0.5)
    known = ", ".join(SCHEMA)
    return f"did you mean {near[0]!r}? Known are {known}" if near else f"known are {known}"
