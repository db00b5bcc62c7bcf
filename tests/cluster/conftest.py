"""The running cluster, and a namespace of each test's own that leaves no volume behind."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator

import pytest

from tests.cluster.kube import Kube
from tests.cluster.lab.evidence import evidence
from tests.cluster.lab.places import enter_network
from tests.cluster.lab.site import HUB
from tests.cluster.scene import Scene


@pytest.fixture(scope="session", autouse=True)
def kube() -> Iterator[Kube]:
    """Give the API server of the cluster that runs; its network is this process's own from here on."""
    enter_network(HUB)
    kube = Kube()
    yield kube
    kube.close()


@pytest.fixture
def scene(kube: Kube) -> Iterator[Scene]:
    """Give a namespace; at the end all in it goes, and with it each volume that a claim in it had."""
    scene = Scene(kube, f"t-{secrets.token_hex(4)}")
    yield scene
    scene.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failed test what the cluster has to say."""
    report = yield
    if report.failed and report.when in {"call", "teardown"}:
        report.sections.append(("the cluster", evidence()))
    return report
