"""How much of everything a run makes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extent:
    """Numbers of claims, pods, calls and nodes; the limits hold for the full extent only."""

    claims: int = 50  # bound one at a time, of each driver
    burst: int = 100  # claims
    pods: int = 15  # started, of each kind
    creates: int = 100  # of one round, at each socket
    calls: int = 1500  # of one round
    leases: int = 2000  # of simulated nodes
    pages: int = 400  # of 100 volumes
    listings: int = 150  # of either page

    rounds: int = 5
