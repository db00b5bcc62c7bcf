"""What others must know of a pool to choose between pools, in one small struct that can be written and read.

Like the figures, facts are what is known anyway: no disk is asked, so a dead one keeps nobody waiting.
"""

from __future__ import annotations

import time
from typing import Annotated

import msgspec

from provisioner import figures
from provisioner.backends import IMAGE_NAME, Content
from provisioner.parameters import ClassParameters
from provisioner.pool import Pool
from provisioner.pools import Pools

_SILENT_S = 30.0  # a disk is looked at every few seconds; one that was not for so long hangs
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class PoolFacts(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One pool of a node; the first one of a node is its default.

    id: '' while no disk of this pool was ever seen. promisable_bytes: of one more volume, 0 where none can be made.
    default_size_bytes: of a volume for which no size is asked. means: that a new volume could have, holding: those of
    them whose limit holds; enforce: what of both it is, unless the class says.
    """

    name: Annotated[str, msgspec.Meta(max_length=63)]
    id: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{16})?\Z")] = ""
    fs_type: Annotated[str, msgspec.Meta(max_length=64)] = ""
    promisable_bytes: _Bytes = 0
    default_size_bytes: _Bytes = 0
    means: tuple[str, ...] = ()
    holding: tuple[str, ...] = ()
    enforce: str = "besteffort"

    def refusal(self, asked: ClassParameters) -> str:
        """Say why no volume of a class can be made in this pool, or '' where one can."""
        if not self.means:  # a directory is possible wherever there is a disk
            return f"the disk of pool {self.name!r} is not there"
        enforce = asked.enforce or self.enforce
        means = self.holding if enforce == "required" else self.means
        if asked.backend == "auto" and not means:
            return f"pool {self.name!r} has no means for enforce: {enforce}"
        if asked.backend != "auto" and asked.backend not in means:
            return f"pool {self.name!r} cannot give backend {asked.backend!r} with enforce: {enforce}"
        return ""

    def backend_for(self, asked: ClassParameters, content: Content) -> str:
        """Name the means that a new volume would have, as `Backends.choose` does; '' where there is none."""
        if self.refusal(asked):
            return ""
        able = [asked.backend]
        if asked.backend == "auto" and (asked.enforce or self.enforce) == "required":
            able = list(self.holding)
        elif asked.backend == "auto":
            able = sorted(self.means, key=IMAGE_NAME.__eq__)
        return next((name for name in able if name == IMAGE_NAME or not content.needs_image(self.fs_type)), "")


def of_pools(pools: Pools) -> tuple[PoolFacts, ...]:
    """Give the facts of every pool, in the order of the settings."""
    return tuple(map(_of_pool, pools.pools))


def _of_pool(pool: Pool) -> PoolFacts:
    known = pool.known
    return PoolFacts(
        name=pool.settings.name,
        id=pool.pool_id or pool.expected_id,
        fs_type=known.disk.fs_type if known else "",
        promisable_bytes=promisable_bytes(pool),
        default_size_bytes=pool.settings.default_size_bytes,
        means=tuple(means.name for means in pool.seen_means),
        holding=tuple(means.name for means in pool.seen_means if means.holds),
        enforce=pool.settings.enforce or "required",
    )


def promisable_bytes(pool: Pool) -> int:
    """Give what one more volume may have in a pool, by what was last seen of its disk."""
    found = figures.of_pool(pool)
    if not found.writable or not found.contents or time.time() - found.seen_at > _SILENT_S:
        return 0
    return found.contents.promisable_bytes
