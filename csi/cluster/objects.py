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


class LabelRequirement(msgspec.Struct, frozen=True):
    """What a label of a Node must be."""

    key: str = ""
    operator: str = ""
    values: list[str] = []


class NodeSelectorTerm(msgspec.Struct, frozen=True, rename="camel"):
    """Requirements that a Node must meet all of."""

    match_expressions: list[LabelRequirement] = []


class NodeSelector(msgspec.Struct, frozen=True, rename="camel"):
    """Terms of which a Node must meet one."""

    node_selector_terms: list[NodeSelectorTerm] = []


class VolumeAffinity(msgspec.Struct, frozen=True):
    """Where a volume can be used."""

    required: NodeSelector = NodeSelector()


class VolumeSpec(msgspec.Struct, frozen=True, rename="camel"):
    """csi: None of volumes that no CSI driver gave."""

    csi: CsiSource | None = None
    claim_ref: ObjectReference | None = None
    node_affinity: VolumeAffinity = VolumeAffinity()

    def place(self, key: str) -> str:
        """Give the value of the one place of that topology key where the volume can be used; '' where it is not one."""
        terms = self.node_affinity.required.node_selector_terms
        found = [each.values for term in terms for each in term.match_expressions if _is_in(each, key)]
        return found[0][0] if len(terms) == len(found) == 1 == len(found[0]) else ""


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


def _is_in(requirement: LabelRequirement, key: str) -> bool:
    return requirement.key == key and requirement.operator == "In"


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
