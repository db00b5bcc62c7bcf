"""What the configuration file may hold: the settings of nodes, which node has which pools, the controller's."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from provisioner.settings import PoolSettings, Settings, SettingsError, check_pools

Seconds = Annotated[float, msgspec.Meta(gt=0)]
# A Lease is renewed about once a minute: whoever waits for less takes a node that restarts for one that is down.
SilentSeconds = Annotated[float, msgspec.Meta(ge=90)]

_GLOB = frozenset("*?[")


class NodePools(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The pools of some nodes. match: a node's name, or a pattern such as 'db-*'; no pools: no capacity there."""

    match: Annotated[str, msgspec.Meta(min_length=1)]
    pools: list[PoolSettings]

    @property
    def is_pattern(self) -> bool:
        """Tell whether `match` is more than one node's name."""
        return not _GLOB.isdisjoint(self.match)


class ControllerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """How the controller judges nodes and what they hold.

    node_down_reschedule_seconds: a node not heard of for so long is given up for new volumes.
    node_gone_grace_seconds: how long a node must be known to be gone before its volumes count as deleted.
    orphan_age_seconds: how old a volume must be before it may be taken for one that nobody wants.
    orphan_sweep_seconds: pause between two looks for such.
    waiting_claims_seconds: pause between two looks for claims of a class that no node can serve.
    """

    node_down_reschedule_seconds: SilentSeconds = 300.0
    node_gone_grace_seconds: Seconds = 3600.0
    orphan_age_seconds: Seconds = 3600.0
    orphan_sweep_seconds: Seconds = 300.0
    waiting_claims_seconds: Seconds = 60.0


class Configuration(Settings, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """The whole file. pools: of each node that `nodes` does not name."""

    pools: list[PoolSettings] = msgspec.field(default_factory=list)
    nodes: list[NodePools] = msgspec.field(default_factory=list)
    controller: ControllerSettings = msgspec.field(default_factory=ControllerSettings)


def check_nodes(nodes: list[NodePools]) -> None:
    """Raise SettingsError for what the types let through."""
    seen: dict[str, int] = {}
    for i, entry in enumerate(nodes):
        check_pools(entry.pools, f"nodes[{i}].pools")
        if entry.match in seen:
            raise SettingsError(f"nodes[{i}].match: {entry.match!r} is also nodes[{seen[entry.match]}].match")
        seen[entry.match] = i


def pools_of(configuration: Configuration, node_name: str) -> list[PoolSettings]:
    """Give a node's pools: of the entry with its name, else of the first pattern that fits, else the default ones."""
    named = (entry for entry in configuration.nodes if entry.match == node_name)
    fitting = (entry for entry in configuration.nodes if entry.is_pattern and fnmatchcase(node_name, entry.match))
    entry = next(named, None) or next(fitting, None)
    return configuration.pools if entry is None else entry.pools


def settings_of(configuration: Configuration, node_name: str) -> Settings:
    """Give the settings of one node; SettingsError where nobody says which pools any node has."""
    if not configuration.pools and not configuration.nodes:
        raise SettingsError("pools: wanted a list of 1 or more, found none, and no 'nodes' that have any")
    shared = {name: getattr(configuration, name) for name in Settings.__struct_fields__}
    return Settings(**shared | {"pools": pools_of(configuration, node_name)})
