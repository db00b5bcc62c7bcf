"""Volumes as their users know them: claims and the pods that mount them."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.cluster.kube import Kube, Object, is_bound
from tests.cluster.lab.site import nodes
from tests.cluster.lab.volumes import all_volumes, volumes_on
from tests.cluster.manifests import MOUNT, TOPOLOGY_KEY, claim_spec, container, unhurried
from tests.cluster.scene import Scene

BURST = 100
SLOWEST_BURST_S = 120.0
RESIZING = {"Resizing", "FileSystemResizePending"}


def node_of(volume: Object) -> str:
    """Give the one node that a PersistentVolume says it is on."""
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    (expression,) = term["matchExpressions"]
    assert expression["key"] == TOPOLOGY_KEY
    (name,) = expression["values"]
    return str(name)


def test_volume_lives_on_the_pods_node_and_goes_with_its_claim(scene: Scene) -> None:
    scene.claim("data", "64Mi")
    pod = scene.pod("writer", "data")
    volume = scene.bound("data")
    node = next(node for node in nodes() if node.name == pod["spec"]["nodeName"])
    assert node_of(volume) == node.name
    assert volume["metadata"]["name"] in volumes_on(node)

    scene.run("writer", f"echo kept > {MOUNT}/file; sync")
    scene.end("writer")
    scene.pod("reader", "data")
    assert scene.run("reader", f"cat {MOUNT}/file") == "kept\n"

    scene.end("reader")
    scene.kube.delete("PersistentVolumeClaim", "data", scene.namespace)
    scene.kube.wait_gone("PersistentVolume", volume["metadata"]["name"])
    assert volume["metadata"]["name"] not in all_volumes()


def test_claim_grows_while_its_pod_writes(scene: Scene) -> None:
    scene.claim("data", "64Mi")
    scene.pod("writer", "data", script=f"while :; do date >> {MOUNT}/log; sleep 0.05; done")
    scene.bound("data")
    before = int(scene.run("writer", f"wc -l < {MOUNT}/log"))
    grown = {"spec": {"resources": {"requests": {"storage": "256Mi"}}}}
    scene.kube.patch("PersistentVolumeClaim", "data", grown, scene.namespace)

    def has_grown(claim: Object) -> bool:
        conditions = {condition["type"] for condition in claim["status"].get("conditions", ())}
        return claim["status"]["capacity"]["storage"] == "256Mi" and not conditions & RESIZING

    scene.kube.wait("PersistentVolumeClaim", "data", scene.namespace, has_grown)
    pod = scene.running("writer")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert int(scene.run("writer", f"sleep 0.5; wc -l < {MOUNT}/log")) > before


def test_stateful_set_keeps_each_replicas_volume(scene: Scene) -> None:
    template = {"metadata": {"name": "data"}, "spec": claim_spec()}
    script = f"[ -e {MOUNT}/name ] || hostname > {MOUNT}/name; exec sleep 100000"
    main = container(script, [{"name": "data", "mountPath": MOUNT}])
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "set"}}}
    spread = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    pods = {"metadata": {"labels": {"app": "set"}}, "spec": {"containers": [main], "affinity": spread, **unhurried()}}
    wanted: Object = {"serviceName": "set", "replicas": 3, "podManagementPolicy": "Parallel"}
    wanted |= {"volumeClaimTemplates": [template], "selector": {"matchLabels": {"app": "set"}}, "template": pods}
    manifest = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "set"}, "spec": wanted}
    scene.kube.create(manifest, scene.namespace)

    names = [f"set-{number}" for number in range(3)]
    first = {name: scene.running(name) for name in names}
    assert len({pod["spec"]["nodeName"] for pod in first.values()}) == 3
    for name in names:
        scene.kube.delete("Pod", name, scene.namespace, grace_s=0)
    for name in names:
        uid = first[name]["metadata"]["uid"]
        again = scene.running(name, unlike=uid)
        assert again["spec"]["nodeName"] == first[name]["spec"]["nodeName"]
        assert scene.run(name, f"cat {MOUNT}/name") == f"{name}\n"


def test_generic_ephemeral_volume_goes_with_its_pod(scene: Scene) -> None:
    volume = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim_spec()}}}
    main = container(f"echo x > {MOUNT}/x; exec sleep 100000", [{"name": "scratch", "mountPath": MOUNT}])
    scene.pod("worker", containers=[main], volumes=[volume])
    name = scene.bound("worker-scratch")["metadata"]["name"]
    assert name in all_volumes()
    scene.end("worker")
    scene.kube.wait_gone("PersistentVolume", name)
    assert name not in all_volumes()


def test_two_pods_of_a_node_share_a_volume_and_a_read_only_one_cannot_write(scene: Scene) -> None:
    scene.claim("data")
    node = scene.pod("writer", "data")["spec"]["nodeName"]
    read_only = container("exec sleep 100000", [{"name": "v0", "mountPath": MOUNT, "readOnly": True}])
    scene.pod("reader", "data", node=node, containers=[read_only])
    scene.run("writer", f"echo shared > {MOUNT}/file")
    assert scene.run("reader", f"cat {MOUNT}/file; ! touch {MOUNT}/mine 2>/dev/null") == "shared\n"


def test_read_write_once_pod_is_for_one_pod(scene: Scene) -> None:
    scene.claim("data", mode="ReadWriteOncePod")
    scene.pod("first", "data")
    scene.start("second", "data")

    def is_refused(pod: Object) -> bool:
        conditions = pod["status"].get("conditions", ())
        return any("ReadWriteOncePod" in condition.get("message", "") for condition in conditions)

    scene.kube.wait("Pod", "second", scene.namespace, is_refused)
    scene.end("first")
    scene.running("second")


def test_non_root_pod_writes_by_its_fs_group(scene: Scene) -> None:
    scene.claim("data")
    user = {"runAsUser": 1234, "runAsGroup": 1234, "runAsNonRoot": True, "fsGroup": 5678}
    scene.pod("writer", "data", securityContext=user)
    assert scene.run("writer", f"touch {MOUNT}/mine; stat -c %u:%g {MOUNT}/mine") == "1234:5678\n"


def test_burst_of_claims_is_bound(scene: Scene, kube: Kube, record_property: Callable[[str, object], None]) -> None:
    began = time.monotonic()
    for number in range(BURST):
        scene.claim(f"c{number}", "16Mi", node=nodes()[number % len(nodes())].name)
    while not all(map(is_bound, kube.list("PersistentVolumeClaim", scene.namespace))):
        assert time.monotonic() - began < SLOWEST_BURST_S, "the claims are not all bound"
        time.sleep(0.1)
    took_s = time.monotonic() - began
    claims = kube.list("PersistentVolumeClaim", scene.namespace)
    assert {claim["spec"]["volumeName"] for claim in claims} <= all_volumes()
    record_property("note", f"{BURST} claims bound in {took_s:.1f} s, made one after the other")
