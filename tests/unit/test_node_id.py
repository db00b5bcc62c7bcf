"""The name of this node: a label value, the same after each start."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.node_id import NodeIdError, node_id

# kubernetes/apimachinery, validation.IsValidLabelValue
LABEL_VALUE = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")


def of_host(name: str) -> str:
    return node_id(environ={}, host_name=name)


def test_what_is_wanted_comes_first_then_node_name_then_the_host() -> None:
    assert node_id("wanted", {"NODE_NAME": "node-1"}, "host") == "wanted"
    assert node_id("", {"NODE_NAME": "node-1"}, "host") == "node-1"
    assert node_id("", {}, "host") == "host"


def test_without_anything_it_is_this_host_s_name() -> None:
    assert node_id(environ={}) == of_host(os.uname().nodename)


def test_a_host_s_name_is_lower_case_as_the_kubelet_has_it() -> None:
    assert of_host("Node-1.Example.COM") == "node-1.example.com"


@given(st.text(min_size=1).filter(lambda text: text.strip() != ""))
def test_every_host_name_gives_a_label_value(name: str) -> None:
    found = of_host(name)
    assert LABEL_VALUE.fullmatch(found)
    assert len(found) <= 63
    assert of_host(name) == found


@pytest.mark.parametrize("name", ["a" * 64, "bücher", "-a", "a-", "a b", "a/b", "a\n", "(none)x", "_a"])
def test_an_unsuitable_host_name_becomes_a_digest(name: str) -> None:
    assert re.fullmatch(r"node__[0-9a-f]{32}|a", of_host(name))


def test_two_long_names_with_the_same_beginning_differ() -> None:
    assert of_host("n" * 70 + "1") != of_host("n" * 70 + "2")


def test_a_host_named_like_a_digest_does_not_take_another_s_place() -> None:
    taken = of_host("a" * 64)
    assert of_host(taken) != taken


@pytest.mark.parametrize("name", ["a" * 64, "a b", "-a", "a-", "a/b", "ä", "a\n"])
def test_an_unsuitable_wish_is_an_error(name: str) -> None:
    with pytest.raises(NodeIdError, match=r"^nodeId: wanted at most 63 letters"):
        node_id(name)


def test_a_host_without_a_name_must_be_given_one() -> None:
    with pytest.raises(NodeIdError, match="give --node-id"):
        of_host("")
