"""Several callers at once, each with a client of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from tests.bench.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

T = TypeVar("T")
R = TypeVar("R")


class Crew:
    """Callers that share a list of work; close it to hang up."""

    def __init__(self, endpoint: str, work: Path, callers: int, *, fresh: bool = False) -> None:
        self._own = threading.local()
        self._clients = [Client(endpoint, work, fresh=fresh) for _ in range(callers)]
        self._free = iter(self._clients)
        self._pool = ThreadPoolExecutor(callers, initializer=self._take_client)

    def _take_client(self) -> None:
        self._own.client = next(self._free)  # one step of C code: needs no lock

    def run(self, action: Callable[[Client, T], R], items: Iterable[T]) -> list[R]:
        """Do `action` for each item, by whichever caller is free; the first error is raised."""
        return list(self._pool.map(lambda item: action(self._own.client, item), items))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for client in self._clients:
            client.close()
