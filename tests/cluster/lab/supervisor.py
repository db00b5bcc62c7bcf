"""The first process of a place: it starts programs, starts them again when they end, and reaps what is orphaned.

Files are its only interface: `running/PLACE-PROGRAM` is there while a program runs, and one that a person or a
test makes in `held/` ends the program and keeps it down until it is removed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import FOLDER, LOGS, PROGRAMS

_PAUSE_S = 0.1
_REST_S = 1.0  # before a program that ended is started again


def _at_once() -> bool:
    return True


@dataclass(frozen=True)
class Program:
    """A program of a place. after: it is started when this is so."""

    name: str
    argv: list[str]
    after: Callable[[], bool] = _at_once


def is_up(place: str, name: str) -> bool:
    """Tell whether a program of a place runs."""
    return _flag("running", place, name).exists()


def hold(place: str, name: str) -> None:
    """End a program and keep it down."""
    _flag("held", place, name).touch()
    wait_until(lambda: not is_up(place, name), f"{name} of {place} is down")


def release(place: str, name: str) -> None:
    """Let a program run again."""
    _flag("held", place, name).unlink(missing_ok=True)
    wait_until(lambda: is_up(place, name), f"{name} of {place} runs")


class Supervisor:
    """Keeps the programs of one place running."""

    def __init__(self, place: str, programs: Sequence[Program]) -> None:
        self._place = place
        self._programs = programs
        self._running: dict[int, Program] = {}
        self._not_before: dict[str, float] = {}

    def run(self) -> NoReturn:
        """Do so until killed."""
        for program in self._programs:
            self._flag("running", program).unlink(missing_ok=True)
        while True:
            self._reap()
            for pid, program in self._running.items():
                if self._flag("held", program).exists():
                    os.kill(pid, signal.SIGKILL)
            for program in self._programs:
                if self._may_start(program):
                    self._start(program)
            time.sleep(_PAUSE_S)

    def _may_start(self, program: Program) -> bool:
        return (
            program not in self._running.values()
            and not self._flag("held", program).exists()
            and time.monotonic() >= self._not_before.get(program.name, 0)
            and program.after()
        )

    def _start(self, program: Program) -> None:
        log = str(LOGS / f"{self._place}-{program.name}.log")
        to_log = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        pid = os.posix_spawn(
            program.argv[0],
            program.argv,
            {**os.environ, "PATH": f"{PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin"},
            file_actions=[to_log, (os.POSIX_SPAWN_DUP2, 1, 2)],
        )
        self._running[pid] = program
        self._flag("running", program).touch()

    def _reap(self) -> None:
        while self._running or self._not_before:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            program = self._running.pop(pid, None)
            if program is not None:
                print(f"{program.name} ended: {os.waitstatus_to_exitcode(status)}", flush=True)
                self._not_before[program.name] = time.monotonic() + _REST_S
                self._flag("running", program).unlink(missing_ok=True)

    def _flag(self, kind: str, program: Program) -> Path:
        return _flag(kind, self._place, program.name)


def _flag(kind: str, place: str, name: str) -> Path:
    return FOLDER / kind / f"{place}-{name}"
