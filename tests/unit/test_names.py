"""Names, folders and ids: one to one, safe on disk, and short enough."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioner.errors import VolumeNotFound
from provisioner.names import (
    VolumeId,
    folder_for,
    identify,
    is_folder,
    is_pool_id,
    new_pool_id,
    parse_volume_id,
)

CSI_NAME_BYTES = 128
CSI_ID_BYTES = 128
POOL = "0123456789abcdef"

names = st.text(min_size=1, max_size=CSI_NAME_BYTES).filter(lambda name: len(name.encode()) <= CSI_NAME_BYTES)
plain_names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,95}", fullmatch=True)
near_plain_names = st.text(alphabet=string.ascii_letters + string.digits + "._-/ \n", min_size=1, max_size=100)
any_names = names | plain_names | near_plain_names | st.from_regex(r"_[0-9a-f]{64}", fullmatch=True)


@given(any_names)
@example("..")
@example(".")
@example("a\n")
@example("x" * CSI_NAME_BYTES)
@example("\N{SNOWMAN}" * 42)
@example("\ud800")
def test_every_name_has_a_folder_that_is_safe_and_an_id_that_fits(name: str) -> None:
    folder = folder_for(name)
    assert is_folder(folder)
    assert set(folder) <= set(string.ascii_lowercase + string.digits + "._-")
    assert folder not in {"", ".", ".."}
    assert folder[0] not in ".-"
    # A trash entry adds a time and a number, and a hint a digest: names of files end at 255 bytes.
    assert len(folder) <= 200
    volume_id = str(VolumeId(POOL, folder))
    assert len(volume_id.encode()) <= 113 <= CSI_ID_BYTES
    assert parse_volume_id(volume_id) == identify(volume_id) == VolumeId(POOL, folder)


@given(any_names, any_names)
@example("a", "A")
@example("a", "a ")
@example("a", "a\n")
@example("x" * 97, "x" * 98)
def test_no_two_names_share_a_folder(one: str, other: str) -> None:
    assert (folder_for(one) == folder_for(other)) == (one == other)


@given(any_names)
def test_no_name_takes_the_folder_of_anothers_digest(name: str) -> None:
    """A digest begins with an underscore; a name that does so too becomes a digest itself."""
    digest = folder_for(f"{name}/")
    assert digest[0] == "_"
    assert folder_for(digest) not in {digest, folder_for(name)}


@given(any_names, any_names)
def test_folders_differ_also_where_the_filesystem_folds_case(one: str, other: str) -> None:
    assert folder_for(one) == folder_for(one).lower()
    assert (folder_for(one).lower() == folder_for(other).lower()) == (one == other)


@given(plain_names)
def test_a_plain_name_is_its_own_folder(name: str) -> None:
    assert folder_for(name) == name


@given(st.text(max_size=140) | st.from_regex(rf"{POOL}.\.?[a-z_0-9.\-]+", fullmatch=True))
def test_what_parses_is_written_the_same_again(text: str) -> None:
    parsed = parse_volume_id(text)
    if parsed is None:
        with pytest.raises(VolumeNotFound, match="no id of this driver"):
            identify(text)
        return
    assert str(parsed) == text
    assert is_pool_id(parsed.pool_id)
    assert is_folder(parsed.folder)


@pytest.mark.parametrize(
    "never_ours",
    [
        "",
        ".",
        POOL,
        f"{POOL}.",
        f"{POOL}..",
        f"{POOL}...",
        f"{POOL}./etc",
        f"{POOL}.a/b",
        f"{POOL}.a\n",
        f"{POOL}\n.a",
        f"{POOL}.A",
        f"{POOL}.{'x' * 97}",
        f"{POOL}._{'0' * 63}",
        f"{POOL}._{'g' * 64}",
        f"{POOL.upper()}.a",
        f"{POOL[:-1]}.a",
        f"{POOL}0.a",
        "\N{ARABIC-INDIC DIGIT ONE}" * 16 + ".a",
    ],
)
def test_an_id_that_was_never_ours_does_not_parse(never_ours: str) -> None:
    assert parse_volume_id(never_ours) is None


def test_pool_ids_have_their_form_and_differ() -> None:
    ids = {new_pool_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(map(is_pool_id, ids))
