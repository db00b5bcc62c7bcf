"""Performs one operation at a time, each in a process of its own, for a tracer to disturb.

Run as `python -m tests.chaos.operation` in a mount namespace of its own. A line of JSON on standard
input asks for something, lines of JSON on standard output tell how it went (`tests.chaos.lane` is the
other end). Everything is imported once and each process is forked from here, so a point of the matrix
costs milliseconds. This process has a single thread, which makes fork(2) safe.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.scenarios import LIMITED, SCENARIOS
from tests.chaos.seccomp import deny
from tests.chaos.toys import TOYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.scenario import Operation, Scenario

    Action = Callable[[Scenario, dict[str, Any]], None]


def begin_mark() -> None:
    """Show the tracer where the operation begins, by a system call that nothing else makes."""
    os.sched_get_priority_max(os.SCHED_FIFO)


def end_mark() -> None:
    """Show the tracer where the operation ends."""
    os.sched_get_priority_max(os.SCHED_RR)


def tell(**facts: Any) -> None:
    """Write one line to the other end; straight to the descriptor, for a kill may come any moment."""
    os.write(sys.__stdout__.fileno(), json.dumps(facts).encode() + b"\n")  # type: ignore[union-attr]  # None only without a console


def _perform(scenario: Scenario, request: dict[str, Any]) -> None:
    """Prepare, wait for the tracer, do the operation between the marks; retry it where it was refused."""
    operation = scenario.prepare(Path(request["place"]))
    tell(ready=os.getpid())
    signal.sigwait({signal.SIGUSR1})
    if "deny" in request:
        deny(request["deny"], request["error"])
    begin_mark()
    try:
        answer = operation()
    except BaseException as error:  # noqa: BLE001 - told to the judge, whatever it is
        end_mark()
        tell(refused=_lineage(error), message=str(error), trace=traceback.format_exc())
        if request.get("fault_stays"):
            tell(refused_meanwhile=_refusal(operation))
            signal.sigwait({signal.SIGUSR1})  # the tracer has gone
        _retry(operation)
    else:
        end_mark()
        tell(acknowledged=answer)
        operation.agree()


def _refusal(operation: Operation) -> list[str]:
    try:
        operation()
    except Exception as error:  # noqa: BLE001 - told to the judge
        return _lineage(error)
    return []


def _retry(operation: Operation) -> None:
    try:
        answer = operation()
    except Exception:  # noqa: BLE001 - told to the judge
        tell(refused_again=traceback.format_exc())
    else:
        tell(retried=answer)
        operation.agree()


def _lineage(error: BaseException) -> list[str]:
    """Give the names of an error's class and of those above it."""
    return [kind.__name__ for kind in type(error).__mro__]


def _check(scenario: Scenario, request: dict[str, Any]) -> None:
    try:
        scenario.check(Path(request["place"]), request["answer"])
        tell(checked="")
    except BaseException:  # noqa: BLE001 - told to the judge
        tell(checked=traceback.format_exc())


def _clean(scenario: Scenario, request: dict[str, Any]) -> None:
    scenario.clean(Path(request["place"]))


ACTIONS: dict[str, Action] = {"perform": _perform, "check": _check, "clean": _clean}


def _in_a_process(action: Action, scenario: Scenario, request: dict[str, Any]) -> int:
    """Run `action` in a forked process and give its wait status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    status = 1
    try:
        action(scenario, request)
        status = 0
    except BaseException:  # noqa: BLE001 - a process of ours must end here, and say why
        tell(crashed=traceback.format_exc())
    finally:
        os._exit(status)


def _requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Serve requests until standard input ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    gc.disable()  # the calls of an operation shall be the same in each process
    scenarios = {**SCENARIOS, **LIMITED, **TOYS}
    tell(scenarios=list(scenarios))
    for request in _requests():
        tell(ended=_in_a_process(ACTIONS[request["do"]], scenarios[request["scenario"]], request))


if __name__ == "__main__":
    main()
