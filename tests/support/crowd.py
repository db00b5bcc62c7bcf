"""Threads that all stand within the same blocks for a while."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_PATIENT_S = 30.0


@contextmanager
def crowd(count: int, *enter: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Let so many threads enter what these give, one in the other, and stay there while a block runs."""
    there, let_go = threading.Barrier(count + 1), threading.Event()

    def stand() -> None:
        with ExitStack() as stack:
            for one in enter:
                stack.enter_context(one())
            there.wait(_PATIENT_S)
            assert let_go.wait(_PATIENT_S)
        there.wait(_PATIENT_S)

    for _ in range(count):
        threading.Thread(target=stand, daemon=True).start()
    there.wait(_PATIENT_S)
    try:
        yield
    finally:
        let_go.set()
        there.wait(_PATIENT_S)
