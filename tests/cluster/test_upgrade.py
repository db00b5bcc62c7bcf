"""An upgrade while pods write and claims come in."""

from __future__ import annotations

import itertools
import threading

from tests.cluster.driver import wait_ready
from tests.cluster.kube import Kube, is_bound
from tests.cluster.lab.install import install
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import nodes
from tests.cluster.lab.volumes import all_volumes
from tests.cluster.manifests import MOUNT
from tests.cluster.scene import Scene

PAUSE_S = 0.5


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
    making.start()
    try:
        install("--set", "node.podAnnotations.upgrade=tried", "--set", "controller.podAnnotations.upgrade=tried")
        wait_ready(kube)
    finally:
        done.set()
        making.join()
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
