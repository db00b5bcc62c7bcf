"""`serve` as a process: how it starts, who stands in its way, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi.cli.child import ChildFailedError
from csi.pb import csi_pb2, csi_pb2_grpc
from tests.support.filesystems import loop_filesystem
from tests.support.served import Served, one_pool, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
CREATION = csi_pb2.CreateVolumeRequest(
    name="pvc-1",
    capacity_range=csi_pb2.CapacityRange(required_bytes=2**20),
    volume_capabilities=[
        csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(),
            access_mode=csi_pb2.VolumeCapability.AccessMode(
                mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
            ),
        )
    ],
)


def run_serve(*options: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `serve` where it must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "csi.cli", "serve", *options],
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write_config(tmp: Path, config: dict[str, Any]) -> str:
    path = tmp / "other.yaml"
    path.write_text(json.dumps(config))
    return str(path)


def eventually(condition: Callable[[], object]) -> None:
    """Wait for what another process will do."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def is_blocked(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a thread of the process waits in the kernel for a disk."""
    states = [
        path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{process.pid}/task").glob("*/stat")
    ]
    return "D" in states


@contextmanager
def frozen(path: Path) -> Iterator[None]:
    """Stop a filesystem: who writes waits."""
    subprocess.run(["fsfreeze", "--freeze", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(path)], check=True)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Served, Path]]:
    """Give a server whose pool can be frozen, and the folder to freeze."""
    with loop_filesystem("ext4", tmp_path) as disk:
        (disk.path / "lost+found").rmdir()
        with served(one_pool(tmp_path, path=str(disk.path)), tmp_path) as server:
            yield server, disk.path


def test_sigterm_lets_a_running_call_finish_and_starts_no_other(slow: tuple[Served, Path]) -> None:
    server, disk = slow
    with ThreadPoolExecutor(1) as caller:
        with frozen(disk):
            running = caller.submit(server.controller.CreateVolume, CREATION, timeout=30)
            eventually(lambda: is_blocked(server.process))
            server.process.terminate()
            eventually(lambda: not server.socket.exists())
            eventually(lambda: _refuses(server))
            assert server.process.poll() is None
        assert running.result().volume.capacity_bytes == 2**20
    assert server.process.wait(30) == 0
    server.stop()
    server.start()
    listing = server.controller.ListVolumes(csi_pb2.ListVolumesRequest(), timeout=10)
    assert len(listing.entries) == 1


def _refuses(server: Served) -> bool:
    try:
        server.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest(), timeout=1)
    except grpc.RpcError:
        return True
    return False


def test_a_second_signal_cancels_running_calls(slow: tuple[Served, Path]) -> None:
    server, disk = slow
    with ThreadPoolExecutor(1) as caller:
        with frozen(disk):
            running = caller.submit(server.controller.CreateVolume, CREATION, timeout=30)
            eventually(lambda: is_blocked(server.process))
            server.process.terminate()
            eventually(lambda: "event=stopping" in server.log_text())
            server.process.terminate()
            with pytest.raises(grpc.RpcError) as caught:
                running.result()
        failed: Any = caught.value
        assert failed.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert server.process.wait(30) == 0
    assert 'event="cancelling running calls"' in server.log_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_and_without_its_socket(tmp_path: Path, number: signal.Signals) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert not server.socket.exists()
        assert f"event=stopping signal={number.name}" in server.log_text()


