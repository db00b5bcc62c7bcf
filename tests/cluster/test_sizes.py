"""Volumes whose size holds, and raw block volumes: images on loop devices, in a cluster."""

from __future__ import annotations

from tests.cluster.kube import Object
from tests.cluster.lab import lifecycle
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import nodes
from tests.cluster.manifests import IMAGE_CLASS, MOUNT, claim, container
from tests.cluster.scene import Scene

FILL = f"dd if=/dev/zero of={MOUNT}/fill bs=1M count=200"


def test_volume_of_a_size_holds_no_more_and_grows_while_it_is_used(scene: Scene) -> None:
    scene.claim("data", "128Mi", IMAGE_CLASS)
    scene.pod("writer", "data")
    full = scene.run("writer", f"if {FILL} 2> /tmp/why; then echo fits; else cat /tmp/why; fi")
    assert "No space left on device" in full

    grown = {"spec": {"resources": {"requests": {"storage": "512Mi"}}}}
    scene.kube.patch("PersistentVolumeClaim", "data", grown, scene.namespace)

    def has_grown(one: Object) -> bool:
        return bool(one["status"]["capacity"]["storage"] == "512Mi")

    scene.kube.wait("PersistentVolumeClaim", "data", scene.namespace, has_grown)
    scene.run("writer", FILL)


def test_volume_of_a_size_is_there_after_a_reboot(scene: Scene) -> None:
    node = nodes()[2]
    scene.claim("data", "128Mi", IMAGE_CLASS)
    script = f"echo start >> {MOUNT}/starts; sync; exec sleep 100000"
    scene.pod("writer", "data", node=node.name, script=script, restartPolicy="Always")
    lifecycle.reboot(node)
    scene.restarted("writer")
    assert scene.run("writer", f"cat {MOUNT}/starts") == "start\nstart\n"
    wait_until(lifecycle.all_ready, "all nodes are ready")


def test_raw_block_volume_keeps_what_is_written(scene: Scene) -> None:
    wanted = claim("raw", "128Mi", IMAGE_CLASS)
    wanted["spec"]["volumeMode"] = "Block"
    scene.kube.create(wanted, scene.namespace)
    for name, script in (("writer", "echo raw | dd of=/dev/raw"), ("reader", "dd if=/dev/raw bs=4 count=1 | grep raw")):
        main = container(f"{script}; exec sleep 100000", [])
        main["volumeDevices"] = [{"name": "v0", "devicePath": "/dev/raw"}]
        scene.pod(name, "raw", containers=[main])
        scene.run(name, "sync; [ $(blockdev --getsize64 /dev/raw) = 134217728 ]")
        scene.end(name)
