"""The configuration file: what is taken, and the sentence for everything else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from csi.config import load_settings, parse, to_settings
from provisioner.settings import PoolSettings, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

POOL = {"name": "a", "path": "/a"}


def pool_with(**keys: Any) -> dict[str, Any]:
    return {"pools": [{**POOL, **keys}]}


def test_the_example_of_the_readme_is_taken() -> None:
    settings = to_settings(
        parse(
            "enforce: besteffort\n"
            "pools:\n"
            "  - {name: default, path: /var/lib/csi-local-path, init: if-empty, reserve: 5%, overcommit: 1.0}\n"
        )
    )
    pool = PoolSettings(name="default", path="/var/lib/csi-local-path", init="if-empty", reserve="5%", overcommit=1.0)
    assert settings.pools == [pool]


def test_keys_are_camel_case_and_whole_numbers_are_numbers() -> None:
    settings = to_settings(parse("lockWaitSeconds: 3\npools: [{name: a, path: /a, requireMount: yes, overcommit: 2}]"))
    assert (settings.lock_wait_seconds, settings.pools[0].require_mount, settings.pools[0].overcommit) == (3, True, 2)


def test_merged_mappings_are_taken() -> None:
    settings = to_settings(parse("pools: [&a {name: a, path: /a, reserve: 1Gi}, {<<: *a, name: b, path: /b}]"))
    assert [(pool.name, pool.reserve) for pool in settings.pools] == [("a", "1Gi"), ("b", "1Gi")]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (pool_with(overcommit="x"), "pools[0].overcommit: wanted a number > 0 and <= 1000, found 'x'"),
        (pool_with(overcommit=0), "pools[0].overcommit: wanted a number > 0 and <= 1000, found 0"),
        (pool_with(overcommit=float("nan")), "pools[0].overcommit: wanted a number > 0 and <= 1000, found nan"),
        (pool_with(init="yes"), "pools[0].init: wanted 'if-empty' or 'never', found 'yes'"),
        (pool_with(requireMount="yes"), "pools[0].requireMount: wanted true or false, found 'yes'"),
        (pool_with(path=3), "pools[0].path: wanted text, found 3"),
        (pool_with(path="pools"), "pools[0].path: wanted an absolute path, found 'pools'"),
        (pool_with(reserve="5x"), "pools[0].reserve: wanted a size such as '10Gi', '500M' or '1024', found '5x'"),
        (pool_with(require_mount=True), "pools[0].require_mount: unknown key; did you mean 'requireMount'?"),
        (pool_with(overcomit=1), "pools[0].overcomit: unknown key; did you mean 'overcommit'?"),
        ({"pools": [{"name": "a"}]}, "pools[0].path: wanted text, found nothing"),
        ({"pools": [POOL], "ephemeral": {"allow": "yes"}}, "ephemeral.allow: wanted true or false, found 'yes'"),
        ({"pools": [POOL], "ephemeral": {"maxSizePerPod": "x"}}, "ephemeral.maxSizePerPod: wanted a size such as"),
        ({"pools": [POOL], "ephemeral": {"maxSizePerVolume": 0}}, "ephemeral.maxSizePerVolume: wanted at least 1 byte"),
        ({"pools": [POOL], "ephemeral": {"maxSize": 1}}, "ephemeral.maxSize: unknown key; did you mean 'maxSizePer"),
        ({"pools": [3]}, "pools[0]: wanted a mapping with the keys name, path,"),
        ({"pools": []}, "pools: wanted a list of 1 or more, found none, and no 'nodes' that have any"),
        ({"pols": [POOL]}, "pols: unknown key; did you mean 'pools'?"),
        ({"zzzzzzzz": 1}, "zzzzzzzz: unknown key; known are pools, enforce,"),
        ({}, "pools: wanted a list of 1 or more, found none, and no 'nodes' that have any"),
        (None, "pools: wanted a list of pools, found an empty file"),
        ([], "the file: wanted a mapping with the keys pools,"),
        ("x" * 1000, "the file: wanted a mapping with the keys pools,"),
        ({"pools": [POOL], "targetRoots": ["/", 3]}, "targetRoots[1]: wanted text, found 3"),
        ({"pools": [POOL], "targetRoots": ["x"]}, "targetRoots[0]: wanted an absolute path, found 'x'"),
        ({"pools": [POOL], "lockWaitSeconds": -1}, "lockWaitSeconds: wanted a number >= 0, found -1"),
        ({"pools": [POOL], "nodeId": None}, "nodeId: wanted text, found nothing"),
        ({"pools": [POOL, POOL]}, "pools[1].name: 'a' is also pools[0].name"),
    ],
)
def test_a_wrong_key_is_named_with_what_was_wanted_and_found(raw: object, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        to_settings(raw)
    assert str(caught.value).startswith(sentence)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(SettingsError) as caught:
        to_settings(pool_with(name="x" * 100_000))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: b: c", "line 1, column 5: mapping values are not allowed"),
        ("pools: [\n", "line 2, column 1: did not find expected node content"),
        ("pools: 1\npools: 2", "line 2, column 1: the key 'pools' stands twice, first in line 1"),
        ("pools: [{path: /a,\n  path: /b}]", "line 2, column 3: the key 'path' stands twice, first in line 1"),
        ("yes: 1", "line 1, column 1: wanted text as a key, found True"),
        ("1: 2", "line 1, column 1: wanted text as a key, found 1"),
        ("? {a: b}\n: c", "line 1, column 3: wanted text as a key, found {'a': 'b'}"),
        ("a: *b", "line 1, column 4: found undefined alias"),
        ("a: !!python/object/apply:os.getcwd []", "line 1, column 4: could not determine a constructor"),
        ("\0", "wanted YAML, found "),
    ],
)
def test_what_is_no_good_yaml_is_found_by_line_and_column(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_file_is_named_in_each_message(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(pool_with(overcommit="x")))
    with pytest.raises(SettingsError, match=rf"^pools\[0\].overcommit: .* \(in {path}\)$"):
        load_settings(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "the configuration cannot be read: No such file or directory"),
        (b"", "pools: wanted a list of pools, found an empty file"),
        (b"a: \xff", "wanted UTF-8, found byte 0xff at 3"),
        (b"#" * (2**20 + 1), "wanted a configuration of at most 1048576 bytes, found more"),
    ],
)
def test_a_file_that_cannot_be_one_is_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(sentence)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)
