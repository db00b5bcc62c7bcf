"""What unit tests share; and Hypothesis without its time limit: the machine is shared, and a slow moment is no bug."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.trashes import Bench

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a trash; its thread ends with the test."""
    made = Bench(tmp_path)
    yield made
    made.trash.stop()
