"""Which pools a node has, by its name."""

from __future__ import annotations

from typing import Any

import pytest

from csi.config import to_configuration, to_settings
from csi.configuration import pools_of, settings_of
from provisioner.settings import SettingsError


def pool(name: str) -> dict[str, Any]:
    return {"name": name, "path": f"/{name}"}


FILE = {
    "pools": [pool("default")],
    "nodes": [
        {"match": "db-*", "pools": [pool("fast"), pool("slow")]},
        {"match": "db-1*", "pools": [pool("never")]},
        {"match": "db-7", "pools": [pool("own")]},
        {"match": "edge-[12]", "pools": []},
    ],
}


@pytest.mark.parametrize(
    ("node", "pools"),
    [
        ("web-1", ["default"]),
        ("db-1", ["fast", "slow"]),
        ("db-12", ["fast", "slow"]),
        ("db-7", ["own"]),
        ("edge-1", []),
        ("edge-3", ["default"]),
        ("DB-1", ["default"]),
    ],
)
def test_a_name_goes_before_patterns_and_the_first_pattern_before_others(node: str, pools: list[str]) -> None:
    assert [found.name for found in pools_of(to_configuration(FILE), node)] == pools


def test_all_other_settings_are_shared() -> None:
    settings = settings_of(to_configuration({**FILE, "lockWaitSeconds": 3, "targetRoots": ["/mnt"]}), "db-7")
    assert (settings.lock_wait_seconds, settings.target_roots, settings.pools[0].name) == (3, ["/mnt"], "own")


def test_this_node_s_pools_are_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "db-7")
    assert [found.name for found in to_settings(FILE).pools] == ["own"]


def test_nodes_without_default_leave_the_others_without_pools() -> None:
    assert settings_of(to_configuration({"nodes": FILE["nodes"]}), "web-1").pools == []


def test_a_controller_s_file_may_be_empty() -> None:
    controller = to_configuration(None).controller
    assert (controller.node_down_reschedule_seconds, controller.node_gone_grace_seconds) == (300, 3600)
    assert (controller.orphan_age_seconds, controller.orphan_sweep_seconds) == (3600, 300)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"nodes": [{"match": "a"}]}, "nodes[0].pools: wanted a list, found nothing"),
        ({"nodes": [{"match": "", "pools": []}]}, "nodes[0].match: wanted text, found ''"),
        (
            {"nodes": [{"match": "a", "pools": []}, {"match": "a", "pools": []}]},
            "nodes[1].match: 'a' is also nodes[0].match",
        ),
        (
            {"nodes": [{"match": "a", "pools": [pool("x"), pool("x")]}]},
            "nodes[0].pools[1].name: 'x' is also nodes[0].pools[0].name",
        ),
        (
            {"nodes": [{"match": "a", "pools": [{"name": "x", "path": "x"}]}]},
            "nodes[0].pools[0].path: wanted an absolute path, found 'x'",
        ),
        ({"controller": {"orphanAgeSeconds": 0}}, "controller.orphanAgeSeconds: wanted a number > 0, found 0"),
        (
            {"controller": {"nodeDownRescheduleSeconds": 60}},
            "controller.nodeDownRescheduleSeconds: wanted a number >= 90, found 60",
        ),
        ({"controller": {"orphanage": 1}}, "controller.orphanage: unknown key; did you mean"),
    ],
)
def test_what_is_wrong_is_named(raw: object, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        to_configuration(raw)
    assert str(caught.value).startswith(sentence)
