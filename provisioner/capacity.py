"""What a pool has promised, and what it may still promise."""

from __future__ import annotations

import threading
from collections.abc import Callable

from provisioner.disk import Space
from provisioner.errors import OutOfCapacity
from provisioner.settings import PoolSettings


class Ledger:
    """Sums kept in memory; no answer costs more with more volumes.

    promisable = min(size x overcommit - reserve - promised - trash - foreign, free where overcommit <= 1)
    """

    def __init__(self, settings: PoolSettings, space: Callable[[], Space], foreign: Callable[[], int | None]) -> None:
        """Start empty. foreign: bytes that strangers use, None where never measured."""
        self._settings = settings
        self._space = space
        self._foreign = foreign
        self._guard = threading.Lock()
        self._promised = 0
        self._trash: dict[str, int] = {}
        self._trash_bytes = 0

    @property
    def promised_bytes(self) -> int:
        """Sum of the sizes of all volumes."""
        return self._promised

    @property
    def trash_bytes(self) -> int:
        """Sum of the sizes of deleted volumes that are not erased."""
        return self._trash_bytes

    @property
    def held_bytes(self) -> int:
        """Sum of both."""
        return self._promised + self._trash_bytes

    def promisable(self) -> int:
        """Bytes that one more volume may have now; never negative."""
        return promisable(self._settings, self._space(), self._promised, self._trash_bytes, self._foreign())

    def reserve(self, size_bytes: int, *, what: str) -> None:
        """Promise `size_bytes` more; OutOfCapacity where they are not there."""
        space, foreign = self._space(), self._foreign()
        with self._guard:
            left = promisable(self._settings, space, self._promised, self._trash_bytes, foreign)
            if size_bytes > left:
                why = f"of {space.size_bytes}; promised {self._promised}, in the trash {self._trash_bytes}"
                raise OutOfCapacity(
                    f"{what}: wanted {size_bytes} bytes, pool {self._settings.name!r} can promise {left} "
                    f"({'its disk is read-only' if space.readonly else why})"
                )
            self._promised += size_bytes

    def promise(self, size_bytes: int) -> None:
        """Count a volume that exists, whether there is room or not."""
        with self._guard:
            self._promised += size_bytes

    def release(self, size_bytes: int) -> None:
        """Take a promise back."""
        with self._guard:
            self._promised -= size_bytes

    def discard(self, entry: str, size_bytes: int) -> None:
        """Count a volume as trash that was promised until now."""
        with self._guard:
            self._promised -= size_bytes
            self._hold(entry, size_bytes)

    def hold(self, entry: str, size_bytes: int) -> None:
        """Count trash that an earlier process left."""
        with self._guard:
            self._hold(entry, size_bytes)

    def _hold(self, entry: str, size_bytes: int) -> None:
        self._trash_bytes += size_bytes - self._trash.get(entry, 0)
        self._trash[entry] = size_bytes

    def erased(self, entry: str) -> None:
        """Count the room of erased trash as free again."""
        with self._guard:
            self._trash_bytes -= self._trash.pop(entry, 0)


def promisable(settings: PoolSettings, space: Space, promised: int, trash: int, foreign: int | None) -> int:
    """Apply the formula; what strangers use, where never measured, is at least what no volume can explain."""
    if space.readonly:
        return 0
    if foreign is None:
        foreign = max(0, space.used_bytes - promised - trash)
    reserve = settings.reserve_bytes(space.size_bytes)
    left = int(space.size_bytes * settings.overcommit) - reserve - promised - trash - foreign
    if settings.overcommit <= 1:
        left = min(left, space.free_bytes)
    return max(0, left)
