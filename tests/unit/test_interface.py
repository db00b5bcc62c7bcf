"""csi.proto states the CSI interface v1.13.0, and csi/pb/ is what csi.proto gives.

interface.tsv holds the specification's facts, a line each: kind, name, number, type (of a field) or
signature (of an RPC), where it stands (its oneof, or what an option extends), and the options set on it.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

from csi.pb import csi_pb2, csi_pb2_grpc
from proto import generate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor, ServiceDescriptor

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("interface.tsv")
SCALARS = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
}


class Fact(NamedTuple):
    """A line of the table."""

    kind: str
    name: str
    number: str = ""
    type: str = ""
    place: str = ""
    options: str = ""


def stated(file: FileDescriptor) -> Iterator[Fact]:
    """Tell everything that a compiled interface says about the wire."""
    for option in file.extensions_by_name.values():
        assert option.containing_type
        extends = f"extends {option.containing_type.name}"
        yield Fact("option", option.name, str(option.number), type_of(option), extends)
    for service in file.services_by_name.values():
        yield from stated_by_service(service)
    for enum in file.enum_types_by_name.values():
        yield from stated_by_enum(enum)
    for message in file.message_types_by_name.values():
        yield from stated_by_message(message)


def stated_by_service(service: ServiceDescriptor) -> Iterator[Fact]:
    yield Fact("service", service.name, options=marks(service))
    for rpc in service.methods:
        assert not rpc.client_streaming
        answer = ("stream " if rpc.server_streaming else "") + rpc.output_type.name
        yield Fact("rpc", local(rpc), type=f"{rpc.input_type.name} -> {answer}", options=marks(rpc))


def stated_by_enum(enum: EnumDescriptor) -> Iterator[Fact]:
    yield Fact("enum", local(enum), options=marks(enum))
    for value in enum.values:
        yield Fact("value", f"{local(enum)}.{value.name}", str(value.number), options=marks(value))


def stated_by_message(message: Descriptor) -> Iterator[Fact]:
    yield Fact("message", local(message), options=marks(message))
    for field in message.fields:
        place = f"oneof {field.containing_oneof.name}" if field.containing_oneof else ""
        yield Fact("field", local(field), str(field.number), type_of(field), place, marks(field))
    for enum in message.enum_types:
        yield from stated_by_enum(enum)
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from stated_by_message(nested)


def type_of(field: FieldDescriptor) -> str:
    inner = field.message_type
    if inner and inner.GetOptions().map_entry:
        return f"map<{','.join(type_of(part) for part in inner.fields)}>"
    named = inner or field.enum_type
    name = local(named) if named else SCALARS.get(field.type, f"type {field.type}")
    return f"repeated {name}" if field.is_repeated else name


def local(descriptor: Any) -> str:
    """Give a name as seen from inside of the package."""
    return str(descriptor.full_name).removeprefix("csi.v1.")


def marks(descriptor: Any) -> str:
    """Name the options of ours that are set, in the order of their numbers."""
    return ",".join(option.name for option, _ in descriptor.GetOptions().ListFields() if option.is_extension)


def lines(facts: set[Fact]) -> str:
    """Show facts as the table does."""
    return "\n".join("\t".join(fact).rstrip() for fact in sorted(facts))


def test_interface_is_the_one_of_the_specification() -> None:
    wanted = {Fact(*line.split("\t")) for line in TABLE.read_text().splitlines()[1:]}
    found = set(stated(csi_pb2.DESCRIPTOR))
    assert csi_pb2.DESCRIPTOR.package == "csi.v1"
    assert len(wanted) == 435
    assert lines(wanted - found) == "", "missing from csi.proto"
    assert lines(found - wanted) == "", "in csi.proto alone"


def test_changed_and_missing_stubs_are_stale_and_the_committed_ones_are_not(tmp_path: Path) -> None:
    for name in generate.STUBS:
        shutil.copy(ROOT / "csi/pb" / name, tmp_path)
    (tmp_path / "csi_pb2.py").write_text("# of an older interface\n")
    (tmp_path / "csi_pb2_grpc.pyi").unlink()
    assert generate.stale_stubs(tmp_path) == ["csi_pb2.py", "csi_pb2_grpc.pyi"]


def test_stubs_are_imported_without_a_warning() -> None:
    program = "from csi.pb import csi_pb2, csi_pb2_grpc"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_package_build_makes_stubs_with_the_versions_of_the_lock_file() -> None:
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert requires == [f"{name}=={importlib.metadata.version(name)}" for name in map(package, requires)]


def test_dependencies_are_no_older_than_the_stubs_demand() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    protobuf = re.search("Protobuf Python Version: (.*)", (ROOT / "csi/pb/csi_pb2.py").read_text())
    assert protobuf
    assert f"protobuf>={protobuf[1]}" in dependencies
    assert f"grpcio>={csi_pb2_grpc.GRPC_GENERATED_VERSION}" in dependencies


def package(requirement: str) -> str:
    """Give the name in `name==version`."""
    return requirement.partition("==")[0]
