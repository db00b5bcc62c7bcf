"""`csi-local-path pools`: what the pools hold and may promise; making one, and giving one up."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from csi.cli.options import WrongInput, config_option, fail, output_option, read_settings
from csi.cli.sizes import UNKNOWN, human_age, human_size
from csi.cli.tables import print_json, print_table
from provisioner.errors import ProvisionerError
from provisioner.identity import init_pool, retire
from provisioner.names import is_pool_id
from provisioner.survey import PoolReport, survey

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = ("NAME", "ID", "PATH", "STATE", "SIZE", "FREE", "PROMISED", "TRASH", "FOREIGN", "PROMISABLE", "OWNER")


@click.group(invoke_without_command=True)
@config_option
@output_option
@click.pass_context
def pools(context: click.Context, config: Path, output: str) -> None:
    """List the pools, or make one, or give a lost one up.

    Listing reads without the pools' locks and changes nothing. FOREIGN is what others than this driver use,
    as long ago as the age behind it says; PROMISABLE is what further volumes may still be promised.
    """
    if context.invoked_subcommand is not None:
        return
    found = survey(read_settings(config))
    if output == "json":
        print_json([_without_volumes(pool) for pool in found])
    else:
        print_table(_COLUMNS, [_row(pool) for pool in found])


@pools.command()
@click.argument("path")
def init(path: str) -> None:
    """Make the directory PATH a pool: give it an identity of its own."""
    try:
        identity = init_pool(path)
    except ProvisionerError as error:
        fail(str(error))
    click.echo(f"{path} is now the pool {identity.pool_id}")


@pools.command(name="retire")
@click.argument("pool_id")
@config_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def retire_pool(pool_id: str, config: Path, yes: bool) -> None:  # noqa: FBT001  click gives flags by name
    """Note that the pool POOL_ID never comes back, so that its volumes can be deleted.

    Without this a delete waits for the disk, for it may only be unplugged.
    """
    if not is_pool_id(pool_id):
        raise WrongInput(f"wanted a pool's id, 16 hexadecimal digits as 'pools' shows it, found {pool_id!r}")
    found = survey(read_settings(config))
    here = [pool for pool in found if pool.state != "unavailable"]
    if any(pool.pool_id == pool_id for pool in here):
        fail(f"the pool {pool_id} is here and can be read; only one that is lost can be retired")
    if not here:
        fail("no pool of the configuration can be read, so there is none to note it in")
    if not yes:
        click.confirm(f"Volumes of {pool_id} will be reported deleted without being seen. Go on?", abort=True)
    for pool in here:
        _retire_in(pool, pool_id)
    click.echo(f"noted in {', '.join(pool.path for pool in here)}: {pool_id} is retired")


def _retire_in(pool: PoolReport, pool_id: str) -> None:
    try:
        retire(pool.path, pool_id)
    except ProvisionerError as error:
        fail(str(error))


def _without_volumes(pool: PoolReport) -> dict[str, object]:
    fields = asdict(pool)
    del fields["volumes"]
    return fields


def _row(pool: PoolReport) -> tuple[str, ...]:
    if pool.state == "unavailable":
        return pool.name, UNKNOWN, pool.path, f"unavailable: {pool.reason}", *[UNKNOWN] * 7
    sizes = (pool.size_bytes, pool.free_bytes, pool.promised_bytes, pool.trash_bytes)
    return (
        pool.name,
        pool.pool_id,
        pool.path,
        pool.state,
        *map(human_size, sizes),
        _foreign(pool),
        human_size(pool.promisable_bytes),
        pool.owner or UNKNOWN,
    )


def _foreign(pool: PoolReport) -> str:
    if pool.foreign_bytes is None:
        return UNKNOWN
    return f"{human_size(pool.foreign_bytes)} ({human_age(pool.foreign_measured_at)})"
