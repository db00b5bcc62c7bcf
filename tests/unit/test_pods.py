"""Which volumes a pod has, and how much of them it may have."""

from __future__ import annotations

import pytest

from provisioner.errors import OverLimit
from provisioner.model import Ephemeral
from provisioner.pods import PodVolumes
from provisioner.records import SCHEMA, Record, decode, encode

POOL_ID = "0123456789abcdef"


def record(folder: str, uid: str = "pod", size: int = 10, *, ephemeral: bool = True) -> Record:
    return Record(
        schema=SCHEMA,
        volume_id=f"{POOL_ID}.{folder}",
        name=folder,
        capacity_bytes=size,
        backend="directory",
        enforce="besteffort",
        mode="0777",
        uid=0,
        gid=0,
        created_at="2026-01-01T00:00:00Z",
        ephemeral=Ephemeral(uid, f"default/{uid}", f"/pods/{uid}/mount") if ephemeral else None,
    )


def room(pods: PodVolumes, uid: str, most: int) -> int:
    """Find out what a pod may still have."""
    for size in range(most, 0, -1):
        try:
            with pods.making(uid, "probe", size, most):
                raise KeyError  # it is not made after all
        except OverLimit:
            continue
        except KeyError:
            return size
    return 0


def test_ordinary_volumes_are_none_of_its_business() -> None:
    pods = PodVolumes()
    pods.note(record("a", ephemeral=False))
    pods.forget("a")
    assert (len(pods), pods.all()) == (0, [])


def test_what_a_pod_has_is_counted_until_it_is_gone() -> None:
    pods = PodVolumes()
    pods.note(record("a", size=4))
    pods.note(record("b", size=3))
    pods.note(record("c", uid="other", size=9))
    assert (len(pods), room(pods, "pod", 12), room(pods, "other", 12)) == (3, 5, 3)
    pods.note(record("a", size=6))  # it grew
    assert room(pods, "pod", 12) == 3
    for folder in ("a", "b", "b"):
        pods.forget(folder)
    assert (room(pods, "pod", 12), [left.folder for left in pods.all()]) == (12, ["c"])


def test_what_is_being_made_counts_already_and_stays_where_it_was_made() -> None:
    pods = PodVolumes()
    with pods.making("pod", "a", 8, 12):
        with pytest.raises(OverLimit, match="has 8 already and a pod may have 12"), pods.making("pod", "b", 5, 12):
            pytest.fail("too much")
        pods.note(record("a", size=8))
    assert room(pods, "pod", 12) == 4


def test_a_failure_after_the_volume_was_made_keeps_it_counted() -> None:
    pods = PodVolumes()
    with pytest.raises(OSError, match="sync"), pods.making("pod", "a", 8, 12):  # noqa: PT012 - both belong to it
        pods.note(record("a", size=8))
        raise OSError("sync")
    assert room(pods, "pod", 12) == 4


def test_a_record_keeps_whose_it_is_and_an_older_one_has_nobody() -> None:
    ours = record("a")
    assert decode(encode(ours)) == ours
    ordinary = record("a", ephemeral=False)
    assert b"ephemeral" not in encode(ordinary)
    assert decode(encode(ordinary)).ephemeral is None
