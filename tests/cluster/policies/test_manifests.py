"""What people apply is what the API server knows, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

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
def test_an_example_names_the_class_that_the_chart_has(example: Path) -> None:
    (known,) = (document["metadata"]["name"] for document in manifests() if document["kind"] == "StorageClass")
    named = [line.split()[-1] for line in example.read_text().splitlines() if "storageClassName:" in line]
    assert set(named) <= {known}
