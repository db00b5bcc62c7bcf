"""What csi.cluster counts on of the Kubernetes API: one body for the fake in memory and a real kube-apiserver."""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from csi.cluster import leases, objects
from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.api import Api, ApiError
from csi.cluster.events import Events
from csi.cluster.leases import Lease, OwnerReference
from csi.cluster.objects import Claim
from csi.cluster.renewing import Renewing
from csi.cluster.slots import Slots
from csi.cluster.trust import Trust
from csi.cluster.watching import Watching
from tests.support.announced import credentials_of
from tests.support.clustered import eventually


def lease_of(answer: bytes) -> Lease:
    return msgspec.json.decode(answer, type=Lease)


def written(namespace: str, name: str, holder: str, **annotations: str) -> dict[str, Any]:
    return leases.body(namespace, name, annotations, leases.spec_of(holder, 60))


def _when_there(api: Api, path: str) -> bytes:
    found: list[bytes] = []

    def look() -> bool:
        with suppress(ApiError):
            found.append(api.get(path))
        return bool(found)

    eventually(look)
    return found[0]


class Names:
    """Remembers names."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.lists = 0

    def replaced(self, found: list[Lease]) -> None:
        self.lists += 1
        self.known = {lease.metadata.name: lease.spec.holder_identity or "" for lease in found}

    def changed(self, lease: Lease) -> None:
        self.known[lease.metadata.name] = lease.spec.holder_identity or ""

    def removed(self, lease: Lease) -> None:
        self.known.pop(lease.metadata.name)

    def lost(self) -> None:
        self.known = {}


class KubeApiContract:
    """The tests; who inherits them has a fixture `api`."""

    @pytest.fixture
    def namespace(self, api: Api) -> str:
        """Give a namespace of the test's own."""
        name = f"t-{secrets.token_hex(4)}"
        api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def test_an_object_is_made_read_and_replaced_once_per_version(self, api: Api, namespace: str) -> None:
        path = leases.path_of(namespace, "a")
        with pytest.raises(ApiError) as caught:
            api.get(path)
        assert caught.value.is_not_found
        made = lease_of(api.create(leases.path_of(namespace), written(namespace, "a", "x")))
        assert lease_of(api.get(path)) == made
        with pytest.raises(ApiError) as caught:
            api.create(leases.path_of(namespace), written(namespace, "a", "y"))
        assert caught.value.is_conflict
        newer = written(namespace, "a", "y")
        newer["metadata"]["resourceVersion"] = made.metadata.resource_version
        assert lease_of(api.replace(path, newer)).spec.holder_identity == "y"
        with pytest.raises(ApiError) as caught:
            api.replace(path, newer)
        assert caught.value.is_conflict

    def test_apply_makes_and_changes_and_forgets_what_is_said_no_more(self, api: Api, namespace: str) -> None:
        path = leases.path_of(namespace, "node-a")
        made = lease_of(api.apply(path, written(namespace, "node-a", "x", one="1", two="2"), "test"))
        owned = leases.body(
            namespace, "node-a", {"two": "3"}, leases.spec_of("y", 60), OwnerReference("Node", "a", "u-1")
        )
        changed = lease_of(api.apply(path, owned, "test"))
        assert changed.metadata.uid == made.metadata.uid
        assert (changed.metadata.annotations, changed.spec.holder_identity) == ({"two": "3"}, "y")
        assert leases.node_uid_of(changed) == "u-1"
        owned["metadata"]["ownerReferences"][0]["uid"] = "u-2"
        assert [owner.uid for owner in lease_of(api.apply(path, owned, "test")).metadata.owner_references] == ["u-2"]

    def test_lists_come_in_pages(self, api: Api, namespace: str) -> None:
        for number in range(5):
            api.create(leases.path_of(namespace), written(namespace, f"l{number}", "x"))
        first = json.loads(api.get(leases.path_of(namespace), {"limit": 2}))
        assert len(first["items"]) == 2
        assert first["metadata"]["continue"]
        whole = json.loads(api.get(leases.path_of(namespace), {"fieldSelector": "metadata.name=l3"}))
        assert [item["metadata"]["name"] for item in whole["items"]] == ["l3"]

    def test_changes_are_followed(self, api: Api, namespace: str) -> None:
        names = Names()
        api.create(leases.path_of(namespace), written(namespace, "a", "x"))
        watching = Watching(lambda: api, namespace, names)
        watching.start()
        eventually(lambda: names.known == {"a": "x"})
        api.apply(leases.path_of(namespace, "b"), written(namespace, "b", "y"), "test")
        eventually(lambda: names.known == {"a": "x", "b": "y"})
        api.apply(leases.path_of(namespace, "b"), written(namespace, "b", "z"), "test")
        eventually(lambda: names.known == {"a": "x", "b": "z"})
        assert names.lists == 1
        watching.stop()

    def test_a_controller_s_slot_makes_a_node_trust_it(self, api: Api, namespace: str) -> None:
        trust = Trust("controller-0")
        watching = Watching(lambda: api, namespace, trust, "controller-0")
        watching.start()
        slots = Slots(lambda: api, namespace, "x", credentials_of("x"), look_s=0.05, renew_s=0.1)
        slots.start()
        eventually(lambda: trust.certificate == credentials_of("x").certificate.decode())
        other = Slots(lambda: api, namespace, "y", credentials_of("y"), look_s=0.05)
        other.start()
        eventually(lambda: other.held == "controller-1")
        eventually(lambda: slots.held == "controller-0")
        slots.stop()
        eventually(lambda: trust.certificate == "")
        other.stop()
        watching.stop()

    def test_a_node_writes_its_lease(self, api: Api, namespace: str) -> None:
        said = Announcement(SCHEMA, "PEM", "10.0.0.1:9901")
        renewing = Renewing(lambda: api, namespace, "pod", "n-1", lambda: None, lambda: said, renew_s=0.2, look_s=0.02)
        renewing.start()
        first = lease_of(_when_there(api, leases.path_of(namespace, "node-n-1")))
        eventually(
            lambda: lease_of(api.get(leases.path_of(namespace, "node-n-1"))).spec.renew_time != first.spec.renew_time
        )
        renewing.stop()
        assert "lease" not in {thread.name for thread in threading.enumerate()}

    def test_an_event_is_written(self, api: Api, namespace: str) -> None:
        events = Events(lambda: api)
        events.start()
        claim = Claim(objects.Metadata("data", namespace, "u-1"))
        for _ in range(3):
            events.warn_claim(claim, "NoPool", "no node has the pool 'fast'")
        path = f"/api/v1/namespaces/{namespace}/events"
        eventually(lambda: json.loads(api.get(path))["items"])
        (event,) = json.loads(api.get(path))["items"]
        events.stop()
        assert (event["reason"], event["type"], event["involvedObject"]["uid"]) == ("NoPool", "Warning", "u-1")
