"""The parameters of a class: parsed, or refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import InvalidRequest
from provisioner.parameters import METADATA_PREFIX, ClassParameters, claim_of, parse

KNOWN = {"pool", "enforce", "backend", "fsType", "thin", "inodes", "mode", "uid", "gid"}
DIGIT = "\N{ARABIC-INDIC DIGIT ZERO}"


def test_nothing_given_is_the_safe_default() -> None:
    assert parse({}) == ClassParameters(
        pool="", enforce="", backend="auto", fs_type="", thin=False, inodes=0, mode=0o770, uid=0, gid=0
    )


@given(st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
def test_mode_and_owner_are_taken_as_written(mode: int, uid: int, gid: int) -> None:
    given_so = {"mode": f"{mode:04o}", "uid": str(uid), "gid": str(gid), "enforce": "besteffort", "pool": "fast"}
    assert parse(given_so) == ClassParameters("fast", "besteffort", mode=mode, uid=uid, gid=gid)
    if mode <= 0o777:
        assert parse({"mode": f"{mode:03o}"}).mode == mode


@given(st.dictionaries(st.text().map(lambda key: METADATA_PREFIX + key), st.text()))
def test_what_the_orchestrator_adds_is_ignored(metadata: dict[str, str]) -> None:
    assert parse(metadata) == ClassParameters()


@given(st.text().filter(lambda key: key not in KNOWN and not key.startswith(METADATA_PREFIX)))
def test_an_unknown_parameter_is_named_with_those_that_are_known(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({key: "x"})
    assert repr(key) in str(caught.value)
    assert all(known in str(caught.value) for known in KNOWN)


@pytest.mark.parametrize(
    ("typo", "meant"), [("Mode", "mode"), ("moed", "mode"), ("UID", "uid"), ("pools", "pool"), ("enforced", "enforce")]
)
def test_a_typo_names_the_nearest_known_one(typo: str, meant: str) -> None:
    with pytest.raises(InvalidRequest, match=f"did you mean '{meant}'"):
        parse({typo: "x"})


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("mode", ["", "8", "77", "888", "07777", "0o770", "rwxrwx---", "-770", " 770", "770\n", f"77{DIGIT}"]),
        ("uid", ["", "-1", "root", "1.0", str(2**32 - 1), "9" * 11, "1\n", " 1", DIGIT]),
        ("gid", ["", "-1", str(2**32), "0x10"]),
        ("enforce", ["", "Required", "BestEffort", "besteffort "]),
        ("thin", ["", "True", "1", "no"]),
        ("inodes", ["", "0", "-1", "1e3", str(2**32)]),
        ("fsType", ["", "Ext4", "ext4,ro", "../x"]),
        ("backend", ["", "Auto", "zfs", "directory\n"]),
        ("pool", ["", "Fast", "../etc", "fast\n", "-", "a" * 64]),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_wanted_and_found(key: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(InvalidRequest, match=rf"parameter '{key}': wanted .*, found ") as caught:
            parse({key: text})
        assert repr(text) in str(caught.value)


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)) | st.text(max_size=8), st.text(max_size=12)))
def test_no_parameters_bring_another_error(parameters: dict[str, str]) -> None:
    try:
        found = parse(parameters)
    except InvalidRequest:
        return
    assert 0 <= found.mode <= 0o7777
    assert max(found.uid, found.gid) < 2**32 - 1


def test_the_claim_is_told_where_both_parts_are() -> None:
    namespace, name = {f"{METADATA_PREFIX}pvc/namespace": "shop"}, {f"{METADATA_PREFIX}pvc/name": "data"}
    assert claim_of(namespace | name) == "shop/data"
    assert claim_of(namespace) == claim_of(name) == claim_of({}) == ""
