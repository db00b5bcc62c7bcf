"""Events that a test looks at, instead of an API server."""

from __future__ import annotations

from csi.cluster.events import Events
from csi.cluster.objects import Claim, PersistentVolume


class Told(Events):
    """Events that are only remembered."""

    def __init__(self) -> None:
        self.volumes: list[tuple[str, str]] = []
        self.claims: list[tuple[str, str]] = []

    def warn_volume(self, volume: PersistentVolume, reason: str, message: str) -> None:
        self.volumes.append((volume.metadata.name, f"{reason}: {message}"))

    def warn_claim(self, claim: Claim, reason: str, message: str) -> bool:
        told = (claim.metadata.name, f"{reason}: {message}")
        is_news = told not in self.claims
        self.claims += [told] if is_news else []
        return is_news
