"""A controller's pod asks the API server for all that RBAC lets it, and for nothing more.

The life of claims, with the real sidecars: made, grown, deleted, and one that no node has room for. What
kube-controller-manager would do is done here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.policies.apiserver import MERGE, ApiServer, Object, running
from tests.cluster.policies.sidecars import DRIVER, NODE, controllers_pod
from tests.cluster.policies.world import CONTROLLER, NAMESPACE, manifests
from tests.support.clustered import eventually

USER = f"system:serviceaccount:{NAMESPACE}:{CONTROLLER}"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
SELECTED = "volume.kubernetes.io/selected-node"
PATIENCE_S = 60.0

Call = tuple[str, str, str]  # verb, group, resource

# What only happens when something is amiss: too long to wait for here.
RARE = {
    ("get", "", "nodes"),  # a node is silent, and may be gone
    ("get", "", "persistentvolumes"),  # no node serves a volume that is to be deleted
    ("patch", "", "events"),  # the same event again
    ("delete", "storage.k8s.io", "csistoragecapacities"),  # a class or a node went
}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the API server writes what the controllers' account asks."""
    folder = tmp_path_factory.mktemp("audit")
    rule = {"level": "Metadata", "users": [USER]}
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [rule]}
    (folder / "policy.json").write_text(json.dumps(policy))
    return folder


@pytest.fixture(scope="module")
def api(audit: Path) -> Iterator[ApiServer]:
    """An API server with the chart's manifests that writes down what it was asked."""
    flags = (f"--audit-policy-file={audit}/policy.json", f"--audit-log-path={audit}/log")
    with running(*flags) as server:
        for document in manifests():
            server.apply(document)
        yield server


def claim(name: str, size: str) -> Object:
    """Give a claim whose pod the scheduler has put on the node."""
    annotations = {SELECTED: NODE, "volume.kubernetes.io/storage-provisioner": DRIVER}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "csi-local-path",
        "resources": {"requests": {"storage": size}},
    }
    head = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return {**head, "metadata": {"name": name, "namespace": "default", "annotations": annotations}, "spec": spec}


def wait_for(look: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.1)


def test_calls_and_rules_agree(api: ApiServer, audit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with controllers_pod(api, tmp_path, monkeypatch):
        live(api, str(api.done("POST", CLAIMS, claim("data", "64Mi"))["metadata"]["uid"]))
        reschedule(api)
        capacities = f"/apis/storage.k8s.io/v1/namespaces/{NAMESPACE}/csistoragecapacities"
        wait_for(lambda: api.done("GET", capacities)["items"], "room")
        eventually(lambda: not missing(audit), f"{sorted(missing(audit))}")
    assert not refusals(audit)


def live(api: ApiServer, uid: str) -> None:
    """Let a claim live: its volume is made, grows, and is deleted."""
    volume = f"{VOLUMES}/pvc-{uid}"
    wait_for(lambda: api.ask("GET", volume).code == 200, "the volume")
    api.done("PATCH", f"{CLAIMS}/data", {"spec": {"volumeName": f"pvc-{uid}"}}, kind=MERGE)
    bound = {"status": {"phase": "Bound", "capacity": {"storage": "64Mi"}}}
    api.done("PATCH", f"{CLAIMS}/data/status", bound, kind=MERGE)
    api.done("PATCH", f"{volume}/status", {"status": {"phase": "Bound"}}, kind=MERGE)
    more = {"spec": {"resources": {"requests": {"storage": "128Mi"}}}}
    api.done("PATCH", f"{CLAIMS}/data", more, kind=MERGE)
    wait_for(lambda: api.done("GET", volume)["spec"]["capacity"]["storage"] == "128Mi", "growth")
    api.done("DELETE", f"{CLAIMS}/data")
    api.done("PATCH", f"{CLAIMS}/data", {"metadata": {"finalizers": None}}, kind=MERGE)
    api.done("PATCH", f"{volume}/status", {"status": {"phase": "Released"}}, kind=MERGE)
    wait_for(lambda: "deletionTimestamp" in api.done("GET", volume)["metadata"], "the end of the volume")


def reschedule(api: ApiServer) -> None:
    """Let a claim be too large for the node, so that the scheduler may choose another."""
    api.done("POST", CLAIMS, claim("vast", "900Ti"))
    wait_for(lambda: SELECTED not in api.done("GET", f"{CLAIMS}/vast")["metadata"].get("annotations", {}), "release")


def entries(audit: Path) -> list[Object]:
    lines = (audit / "log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def refusals(audit: Path) -> list[str]:
    """Name what RBAC or a policy refused."""
    refused = (entry for entry in entries(audit) if entry.get("responseStatus", {}).get("code") == 403)
    return [f"{entry['verb']} {entry['requestURI']}" for entry in refused]


def asked(audit: Path) -> set[Call]:
    refs = ((entry["verb"], entry.get("objectRef", {})) for entry in entries(audit))
    return {
        (verb, ref.get("apiGroup", ""), ref["resource"] + (f"/{ref['subresource']}" if "subresource" in ref else ""))
        for verb, ref in refs
        if "resource" in ref
    }


def missing(audit: Path) -> set[Call]:
    """Give what the account may do and did not, but for what is rare."""
    roles = [found for found in manifests() if found["kind"] in ("Role", "ClusterRole")]
    allowed = {
        (verb, group, resource)
        for role in roles
        if role["metadata"]["name"] == CONTROLLER
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    found = asked(audit)
    # Informers take the list from the watch; where an API server cannot stream it, they list.
    streamed = {("list", group, resource) for verb, group, resource in found if verb == "watch"}
    return allowed - RARE - streamed - found
