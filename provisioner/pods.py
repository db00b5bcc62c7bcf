"""Which ephemeral volumes of a pool belong to which pod; kept in memory, as the records say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.errors import OverLimit
from provisioner.records import Record


class PodVolumes:
    """The ephemeral volumes of one pool; a pod's are found without a look at the others."""

    def __init__(self) -> None:
        """Start empty; records are noted as they are read and made."""
        self._guard = threading.Lock()
        self._records: dict[str, Record] = {}
        self._sizes: dict[str, dict[str, int]] = {}  # of the volumes of each pod, those that are being made too

    def __len__(self) -> int:
        """Count them."""
        return len(self._records)

    def all(self) -> list[Record]:
        """List them; for background work only."""
        with self._guard:
            return list(self._records.values())

    def note(self, record: Record) -> None:
        """Take in a record; one of an ordinary volume is none of ours."""
        if record.ephemeral:
            with self._guard:
                self._records[record.folder] = record
                self._sizes.setdefault(record.ephemeral.pod_uid, {})[record.folder] = record.capacity_bytes

    def forget(self, folder: str) -> None:
        """Drop a volume that is gone."""
        if folder in self._records:
            with self._guard:
                record = self._records.pop(folder)
                if record.ephemeral:
                    self._drop(record.ephemeral.pod_uid, folder)

    @contextmanager
    def making(self, pod_uid: str, folder: str, size_bytes: int, most_bytes: int) -> Iterator[None]:
        """Count a volume while it is made; OverLimit where the pod would have more than `most_bytes`."""
        with self._guard:
            sizes = self._sizes.setdefault(pod_uid, {})
            held = sum(sizes.values())
            if held + size_bytes > most_bytes:
                if not sizes:
                    del self._sizes[pod_uid]
                raise OverLimit(
                    f"ephemeral volume {folder}: wanted {size_bytes} bytes, but the pod has {held} already and a pod "
                    f"may have {most_bytes} in such volumes (ephemeral.maxSizePerPod); ask for less, or use a claim"
                )
            sizes[folder] = size_bytes
        try:
            yield
        except BaseException:
            with self._guard:
                if folder not in self._records:
                    self._drop(pod_uid, folder)
            raise

    def _drop(self, pod_uid: str, folder: str) -> None:
        sizes = self._sizes.get(pod_uid, {})
        sizes.pop(folder, None)
        if not sizes:
            self._sizes.pop(pod_uid, None)
