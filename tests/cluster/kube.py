"""The cluster's API for tests: objects as plain dictionaries, waits that say what they saw last."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kubernetes.config import new_client_from_config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import NotFoundError

from tests.cluster.lab.commands import run
from tests.cluster.lab.lifecycle import kubectl
from tests.cluster.lab.site import ADMIN, FOLDER

Object = dict[str, Any]

PATIENCE_S = 60.0

_API_VERSIONS = {
    "CSINode": "storage.k8s.io/v1",
    "CSIStorageCapacity": "storage.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "Lease": "coordination.k8s.io/v1",
    "StatefulSet": "apps/v1",
    "StorageClass": "storage.k8s.io/v1",
}


# The package says that it has types; these two functions have none.
_connect: Any = new_client_from_config
_discover: Any = DynamicClient


class Kube:
    """The API server, as administrator."""

    def __init__(self) -> None:
        self._client = _connect(str(ADMIN))
        self._dynamic = _discover(self._client, cache_file=str(FOLDER / "discovery.json"))

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _resource(self, kind: str, api_version: str = "") -> Any:
        return self._dynamic.resources.get(api_version=api_version or _API_VERSIONS.get(kind, "v1"), kind=kind)

    def create(self, manifest: Object, namespace: str = "") -> Object:
        """Make an object; raises ApiException of the package where it is refused."""
        resource = self._resource(manifest["kind"], manifest["apiVersion"])
        return _plain(resource.create(body=manifest, namespace=namespace or None))

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """Give an object, None where there is none."""
        try:
            return _plain(self._resource(kind).get(name=name, namespace=namespace or None))
        except NotFoundError:
            return None

    def list(self, kind: str, namespace: str = "", selector: str = "", fields: str = "") -> list[Object]:
        """Give the objects of a kind, of all namespaces by default."""
        found = self._resource(kind).get(namespace=namespace or None, label_selector=selector, field_selector=fields)
        return list(_plain(found)["items"])

    def patch(self, kind: str, name: str, body: Object, namespace: str = "") -> Object:
        """Change an object by a merge patch."""
        resource = self._resource(kind)
        content = "application/merge-patch+json"
        return _plain(resource.patch(body=body, name=name, namespace=namespace or None, content_type=content))

    def delete(self, kind: str, name: str, namespace: str = "", grace_s: int | None = None) -> None:
        """Ask for an object's end; one that is gone already is none."""
        options: Object = {"propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        with suppress(NotFoundError):
            self._resource(kind).delete(name=name, namespace=namespace or None, body=options)

    def volume_stats(self, node: str, namespace: str, pod: str) -> dict[str, Object]:
        """Give what the kubelet of a node knows of a pod's volumes that have a claim, by the claim's name."""
        path = f"/api/v1/nodes/{node}/proxy/stats/summary"
        summary = json.loads(run(*kubectl("get", "--raw", path)))
        return {
            volume["pvcRef"]["name"]: volume
            for found in summary["pods"]
            if (found["podRef"]["namespace"], found["podRef"]["name"]) == (namespace, pod)
            for volume in found.get("volume", ())
            if "pvcRef" in volume
        }

    def wait(
        self,
        kind: str,
        name: str,
        namespace: str,
        true: Callable[[Object], bool],
        patience_s: float = PATIENCE_S,
    ) -> Object:
        """Wait until an object is there and something is so of it; gives it as it then is."""
        ends = time.monotonic() + patience_s
        found = self.get(kind, name, namespace)
        while found is None or not true(found):
            assert time.monotonic() < ends, f"{kind} {namespace}/{name}, after {patience_s:g} s: {_gist(found)}"
            time.sleep(0.1)
            found = self.get(kind, name, namespace)
        return found

    def wait_gone(self, kind: str, name: str, namespace: str = "", patience_s: float = PATIENCE_S) -> None:
        """Wait until there is no such object."""
        ends = time.monotonic() + patience_s
        while (found := self.get(kind, name, namespace)) is not None:
            assert time.monotonic() < ends, f"{kind} {namespace}/{name}, after {patience_s:g} s: {_gist(found)}"
            time.sleep(0.1)


def execute(pod: str, namespace: str, script: str, patience_s: float = 60.0) -> str:
    """Run a shell script in a pod and give what it printed."""
    return run(*kubectl("exec", "-n", namespace, pod, "--", "sh", "-ec", script), patience_s=patience_s)


def is_running(pod: Object) -> bool:
    """Tell whether all containers of a pod run and are ready."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


def is_bound(claim: Object) -> bool:
    """Tell whether a claim has its volume."""
    return bool(claim["status"].get("phase") == "Bound")


def _plain(found: Any) -> Object:
    return dict(found.to_dict())


def _gist(found: Object | None) -> str:
    return (
        "not there"
        if found is None
        else f"{found.get('metadata', {}).get('deletionTimestamp', '')} {found.get('status')}"
    )
