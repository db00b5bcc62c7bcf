"""Claims of a class that no node can serve: the scheduler leaves them waiting, and CreateVolume never comes.

So nobody would say why. The leading controller looks for such classes, and tells each claim that waits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from csi.cluster import objects
from csi.cluster.api import ApiError
from csi.services.identity import NAME
from provisioner.errors import InvalidRequest
from provisioner.parameters import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.api import Api
    from csi.cluster.directory import Directory
    from csi.cluster.events import Events
    from csi.cluster.objects import StorageClass

log = structlog.get_logger()

_MOST_TOLD = 50  # in one look; the next one comes to others


class WaitingClaims:
    """Looks in the background."""

    def __init__(
        self,
        api: Callable[[], Api],
        directory: Directory,
        events: Events,
        may_tell: Callable[[], bool],
        pause_s: float,
    ) -> None:
        self._api, self._directory, self._events = api, directory, events
        self._may_tell, self._pause_s = may_tell, pause_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waiting", daemon=True)

    def start(self) -> None:
        """Begin to look, after a pause."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s):
            if not self._may_tell() or not self._directory.is_complete:
                continue
            try:
                self.look()
            except ApiError as error:
                log.warning("waiting claims not looked for", error=str(error))
            except Exception:
                log.exception("waiting claims not looked for")

    def look(self) -> None:
        """Look once. Claims are read only if there is a class that cannot be served."""
        classes = objects.every(self._api(), objects.CLASSES)
        reasons = {each.metadata.name: self._why_not(each) for each in classes if each.provisioner == NAME}
        unserved = {name: why for name, why in reasons.items() if why}
        if not unserved:
            return
        told = 0
        for claim in objects.every(self._api(), objects.CLAIMS):
            why = unserved.get(claim.spec.storage_class_name or "")
            if why and not claim.spec.volume_name and told < _MOST_TOLD:
                told += self._events.warn_claim(claim, "ClassCannotBeServed", why)

    def _why_not(self, wanted: StorageClass) -> str:
        """Say why no node can serve a class whatever the room is, '' where one can."""
        name = wanted.metadata.name
        try:
            asked = parse(wanted.parameters)
        except InvalidRequest as error:
            return f"class {name!r}: {error}"
        nodes = self._directory.nodes()
        if not nodes:
            return f"class {name!r}: no node of the cluster runs this driver's agent"
        pools = [pool for node in nodes if (pool := node.pool_named(asked.pool))]
        if not pools:
            what = f"a pool {asked.pool!r}" if asked.pool else "a pool"
            return f"class {name!r}: no node has {what}"
        refusals = {pool.refusal(asked) for pool in pools}
        return "" if "" in refusals else f"class {name!r}: {min(refusals)}, and so for each node that has it"
