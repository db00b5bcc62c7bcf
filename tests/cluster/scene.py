"""A namespace that a test fills."""

from __future__ import annotations

from typing import Any

from tests.cluster.kube import PATIENCE_S, Kube, Object, execute, is_bound, is_running
from tests.cluster.lab.places import wait_until
from tests.cluster.manifests import claim, pod

_LONG_S = 120.0


class Scene:
    """A namespace of the cluster, made on the way in."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        kube.wait("ServiceAccount", "default", namespace, lambda _: True)

    def clear(self) -> None:
        """Remove all in the namespace, and see that every volume of its claims goes with it.

        The namespace itself goes later: its own controller takes seconds to find it empty.
        """
        volumes = [volume["metadata"]["name"] for volume in self.volumes()]
        for kind in ("StatefulSet", "Pod", "PersistentVolumeClaim"):
            for one in self.kube.list(kind, self.namespace):
                self.kube.delete(kind, one["metadata"]["name"], self.namespace, grace_s=0)
        self.kube.delete("Namespace", self.namespace)
        for name in volumes:
            self.kube.wait_gone("PersistentVolume", name, patience_s=_LONG_S)

    def volumes(self) -> list[Object]:
        """Give the PersistentVolumes that belong to claims of this namespace and are deleted with them."""
        return [
            volume
            for volume in self.kube.list("PersistentVolume")
            if volume["spec"].get("claimRef", {}).get("namespace") == self.namespace
            and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        ]

    def claim(self, name: str, *arguments: Any, **keys: Any) -> Object:
        """Make a claim."""
        return self.kube.create(claim(name, *arguments, **keys), self.namespace)

    def pod(self, name: str, *claims: str, **keys: Any) -> Object:
        """Make a pod and wait until it runs."""
        self.start(name, *claims, **keys)
        return self.running(name)

    def start(self, name: str, *claims: str, **keys: Any) -> Object:
        """Make a pod."""
        return self.kube.create(pod(name, *claims, **keys), self.namespace)

    def running(self, name: str, unlike: str = "", patience_s: float = _LONG_S) -> Object:
        """Wait until a pod runs, one whose uid is not `unlike`."""

        def is_it(pod: Object) -> bool:
            return is_running(pod) and pod["metadata"]["uid"] != unlike

        return self.kube.wait("Pod", name, self.namespace, is_it, patience_s)

    def restarted(self, name: str, patience_s: float = _LONG_S) -> Object:
        """Wait until a pod runs whose container has been started again."""

        def is_it(pod: Object) -> bool:
            return is_running(pod) and pod["status"]["containerStatuses"][0]["restartCount"] > 0

        return self.kube.wait("Pod", name, self.namespace, is_it, patience_s)

    def bound(self, name: str, patience_s: float = _LONG_S) -> Object:
        """Wait until a claim is bound; gives its PersistentVolume."""
        found = self.kube.wait("PersistentVolumeClaim", name, self.namespace, is_bound, patience_s)
        volume = self.kube.get("PersistentVolume", found["spec"]["volumeName"])
        assert volume is not None
        return volume

    def run(self, name: str, script: str) -> str:
        """Run a shell script in a pod."""
        return execute(name, self.namespace, script)

    def end(self, name: str) -> None:
        """Delete a pod and wait until it is gone."""
        self.kube.delete("Pod", name, self.namespace, grace_s=0)
        self.kube.wait_gone("Pod", name, self.namespace)

    def wait_event(self, name: str, *words: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until an event about an object has all these words."""

        def is_told() -> bool:
            return any(all(word in event for word in words) for event in self.events(name))

        wait_until(is_told, f"an event about {name} says {words}", patience_s)

    def events(self, name: str) -> list[str]:
        """Give reason and message of the events about an object."""
        found = self.kube.list("Event", self.namespace, fields=f"involvedObject.name={name}")
        return [f"{event['reason']}: {event['message']}" for event in found]
