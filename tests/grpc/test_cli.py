"""What people run: volumes and pools, beside a server and without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from csi.cli.sizes import human_age, human_size
from csi.pb import csi_pb2
from tests.support.served import Served, one_pool, served

ROOT = Path(__file__).parents[2]
CAPABILITY = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)
CLAIM = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "shop"}


def run(*arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program."""
    argv = [sys.executable, "-m", "csi.cli", *arguments]
    return subprocess.run(argv, cwd=ROOT, input=answer, capture_output=True, text=True, timeout=60, check=False)


def read_json(*arguments: str) -> list[dict[str, Any]]:
    """Run a command that answers in JSON."""
    done = run(*arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def create(server: Served, name: str, size_bytes: int = 2**20, **parameters: str) -> str:
    """Create a volume and give its id."""
    request = csi_pb2.CreateVolumeRequest(
        name=name,
        capacity_range=csi_pb2.CapacityRange(required_bytes=size_bytes),
        volume_capabilities=[CAPABILITY],
        parameters=parameters,
    )
    return server.controller.CreateVolume(request, timeout=10).volume.volume_id


def config_of(tmp: Path) -> tuple[str, str]:
    """Give --config of the server whose files lie in `tmp`."""
    return "--config", str(tmp / "config.yaml")


def snapshot(pool: Path) -> dict[str, tuple[int, int]]:
    """Tell of each file below `pool` when it and its content were changed."""
    found = [pool, *pool.rglob("*")]
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in found}


