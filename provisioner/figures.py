"""How the pools are, in numbers that are kept anyway: no disk is asked, and nothing grows with the volumes."""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.capacity import promisable
from provisioner.disk import Space
from provisioner.pool import Contents, Pool


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool as it was last seen, at `seen_at` (Unix seconds).

    writable: no call was let down by its disk. space: None where the disk was not in its place, or unreadable.
    contents: None where nothing of it was ever read.
    """

    name: str
    writable: bool
    seen_at: float
    space: Space | None
    contents: ContentFigures | None


@dataclass(frozen=True, slots=True)
class ContentFigures:
    """What is in a pool. used_bytes and foreign_bytes are as old as `measured_at`, None: never measured.

    lost_limits: volumes that nothing holds to their size any more; escaped_limits: those something slipped out of.
    """

    volumes: int
    published: int
    ephemeral: int
    quarantined: int
    promised_bytes: int
    used_bytes: int
    trash_bytes: int
    foreign_bytes: int | None
    measured_at: float | None
    promisable_bytes: int
    lost_limits: int
    escaped_limits: int


def of_pool(pool: Pool) -> PoolFigures:
    """Give the figures of a pool, also while its disk is away or answers nobody."""
    known, space = pool.known, pool.seen_space
    return PoolFigures(
        name=pool.settings.name,
        writable=known is not None and space is not None and not space.readonly and not known.disk.illness,
        seen_at=pool.seen_at,
        space=space,
        contents=_of_contents(known, space) if known else None,
    )


def _of_contents(known: Contents, space: Space | None) -> ContentFigures:
    ledger, usage = known.ledger, known.usage
    foreign = known.foreign_bytes()
    left = promisable(known.settings, space, ledger.promised_bytes, ledger.trash_bytes, foreign) if space else 0
    return ContentFigures(
        volumes=known.volume_count,
        published=known.publications.volume_count,
        ephemeral=len(known.pods),
        quarantined=len(known.quarantined),
        promised_bytes=ledger.promised_bytes,
        used_bytes=usage.used_bytes,
        trash_bytes=ledger.trash_bytes,
        foreign_bytes=usage.foreign_bytes,
        measured_at=usage.foreign_measured_at,
        promisable_bytes=0 if known.disk.illness else left,
        lost_limits=usage.lost_count,
        escaped_limits=usage.escaped_count,
    )
