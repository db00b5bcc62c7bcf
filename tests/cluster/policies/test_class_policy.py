"""The admission policy for classes, judged by a real API server: it refuses just what the driver would refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provisioner import parameters
from provisioner.errors import InvalidRequest
from tests.cluster.policies.apiserver import MERGE, ApiServer
from tests.cluster.policies.world import CLASSES, storage_class, with_policies


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server with the chart's manifests."""
    with with_policies() as server:
        yield server


TEXTS = ("", "0", "1000", "0770", "770", "7770", "07770", "888", "-1", "4294967294", "4294967295", "99999999999",
         "besteffort", "required", "fast", "Fast", "a b", "fast\n", "\N{ARABIC-INDIC DIGIT ONE}", "x" * 64)  # fmt: skip


@pytest.mark.parametrize("key", [*parameters.SCHEMA, "Mode", "fsType", parameters.METADATA_PREFIX + "fstype"])
def test_a_class_is_refused_just_where_the_driver_would_refuse_it(api: ApiServer, key: str) -> None:
    for text in TEXTS:
        answer = api.ask("POST", f"{CLASSES}?dryRun=All", storage_class({key: text}))
        try:
            parameters.parse({key: text})
        except InvalidRequest:
            assert answer.code == 422, f"{key}={text!r}: {answer}"
            assert key in answer.message
        else:
            assert answer.code == 201, f"{key}={text!r}: {answer.message}"


def test_a_refusal_names_all_unknown_parameters_and_those_that_are_known(api: ApiServer) -> None:
    answer = api.ask("POST", CLASSES, storage_class({"moode": "0770", "size": "1Gi", "uid": "0"}))
    assert answer.code == 422
    assert "moode" in answer.message
    assert "size" in answer.message
    assert f"known are {', '.join(sorted(parameters.SCHEMA))}" in answer.message


def test_a_refusal_says_what_was_wanted_and_found(api: ApiServer) -> None:
    answer = api.ask("POST", CLASSES, storage_class({"mode": "rwx"}))
    assert "parameter mode: wanted three or four octal digits such as '0770', found 'rwx'" in answer.message


def test_a_class_of_another_driver_is_its_own_affair(api: ApiServer) -> None:
    assert api.ask("POST", f"{CLASSES}?dryRun=All", storage_class({"none": "such"}, "other.example")).code == 201


def test_what_the_chart_makes_is_judged_by_the_chart(api: ApiServer) -> None:
    """Else an upgrade could bring no class with a parameter that only the new version knows."""
    thing = storage_class({"moode": "0770"})
    thing["metadata"]["labels"] = {"app.kubernetes.io/part-of": "csi-local-path"}
    assert api.ask("POST", f"{CLASSES}?dryRun=All", thing).code == 201
    thing["metadata"]["labels"] = {"app.kubernetes.io/part-of": "something-else"}
    assert api.ask("POST", f"{CLASSES}?dryRun=All", thing).code == 422


def test_a_class_without_parameters_and_a_label_on_one_that_exists_pass(api: ApiServer) -> None:
    thing = storage_class({})
    del thing["parameters"]
    assert api.ask("POST", f"{CLASSES}?dryRun=All", thing).code == 201
    body = {"metadata": {"labels": {"a.test": "label"}}}
    assert api.ask("PATCH", f"{CLASSES}/csi-local-path", body, kind=MERGE).code == 200
