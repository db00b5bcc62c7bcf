"""`csi-local-path volumes`: what lies in the pools, with or without a server."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from csi.cli.options import config_option, output_option, read_settings
from csi.cli.sizes import UNKNOWN, human_age, human_size
from csi.cli.tables import print_json, print_table, printable
from provisioner.survey import PoolReport, VolumeReport, survey

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = ("VOLUME ID", "NAME", "CLAIM", "POOL", "SIZE", "USED", "MEASURED", "AGE", "STATE")


@click.command()
@config_option
@output_option
def volumes(config: Path, output: str) -> None:
    """List the volumes of all pools, also broken and deleted ones whose space is not yet free.

    Reads without the pools' locks and changes nothing. USED is what the server last measured, as long ago
    as MEASURED says, and so does STATE where it tells of a limit that does not hold.
    Exit status 1 if a pool could not be read.
    """
    pools = survey(read_settings(config))
    if output == "json":
        print_json([{"pool": pool.name, **asdict(volume)} for pool in pools for volume in pool.volumes])
    else:
        print_table(_COLUMNS, [_row(pool, volume) for pool in pools for volume in pool.volumes])
    unread = [pool for pool in pools if pool.state == "unavailable"]
    for pool in unread:
        click.echo(f"Not shown: pool {pool.name!r}: {printable(pool.reason)}", err=True)
    sys.exit(1 if unread else 0)


def _row(pool: PoolReport, volume: VolumeReport) -> tuple[str, ...]:
    return (
        volume.volume_id,
        volume.name or UNKNOWN,
        volume.claim or (f"pod {volume.pod}" if volume.pod else UNKNOWN),
        pool.name,
        human_size(volume.capacity_bytes) if volume.capacity_bytes else UNKNOWN,
        human_size(volume.used_bytes),
        human_age(volume.measured_at),
        human_age(volume.created_at),
        f"{volume.state}: {volume.reason}" if volume.reason else volume.state,
    )
