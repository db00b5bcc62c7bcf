"""Who of several controllers sweeps, and tells of what all see: one of them, as long as it holds its slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi.cluster import leases
from csi.cluster.controlling import Controlling
from csi.cluster.pod import Pod
from csi.configuration import ControllerSettings
from tests.support.clustered import eventually
from tests.support.kubeapi import MemoryApi

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE = "ns"


@pytest.fixture
def api() -> Iterator[MemoryApi]:
    api = MemoryApi()
    yield api
    api.close()


@pytest.fixture
def pair(api: MemoryApi) -> Iterator[tuple[Controlling, Controlling]]:
    """Give the controller that leads, and the one that stands by."""
    settings = ControllerSettings(orphan_sweep_seconds=0.01)
    first, second = (Controlling(lambda: api, Pod(name, NAMESPACE), settings) for name in "xy")
    for one in (first, second):
        one.slots._renew_s = 0.02
        one.start()
        eventually(lambda one=one: one.ready and one.slots.held)  # type: ignore[misc] # the default is for the loop
    yield first, second
    for one in (first, second):
        one.stop()


def test_one_leads_and_the_other_after_it(pair: tuple[Controlling, Controlling]) -> None:
    first, second = pair
    eventually(lambda: first.sweep.sweeps > 2)
    assert (first.is_leading(), second.is_leading()) == (True, False)
    assert second.sweep.sweeps == 0
    first.stop()
    assert not first.is_leading()
    eventually(second.is_leading)


def test_who_lost_its_slot_sweeps_no_more(api: MemoryApi, pair: tuple[Controlling, Controlling]) -> None:
    first, second = pair
    eventually(lambda: first.sweep.sweeps)
    path = leases.path_of(NAMESPACE, "controller-0")
    api.put(path, leases.body(NAMESPACE, "controller-0", {}, leases.spec_of("thief", 60)))
    eventually(lambda: not first.is_leading())
    assert not second.is_leading(), "the thief is alive, and comes first"
    first.slots.stop()  # else it might be the first to see the slot free
    done = first.sweep.sweeps
    api.put(path, leases.body(NAMESPACE, "controller-0", {}, leases.spec_of("", 1)))
    eventually(lambda: second.sweep.sweeps > 5)
    assert first.sweep.sweeps <= done + 1, "one may have been on its way"
