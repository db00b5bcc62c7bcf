"""A node's own Lease, kept alive in the background: renewed about every minute, and soon after a change.

No call ever waits for it. While the API server is away it is tried again and again; nobody else suffers.
"""

from __future__ import annotations

import random
import threading
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
import structlog

from csi.cluster import announcement, leases
from csi.cluster.api import ApiError
from csi.cluster.pauses import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.announcement import Announcement
    from csi.cluster.api import Api
    from csi.cluster.leases import OwnerReference
    from provisioner.facts import PoolFacts

log = structlog.get_logger()

RENEW_S = 60.0
_LOOK_S = 2.0  # and so the time in which changes are gathered
_JITTER = 0.2
# Room comes and goes with every file that a pod writes: less than this part of what was announced is no news.
_NEWS_PART = 64


class Renewing:
    """Writes the Lease of one node.

    node: gives its owner, None where the token names none. Asked anew each time: a Node that was deleted and came back
    has another uid, the kubelet then brings a token that says so, and the policy compares the two.
    """

    def __init__(
        self,
        api: Callable[[], Api],
        namespace: str,
        holder: str,
        node_name: str,
        node: Callable[[], OwnerReference | None],
        announce: Callable[[], Announcement],
        *,
        renew_s: float = RENEW_S,
        look_s: float = _LOOK_S,
    ) -> None:
        self._api, self._namespace, self._holder = api, namespace, holder
        self._name, self._node = leases.name_for(node_name), node
        self._announce = announce
        self._renew_s, self._look_s = renew_s, look_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.written_at: float | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more. The Lease stays: the node is still there, and its next agent goes on with it."""
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        backoff = Backoff(1, self._renew_s)
        said: Announcement | None = None
        due = 0.0
        while not self._stopping.is_set():
            found = self._announce()
            if monotonic() < due and said and not is_news(said, found):
                self._stopping.wait(self._look_s)
                continue
            try:
                self._write(found)
            except ApiError as error:
                log.warning("lease not written", lease=self._name, error=str(error))
                self._stopping.wait(backoff.next())
                continue
            said, due = found, monotonic() + self._renew_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load
            backoff.reset()
            self._stopping.wait(self._look_s)

    def _write(self, found: Announcement) -> None:
        said = {announcement.ANNOTATION: announcement.encode(found)}
        spec = leases.spec_of(self._holder, 3 * self._renew_s)
        body = leases.body(self._namespace, self._name, said, spec, self._node())
        self._api().apply(leases.path_of(self._namespace, self._name), body, "csi-local-path")
        if self.written_at is None:
            log.info("announced", lease=self._name, address=found.address, pools=[pool.id for pool in found.pools])
        self.written_at = monotonic()


def is_news(said: Announcement, found: Announcement) -> bool:
    """Tell whether what is found differs from what was said by more than what pods write in a moment."""
    if len(said.pools) != len(found.pools):
        return True
    return any(_differs(old, new) for old, new in zip(said.pools, found.pools, strict=True))


def _differs(old: PoolFacts, new: PoolFacts) -> bool:
    if msgspec.structs.replace(old, promisable_bytes=new.promisable_bytes) != new:
        return True
    return abs(new.promisable_bytes - old.promisable_bytes) > old.promisable_bytes // _NEWS_PART
