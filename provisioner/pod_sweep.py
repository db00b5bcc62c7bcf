"""Ends ephemeral volumes whose pod is gone and that no call will end: the kubelet may forget, and disks may be away."""

from __future__ import annotations

import threading
from contextlib import suppress

import structlog

from provisioner.errors import (
    InvalidRequest,
    NotDurable,
    NotReady,
    OperationPending,
    PoolUnavailable,
    ProvisionerError,
    TargetNotFound,
)
from provisioner.model import Patient
from provisioner.operations import Operations
from provisioner.pool import Contents
from provisioner.pools import Pools
from provisioner.records import Record
from provisioner.targets import TargetRoots
from provisioner.volumes import Volumes

log = structlog.get_logger(__name__)

_SWEEP_S = 300.0
_STOP_S = 10.0


class PodSweep:
    """Looks at the ephemeral volumes at the start, then every five minutes."""

    def __init__(self, pools: Pools, operations: Operations, volumes: Volumes, target_roots: list[str]) -> None:
        """Work on `pools`; `operations` is shared with all others."""
        self._pools = pools
        self._operations = operations
        self._volumes = volumes
        self._roots = TargetRoots(target_roots)
        self._suspects: set[tuple[str, str]] = set()
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pod-sweep", daemon=False)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the volume that is being looked at."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.run_once()
            except Exception:
                log.exception("sweep of ephemeral volumes failed; it tries again")
            self._stopping.wait(_SWEEP_S)

    def run_once(self) -> None:
        """Delete the volumes that two sweeps in a row found without a mount and without a pod."""
        with self._guard:
            self._run_once()

    def _run_once(self) -> None:
        gone = self._gone()
        for name, volume_id in gone & self._suspects:
            with suppress(OperationPending, NotDurable), self._operations.claim(claim_of(name)):
                log.info("ending the ephemeral volume of a pod that is gone", volume_id=volume_id)
                end(self._volumes, name, volume_id)
        self._suspects = gone

    def _gone(self) -> set[tuple[str, str]]:
        """Name the volumes that nobody seems to need."""
        found: set[tuple[str, str]] = set()
        for pool in self._pools.pools:
            with suppress(PoolUnavailable, NotReady, OSError), pool.use() as contents:
                found |= {
                    (record.name, record.volume_id) for record in contents.pods.all() if self._is_gone(contents, record)
                }
        return found

    def _is_gone(self, contents: Contents, record: Record) -> bool:
        """Tell whether a volume is mounted nowhere and the kubelet has removed its pod's folder.

        A mount that is gone says nothing alone: after a reboot the kubelet publishes the volumes of pods that stay
        anew. Nor does the folder of the volume, which it removes after each try that failed.
        """
        folder = _pod_folder(record)
        if not folder or contents.publications.alive(record.folder):
            return False
        try:
            with self._roots.open(folder, what="target_path") as found:
                return found.look() is None
        except (InvalidRequest, TargetNotFound, OSError):
            return False  # without the folder of all pods none is to be seen


def _pod_folder(record: Record) -> str:
    """Name the folder of a volume's pod, '.../pods/<uid>' above its target; '' where there is none."""
    owner = record.ephemeral
    above, uid, _ = owner.target_path.partition(f"/{owner.pod_uid}/") if owner else ("", "", "")
    return above + uid.rstrip("/")


def claim_of(name: str) -> str:
    """Name what is claimed for an operation on an ephemeral volume as a whole; its parts claim its id."""
    return f"{name} as a whole"


def end(volumes: Volumes, name: str, volume_id: str) -> None:
    """Delete an ephemeral volume; one whose disk does not let us stays for a later sweep, and must not hold its pod.

    Only NotDurable is raised: the volume is away, and the retry makes that safe.
    """
    try:
        volumes.delete(volume_id, Patient(), with_pod=True)
    except NotDurable:
        raise
    except ProvisionerError as error:
        log.warning("ephemeral volume left for a later sweep", volume_id=name, reason=str(error))
