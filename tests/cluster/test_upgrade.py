"""An upgrade while pods write and claims come in."""

from __future__ import annotations

import itertools
import secrets
import threading
from pathlib import Path
from typing import Any

from tests.cluster.driver import AGENTS, CONTROLLERS, wait_ready
from tests.cluster.kube import Kube, Object, is_bound
from tests.cluster.lab.install import install, lab_values
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import NAMESPACE, Node, nodes
from tests.cluster.lab.volumes import all_volumes, record_of
from tests.cluster.manifests import MOUNT
from tests.cluster.scene import Scene

PAUSE_S = 0.5
DEFAULT_CLASS = "csi-local-path"
# The chart as it was when no volume had a limit: `helm package` of commit 89777bc.
BEFORE_LIMITS = Path(__file__).parent / "charts/before-limits.tgz"
WITHOUT_LIMITS = {"enforce": "besteffort"}


def test_upgrade_fails_no_claim_and_disturbs_no_pod(scene: Scene, kube: Kube) -> None:
    scene.claim("data")
    scene.pod("writer", "data", script=f"while :; do date +%s >> {MOUNT}/log; sleep 0.1; done")
    before = all_volumes()
    done, made = threading.Event(), []

    def make_claims() -> None:
        for number in itertools.count():
            made.append(f"c{number}")
            scene.claim(made[-1], "16Mi", node=nodes()[number % len(nodes())].name)
            if done.wait(PAUSE_S):
                return

    making = threading.Thread(target=make_claims)
    old, mark = pod_uids(kube), secrets.token_hex(4)
    making.start()
    try:
        install("--set-string", f"node.podAnnotations.upgrade={mark},controller.podAnnotations.upgrade={mark}")
        wait_ready(kube)
    finally:
        done.set()
        making.join()
    wait_until(lambda: old.isdisjoint(pod_uids(kube)), "each agent and each controller is another one")
    claims = [f"c{number}" for number in range(len(made))]
    assert len(claims) > 10

    def all_bound() -> bool:
        return all(map(is_bound, kube.list("PersistentVolumeClaim", scene.namespace)))

    wait_until(all_bound, "the claims are bound")
    assert len(all_volumes() - before) == len(claims)
    writer = scene.running("writer")
    assert writer["status"]["containerStatuses"][0]["restartCount"] == 0
    seconds = [int(line) for line in scene.run("writer", f"cat {MOUNT}/log").split()]
    assert max(later - earlier for earlier, later in itertools.pairwise(seconds)) <= 3


def pod_uids(kube: Kube) -> set[str]:
    """Give the uids of the pods of agents and controllers."""
    found = {
        pod["metadata"]["uid"] for selector in (AGENTS, CONTROLLERS) for pod in kube.list("Pod", NAMESPACE, selector)
    }
    assert len(found) > len(nodes()), "an agent on each node, and controllers"
    return found


def values_with_that_class_alone(**parameters: str) -> dict[str, Any]:
    """Give the cluster's values with no class but the chart's own."""
    values: dict[str, Any] = lab_values()
    return values | {"classes": [{"name": DEFAULT_CLASS, "parameters": parameters}]}


def values_before_limits() -> dict[str, Any]:
    """Give the same as that chart knows them, which has no word of quotas."""
    values = values_with_that_class_alone(**WITHOUT_LIMITS)
    for pool in itertools.chain(values["pools"], *(node["pools"] for node in values["nodes"])):
        pool.pop("quota", None)
    return values


def test_upgrade_from_the_chart_before_limits_keeps_its_class_and_volumes(scene: Scene, kube: Kube) -> None:
    install(values=values_before_limits(), chart=BEFORE_LIMITS)
    try:
        wait_ready(kube)
        scene.claim("old", storage_class=DEFAULT_CLASS)
        node = scene.pod("writer", "old", script=f"echo kept > {MOUNT}/file; exec sleep 100000")["spec"]["nodeName"]

        said = install(values=values_with_that_class_alone(enforce="required"))
        wait_ready(kube)
        assert f"class {DEFAULT_CLASS} was there before and stays" in said
        found = kube.get("StorageClass", DEFAULT_CLASS)
        assert found is not None
        assert found["parameters"] == WITHOUT_LIMITS
        assert scene.running("writer")["status"]["containerStatuses"][0]["restartCount"] == 0

        grown = {"spec": {"resources": {"requests": {"storage": "128Mi"}}}}
        kube.patch("PersistentVolumeClaim", "old", grown, scene.namespace)
        kube.wait("PersistentVolumeClaim", "old", scene.namespace, lambda one: has_size(one, "128Mi"))
        scene.end("writer")
        scene.claim("new", storage_class=DEFAULT_CLASS)
        scene.pod("reader", "old", "new", node=node)
        assert scene.run("reader", f"cat {MOUNT}/file") == "kept\n"
        records = [record_of(by_name(node), scene.bound(name)["metadata"]["name"]) for name in ("old", "new")]
        assert [record["backend"] for record in records] == ["directory", "directory"]
    finally:
        install(values=values_with_that_class_alone())  # the old policy would refuse the others
        install()
        wait_ready(kube)


def has_size(claim: Object, size: str) -> bool:
    """Tell whether a claim has grown to a size."""
    return bool(claim["status"]["capacity"]["storage"] == size)


def by_name(name: str) -> Node:
    """Give a node by its name."""
    return next(node for node in nodes() if node.name == name)
