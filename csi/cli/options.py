"""What the commands for people share: which file, which form of answer, and errors as a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from csi.config import DEFAULT_PATH, load_settings
from provisioner.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable


class WrongInput(click.ClickException):
    """The configuration or an argument is wrong."""

    exit_code = 2


def config_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config."""
    kind = click.Path(path_type=Path)
    return click.option("--config", type=kind, default=DEFAULT_PATH, show_default=True, help="YAML file.")(command)


def output_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add -o."""
    kind = click.Choice(["table", "json"])
    return click.option("-o", "--output", type=kind, default="table", show_default=True)(command)


def read_settings(config: Path) -> Settings:
    """Read the configuration, or end the command with a sentence and status 2."""
    try:
        return load_settings(config)
    except SettingsError as error:
        raise WrongInput(str(error)) from error


def fail(message: str) -> NoReturn:
    """End the command with a sentence and status 1."""
    raise click.ClickException(message)
