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


def path_for(fd: int) -> str:
    """Name a descriptor of `pass_fds` to the program that gets it."""
    return f"/proc/self/fd/{fd}"


def installed(program: str) -> bool:
    """Tell whether a program is there."""
    return shutil.which(program, path=_PATH) is not None


def run(
    argv: Sequence[str], *, deadline_s: float, allowed: Collection[int] = (0,), pass_fds: Sequence[int] = ()
) -> str:
    """Run a program and give what it said on both outputs; CommandError where its status is not `allowed`.

    It gets no environment of ours and no descriptors but `pass_fds`, and is killed at its deadline. A file that is
    open here is named to it by `path_for`, never by this process's own /proc/PID/fd: should we go on without it, by an
    error or a kill, the number would soon be another file's, and the program would write into that one.
    """
    environment = {"PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
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
