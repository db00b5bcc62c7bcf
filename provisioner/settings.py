"""What an administrator says about this node: the pools and how they are served.

Keys are camelCase in the file. Types are held by msgspec (csi.config turns its findings into
sentences); `check` holds what types cannot say.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec

from provisioner.names import POOL_NAME
from provisioner.records import Enforce
from provisioner.sizes import parse_quantity, parse_reserve

PoolName = Annotated[str, msgspec.Meta(pattern=rf"^{POOL_NAME}\Z")]


QuotaKey = Literal["require", "enable", "simple"]


class SettingsError(ValueError):
    """A key has a value that cannot be used; the message begins with the key."""


class PoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """One directory that volumes live in.

    init: 'if-empty' lets `serve` give an empty directory its identity; 'never' leaves that to `pools init`.
    require_mount: the path must be the root of a mount; guards against a disk that is not there.
    reserve: kept free, a share of the filesystem ('5%') or a size.
    overcommit: promises may reach size x overcommit.
    default_size: of a volume for which no size is asked.
    enforce: 'required': a volume has a limit that holds, or is not made; 'besteffort' allows plain directories, whose
    size is only watched. That of a class goes before that of its pool, and that before the one of the whole file.
    quota: on btrfs, whether the driver may switch quota groups on ('enable'), or simple quotas ('simple').
    """

    name: PoolName
    path: str
    init: Literal["never", "if-empty"] = "never"
    require_mount: bool = False
    reserve: str | int = "5%"
    overcommit: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    default_size: str | int = "1Gi"
    enforce: Enforce | None = None
    quota: QuotaKey = "require"

    def reserve_bytes(self, whole_bytes: int) -> int:
        """Give the reserve in bytes for a filesystem of `whole_bytes`."""
        return parse_reserve(str(self.reserve), whole_bytes)

    @property
    def default_size_bytes(self) -> int:
        """Size of a volume for which none is asked."""
        return parse_quantity(str(self.default_size))


class EphemeralSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Whether pods may have volumes in their own manifest, in which pool, and how much of it.

    Whoever may make pods decides about them, so they are off until an administrator allows them.
    """

    allow: bool = False
    pool: str = ""
    max_size_per_volume: str | int = "1Gi"
    max_size_per_pod: str | int = "4Gi"

    @property
    def max_bytes_per_volume(self) -> int:
        """What one of them may have."""
        return parse_quantity(str(self.max_size_per_volume))

    @property
    def max_bytes_per_pod(self) -> int:
        """What all those of a pod may have."""
        return parse_quantity(str(self.max_size_per_pod))


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """The whole configuration of a node.

    The first pool is the default one. target_roots: targets and staging paths outside are refused.
    lock_wait_seconds: how long to wait for the previous process to let a pool go (rolling update).
    measure_interval_seconds: pause between two background measurements of what volumes use.
    """

    pools: Annotated[list[PoolSettings], msgspec.Meta(min_length=1)]
    enforce: Enforce = "required"
    node_id: str = ""
    target_roots: list[str] = msgspec.field(default_factory=lambda: ["/var/lib/kubelet"])
    lock_wait_seconds: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    measure_interval_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    ephemeral: EphemeralSettings = EphemeralSettings()


def check(settings: Settings) -> None:
    """Raise SettingsError for what the types let through."""
    for i, root in enumerate(settings.target_roots):
        _check_path(f"targetRoots[{i}]", root)
    _check_size("ephemeral.maxSizePerVolume", settings.ephemeral.max_size_per_volume)
    _check_size("ephemeral.maxSizePerPod", settings.ephemeral.max_size_per_pod)
    check_pools(settings.pools, "pools")


def check_pools(pools: list[PoolSettings], where: str) -> None:
    """Raise SettingsError for what the types let through in a list of pools; where: its key."""
    seen: dict[str, str] = {}
    for i, pool in enumerate(pools):
        key = f"{where}[{i}]"
        _check_path(f"{key}.path", pool.path)
        _check_size(f"{key}.reserve", pool.reserve)
        _check_size(f"{key}.defaultSize", pool.default_size)
        for word, value in (("name", pool.name), ("path", _plain(pool.path))):
            if value in seen:
                raise SettingsError(f"{key}.{word}: {value!r} is also {seen[value]}; each pool needs its own")
            seen[value] = f"{key}.{word}"


def _plain(path: str) -> str:
    """Write a path in its shortest form; normpath alone lets a double slash at the beginning be (POSIX)."""
    return "/" + os.path.normpath(path).lstrip("/")


def _check_path(key: str, path: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise SettingsError(f"{key}: wanted an absolute path, found {path!r}")


def _check_size(key: str, size: str | int) -> None:
    try:
        if key.endswith("reserve"):
            parse_reserve(str(size), 0)
        elif parse_quantity(str(size)) < 1:
            raise ValueError(f"wanted at least 1 byte, found {size!r}")
    except ValueError as error:
        raise SettingsError(f"{key}: {error}") from error
