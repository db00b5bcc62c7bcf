"""How the API server is found, and the token kept fresh."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from csi.cluster.connection import NoConnectionError, Token, connect
from tests.support.announced import Clock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "ca.crt").write_text("PEM")
    (tmp_path / "token").write_text("secret\n")
    return tmp_path


@pytest.mark.parametrize(
    ("address", "host"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_a_pod_finds_the_server_by_its_environment(account: Path, address: str, host: str) -> None:
    found = connect({"KUBERNETES_SERVICE_HOST": address, "KUBERNETES_SERVICE_PORT": "443"}, account)
    assert (found.host, found.authorization()) == (host, "Bearer secret")


def test_a_pod_without_an_authority_is_told_so(account: Path) -> None:
    (account / "ca.crt").unlink()
    with pytest.raises(NoConnectionError, match=r"ca\.crt: wanted the certificate"):
        connect({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, account)


def test_a_pod_without_a_token_is_told_so(account: Path) -> None:
    (account / "token").write_text("\n")
    with pytest.raises(NoConnectionError, match="found an empty file"):
        connect({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, account)


def test_a_token_is_read_again_each_minute(account: Path) -> None:
    clock = Clock()
    token = Token(account / "token", clock)
    assert token() == "Bearer secret"
    (account / "token").write_text("newer")
    clock.now += 59
    assert token() == "Bearer secret"
    clock.now += 1
    assert token() == "Bearer newer"


def test_a_token_that_cannot_be_read_again_is_an_error(account: Path) -> None:
    clock = Clock()
    token = Token(account / "token", clock)
    token()
    (account / "token").unlink()
    clock.now += 60
    with pytest.raises(OSError, match="token"):
        token()


def test_who_serves_in_a_pod_does_not_load_what_only_kubeconfigs_need() -> None:
    looks = "import csi.cluster.agent, csi.cluster.controlling, csi.cluster.connecting, sys"
    subprocess.run([sys.executable, "-c", f"{looks}; assert 'kubernetes' not in sys.modules"], check=True)
