"""Alerts and dashboard ask for metrics that the driver has, with labels that these have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from csi.cluster.controlling import Controlling
from csi.cluster.pod import Pod
from csi.configuration import ControllerSettings
from csi.server.figures import of_pools
from csi.server.metrics import Metrics
from provisioner.disk import Space
from provisioner.figures import ContentFigures, PoolFigures
from tests.support.kubeapi import MemoryApi

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
# What Prometheus adds to every series of a target.
OF_TARGETS = {"instance"}
# A name, and the matchers behind it if there are any.
SERIES = re.compile(r"\b((?:csi_local_path|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GROUPING = re.compile(r"\b(?:by|on) \(([^)]*)\)")
SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


def exposed() -> dict[str, set[str]]:
    """Give the labels of each series that the driver exposes."""
    space = Space(1, 1, 0, 1, 1, readonly=False)
    contents = ContentFigures(*[1] * len(ContentFigures.__dataclass_fields__))
    pool = PoolFigures("p", writable=True, seen_at=1.0, space=space, contents=contents)
    controller = Controlling(MemoryApi, Pod("controller", "ns"), ControllerSettings())
    metrics = Metrics("node", [of_pools(lambda: [pool]), controller.figures])
    metrics.observe("Probe", "OK", 0.1)
    found: dict[str, set[str]] = {}
    for line in metrics.page("")[1].decode().splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


EXPOSED = exposed()


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Give each expression with where it stands."""
    yield from ((rule["alert"], rule["expr"]) for rule in alerts())
    yield from ((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"])


QUERIES = list(queries())


def labels_asked(expr: str) -> Iterator[tuple[str, str]]:
    """Give each label that an expression matches, with the name of its series."""
    for name, matchers in SERIES.findall(expr):
        yield from ((name, label) for label in MATCHER.findall(matchers))


@pytest.mark.parametrize(("where", "expr"), QUERIES, ids=[where for where, _ in QUERIES])
def test_each_query_asks_for_what_the_driver_has(where: str, expr: str) -> None:
    names = [name for name, _ in SERIES.findall(expr)]
    assert names, where
    assert set(names) <= EXPOSED.keys()
    unknown = [(name, label) for name, label in labels_asked(expr) if label not in EXPOSED[name] | OF_TARGETS]
    assert not unknown
    grouped = {label.strip() for labels in GROUPING.findall(expr) for label in labels.split(",")}
    assert grouped <= set().union(*(EXPOSED[name] for name in names)) | OF_TARGETS


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong_and_where(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["for"]
    text = rule["annotations"]["summary"] + rule["annotations"]["description"]
    names = [name for name, _ in SERIES.findall(rule["expr"])]
    assert set(SHOWN.findall(text)) - {"value"} <= set().union(*(EXPOSED[name] for name in names)) | OF_TARGETS
    assert ("$labels.instance" in rule["annotations"]["summary"]) == (not rule["expr"].startswith("max("))


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names) > 0


def test_panels_do_not_lie_upon_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
