"""`python -m tests.cluster COMMAND`: a real Kubernetes of several nodes on this machine, without a registry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from tests.cluster.e2e.drivers import BACKENDS
from tests.cluster.e2e.suite import run_suite, summary, wrong
from tests.cluster.lab import lifecycle, places
from tests.cluster.lab.archives import make_archives
from tests.cluster.lab.driver_image import make_driver_archive
from tests.cluster.lab.install import install
from tests.cluster.lab.places import ClusterError
from tests.cluster.lab.site import HUB, nodes

_E2E_S = 3 * 3600  # for one backend
_ANY = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Start, use and end the test cluster."""


@main.command()
@click.option("--nodes", "count", default=3, show_default=True, help="how many nodes")
def up(count: int) -> None:
    """Start a cluster with the driver in it; ends the half that started when the rest does not."""
    if places.find(HUB) is not None:
        raise ClusterError("a cluster runs already; make cluster-down ends it")
    try:
        lifecycle.up(count, [*make_archives(), make_driver_archive()])
        install()
    except BaseException:
        lifecycle.down()
        raise


@main.command(context_settings=_ANY)
@click.option("--nodes", "count", default=3, show_default=True, help="how many nodes")
@click.argument("command", nargs=-1, required=True)
@click.pass_context
def run(context: click.Context, count: int, command: tuple[str, ...]) -> None:
    """Start a cluster, run a command, and end the cluster whatever happens; gives the command's exit status."""
    context.invoke(up, count=count)
    try:
        status = subprocess.run(command, check=False).returncode
    finally:
        lifecycle.down()
    sys.exit(status)


@main.command()
def down() -> None:
    """End the cluster and remove all that it made."""
    lifecycle.down()


@main.command()
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def load(archives: tuple[Path, ...]) -> None:
    """Import image archives into every node."""
    for node in nodes():
        lifecycle.load(node, [archive.resolve() for archive in archives])


@main.command(context_settings=_ANY)
@click.argument("place")
@click.argument("command", nargs=-1, required=True)
def enter(place: str, command: tuple[str, ...]) -> None:
    """Run a command as hub, n1, n2 ... sees the world."""
    _become([*places.entering(place), *command])


@main.command(context_settings=_ANY)
@click.argument("arguments", nargs=-1)
def kubectl(arguments: tuple[str, ...]) -> None:
    """Run kubectl as administrator."""
    _become(lifecycle.kubectl(*arguments))


@main.command()
@click.option("--all", "everything", is_flag=True, help="the whole of it, also what is slow, serial or disruptive")
@click.argument("names", nargs=-1, type=click.Choice([backend.name for backend in BACKENDS]))
def e2e(everything: bool, names: tuple[str, ...]) -> None:
    """Run Kubernetes' external-storage suite for some backends, or all; log and report come to lie in build/e2e."""
    found = []
    for backend in BACKENDS:
        if not names or backend.name in names:
            verdict = run_suite(backend, everything=everything, patience_s=_E2E_S)
            click.echo("\n".join(summary(backend, verdict)))
            found += wrong(backend, verdict)
    click.echo("\n".join(found))
    sys.exit(bool(found))


def _become(command: list[str]) -> None:
    os.execvp(command[0], command)  # noqa: S606  no shell is the point


if __name__ == "__main__":
    try:
        main()
    except ClusterError as error:
        sys.exit(f"cluster: {error}")
