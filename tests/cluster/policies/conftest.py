"""These have an API server of their own, and need no cluster."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def kube() -> None:
    """Take the place of the cluster that other tests here run in."""
