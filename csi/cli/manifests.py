"""`csi-local-path manifests`: PersistentVolumes for the volumes on a disk, for a cluster that was built anew."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import yaml

from csi.cli.options import WrongInput, config_option, read_settings
from csi.cli.tables import printable
from csi.manifests import claim_of, persistent_volume, unfit
from csi.node_id import NodeIdError, node_id
from provisioner.survey import PoolReport, VolumeReport, survey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@click.command()
@config_option
@click.option("--node-id", "of_node", default="", help="Instead of nodeId in the file, NODE_NAME, or the host's name.")
@click.option("--storage-class", default="", help="The class that the claims name.")
@click.option("--pool", default="", help="Only volumes of this pool.")
@click.option("--claims", is_flag=True, help="The PersistentVolumeClaims too.")
def manifests(config: Path, of_node: str, storage_class: str, pool: str, claims: bool) -> None:  # noqa: FBT001  click gives flags by name
    """Print the PersistentVolumes of this node's volumes, as YAML.

    For a cluster that was built anew around disks that stayed. Reads without the pools' locks and changes nothing.
    What is left out and may matter is told on standard error. Exit status 1 if a pool could not be read.
    """
    settings = read_settings(config)
    try:
        node = node_id(of_node or settings.node_id)
    except NodeIdError as error:
        raise WrongInput(str(error)) from error
    pools = [found for found in survey(settings) if pool in ("", found.name)]
    if not pools:
        raise WrongInput(f"--pool: wanted one of {', '.join(p.name for p in settings.pools)}, found {pool!r}")
    printed: list[dict[str, Any]] = []
    for volume in _wanted(pools):
        printed.append(persistent_volume(volume, node, storage_class))
        claim = claim_of(volume, storage_class)
        if claim is None:
            _tell(volume.volume_id, "its record names no claim, so that any claim may take it", what="No claimRef")
        elif claims:
            printed.append(claim)
    click.echo(yaml.safe_dump_all(printed, sort_keys=False, explicit_start=True), nl=False)
    sys.exit(1 if any(found.state == "unavailable" for found in pools) else 0)


def _wanted(pools: list[PoolReport]) -> Iterator[VolumeReport]:
    """Give the volumes that a PersistentVolume can stand for.

    What an administrator must look at is told; the trash and the volumes that pods take along are not.
    """
    for pool in pools:
        if pool.state == "unavailable":
            _tell(f"pool {pool.name!r}", pool.reason)
        for volume in pool.volumes:
            reason = unfit(volume)
            if reason:
                _tell(volume.volume_id, reason)
            elif volume.is_sound and not volume.pod:
                yield volume


def _tell(subject: str, reason: str, *, what: str = "Left out") -> None:
    click.echo(f"{what}: {printable(subject)}: {printable(reason)}", err=True)
