"""One operation a volume at a time, without ever waiting in a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.errors import OperationPending


class Operations:
    """The ids that are being worked on."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._claimed: set[str] = set()

    @contextmanager
    def claim(self, volume_id: str) -> Iterator[None]:
        """Hold `volume_id` for one operation; OperationPending where another one holds it."""
        with self._guard:
            if volume_id in self._claimed:
                raise OperationPending(
                    f"volume {volume_id}: an operation on it is still running; retry when it has ended"
                )
            self._claimed.add(volume_id)
        try:
            yield
        finally:
            with self._guard:
                self._claimed.discard(volume_id)
