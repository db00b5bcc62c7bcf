"""Since when a node does not answer."""

from __future__ import annotations

import pytest

from csi.cluster.silence import Silence
from tests.support.announced import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_silence_lasts_until_an_answer(clock: Clock) -> None:
    silence = Silence(lambda _: True, clock)
    assert silence.age_s("a") is None
    for _ in range(10):
        silence.note_silence("a")
        clock.now += 300
    assert (silence.age_s("a"), silence.age_s("b"), silence.count()) == (3000, None, 1)
    silence.note_answer("a")
    assert (silence.age_s("a"), silence.count()) == (None, 0)


def test_two_failures_a_day_apart_are_not_a_silence_of_a_day(clock: Clock) -> None:
    silence = Silence(lambda _: True, clock)
    silence.note_silence("a")
    clock.now += 86400
    silence.note_silence("a")
    assert silence.age_s("a") == 0


def test_a_node_that_left_is_forgotten(clock: Clock) -> None:
    known = {"a", "b"}
    silence = Silence(known.__contains__, clock)
    silence.note_silence("a")
    silence.note_silence("b")
    known.remove("a")
    assert silence.count() == 1
    known.remove("b")
    known.add("c")
    silence.note_silence("c")
    assert (silence.age_s("a"), silence.age_s("b"), silence.age_s("c")) == (None, None, 0)
