"""What we read of Nodes, PersistentVolumes, claims and classes: a few fields of each, decoded from JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote

import msgspec
from msgspec.json import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi.cluster.api import Api

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


@dataclass(frozen=True, slots=True)
class Collection(Generic[_Item]):
    """Where the objects of one kind are kept, and how they are read."""

    path: str
    one: Decoder[_Item]
    page: Decoder[_List[_Item]]


NODES = Collection("/api/v1/nodes", Decoder(Node), Decoder(_List[Node]))
VOLUMES = Collection("/api/v1/persistentvolumes", Decoder(PersistentVolume), Decoder(_List[PersistentVolume]))
CLAIMS = Collection("/api/v1/persistentvolumeclaims", Decoder(Claim), Decoder(_List[Claim]))
CLASSES = Collection("/apis/storage.k8s.io/v1/storageclasses", Decoder(StorageClass), Decoder(_List[StorageClass]))


def get(api: Api, collection: Collection[_Item], name: str) -> _Item:
    """Read one object (of a collection without namespaces); ApiError where there is none, or nobody can tell."""
    return collection.one.decode(api.get(f"{collection.path}/{quote(name, safe='')}"))


def every(api: Api, collection: Collection[_Item]) -> Iterator[_Item]:
    """Read a whole collection, page by page; ApiError where it cannot be read to its end."""
    query: dict[str, str | int] = {"limit": _PAGE}
    while True:
        page = collection.page.decode(api.get(collection.path, query))
        yield from page.items
        if not page.metadata.go_on:
            return
        query["continue"] = page.metadata.go_on
