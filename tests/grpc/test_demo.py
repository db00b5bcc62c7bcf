"""The demo: it shows everything, says what is wrong where something is, and leaves nothing in any case."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from csi.cli import main
from csi.cli.demo_story import mounts_below
from tests.support.filesystems import tmpfs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "csi.cli", "demo"]


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the folder that the demo's temporary files go to; nothing may be left there."""
    # A short one, for a socket goes there.
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    yield folder
    assert os.listdir(folder) == []
    assert mounts_below(tmp_path) == []


def run_demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *options], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_it_shows_the_whole_life_and_ends_well(temp: Path) -> None:
    done = run_demo()
    assert done.returncode == 0, done.stderr
    for words in (
        "Probe says ready",
        "the same volume",
        "refused: Read-only file system",
        "refused: FAILED_PRECONDITION",
        "refused: RESOURCE_EXHAUSTED",
        "8 MiB used of 64 MiB",
        "A size that holds",
        "held by: ",
        "pod 3, which kept trying, goes on",
        "all erased",
        "exit status 0",
        "Nothing is mounted, and nothing is left.",
    ):
        assert words in done.stdout
    assert re.search(r"pod 3 writes until it is refused +\d\S+ [KM]iB, then: (No space left|Disk quota)", done.stdout)
    assert re.search(r"goes on +\d\S+ [KM]iB written", done.stdout)
    assert str(temp) in done.stdout


@pytest.mark.usefixtures("temp")
def test_it_takes_place_on_the_disk_of_choice(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with tmpfs(disk, 2**30):
        done = run_demo("--path", str(disk))
        assert done.returncode == 0, done.stderr
        assert f"its pool in {disk}/" in done.stdout
        assert os.listdir(disk) == []


@pytest.mark.usefixtures("temp")
def test_a_step_that_goes_wrong_ends_it_with_a_sentence(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with tmpfs(disk, 32 * 2**20):
        done = run_demo("--path", str(disk))
        assert done.returncode == 1
        assert "the demo ended early: CreateVolume pvc-demo, 64 MiB: wanted OK, found RESOURCE_EXHAUSTED" in done.stderr
        assert "The server's last lines:" in done.stderr
        assert os.listdir(disk) == []


@pytest.mark.usefixtures("temp")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["A server at", "start the server", "for pod 2, read-only", "kill -9 the server"])
def test_ended_from_outside_it_leaves_nothing(step: str, number: signal.Signals) -> None:
    with subprocess.Popen(DEMO, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if step in line:
                process.send_signal(number)
                break
        rest = process.stdout.read()
    assert "Aborted!" in rest
    assert process.returncode == 1


def test_it_needs_root_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(main, ["demo"])
    assert done.exit_code == 1
    assert "which needs root" in done.stderr


def test_it_wants_a_directory(tmp_path: Path) -> None:
    done = run_demo("--path", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "wanted a directory" in done.stderr
