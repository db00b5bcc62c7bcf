"""A controller's place among the few that nodes let in: a Lease of a fixed name, claimed, renewed, and given back.

The names are fixed so that RBAC can name them: nodes may read these Leases and no others.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from csi.cluster import announcement, leases
from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.api import ApiError
from csi.cluster.leases import SLOTS, Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.api import Api
    from csi.cluster.certificates import Credentials

log = structlog.get_logger()

RENEW_S = 20.0
TAKE_S = 60.0
_LOOK_S = 2.0


class Slots:
    """Claims a free slot for `holder`, or one whose holder does not renew it, and keeps it."""

    def __init__(
        self,
        api: Callable[[], Api],
        namespace: str,
        holder: str,
        credentials: Credentials,
        *,
        renew_s: float = RENEW_S,
        take_s: float = TAKE_S,
        look_s: float = _LOOK_S,
    ) -> None:
        self._api, self._namespace, self._holder = api, namespace, holder
        said = Announcement(schema=SCHEMA, certificate=credentials.certificate.decode())
        self._annotations = {announcement.ANNOTATION: announcement.encode(said)}
        self._renew_s, self._take_s, self._look_s = renew_s, take_s, look_s
        self._seen: dict[str, tuple[str, float]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slots", daemon=True)
        self._held: Lease | None = None
        self._renewed_at = 0.0

    @property
    def held(self) -> str:
        """Name of the slot that is ours; '' where none is, or where another may have taken it meanwhile."""
        held = self._held
        return held.metadata.name if held and monotonic() - self._renewed_at < self._take_s else ""

    @property
    def was_claimed(self) -> bool:
        """True once a slot was ours, until somebody else is seen to have it; the API server may be away since."""
        return self._held is not None

    def start(self) -> None:
        """Begin to claim."""
        self._thread.start()

    def stop(self) -> None:
        """Give the slot back, so that the next one need not wait."""
        self._stopping.set()
        self._thread.join(5)
        held = self._held
        if held is not None:
            self._held = None
            try:
                self._replace(held, {}, leases.spec_of("", 1))
            except ApiError as error:
                log.warning("slot not given back", slot=held.metadata.name, error=str(error))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._held is None:
                    self._claim()
                else:
                    self._renew(self._held)
            except (ApiError, msgspec.MsgspecError) as error:
                log.warning("slot not renewed" if self._held else "no slot claimed", error=str(error))
                if isinstance(error, ApiError) and (error.is_conflict or error.is_not_found):
                    self._held = None  # somebody else wrote it: look again
            self._stopping.wait(self._renew_s if self.held else self._look_s)

    def _claim(self) -> None:
        found = {name: self._get(name) for name in SLOTS}
        ours = [name for name, lease in found.items() if lease and lease.spec.holder_identity == self._holder]
        free = [name for name, lease in found.items() if self._is_free(name, lease)]
        for name in ours + free:
            lease = found[name]
            self._take(self._replace(lease, *self._ours()) if lease else self._create(name))
            log.info("slot claimed", slot=name)
            return

    def _is_free(self, name: str, lease: Lease | None) -> bool:
        """Tell whether nobody holds a slot, or its holder did not renew it for as long as we look at it."""
        if lease is None or not lease.spec.holder_identity:
            return True
        renewal = lease.spec.renew_time or ""
        known, since = self._seen.get(name, ("", 0.0))
        if known != renewal:
            known, since = self._seen[name] = (renewal, monotonic())
        return monotonic() - since > self._take_s

    def _renew(self, held: Lease) -> None:
        self._take(self._replace(held, *self._ours()))

    def _take(self, written: Lease) -> None:
        self._held, self._renewed_at = written, monotonic()

    def _ours(self) -> tuple[dict[str, str], dict[str, Any]]:
        return self._annotations, leases.spec_of(self._holder, self._take_s)

    def _get(self, name: str) -> Lease | None:
        try:
            return leases.decode(self._api().get(leases.path_of(self._namespace, name)))
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    def _create(self, name: str) -> Lease:
        body = leases.body(self._namespace, name, *self._ours())
        return leases.decode(self._api().create(leases.path_of(self._namespace), body))

    def _replace(self, lease: Lease, annotations: dict[str, str], spec: dict[str, Any]) -> Lease:
        name = lease.metadata.name
        body = leases.body(self._namespace, name, annotations, spec)
        body["metadata"]["resourceVersion"] = lease.metadata.resource_version
        return leases.decode(self._api().replace(leases.path_of(self._namespace, name), body))
