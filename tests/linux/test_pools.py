"""Who a pool is, and who owns it: identity files and locks on a real disk."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from provisioner.assembly import Provisioner
from provisioner.disk import PoolLocked
from provisioner.errors import PoolUnavailable
from provisioner.identity import CONTROL, FOLDERS, AlreadyInitialised, PoolIdentity, init_pool
from provisioner.linux.fsuuid import filesystem_uuid
from provisioner.names import is_pool_id
from provisioner.settings import Settings
from tests.support.disks import is_reachable, tree, with_pool
from tests.support.filesystems import Filesystem
from tests.support.provisioned import PATIENT, running, settings_for, wanted

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """An empty directory."""
    path = tmp_path / "pool"
    path.mkdir()
    return path


def identity_of(pool: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((pool / CONTROL / "pool.json").read_text())
    return found


def refusal(settings: Settings) -> str:
    """Serve, and give the reason why the first pool is refused."""
    with running(settings) as provisioner:
        assert provisioner.volumes.ready
        with pytest.raises(PoolUnavailable) as caught:
            provisioner.volumes.create(wanted("any"), PATIENT)
        return str(caught.value)


# -- identity -------------------------------------------------------------------------------------


def test_init_gives_an_identity_and_the_folders(folder: Path) -> None:
    made = init_pool(str(folder))
    assert is_pool_id(made.pool_id)
    assert identity_of(folder) == {name: getattr(made, name) for name in PoolIdentity.__struct_fields__}
    fd = os.open(folder, os.O_RDONLY)
    assert made.filesystem_uuid == filesystem_uuid(fd)
    os.close(fd)
    control = folder / CONTROL
    assert sorted(os.listdir(control)) == sorted([*FOLDERS, "pool.json"])
    for path in (control, *(control / name for name in FOLDERS)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_init_again_changes_nothing(pool: Path) -> None:
    init_pool(str(pool))
    before = tree(pool)
    with pytest.raises(AlreadyInitialised, match="nothing was changed"):
        init_pool(str(pool))
    assert tree(pool) == before


def test_init_of_many_at_once_gives_one_identity(pool: Path) -> None:
    begin, made = threading.Barrier(8), []

    def init() -> None:
        begin.wait()
        try:
            made.append(init_pool(str(pool)).pool_id)
        except AlreadyInitialised:
            return

    threads = [threading.Thread(target=init) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [identity_of(pool)["pool_id"]]


def test_init_needs_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in ("missing", "file", "file/below"):
        with pytest.raises(PoolUnavailable, match="wanted a directory"):
            init_pool(str(tmp_path / path))
    (tmp_path / CONTROL).write_text("in the way")
    with pytest.raises(PoolUnavailable, match="cannot be initialised"):
        init_pool(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [CONTROL, "file"]


def test_an_empty_directory_is_initialised_once(tmp_path: Path) -> None:
    settings, ids = settings_for(tmp_path), set()
    for _ in range(2):
        with running(settings) as provisioner:
            ids.add(provisioner.volumes.create(wanted("vol"), PATIENT).volume_id)
    assert len(ids) == 1


def test_what_mkfs_leaves_is_empty(tmp_path: Path, pool: Path) -> None:
    (pool / "lost+found").mkdir()
    with running(settings_for(tmp_path)) as provisioner:
        assert is_reachable(provisioner.volumes)


@pytest.mark.parametrize("init", ["never", "if-empty"])
def test_a_directory_that_strangers_use_is_never_initialised(tmp_path: Path, pool: Path, init: str) -> None:
    (pool / "theirs").write_text("mine")
    before = tree(pool)
    assert "pools init" in refusal(settings_for(tmp_path, init=init))
    assert tree(pool) == before


def test_an_empty_directory_is_left_alone_unless_it_may_be_initialised(tmp_path: Path, pool: Path) -> None:
    assert "pools init" in refusal(settings_for(tmp_path, init="never"))
    assert os.listdir(pool) == []


def _nothing(_: Path) -> None: ...


def _folder(name: str) -> Callable[[Path], None]:
    return lambda control: (control / name).mkdir()


def _draft(content: str) -> Callable[[Path], None]:
    def write(control: Path) -> None:
        (control / "pool.json.new").write_text(content)

    return write


STEPS = [_nothing, *(_folder(name) for name in FOLDERS), _draft(""), _draft('{"schema": 1, "pool_'), _draft("{}")]


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
def test_an_initialisation_that_a_crash_cut_short_is_finished(
    tmp_path: Path, pool: Path, steps: int, by_hand: bool
) -> None:
    """Each step is the last one that was made."""
    if steps:
        (pool / CONTROL).mkdir()
    for step in STEPS[:steps]:
        step(pool / CONTROL)
    if by_hand:
        init_pool(str(pool))
    with running(settings_for(tmp_path)) as provisioner:
        assert is_reachable(provisioner.volumes)
    assert not (pool / CONTROL / "pool.json.new").exists()


@pytest.mark.parametrize("init", ["never", "if-empty"])
@pytest.mark.parametrize("left", ["all", "volumes alone"])
def test_a_pool_that_lost_its_identity_gets_no_new_one(tmp_path: Path, pool: Path, init: str, left: str) -> None:
    settings = settings_for(tmp_path)
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    content = (pool / CONTROL / "pool.json").read_text()
    (pool / CONTROL / "pool.json").unlink()
    if left == "volumes alone":
        (pool / CONTROL / "lock").unlink()
        for name in ("published", "retired", "staging", "trash"):
            (pool / CONTROL / name).rmdir()
    before = tree(pool / CONTROL / "volumes")
    assert "pool.json cannot be read" in refusal(with_pool(settings, init=init))
    with pytest.raises(PoolUnavailable, match="would orphan its volumes"):
        init_pool(str(pool))
    assert tree(pool / CONTROL / "volumes") == before
    assert not (pool / CONTROL / "pool.json").exists()
    (pool / CONTROL / "pool.json").write_text(content)
    for name in FOLDERS:
        (pool / CONTROL / name).mkdir(exist_ok=True)
    with running(settings) as provisioner:
        assert provisioner.volumes.get(volume.volume_id) == volume


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ('{"schema": 1, "pool_', "cannot be read"),
        ("\xff", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"schema": 1}', "cannot be read"),
        ('{"schema": 2, "pool_id": "0123456789abcdef", "filesystem_uuid": null, "created_at": ""}', "newer version"),
        ('{"schema": 1, "pool_id": "../../../../../x", "filesystem_uuid": null, "created_at": ""}', "no pool id"),
    ],
)
def test_an_identity_that_cannot_be_trusted_is_refused_and_kept(
    tmp_path: Path, pool: Path, content: str, said: str
) -> None:
    init_pool(str(pool))
    (pool / CONTROL / "pool.json").write_bytes(content.encode("latin-1"))
    before = tree(pool)
    assert said in refusal(settings_for(tmp_path))
    assert tree(pool) == before


def test_an_identity_behind_a_symlink_is_refused(tmp_path: Path, pool: Path) -> None:
    init_pool(str(pool))
    (pool / CONTROL / "pool.json").rename(tmp_path / "elsewhere")
    (pool / CONTROL / "pool.json").symlink_to(tmp_path / "elsewhere")
    assert "cannot be read" in refusal(settings_for(tmp_path))


def test_a_pool_without_a_filesystem_uuid_is_no_mismatch(folder: Path) -> None:
    settings = settings_for(folder)
    init_pool(str(folder / "pool"))
    content = identity_of(folder / "pool") | {"filesystem_uuid": None}
    (folder / "pool" / CONTROL / "pool.json").write_text(json.dumps(content))
    with running(settings) as provisioner:
        assert is_reachable(provisioner.volumes)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])  # btrfs tells no UUID
def test_a_pool_that_was_copied_to_another_filesystem_is_refused(
    filesystems: dict[str, Filesystem], tmp_path: Path, kind: str
) -> None:
    settings = settings_for(tmp_path)
    with running(settings) as provisioner:
        provisioner.volumes.create(wanted("vol"), PATIENT)
    copy = settings_for(Path(tempfile.mkdtemp(dir=filesystems[kind].path)))
    pool = Path(copy.pools[0].path)
    shutil.copytree(tmp_path / "pool", pool, dirs_exist_ok=True)
    (pool / CONTROL / "pool.json").write_text(
        json.dumps(identity_of(pool) | {"filesystem_uuid": "01234567-89ab-cdef-0123-456789abcdef"})
    )
    before = tree(pool)
    assert "mount the right disk" in refusal(copy)
    assert tree(pool) == before


# -- one owner ------------------------------------------------------------------------------------

_HOLD = """
import sys
from pathlib import Path
from provisioner.assembly import Provisioner
from tests.support.provisioned import settings_for
provisioner = Provisioner(settings_for(Path(sys.argv[1])))
provisioner.lock()
print("locked", flush=True)
sys.stdin.read()
provisioner.stop()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process own the pool at folder/pool until its stdin ends."""
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.stdin.close()


def test_a_second_process_is_told_who_holds_the_pool_since_when(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with another_process(tmp_path) as holder:
        for _ in range(2):
            with pytest.raises(PoolLocked) as caught:
                Provisioner(settings).lock()
        said = str(caught.value)
        assert f"process {holder.pid} on host {os.uname().nodename} serves it since 20" in said
        assert str(tmp_path / "pool") in said
    with running(settings) as provisioner:
        assert is_reachable(provisioner.volumes)


def test_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    with another_process(tmp_path) as holder:
        holder.kill()
        holder.wait()
        with running(settings_for(tmp_path)) as provisioner:
            assert is_reachable(provisioner.volumes)


def test_the_next_owner_waits_for_the_one_before_it(tmp_path: Path) -> None:
    """As in a rolling update."""
    before, after = (Provisioner(with_wait) for with_wait in [_waiting(settings_for(tmp_path))] * 2)
    before.lock()
    locked = threading.Event()

    def lock() -> None:
        after.lock()
        locked.set()

    thread = threading.Thread(target=lock)
    thread.start()
    assert not locked.wait(0.3)
    before.stop()
    assert locked.wait(10)
    thread.join()
    after.stop()


def _waiting(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, lock_wait_seconds=30)


def test_one_locked_pool_keeps_all_from_being_served(tmp_path: Path) -> None:
    """Half of a node's pools would look like the other half's loss."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    both, other_settings = settings_for(one, name="one"), settings_for(other, name="other")
    both.pools.extend(other_settings.pools)
    holder = Provisioner(other_settings)
    holder.lock()
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(PoolLocked, match="other/pool"):
        Provisioner(both).lock()
    assert os.listdir("/proc/self/fd") == descriptors
    holder.stop()
    with running(both) as provisioner:
        assert is_reachable(provisioner.volumes)


def test_children_inherit_no_descriptor_and_so_no_lock(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    before = set(os.listdir("/proc/self/fd"))
    with running(settings) as provisioner:
        provisioner.volumes.create(wanted("vol"), PATIENT)
        ours = set(os.listdir("/proc/self/fd")) - before
        assert len(ours) > 5
        for fd in ours:
            if os.path.exists(f"/proc/self/fd/{fd}"):  # but for the one of listdir itself
                assert fcntl.fcntl(int(fd), fcntl.F_GETFD) & fcntl.FD_CLOEXEC, os.readlink(f"/proc/self/fd/{fd}")
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with running(settings) as provisioner:
            assert is_reachable(provisioner.volumes)
    finally:
        child.kill()
        child.wait()
    assert set(os.listdir("/proc/self/fd")) == before