def test_after_kill_it_starts_over_the_stale_socket(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        server.kill()
        assert server.socket.exists()
        server.start()
        assert server.stop() == 0


def test_it_leaves_a_live_socket_to_its_server(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with served(one_pool(tmp_path), tmp_path) as server:
        done = run_serve("--config", write_config(tmp_path, one_pool(other)), "--endpoint", server.endpoint)
        assert done.returncode == 1
        assert f"another process listens on this socket (pid {server.process.pid})" in done.stderr
        assert server.identity.Probe(csi_pb2.ProbeRequest(), timeout=5).ready.value


def test_it_tells_who_serves_the_pool_already_and_binds_nothing(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        config = write_config(tmp_path, {**one_pool(tmp_path), "lockWaitSeconds": 0.1})
        done = run_serve("--config", config, "--endpoint", str(tmp_path / "second.sock"))
        assert done.returncode == 1
        assert str(server.process.pid) in done.stderr
        assert os.uname().nodename in done.stderr
        assert not (tmp_path / "second.sock").exists()
        assert server.identity.Probe(csi_pb2.ProbeRequest(), timeout=5).ready.value


def test_it_takes_over_when_the_pool_s_server_ends_in_time(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    with (
        served(one_pool(tmp_path), tmp_path) as server,
        served({**one_pool(tmp_path), "lockWaitSeconds": 30}, second, start=False) as next_one,
    ):
        next_one.launch()
        server.stop()
        next_one.wait_ready()


def test_a_signal_ends_the_wait_for_a_pool(tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    with (
        served(one_pool(tmp_path), tmp_path),
        served({**one_pool(tmp_path), "lockWaitSeconds": 1000}, second, start=False) as waiting,
    ):
        waiting.launch()
        eventually(lambda: _waits_for_lock(waiting.process))
        waiting.process.terminate()
        assert waiting.process.wait(30) == 0
        assert "stopped before anything was served" in waiting.log_text()


def _waits_for_lock(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether the process has the pool's lock file open."""
    opened = Path(f"/proc/{process.pid}/fd")
    return any(os.readlink(fd).endswith("/.csi-local-path/lock") for fd in opened.iterdir() if fd.is_symlink())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--endpoint", "/run/csi"], "ends in .sock"),
        (["--endpoint", "tcp://[::]:1"], "wanted unix:///path/to/csi.sock"),
        (["--endpoint", "/run/x.sock", "--node-id", "no good"], "nodeId: wanted at most 63 letters"),
        (["--endpoint", "/run/x.sock", "--config", "/no/such.yaml"], "(in /no/such.yaml)"),
        (["--endpoint", "/run/x.sock", "--role", "nod"], "'nod' is not one of 'standalone', 'node', 'controller'"),
        (["--endpoint", "/run/x.sock", "--role", "node"], "POD_IP: wanted in the environment, found nothing"),
        (["--endpoint", "/run/x.sock", "--http-port", "65536"], "65536 is not in the range"),
        ([], "CSI_ENDPOINT"),
    ],
)
def test_a_wrong_start_ends_with_status_2_and_a_sentence(tmp_path: Path, options: list[str], sentence: str) -> None:
    config = write_config(tmp_path, one_pool(tmp_path))
    done = run_serve("--config", config, *options, environ={"CSI_ENDPOINT": ""})
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_key_ends_it_with_status_2_and_its_name(tmp_path: Path) -> None:
    config = write_config(tmp_path, one_pool(tmp_path, overcommit="x"))
    done = run_serve("--config", config, environ={"CSI_ENDPOINT": str(tmp_path / "csi.sock")})
    assert done.returncode == 2
    assert "pools[0].overcommit: wanted a number > 0 and <= 1000, found 'x' (in " in done.stderr


def test_a_port_in_use_ends_it_with_status_1_before_the_pool_is_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        config = write_config(tmp_path, one_pool(tmp_path))
        done = run_serve("--config", config, "--http-port", port, "--endpoint", f"{tmp_path}/csi.sock")
    assert (done.returncode, "choose another --http-port" in done.stderr) == (1, True), done.stderr
    assert list((tmp_path / "pool").iterdir()) == []


def test_the_environment_names_endpoint_and_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-7")
    with served(one_pool(tmp_path), tmp_path) as server:
        assert server.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=5).node_id == "node-7"


def test_the_option_outdoes_the_file_s_node_id(tmp_path: Path) -> None:
    config = {**one_pool(tmp_path), "nodeId": "of-the-file"}
    with served(config, tmp_path) as server:
        assert server.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=5).node_id == "of-the-file"
    with served(config, tmp_path, options=("--node-id", "of-the-option")) as server:
        assert server.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=5).node_id == "of-the-option"


def test_each_line_is_json_on_request(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path, options=("--log-format", "json", "--log-level", "debug")) as server:
        server.controller.CreateVolume(CREATION, timeout=10)
        server.stop()
        lines = [json.loads(line) for line in server.log_text().splitlines()]
    assert {"serving", "ready", "rpc", "stopping", "stopped"} <= {line["event"] for line in lines}
    assert [line["code"] for line in lines if line.get("method") == "CreateVolume"] == ["OK"]


def test_a_server_whose_log_reader_died_serves_on(tmp_path: Path) -> None:
    config = write_config(tmp_path, one_pool(tmp_path))
    endpoint = f"unix://{tmp_path}/csi.sock"
    argv = [sys.executable, "-m", "csi.cli", "serve", "--config", config, "--endpoint", endpoint]
    with (
        subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE) as process,
        grpc.insecure_channel(endpoint) as channel,
    ):
        assert process.stderr
        while b"event=ready" not in process.stderr.readline():
            assert process.poll() is None
        process.stderr.close()
        csi_pb2_grpc.ControllerStub(channel).CreateVolume(CREATION, timeout=10)
        process.terminate()
        assert process.wait(30) == 0


def test_serving_needs_neither_tables_nor_a_cluster_in_memory() -> None:
    program = (
        "import sys\n"
        "import csi.cli.serve\n"
        "from csi.cli.lean import slim_down\n"
        "slim_down()\n"
        "import csi.cli.serving\n"
        "print([m for m in ('rich', 'kubernetes', 'psutil', 'csi.config_types') if m in sys.modules])\n"
        "import rich\n"  # and whoever wants it later can have it
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_server_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    with (
        served(one_pool(tmp_path, overcommit="x"), tmp_path, start=False) as server,
        pytest.raises(ChildFailedError, match="overcommit"),
    ):
        server.start()
