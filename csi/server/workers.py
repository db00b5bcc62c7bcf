"""Threads that serve calls: few, for that is fastest, and more of them while some wait for a disk that hangs."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    _Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_LOOK_S = 0.5


class Workers(Executor):
    """At most `count` threads work at once; up to `spare` are not counted, whose calls take longer than `patience_s`.

    A ThreadPoolExecutor has a fixed number of threads, which a single disk that answers nobody uses up. The threads
    are daemons: nobody can end one that waits for a dead disk, and the process must be able to end without it.
    """

    def __init__(self, count: int, *, spare: int = 0, patience_s: float = 2.0, name: str = "worker") -> None:
        """Start nothing yet."""
        self._count = count
        self._spare = spare
        self._patience_s = patience_s
        self._name = name
        self._queue: SimpleQueue[_Work] = SimpleQueue()
        self._since: dict[int, float] = {}  # by thread that works on a call
        self._calls = 0  # at work or waiting for it
        self._threads = 0
        self._watched = False
        self._guard = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn` called by the next free thread."""
        future: Future[Any] = Future()
        with self._guard:
            self._calls += 1
            if self._calls > self._threads:
                self._attend()
        self._queue.put((future, fn, args, kwargs))
        return future

    def _attend(self) -> None:
        """See that enough threads work, and that somebody looks whether they get stuck while calls wait."""
        if self._threads < self._count:
            self._add()
        elif self._spare and not self._watched:
            self._watched = True
            threading.Thread(target=self._watch, name=f"{self._name}-watch", daemon=True).start()

    def _add(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        me, needed = threading.get_ident(), True
        while needed:
            future, fn, args, kwargs = self._queue.get()
            self._since[me] = time.monotonic()
            _run(future, fn, args, kwargs)
            del self._since[me], future, fn, args, kwargs  # nothing of a call outlives it
            with self._guard:
                self._calls -= 1
                needed = self._threads <= self._count or self._threads - self._stuck() <= self._count
                self._threads -= not needed

    def _watch(self) -> None:
        waiting = True
        while waiting:
            time.sleep(_LOOK_S)
            with self._guard:
                waiting = self._watched = self._calls > self._threads
                if waiting and self._threads - self._stuck() < self._count:
                    self._add()

    def _stuck(self) -> int:
        """Count the calls that take too long, as far as they may be made up for."""
        before = time.monotonic() - self._patience_s
        return min(self._spare, sum(since < before for since in list(self._since.values())))


def _run(future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - whoever waits for the future is told
        future.set_exception(error)
    else:
        future.set_result(result)
