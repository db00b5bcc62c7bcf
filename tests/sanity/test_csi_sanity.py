"""csi-sanity, the outside judge, against the program as it is served, for each means that runs here."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi.pb import csi_pb2
from provisioner.linux.mountinfo import read_mountinfo
from tests.sanity.judge import SECRET, run_judge
from tests.support.ginkgo import Verdict
from tests.support.means import QUOTA_EXT4, QUOTA_XFS, SUBVOLUME, Means, has_project_quotas
from tests.support.served import Served, one_pool, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
DISK_BYTES = 8 << 30
SPECS = 103  # of csi-sanity v5.6.0; another number means another judge, whose skips need a look
CONTROLLER = "Controller Service [Controller Server] / "

# The only specs that may be skipped, by the beginning of their names, with what they call for. All others must
# run: a capability that is lost skips its specs and so fails here.
SKIPS = {
    CONTROLLER + "ControllerPublishVolume": "PUBLISH_UNPUBLISH_VOLUME: a directory is never attached",
    CONTROLLER + "volume lifecycle": "PUBLISH_UNPUBLISH_VOLUME",
    CONTROLLER + "ControllerUnpublishVolume": "PUBLISH_UNPUBLISH_VOLUME",
    CONTROLLER + "CreateVolume / should create volume from an existing source": "snapshots and clones: not yet",
    CONTROLLER + "CreateVolume / should fail when the volume source": "snapshots and clones: not yet",
    CONTROLLER + "CreateVolume / should create volume with a volume attribute class": "MODIFY_VOLUME: not yet",
    CONTROLLER + "CreateVolume / should not create volume with an invalid": "MODIFY_VOLUME: not yet",
    CONTROLLER + "ListVolumes / pagination": "switched off in the judge itself",
    "CreateSnapshot": "CREATE_DELETE_SNAPSHOT: not yet",
    "DeleteSnapshot": "CREATE_DELETE_SNAPSHOT: not yet",
    "GetSnapshot": "GET_SNAPSHOT: not yet",
    "ListSnapshots": "LIST_SNAPSHOTS: not yet",
    "ModifyVolume": "MODIFY_VOLUME: not yet",
    "GroupController Service": "GROUP_CONTROLLER_SERVICE: not yet",
}


def find_judge() -> Path:
    """Give the program, or skip where it is not built."""
    found = sorted(ROOT.glob(".cache/csi-sanity-v*/csi-sanity"))
    if not found:
        pytest.skip("csi-sanity is not built: run `.ci/setup sanity`")
    return found[-1]


@dataclass(frozen=True)
class Case:
    """What is judged: a class's parameters on a disk of its own, or the machine's; how volumes are accessed."""

    name: str
    parameters: dict[str, str]
    means: Means | None = None
    access: str = "mount"


# Thin: the judge asks for more volumes than a small disk has room for at once.
THIN = {"backend": "image", "thin": "true"}
_HERE = (
    Case("directory", {"backend": "directory", "enforce": "besteffort"}),
    Case("subvolume", {"backend": "subvolume"}, SUBVOLUME),
    Case("ext4 image", THIN),
    Case("xfs image", THIN | {"fsType": "xfs"}),
    Case("raw block", THIN, access="block"),
)
_IN_THE_VM = tuple(Case(means.name, {"backend": "quota"}, means) for means in (QUOTA_XFS, QUOTA_EXT4))
CASES = _IN_THE_VM if has_project_quotas() else _HERE


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def server(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    tmp = tmp_path_factory.mktemp("sanity")
    with ExitStack() as stack:
        keys: dict[str, str] = {}
        if case.means:
            means = replace(case.means, size=DISK_BYTES)
            disk = stack.enter_context(means.filesystem(tmp_path_factory.mktemp("disk")))
            keys = {"path": str(disk)} | means.pool
        yield stack.enter_context(served(one_pool(tmp, **keys), tmp))


@pytest.fixture(scope="module")
def verdict(case: Case, server: Served) -> Verdict:
    parameters = server.tmp / "parameters.yaml"
    parameters.write_text(json.dumps(case.parameters))  # every JSON text is YAML
    options = (f"--csi.testvolumeparameters={parameters}", f"--csi.testvolumeaccesstype={case.access}")
    return run_judge(find_judge(), server.endpoint, server.tmp, *options)


def test_no_spec_fails(verdict: Verdict, record_property: Callable[[str, object], None]) -> None:
    passed = verdict.in_state("passed")
    skipped = verdict.in_state("skipped", "pending")
    record_property("note", f"csi-sanity: {len(passed)} of {len(verdict.specs)} specs ran and passed:")
    for name in sorted(passed):
        record_property("note", f"    {name}")
    record_property("note", f"csi-sanity: {len(skipped)} specs were skipped:")
    for name, why in sorted(skipped.items()):
        ours = next((reason for begin, reason in SKIPS.items() if name.startswith(begin)), "unexpected")
        record_property("note", f"    {name}: {why or 'pending'} ({ours})")
    failed = {spec.name: spec.why for spec in verdict.specs if spec.name not in passed | skipped}
    assert not failed, "\n".join(f"{name}: {why}" for name, why in failed.items())
    assert verdict.exit_status == 0, verdict.output


def test_every_spec_runs_that_our_capabilities_call_for(verdict: Verdict) -> None:
    skipped = verdict.in_state("skipped", "pending")
    lost = {name: why for name, why in skipped.items() if not name.startswith(tuple(SKIPS))}
    assert not lost, f"skipped, though a capability of ours calls for them: {lost}"
    assert len(verdict.specs) == SPECS


def test_a_spec_that_runs_is_no_longer_listed_as_skipped(verdict: Verdict) -> None:
    ran = [name for name in verdict.in_state("passed", "failed") if name.startswith(tuple(SKIPS))]
    assert not ran, f"take them off SKIPS: {ran}"


def test_the_judge_leaves_no_volume_and_no_mount(verdict: Verdict, server: Served) -> None:
    assert verdict.specs
    assert not server.controller.ListVolumes(csi_pb2.ListVolumesRequest()).entries
    assert not [at.mount_point for at in read_mountinfo() if at.mount_point.startswith(f"{server.tmp}/")]
    assert not (server.tmp / "mount").exists()
    assert not (server.tmp / "staging").exists()


def test_the_log_holds_no_secret_and_no_traceback(verdict: Verdict, server: Served) -> None:
    assert "CreateVolume" in server.log_text(), verdict.output
    assert SECRET not in server.log_text()
    assert "Traceback" not in server.log_text()
