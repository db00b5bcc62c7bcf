"""What csi.cluster counts on of the Kubernetes API, of the fake in memory and of a real kube-apiserver."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pytest

from csi.cluster import api as api_module
from csi.cluster import leases, objects
from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.api import Api, ApiError, KubernetesApi
from csi.cluster.connection import connect
from csi.cluster.events import Events
from csi.cluster.leases import Lease, OwnerReference
from csi.cluster.objects import Claim
from csi.cluster.renewing import Renewing
from csi.cluster.slots import Slots
from csi.cluster.trust import Trust
from csi.cluster.watching import Watching
from tests.support.announced import credentials_of
from tests.support.apiserver import apiserver, is_built
from tests.support.clustered import eventually
from tests.support.kubeapi import MemoryApi

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("apiserver")


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """Run a real kube-apiserver; gives a kubeconfig."""
    if not is_built():
        pytest.skip("kube-apiserver is not built: run `.ci/setup cluster`")
    with apiserver() as config:
        yield config


@pytest.fixture(scope="module", params=["memory", "kubeconfig", "pod"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    if request.param == "memory":
        memory = MemoryApi()
        yield memory
        memory.close()
        return
    config: Path = request.getfixturevalue("server")
    if request.param == "kubeconfig":
        yield KubernetesApi(lambda: connect({"KUBECONFIG": str(config)}))
        return
    account = tmp_path_factory.mktemp("account")
    environ = _as_pod(json.loads(config.read_text()), account)
    yield KubernetesApi(lambda: connect(environ, account))


def _as_pod(config: dict[str, Any], account: Path) -> dict[str, str]:
    """Write what a pod has in its folder; gives what it has in its environment."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    (account / "ca.crt").write_bytes(Path(cluster["certificate-authority"]).read_bytes())
    (account / "token").write_text(user["token"])
    url = urlsplit(cluster["server"])
    return {"KUBERNETES_SERVICE_HOST": str(url.hostname), "KUBERNETES_SERVICE_PORT": str(url.port)}


@pytest.fixture
def namespace(api: Api) -> str:
    name = f"t-{secrets.token_hex(4)}"
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def lease_of(answer: bytes) -> Lease:
    return msgspec.json.decode(answer, type=Lease)


def written(namespace: str, name: str, holder: str, **annotations: str) -> dict[str, Any]:
    return leases.body(namespace, name, annotations, leases.spec_of(holder, 60))


def test_an_object_is_made_read_and_replaced_once_per_version(api: Api, namespace: str) -> None:
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


def test_apply_makes_and_changes_and_forgets_what_is_said_no_more(api: Api, namespace: str) -> None:
    path = leases.path_of(namespace, "node-a")
    made = lease_of(api.apply(path, written(namespace, "node-a", "x", one="1", two="2"), "test"))
    owned = leases.body(namespace, "node-a", {"two": "3"}, leases.spec_of("y", 60), OwnerReference("Node", "a", "u-1"))
    changed = lease_of(api.apply(path, owned, "test"))
    assert changed.metadata.uid == made.metadata.uid
    assert (changed.metadata.annotations, changed.spec.holder_identity) == ({"two": "3"}, "y")
    assert leases.node_uid_of(changed) == "u-1"
    owned["metadata"]["ownerReferences"][0]["uid"] = "u-2"
    assert [owner.uid for owner in lease_of(api.apply(path, owned, "test")).metadata.owner_references] == ["u-2"]


def test_lists_come_in_pages(api: Api, namespace: str) -> None:
    for number in range(5):
        api.create(leases.path_of(namespace), written(namespace, f"l{number}", "x"))
    first = json.loads(api.get(leases.path_of(namespace), {"limit": 2}))
    assert len(first["items"]) == 2
    assert first["metadata"]["continue"]
    whole = json.loads(api.get(leases.path_of(namespace), {"fieldSelector": "metadata.name=l3"}))
    assert [item["metadata"]["name"] for item in whole["items"]] == ["l3"]


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


def test_changes_are_followed(api: Api, namespace: str) -> None:
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


def test_a_controller_s_slot_makes_a_node_trust_it(api: Api, namespace: str) -> None:
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


def test_a_node_writes_its_lease(api: Api, namespace: str) -> None:
    said = Announcement(SCHEMA, "PEM", "10.0.0.1:9901")
    renewing = Renewing(lambda: api, namespace, "pod", "n-1", None, lambda: said, renew_s=0.2, look_s=0.02)
    renewing.start()
    first = lease_of(_when_there(api, leases.path_of(namespace, "node-n-1")))
    eventually(
        lambda: lease_of(api.get(leases.path_of(namespace, "node-n-1"))).spec.renew_time != first.spec.renew_time
    )
    renewing.stop()
    assert "lease" not in {thread.name for thread in threading.enumerate()}


def _when_there(api: Api, path: str) -> bytes:
    found: list[bytes] = []

    def look() -> bool:
        with suppress(ApiError):
            found.append(api.get(path))
        return bool(found)

    eventually(look)
    return found[0]


def test_an_event_is_written(api: Api, namespace: str) -> None:
    events = Events(lambda: api, lambda: True)
    events.start()
    claim = Claim(objects.Metadata("data", namespace, "u-1"))
    for _ in range(3):
        events.warn_claim(claim, "NoPool", "no node has the pool 'fast'")
    path = f"/api/v1/namespaces/{namespace}/events"
    eventually(lambda: json.loads(api.get(path))["items"])
    (event,) = json.loads(api.get(path))["items"]
    events.stop()
    assert (event["reason"], event["type"], event["involvedObject"]["uid"]) == ("NoPool", "Warning", "u-1")


def test_no_way_to_an_api_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ApiError, match="no way to the Kubernetes API is known"):
        KubernetesApi()


def test_a_server_that_falls_silent_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(api_module, "_READ_S", 0.2)
    monkeypatch.setattr(api_module, "_WATCH_READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=begin_a_watch_and_fall_silent, args=(server,), daemon=True).start()
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.getsockname()[1]}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        said = {
            "clusters": [cluster],
            "contexts": [context],
            "current-context": "c",
            "users": [{"name": "u", "user": {}}],
        }
        (tmp_path / "config").write_text(json.dumps(said))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        api = KubernetesApi()
        lines = api.watch("/apis/x", {})
        assert json.loads(next(lines)) == {"type": "ADDED"}
        with pytest.raises(ApiError, match="watch /apis/x"):
            next(lines)
        with pytest.raises(ApiError, match="GET /api"):
            api.get("/api")


def begin_a_watch_and_fall_silent(server: socket.socket) -> None:
    """Answer the first connection with one event of many, and no other with anything; all stay open."""
    held = []
    with suppress(OSError):
        while True:
            held.append(server.accept()[0])
            if len(held) == 1:
                event = b'{"type": "ADDED"}\n'
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                held[0].sendall(head + b"%x\r\n%s\r\n" % (len(event), event))
