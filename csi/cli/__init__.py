"""The program `csi-local-path`. Each subcommand is imported when it is run: `serve` stays small."""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = ("serve", "demo", "volumes", "pools", "manifests")


class _LazyGroup(click.Group):
    """Finds the subcommand X as function X in csi.cli.X."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"csi.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="csi-local-path", message="%(prog)s %(version)s")
def main() -> None:
    """Serve CSI volumes that are directories on this host's own disk."""
