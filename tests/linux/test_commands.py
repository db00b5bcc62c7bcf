"""Programs that are run: their words, their end, and that they write to nothing but what they were given."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from provisioner.commands import CommandError, installed, path_for, run, started


def test_what_it_says_is_given() -> None:
    assert run(["sh", "-c", "echo out; echo err >&2"], deadline_s=10) == "out\nerr\n"


def test_a_failure_tells_status_and_words() -> None:
    with pytest.raises(CommandError, match="sh ended with status 3: so sorry") as failed:
        run(["sh", "-c", "echo so sorry; exit 3"], deadline_s=10)
    assert (failed.value.status, failed.value.output) == (3, "so sorry\n")
    assert run(["sh", "-c", "exit 3"], deadline_s=10, allowed=(0, 3)) == ""


def test_it_is_killed_at_its_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(CommandError, match="killed at its deadline"):
        run(["sh", "-c", "exec sleep 60"], deadline_s=0.2)
    assert time.monotonic() - began < 10


def test_it_runs_beside_its_block(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with started(["cat", str(fifo)]) as program:
        fifo.write_text("said meanwhile")
        assert program.end(deadline_s=10) == "said meanwhile"


def test_an_error_in_its_block_kills_it() -> None:
    with pytest.raises(FileNotFoundError), started(["sleep", "60"]) as program:
        os.stat("/nothing")
    assert program.process.returncode == -signal.SIGKILL


def test_it_gets_no_environment_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    os.environ["CSI_LOCAL_PATH_WORD"] = "secret"
    fd = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        assert "secret" not in run(["env"], deadline_s=10)
        assert str(tmp_path) not in run(["ls", "-l", "/proc/self/fd"], deadline_s=10)
    finally:
        os.close(fd)
        del os.environ["CSI_LOCAL_PATH_WORD"]


def test_a_file_is_the_program_s_own_whatever_becomes_of_our_number(tmp_path: Path) -> None:
    """A program that outlives our interest must not write into what took the number of its file."""
    (tmp_path / "bystander").write_text("untouched")
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT, 0o600)
    # It opens its file late, and goes on when we have given up.
    late = ["sh", "-c", f"(sleep 0.5; echo written > {path_for(fd)}) < /dev/null > /dev/null 2>&1 & exit 0"]
    run(late, deadline_s=10, pass_fds=(fd,))
    os.close(fd)
    taken = os.open(tmp_path / "bystander", os.O_RDONLY)
    try:
        assert taken == fd
        ends = time.monotonic() + 10
        while (tmp_path / "image").read_text() != "written\n":
            assert time.monotonic() < ends
            time.sleep(0.02)
        assert (tmp_path / "bystander").read_text() == "untouched"
    finally:
        os.close(taken)


def test_what_is_installed_is_known_without_a_path_in_the_environment() -> None:
    assert installed("mkfs.ext4")
    assert not installed("mkfs.nothing")
