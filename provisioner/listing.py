"""Pages over all pools, in the order of the ids.

A token says 'after this id', so it stays good when volumes come and go between pages, the named one
included. An id is at most 113 bytes, so a token fits the 128 of a CSI string.
"""

from __future__ import annotations

from provisioner.errors import BadToken
from provisioner.names import VolumeId, parse_volume_id
from provisioner.pool import Pool
from provisioner.records import Record

# An entry of a reply is at most about 400 bytes, and gRPC takes 4 MiB: this stays well below.
MAX_PAGE = 2000

AFTER = "after:"


def parse_token(token: str) -> VolumeId | None:
    """Give the id that a page begins after, None for the first page; BadToken where we never gave it."""
    if not token:
        return None
    parsed = parse_volume_id(token.removeprefix(AFTER)) if token.startswith(AFTER) else None
    if parsed is None:
        raise BadToken(f"starting_token {token!r} is none that this driver gave; begin again without one")
    return parsed


def page(pools: list[Pool], max_entries: int, starting_token: str) -> tuple[list[Record], str]:
    """List the records of a page and the token of the next one; `pools` are in the order of their ids."""
    after = parse_token(starting_token)
    size = min(max_entries, MAX_PAGE) if max_entries else MAX_PAGE
    found: list[Record] = []
    for pool in pools:
        known, pool_id = pool.known, pool.pool_id
        if known is None or (after and pool_id < after.pool_id):
            continue
        folder = after.folder if after and pool_id == after.pool_id else ""
        found += known.after(folder, size + 1 - len(found))
        if len(found) > size:
            return found[:size], AFTER + found[size - 1].volume_id
    return found, ""
