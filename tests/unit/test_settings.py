"""What an administrator may say, and the sentence that a wrong key gets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.settings import PoolSettings, Settings, SettingsError, check

GIB = 2**30


def pool(**keys: Any) -> dict[str, Any]:
    return {"name": "default", "path": "/pool"} | keys


def settings(*pools: dict[str, Any], **keys: Any) -> Settings:
    return msgspec.convert({"pools": list(pools) or [pool()]} | keys, Settings)


def test_the_defaults_are_the_careful_ones() -> None:
    found = settings()
    check(found)
    (only,) = found.pools
    assert only == PoolSettings(name="default", path="/pool", init="never", require_mount=False)
    assert (only.reserve, only.overcommit, only.default_size_bytes) == ("5%", 1.0, GIB)
    assert not found.ephemeral.allow
    assert found.target_roots == ["/var/lib/kubelet"]
    assert (found.enforce, found.node_id, found.lock_wait_seconds) == ("required", "", 10.0)


def test_the_example_of_the_readme_is_good() -> None:
    found = settings(
        pool(path="/var/lib/csi-local-path", init="if-empty", reserve="5%", overcommit=1.0), enforce="besteffort"
    )
    check(found)
    assert found.pools[0].reserve_bytes(100 * GIB) == 5 * GIB


def test_keys_are_camel_case() -> None:
    found = settings(
        pool(requireMount=True, defaultSize="2Gi"),
        nodeId="n",
        targetRoots=["/t"],
        lockWaitSeconds=0,
        measureIntervalSeconds=1,
    )
    assert found.pools[0].require_mount
    assert found.pools[0].default_size_bytes == 2 * GIB
    assert (found.node_id, found.target_roots) == ("n", ["/t"])


@pytest.mark.parametrize(
    "keys",
    [
        {"name": "Upper"},
        {"name": ""},
        {"name": "a" * 64},
        {"name": "a\n"},
        {"name": "-a"},
        {"init": "always"},
        {"requireMount": "yes"},
        {"require_mount": True},
        {"overcommit": 0},
        {"overcommit": -1},
        {"overcommit": 1001},
        {"overcommit": float("nan")},
        {"overcommit": float("inf")},
        {"enforce": "always"},
        {"quota": "on"},
        {"colour": "blue"},
        {"path": None},
    ],
)
def test_types_refuse_what_they_can(keys: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        settings(pool(**keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"pools": []},
        {"lockWaitSeconds": -1},
        {"measureIntervalSeconds": 0},
        {"measureIntervalSeconds": float("nan")},
        {"enforce": "always"},
        {"targetRoots": "/var/lib/kubelet"},
    ],
)
def test_types_refuse_what_they_can_of_the_whole(keys: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"pools": [pool()]} | keys, Settings)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (settings(pool(path="var/lib")), "pools[0].path: wanted an absolute path, found 'var/lib'"),
        (settings(pool(path="")), "pools[0].path: wanted an absolute path"),
        (settings(pool(path="/a\0b")), "pools[0].path: wanted an absolute path"),
        (settings(targetRoots=["/a", "b"]), "targetRoots[1]: wanted an absolute path, found 'b'"),
        (settings(pool(reserve="five")), "pools[0].reserve: wanted a size"),
        (settings(pool(reserve="101%")), "pools[0].reserve: wanted a share of at most 100%"),
        (settings(pool(reserve=-1)), "pools[0].reserve: wanted a size"),
        (settings(pool(defaultSize="0")), "pools[0].defaultSize: wanted at least 1 byte"),
        (settings(pool(defaultSize="5%")), "pools[0].defaultSize: wanted a size"),
        (settings(pool(defaultSize="9" * 5000 + ".5")), "pools[0].defaultSize: "),
        (settings(pool(), pool(path="/other")), "pools[1].name: 'default' is also pools[0].name"),
        (settings(pool(), pool(name="b")), "pools[1].path: '/pool' is also pools[0].path"),
        (settings(pool(), pool(name="b", path="/x/../pool/")), "pools[1].path: '/pool' is also pools[0].path"),
        (settings(pool(), pool(name="b", path="//pool")), "pools[1].path: '/pool' is also pools[0].path"),
    ],
)
def test_check_names_the_key(found: Settings, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check(found)
    assert str(caught.value).startswith(said)


def test_several_pools_need_names_and_paths_of_their_own() -> None:
    check(settings(pool(), pool(name="pool", path="/default")))  # a name is no path


@given(st.integers(0, 100), st.integers(0, 2**60))
def test_a_reserve_may_be_a_share_or_a_size(percent: int, size: int) -> None:
    share = settings(pool(reserve=f"{percent}%")).pools[0]
    assert share.reserve_bytes(1000) == percent * 10
    for reserve in (size, str(size)):
        fixed = settings(pool(reserve=reserve))
        check(fixed)
        assert fixed.pools[0].reserve_bytes(1000) == size
