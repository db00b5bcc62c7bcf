"""The controllers that a node lets in: the holders of the slots, as long as they renew their Leases.

The certificates are kept at hand, for gRPC asks for them in the middle of every handshake.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from csi.cluster import announcement, leases
from csi.cluster.certificates import server_name_of
from csi.cluster.sightings import Sightings

if TYPE_CHECKING:
    from csi.cluster.leases import Lease

log = structlog.get_logger()


class Trust:
    """Certificates by slot, as a `Follower` of one slot's Lease; see `slots` for both."""

    def __init__(self, slot: str, sightings: Sightings | None = None) -> None:
        self._slot = slot
        self._sightings = sightings or Sightings()
        self._guard = threading.Lock()
        self._certificate = ""

    def replaced(self, found: list[Lease]) -> None:
        """Take the whole list, which is the one Lease or none."""
        with self._guard:
            self._sightings.resume()
        ours = [lease for lease in found if lease.metadata.name == self._slot]
        for lease in ours:
            self.changed(lease)
        if not ours:
            self._set("")

    def changed(self, lease: Lease) -> None:
        """Take the slot's new holder, or see that it is alive."""
        if lease.metadata.name != self._slot:
            return
        with self._guard:
            self._sightings.note(lease)
        self._set(_certificate(lease))

    def removed(self, lease: Lease) -> None:
        """Trust nobody in this slot."""
        if lease.metadata.name == self._slot:
            self._set("")

    def lost(self) -> None:
        """Trust whom we trust, until we see again."""
        with self._guard:
            self._sightings.lose()

    def _set(self, certificate: str) -> None:
        with self._guard:
            if certificate != self._certificate:
                log.info("controller trusted" if certificate else "controller no longer trusted", slot=self._slot)
            self._certificate = certificate

    @property
    def certificate(self) -> str:
        """The holder's certificate, '' where there is none or it was not heard of for long."""
        with self._guard:
            return self._certificate if self._sightings.is_alive(self._slot) else ""


def _certificate(lease: Lease) -> str:
    if not lease.spec.holder_identity:
        return ""
    try:
        said = announcement.decode(lease.metadata.annotations.get(announcement.ANNOTATION, ""))
        server_name_of(said.certificate)
    except ValueError as error:
        log.warning("a controller's announcement cannot be used", slot=lease.metadata.name, error=str(error))
        return ""
    return said.certificate


def slots() -> list[Trust]:
    """Give one for each slot."""
    return [Trust(slot) for slot in leases.SLOTS]
