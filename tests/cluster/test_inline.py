"""Ephemeral volumes that stand in a pod's own manifest, before the real kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import nodes
from tests.cluster.lab.volumes import record_of, volumes_on
from tests.cluster.manifests import MOUNT, container
from tests.cluster.scene import Scene

MIB = 1 << 20


def inline(*sizes: str) -> dict[str, Any]:
    """Give what a pod says of volumes of its own, at /data0, /data1, ..."""
    volumes = [
        {"name": f"v{at}", "csi": {"driver": "local-path.csi.dev", "volumeAttributes": {"size": size}}}
        for at, size in enumerate(sizes)
    ]
    mounts = [{"name": f"v{at}", "mountPath": f"{MOUNT}{at}"} for at in range(len(sizes))]
    return {"volumes": volumes, "containers": [container("exec sleep 100000", mounts)]}


def test_inline_volume_lives_and_ends_with_its_pod(scene: Scene) -> None:
    node = nodes()[0]
    before = volumes_on(node)
    user = {"runAsUser": 1234, "runAsNonRoot": True}
    pod = scene.pod("worker", node=node.name, securityContext=user, **inline("16Mi"))
    (name,) = volumes_on(node) - before
    record = record_of(node, name)
    assert record["ephemeral"]["pod_uid"] == pod["metadata"]["uid"]
    assert record["capacity_bytes"] == 16 * MIB
    fill = f"dd if=/dev/zero of={MOUNT}0/fill bs=1M count=20 conv=fsync"
    assert "No space left" in scene.run("worker", f"if {fill} 2> /tmp/why; then echo fits; else cat /tmp/why; fi")
    scene.end("worker")
    wait_until(lambda: volumes_on(node) == before, "the volume is gone")


@pytest.mark.parametrize(
    ("sizes", "said"),
    [(["65Mi"], "ephemeral.maxSizePerVolume"), (["64Mi"] * 5, "ephemeral.maxSizePerPod")],
    ids=["of a volume", "of a pod"],
)
def test_inline_volume_beyond_a_cap_is_refused_with_an_event(scene: Scene, sizes: list[str], said: str) -> None:
    node = nodes()[0]
    before = volumes_on(node)
    scene.start("greedy", node=node.name, **inline(*sizes))

    def is_told() -> bool:
        return any("FailedMount" in event and said in event for event in scene.events("greedy"))

    wait_until(is_told, f"an event names {said}")
    scene.end("greedy")
    wait_until(lambda: volumes_on(node) == before, "nothing of it is left")
