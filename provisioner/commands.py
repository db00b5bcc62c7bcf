"""The one place where programs are run: those that make and check filesystems, for which there is no system call."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence

# Where they lie, whatever the environment says; an image of a driver may have no PATH at all.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class CommandError(Exception):
    """A program failed. status: its exit status, negative for a signal, None where it was killed at its deadline."""

    def __init__(self, argv: Sequence[str], status: int | None, output: str) -> None:
        self.argv = tuple(argv)
        self.status = status
        self.output = output
        ended = "was killed at its deadline" if status is None else f"ended with status {status}"
        super().__init__(f"{argv[0]} {ended}: {output.strip() or 'it said nothing'}")


def installed(program: str) -> bool:
    """Tell whether a program is there."""
    return shutil.which(program, path=_PATH) is not None


def run(argv: Sequence[str], *, deadline_s: float, allowed: Collection[int] = (0,), stdin: str = "") -> str:
    """Run a program and give what it said on both outputs; CommandError where its status is not `allowed`.

    It gets no descriptor and no environment of ours, and is killed at its deadline.
    """
    environment = {"PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            timeout=deadline_s,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, None, os.fsdecode(error.output or b"")) from error
    if done.returncode not in allowed:
        raise CommandError(argv, done.returncode, done.stdout)
    return done.stdout
