"""Volumes whose size holds, and raw block volumes: images on loop devices, in a cluster."""

from __future__ import annotations

from tests.cluster.kube import Object
from tests.cluster.lab import lifecycle
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import nodes
from tests.cluster.lab.volumes import is_staged
from tests.cluster.manifests import IMAGE_CLASS, MOUNT, XFS_CLASS, claim, container
from tests.cluster.scene import Scene

GROWTH_S = 120.0
LARGE = "768Mi"
FILL = f"dd if=/dev/zero of={MOUNT}/fill bs=1M count=400"  # more than there is at first, less than after growth


def is_large(volume: Object) -> bool:
    """Tell whether the controller's part of growth is done."""
    return bool(volume["spec"]["capacity"]["storage"] == LARGE)


def ask_for_more(scene: Scene) -> None:
    """Let the claim want more."""
    grown = {"spec": {"resources": {"requests": {"storage": LARGE}}}}
    scene.kube.patch("PersistentVolumeClaim", "data", grown, scene.namespace)


def await_growth(scene: Scene) -> None:
    """Wait until the claim has it."""

    def has_grown(one: Object) -> bool:
        return bool(one["status"]["capacity"]["storage"] == LARGE)

    scene.kube.wait("PersistentVolumeClaim", "data", scene.namespace, has_grown, GROWTH_S)


def assert_full(scene: Scene, pod: str) -> None:
    """See that a volume holds no more than its size."""
    full = scene.run(pod, f"if {FILL} 2> /tmp/why; then echo fits; else cat /tmp/why; fi")
    assert "No space left on device" in full


def test_volume_of_a_size_holds_no_more_and_grows_while_it_is_used(scene: Scene) -> None:
    """With XFS, which grows in use on every machine; ext4 does so only for CAP_SYS_RESOURCE."""
    scene.claim("data", "300Mi", XFS_CLASS)
    scene.pod("writer", "data", script=f"exec 3> {MOUNT}/open; while :; do date >&3 || :; sleep 0.05; done")
    assert_full(scene, "writer")
    ask_for_more(scene)
    await_growth(scene)
    scene.run("writer", FILL)
    assert scene.running("writer")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_ext4_volume_has_grown_at_the_latest_when_it_is_used_again(scene: Scene) -> None:
    scene.claim("data", "128Mi", IMAGE_CLASS)
    name = scene.pod("first", "data")["spec"]["nodeName"]
    assert_full(scene, "first")
    volume = scene.bound("data")
    ask_for_more(scene)
    scene.kube.wait("PersistentVolume", volume["metadata"]["name"], "", is_large)
    scene.end("first")
    node = next(node for node in nodes() if node.name == name)
    wait_until(lambda: not is_staged(node, volume["spec"]["csi"]["volumeHandle"]), "the volume is staged no more")
    scene.pod("second", "data")
    await_growth(scene)
    scene.run("second", FILL)


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
