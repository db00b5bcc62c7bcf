"""What people apply is what the API server knows, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml

from provisioner.parameters import parse
from provisioner.records import BackendName
from tests.cluster.policies.apiserver import ApiServer, Object
from tests.cluster.policies.world import manifests, with_policies
from tests.support.chart import EVERYTHING, ROOT, rendered

EXAMPLES = sorted(ROOT.glob("deploy/examples/*.yaml"))


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server with the chart's manifests."""
    with with_policies() as server:
        yield server


def test_the_manifests_can_be_applied_again(api: ApiServer) -> None:
    for document in manifests():
        api.apply(document)


def test_a_chart_with_every_value_is_valid(api: ApiServer) -> None:
    for document in rendered(**EVERYTHING):
        api.apply(document)


def documents(example: Path) -> list[Object]:
    return [
        {**found, "metadata": found["metadata"] | {"namespace": "default"}}
        for found in yaml.safe_load_all(example.read_text())
    ]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 4


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid(api: ApiServer, example: Path) -> None:
    for document in documents(example):
        api.apply(document)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_a_class_that_the_chart_or_it_has(example: Path) -> None:
    there = [*manifests(), *documents(example)]
    known = {document["metadata"]["name"] for document in there if document["kind"] == "StorageClass"}
    named = [line.split()[-1] for line in example.read_text().splitlines() if "storageClassName:" in line]
    assert set(named) <= known


def test_there_is_an_example_of_a_class_for_each_backend() -> None:
    classes = [found for found in documents(ROOT / "deploy/examples/backends.yaml") if found["kind"] == "StorageClass"]
    asked = {found["metadata"]["name"]: parse(found["parameters"]) for found in classes}
    assert {name: found.backend for name, found in asked.items()} == {
        f"local-path-{backend}": backend for backend in get_args(BackendName)
    }
    assert [found.backend for found in asked.values() if found.enforce == "besteffort"] == ["directory"]
