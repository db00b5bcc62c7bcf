"""What we read of Nodes, PersistentVolumes, claims and classes: a few fields of each, decoded from JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi.cluster.api import Api

NODES = "/api/v1/nodes"
VOLUMES = "/api/v1/persistentvolumes"
CLAIMS = "/api/v1/persistentvolumeclaims"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"

_PAGE = 500
_Item = TypeVar("_Item")


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """Name and identity of an object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    annotations: dict[str, str] = {}


class Node(msgspec.Struct, frozen=True):
    """A Node."""

    metadata: Metadata


class CsiSource(msgspec.Struct, frozen=True, rename="camel"):
    """The part of a PersistentVolume that a CSI driver gave."""

    driver: str = ""
    volume_handle: str = ""
    volume_attributes: dict[str, str] = {}


class ObjectReference(msgspec.Struct, frozen=True):
    """Another object."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class VolumeSpec(msgspec.Struct, frozen=True, rename="camel"):
    """csi: None of volumes that no CSI driver gave."""

    csi: CsiSource | None = None
    claim_ref: ObjectReference | None = None


class PersistentVolume(msgspec.Struct, frozen=True):
    """A PersistentVolume."""

    metadata: Metadata
    spec: VolumeSpec = VolumeSpec()


class ClaimSpec(msgspec.Struct, frozen=True, rename="camel"):
    """volume_name: '' until a claim is bound."""

    storage_class_name: str | None = None
    volume_name: str = ""


class Claim(msgspec.Struct, frozen=True):
    """A PersistentVolumeClaim."""

    metadata: Metadata
    spec: ClaimSpec = ClaimSpec()


class StorageClass(msgspec.Struct, frozen=True):
    """A StorageClass."""

    metadata: Metadata
    provisioner: str = ""
    parameters: dict[str, str] = {}


class _ListMetadata(msgspec.Struct, frozen=True, rename={"go_on": "continue"}):
    go_on: str = ""


class _List(msgspec.Struct, Generic[_Item]):
    metadata: _ListMetadata = _ListMetadata()
    items: list[_Item] = []


def every(api: Api, path: str, kind: type[_Item]) -> Iterator[_Item]:
    """Read a whole collection, page by page; ApiError where it cannot be read to its end."""
    query: dict[str, str | int] = {"limit": _PAGE}
    while True:
        page = msgspec.json.decode(api.get(path, query), type=_List[kind])  # type: ignore[valid-type] # known at run time
        yield from page.items
        if not page.metadata.go_on:
            return
        query["continue"] = page.metadata.go_on
