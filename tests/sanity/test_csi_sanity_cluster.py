"""csi-sanity against a controller's socket, with the socket of one of three nodes beside it.

The volumes are of a class whose pool only that node has: the judge publishes there what the controller made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from csi.pb import csi_pb2
from provisioner.linux.mountinfo import read_mountinfo
from tests.sanity.judge import SECRET, run_judge
from tests.sanity.test_csi_sanity import SKIPS, SPECS, find_judge
from tests.support.clustered import Cluster, clustered
from tests.support.ginkgo import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with clustered() as cluster:
        cluster.add("a", "default")
        cluster.add("b", "default")
        cluster.add("c", "default", "only-here")
        cluster.control()
        yield cluster


@pytest.fixture(scope="module")
def verdict(cluster: Cluster) -> Verdict:
    node = cluster.nodes["c"].folder
    parameters = node / "parameters.yaml"
    parameters.write_text(json.dumps({"pool": "only-here"}))
    return run_judge(
        find_judge(),
        f"unix://{node}/csi.sock",
        node,
        f"--csi.controllerendpoint=unix://{cluster.folder}/csi.sock",
        f"--csi.testvolumeparameters={parameters}",
    )


def test_no_spec_fails(verdict: Verdict, record_property: Callable[[str, object], None]) -> None:
    passed, skipped = verdict.in_state("passed"), verdict.in_state("skipped", "pending")
    record_property("note", f"csi-sanity, controller and node: {len(passed)} of {len(verdict.specs)} specs passed")
    failed = {spec.name: spec.why for spec in verdict.specs if spec.name not in passed | skipped}
    assert not failed, "\n".join(f"{name}: {why}" for name, why in failed.items())
    assert verdict.exit_status == 0, verdict.output


def test_no_more_is_skipped_than_of_one_machine(verdict: Verdict) -> None:
    skipped = verdict.in_state("skipped", "pending")
    lost = {name: why for name, why in skipped.items() if not name.startswith(tuple(SKIPS))}
    assert not lost
    assert len(verdict.specs) == SPECS


def test_the_judge_leaves_nothing(verdict: Verdict, cluster: Cluster) -> None:
    assert verdict.specs
    assert not cluster.controller.ListVolumes(csi_pb2.ListVolumesRequest()).entries
    assert not [at.mount_point for at in read_mountinfo() if at.mount_point.startswith(f"{cluster.folder}/")]
    assert SECRET
