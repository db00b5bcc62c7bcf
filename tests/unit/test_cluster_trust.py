"""Whom a node lets in."""

from __future__ import annotations

import pytest

from csi.cluster import announcement
from csi.cluster.announcement import Announcement
from csi.cluster.leases import Lease, LeaseSpec
from csi.cluster.sightings import STALE_S, Sightings
from csi.cluster.trust import Trust
from tests.support.announced import Clock, credentials_of, node_lease, slot_lease
from tests.support.malformed import certificates

SLOT = "controller-0"
PEM = credentials_of("x").certificate.decode()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trust(clock: Clock) -> Trust:
    return Trust(SLOT, Sightings(clock))


def test_the_holder_of_the_slot_is_let_in_and_nobody_else(trust: Trust) -> None:
    assert trust.certificate == ""
    trust.replaced([slot_lease(SLOT, "x"), slot_lease("controller-1", "y"), node_lease("a")])
    assert trust.certificate == PEM
    trust.changed(slot_lease("controller-1", "y"))
    trust.removed(slot_lease("controller-1", "y"))
    assert trust.certificate == PEM


@pytest.mark.parametrize("what", certificates())
def test_a_certificate_that_cannot_be_read_opens_nothing_and_breaks_nothing(trust: Trust, what: str) -> None:
    said = announcement.encode(Announcement(1, certificates()[what]))
    trust.replaced([slot_lease(SLOT, "x", said=said)])
    assert trust.certificate == ""
    trust.changed(slot_lease(SLOT, "y", renewal="2"))
    assert trust.certificate == credentials_of("y").certificate.decode()


def test_a_new_holder_takes_the_place_of_the_old_one(trust: Trust) -> None:
    trust.changed(slot_lease(SLOT, "x"))
    trust.changed(slot_lease(SLOT, "y", renewal="2"))
    assert trust.certificate == credentials_of("y").certificate.decode()


@pytest.mark.parametrize("how", ["given back", "removed", "gone from the list", "nonsense", "two certificates"])
def test_nobody_is_let_in_any_more(trust: Trust, how: str) -> None:
    held = slot_lease(SLOT, "x")
    trust.changed(held)
    match how:
        case "given back":
            trust.changed(Lease(held.metadata, LeaseSpec("", "2")))
        case "removed":
            trust.removed(held)
        case "gone from the list":
            trust.replaced([])
        case "nonsense":
            trust.changed(slot_lease(SLOT, "x", said="{}"))
        case _:
            both = (PEM + credentials_of("y").certificate.decode()).replace("\n", "\\n")
            trust.changed(slot_lease(SLOT, "x", said=f'{{"schema": 1, "certificate": "{both}"}}'))
    assert trust.certificate == ""


def test_a_holder_that_is_not_heard_of_for_long_is_let_in_no_more(trust: Trust, clock: Clock) -> None:
    trust.changed(slot_lease(SLOT, "x"))
    clock.now += STALE_S + 1
    assert trust.certificate == ""
    trust.changed(slot_lease(SLOT, "x", renewal="2"))
    assert trust.certificate == PEM


def test_while_nothing_is_seen_the_last_holder_is_trusted(trust: Trust, clock: Clock) -> None:
    trust.changed(slot_lease(SLOT, "x"))
    trust.lost()
    clock.now += STALE_S * 2
    assert trust.certificate == PEM
