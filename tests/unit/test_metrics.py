"""What `/metrics` shows: names, labels, values, and that the reference knows each of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from csi.cluster.controlling import Controlling
from csi.cluster.pod import Pod
from csi.configuration import ControllerSettings
from csi.server.figures import Family, Sample, of_pools
from csi.server.metrics import Metrics
from provisioner.disk import Space
from provisioner.figures import ContentFigures, PoolFigures
from tests.support.kubeapi import MemoryApi

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SPACE = Space(size_bytes=100, free_bytes=60, used_bytes=40, inodes=50, free_inodes=30, readonly=False)
CONTENTS = ContentFigures(
    volumes=7,
    published=5,
    ephemeral=2,
    quarantined=1,
    promised_bytes=40,
    used_bytes=12,
    trash_bytes=3,
    foreign_bytes=9,
    measured_at=1234.5,
    promisable_bytes=20,
    lost_limits=3,
    escaped_limits=0,
)
WELL = PoolFigures("well", writable=True, seen_at=99.0, space=SPACE, contents=CONTENTS)
AWAY = PoolFigures("away", writable=False, seen_at=98.0, space=None, contents=None)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Scrape, and give each value by its name and labels."""
    _, body = metrics.page("")
    found = (sample for family in parse(body.decode()) for sample in family.samples)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}


def of(pool: str) -> tuple[tuple[str, str], ...]:
    return (("pool", pool),)


def test_rpcs_are_counted_by_method_and_code_and_timed_by_method() -> None:
    metrics = Metrics("node")
    metrics.observe("CreateVolume", "OK", 0.002)
    metrics.observe("CreateVolume", "OK", 0.2)
    metrics.observe("CreateVolume", "ABORTED", 0.0001)
    found = samples(metrics)
    method = ("method", "CreateVolume")
    assert found["csi_local_path_rpcs_total", (("code", "OK"), method)] == 2
    assert found["csi_local_path_rpcs_total", (("code", "ABORTED"), method)] == 1
    assert found["csi_local_path_rpc_duration_seconds_count", (method,)] == 3
    assert found["csi_local_path_rpc_duration_seconds_bucket", (("le", "0.0025"), method)] == 2
    assert found["csi_local_path_rpc_duration_seconds_sum", (method,)] == pytest.approx(0.2021)


def test_what_runs_is_told() -> None:
    info = [labels for name, labels in samples(Metrics("controller")) if name == "csi_local_path_build_info"]
    assert [dict(labels)["role"] for labels in info] == ["controller"]


def test_pools_are_told_and_one_that_is_away_has_no_figures() -> None:
    metrics = Metrics("node", [of_pools(lambda: [WELL, AWAY])])
    found = samples(metrics)
    assert found["csi_local_path_pool_available", of("well")] == 1
    assert found["csi_local_path_pool_available", of("away")] == 0
    assert found["csi_local_path_pool_volumes", of("well")] == 7
    assert found["csi_local_path_pool_free_bytes", of("well")] == 60
    assert found["csi_local_path_pool_measured_timestamp_seconds", of("well")] == 1234.5
    degraded = {labels: value for (name, labels), value in found.items() if name.endswith("_degraded_volumes")}
    assert degraded == {(*of("well"), ("reason", "LimitLost")): 3, (*of("well"), ("reason", "LimitEscaped")): 0}
    assert {name for name, labels in found if labels == of("away")} == {
        "csi_local_path_pool_available",
        "csi_local_path_pool_writable",
        "csi_local_path_pool_seen_timestamp_seconds",
    }


def test_a_source_can_join_later() -> None:
    metrics = Metrics("controller")

    def sweeps() -> Iterable[Family]:
        yield Family("csi_local_path_orphan_sweeps_total", "Sweeps.", (Sample(4),), counter=True)
        yield Family("csi_local_path_nodes_reachable", "Nodes.", (Sample(3, {"a": "x"}), Sample(2, {"a": "y"})))

    metrics.add(sweeps)
    found = samples(metrics)
    assert found["csi_local_path_orphan_sweeps_total", ()] == 4
    assert found["csi_local_path_nodes_reachable", (("a", "y"),)] == 2


def test_openmetrics_is_served_to_those_who_ask_for_it() -> None:
    metrics = Metrics("node", [of_pools(lambda: [WELL])])
    metrics.observe("Probe", "OK", 0.001)
    content_type, body = metrics.page(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call] # the library's
    assert "csi_local_path_rpcs" in {family.name for family in families}


def exposed_names() -> set[str]:
    """Name every metric of ours, of nodes and of controllers."""
    controller = Controlling(MemoryApi, Pod("controller", "ns"), ControllerSettings())
    metrics = Metrics("node", [of_pools(lambda: [WELL]), controller.figures])
    metrics.observe("Probe", "OK", 0.001)
    _, body = metrics.page("")
    return {name for name in re.findall(r"^# TYPE (\S+)", body.decode(), re.MULTILINE) if name.startswith("csi_")}


def test_the_reference_names_each_metric_and_no_other() -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text()
    assert set(re.findall(r"^\| `(csi_local_path_\w+)`", text, re.MULTILINE)) == exposed_names()


def test_the_library_is_not_loaded_by_serve_itself() -> None:
    code = "import csi.cli.serving, sys; sys.exit('prometheus_client' in sys.modules or 'http.server' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