def test_volumes_are_shown_with_their_claims_and_sizes(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        volume_id = create(server, "pvc-1", 3 * 2**20, **CLAIM)
        table = run("volumes", *config_of(tmp_path))
        (volume,) = read_json("volumes", *config_of(tmp_path))
    heading, row = table.stdout.splitlines()
    assert heading.split("  ")[0] == "VOLUME ID"
    assert row.split()[:6] == [volume_id, "pvc-1", "shop/data", "default", "3", "MiB"]
    assert row.split()[-1] == "ok"
    expected = {"pool": "default", "volume_id": volume_id, "name": "pvc-1", "claim": "shop/data", "state": "ok"}
    assert expected.items() <= volume.items()
    assert volume["capacity_bytes"] == 3 * 2**20


def test_a_broken_record_shows_as_quarantined_beside_the_others(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        create(server, "pvc-1")
        create(server, "pvc-2")
    (tmp_path / "pool/.csi-local-path/volumes/pvc-1/volume.json").write_text("{")
    states = {volume["volume_id"].partition(".")[2]: volume for volume in read_json("volumes", *config_of(tmp_path))}
    assert states["pvc-1"]["state"] == "quarantined"
    assert states["pvc-1"]["reason"]
    assert states["pvc-2"]["state"] == "ok"
    assert f"quarantined: {states['pvc-1']['reason'][:10]}" in run("volumes", *config_of(tmp_path)).stdout


def test_what_lies_in_the_trash_is_shown_until_it_is_erased(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        volume_id = create(server, "pvc-1")
    control = tmp_path / "pool/.csi-local-path"
    (control / "volumes/pvc-1").rename(control / "trash/pvc-1.20260101T000000Z-1")
    (volume,) = read_json("volumes", *config_of(tmp_path))
    assert (volume["volume_id"], volume["state"]) == (volume_id, "trash")
    (pool,) = read_json("pools", *config_of(tmp_path))
    assert (pool["trash_bytes"], pool["promised_bytes"]) == (2**20, 0)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        create(server, "pvc-1")
    (tmp_path / "pool/.csi-local-path/staging/half-built").mkdir()
    before = snapshot(tmp_path / "pool")
    assert run("volumes", *config_of(tmp_path)).returncode == 0
    assert run("pools", *config_of(tmp_path)).returncode == 0
    assert snapshot(tmp_path / "pool") == before


def test_pools_are_shown_with_their_owner_while_served(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        create(server, "pvc-1")
        (pool,) = read_json("pools", *config_of(tmp_path))
        table = run("pools", *config_of(tmp_path)).stdout
        pid = server.process.pid
    assert (pool["state"], pool["promised_bytes"]) == ("served", 2**20)
    assert f"process {pid}" in pool["owner"]
    assert pool["size_bytes"] >= pool["free_bytes"] >= pool["promisable_bytes"] > 0
    assert {pool["pool_id"], "served", "default", str(tmp_path / "pool")} <= set(table.split())
    (pool,) = read_json("pools", *config_of(tmp_path))
    assert (pool["state"], pool["owner"]) == ("idle", "")


def test_a_pool_that_is_not_there_is_shown_with_the_reason(tmp_path: Path) -> None:
    config = one_pool(tmp_path)
    with served(config, tmp_path) as server:
        create(server, "pvc-1")
        server.configure({**config, "pools": [*config["pools"], {"name": "gone", "path": str(tmp_path / "gone")}]})
    here, gone = read_json("pools", *config_of(tmp_path))
    assert (here["state"], gone["state"]) == ("idle", "unavailable")
    assert str(tmp_path / "gone") in gone["reason"]
    done = run("volumes", *config_of(tmp_path))
    assert done.returncode == 1
    assert "pvc-1" in done.stdout
    assert "Not shown: pool 'gone'" in done.stderr


def read_manifests(*arguments: str) -> list[dict[str, Any]]:
    """Run `manifests` where it must succeed in silence."""
    done = run("manifests", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def test_manifests_are_printed_for_a_new_cluster(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        first = create(server, "pvc-1", 3 * 2**20, **CLAIM)
        create(server, "pvc-2", 2**20, **CLAIM | {"csi.storage.k8s.io/pvc/name": "logs"})
        printed = read_manifests(*config_of(tmp_path), "--node-id", "node-7", "--storage-class", "local", "--claims")
    before = snapshot(tmp_path / "pool")
    volume, claim, *others = printed
    assert [(doc["kind"], doc["metadata"]["name"]) for doc in printed] == [
        ("PersistentVolume", "pvc-1"),
        ("PersistentVolumeClaim", "data"),
        ("PersistentVolume", "pvc-2"),
        ("PersistentVolumeClaim", "logs"),
    ]
    assert volume["spec"]["csi"]["volumeHandle"] == first
    assert volume["spec"]["storageClassName"] == claim["spec"]["storageClassName"] == "local"
    assert "node-7" in str(volume["spec"]["nodeAffinity"])
    again = read_manifests(*config_of(tmp_path), "--node-id", "node-7", "--storage-class", "local")
    assert again == [volume, others[0]], "without a server, and without claims"
    assert snapshot(tmp_path / "pool") == before


def test_what_no_manifest_can_stand_for_is_told(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        create(server, "broken", 2**20, **CLAIM)
        create(server, "claimless")
        odd = create(server, "Name: [of] another orchestrator", 2**20, **CLAIM)
    control = tmp_path / "pool/.csi-local-path"
    (control / "volumes/broken/volume.json").write_text("{")
    done = run("manifests", *config_of(tmp_path))
    assert done.returncode == 0
    (volume,) = yaml.safe_load_all(done.stdout)
    assert (volume["metadata"]["name"], "claimRef" in volume["spec"]) == ("claimless", False)
    told = sorted(line.partition(":")[0] for line in done.stderr.splitlines())
    assert told == ["Left out", "Left out", "No claimRef"]
    assert odd in done.stderr


def test_manifests_need_a_pool_that_is_there_and_a_node_that_can_be(tmp_path: Path) -> None:
    config = one_pool(tmp_path)
    with served(config, tmp_path) as server:
        create(server, "pvc-1", 2**20, **CLAIM)
        server.configure({**config, "pools": [*config["pools"], {"name": "gone", "path": str(tmp_path / "gone")}]})
    done = run("manifests", *config_of(tmp_path))
    assert (done.returncode, "pvc-1" in done.stdout, "Left out: pool 'gone'" in done.stderr) == (1, True, True)
    assert run("manifests", *config_of(tmp_path), "--pool", "default").returncode == 0
    wrong = run("manifests", *config_of(tmp_path), "--pool", "other")
    assert (wrong.returncode, "wanted one of default, gone, found 'other'" in wrong.stderr) == (2, True)
    nameless = run("manifests", *config_of(tmp_path), "--node-id", "no good")
    assert (nameless.returncode, "nodeId: wanted" in nameless.stderr) == (2, True)


def test_names_cannot_paint_the_terminal(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        create(server, "pvc-1")
    path = tmp_path / "pool/.csi-local-path/volumes/pvc-1/volume.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"claim": "[bold]shop/\x1b[2J"}))
    table = run("volumes", *config_of(tmp_path)).stdout
    assert "[bold]shop/\\x1b[2J" in table


def test_a_wrong_configuration_is_a_sentence_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("pools: 1")
    for command in ("volumes", "pools"):
        done = run(command, *config_of(tmp_path))
        assert done.returncode == 2
        assert done.stderr.startswith("Error: pools: wanted a list")


def test_init_makes_a_pool_once(tmp_path: Path) -> None:
    with served(one_pool(tmp_path, init="never"), tmp_path, start=False) as server:
        made = run("pools", "init", str(tmp_path / "pool"))
        assert made.returncode == 0
        (pool,) = read_json("pools", *config_of(tmp_path))
        assert made.stdout == f"{tmp_path / 'pool'} is now the pool {pool['pool_id']}\n"
        server.start()
        assert create(server, "pvc-1") == f"{pool['pool_id']}.pvc-1"
    again = run("pools", "init", str(tmp_path / "pool"))
    assert again.returncode == 1
    assert "nothing was changed" in again.stderr
    assert read_json("pools", *config_of(tmp_path))[0]["pool_id"] == pool["pool_id"]


def test_init_wants_a_directory(tmp_path: Path) -> None:
    done = run("pools", "init", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "wanted a directory" in done.stderr


def delete(server: Served, volume_id: str) -> None:
    server.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume_id), timeout=10)


@pytest.fixture
def lost_volume(tmp_path: Path) -> tuple[dict[str, Any], str]:
    """Give a configuration of two pools, the second of which was lost with the volume whose id is given."""
    config = one_pool(tmp_path)
    (tmp_path / "lost").mkdir()
    lost = {"name": "lost", "path": str(tmp_path / "lost"), "init": "if-empty"}
    with served({**config, "pools": [*config["pools"], lost]}, tmp_path) as server:
        volume_id = create(server, "pvc-1", pool="lost")
    shutil.rmtree(tmp_path / "lost")
    return {**config, "pools": [*config["pools"], lost]}, volume_id


def test_volumes_of_a_retired_pool_can_be_deleted(tmp_path: Path, lost_volume: tuple[dict[str, Any], str]) -> None:
    config, volume_id = lost_volume
    pool_id = volume_id.partition(".")[0]
    with served(config, tmp_path) as server:
        with pytest.raises(Exception, match="UNAVAILABLE"):
            delete(server, volume_id)
        done = run("pools", "retire", pool_id, *config_of(tmp_path), answer="y\n")
        assert done.returncode == 0, done.stderr
        assert f"noted in {tmp_path / 'pool'}: {pool_id} is retired" in done.stdout
        delete(server, volume_id)


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_retire_asks_first(tmp_path: Path, lost_volume: tuple[dict[str, Any], str], answer: str) -> None:
    pool_id = lost_volume[1].partition(".")[0]
    done = run("pools", "retire", pool_id, *config_of(tmp_path), answer=answer)
    assert done.returncode == 1
    assert os.listdir(tmp_path / "pool/.csi-local-path/retired") == []


def test_a_pool_that_is_here_cannot_be_retired(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path):
        (pool,) = read_json("pools", *config_of(tmp_path))
    done = run("pools", "retire", "--yes", pool["pool_id"], *config_of(tmp_path))
    assert done.returncode == 1
    assert "only one that is lost can be retired" in done.stderr


def test_retire_wants_an_id_and_a_pool_to_note_it_in(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path, start=False):
        wrong = run("pools", "retire", "--yes", "../../x", *config_of(tmp_path))
        nowhere = run("pools", "retire", "--yes", "0" * 16, *config_of(tmp_path))
    assert (wrong.returncode, nowhere.returncode) == (2, 1)
    assert "wanted a pool's id" in wrong.stderr
    assert "no pool of the configuration can be read" in nowhere.stderr


def test_help_and_version_name_all_commands() -> None:
    assert all(word in run("--help").stdout for word in ("serve", "demo", "volumes", "pools"))
    assert run("--version").stdout.startswith("csi-local-path ")
    assert run("volume").returncode == 2


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**30, "1 GiB"),
        (2**70, "1024 EiB"),
    ],
)
def test_sizes_are_iec(size_bytes: int | None, text: str) -> None:
    assert human_size(size_bytes) == text


@pytest.mark.parametrize(
    ("since", "text"),
    [
        (None, "-"),
        ("", "-"),
        ("yesterday", "-"),
        (1_000_000.0, "0s"),
        (999_941.0, "59s"),
        (1_000_060.0, "0s"),
        (996_400.0, "1h"),
        (0.5, "11d"),
        ("1970-01-12T13:45:40Z", "1m"),
    ],
)
def test_ages_have_one_unit(since: float | str | None, text: str) -> None:
    assert human_age(since, 1_000_000.0) == text
    assert human_age(time.time()) == "0s"
