"""What a role needs of the environment that it is started in."""

from __future__ import annotations


class SurroundingsError(ValueError):
    """The environment, or what is installed, lacks what a role needs."""
