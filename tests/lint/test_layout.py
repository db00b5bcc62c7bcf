"""What the house style promises of the code's shape and no linter holds."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 40  # lines, without its docstring
CONFIGURATION = Path("csi/config.py")  # read before there is a second thread
VAGUE_NAMES = {"utils.py", "util.py", "helpers.py", "manager.py", "common.py", "misc.py"}
BARE_IGNORE = re.compile(r"#\s*(noqa|type: ignore)(:\s*[A-Z0-9, ]+|\[[a-z, -]+\])?\s*$")

SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("csi", "provisioner", "proto", "deploy", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if path.parent != ROOT / "csi/pb"  # generated
)


def functions(source: Path) -> Iterator[tuple[str, int]]:
    """Give each function of a file with its length in lines, docstring left out."""
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        last = node.end_lineno or node.lineno
        first = node.body[0]
        doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) and first.end_lineno else 0
        yield node.name, last - node.lineno + 1 - doc


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 10


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_file_is_short_and_its_functions_are(source: Path) -> None:
    lines = (ROOT / source).read_text().count("\n")
    assert lines <= LONGEST_FILE, f"{source} has {lines} lines: split it by its reasons to change"
    long = [f"{name}: {length}" for name, length in functions(source) if length > LONGEST_FUNCTION]
    assert not long, f"{source} has functions over {LONGEST_FUNCTION} lines: {', '.join(long)}"


def test_names_of_files_say_what_they_hold() -> None:
    assert not [str(source) for source in SOURCES if source.name in VAGUE_NAMES]


def calls(source: Path) -> Iterator[tuple[ast.Call, bool]]:
    """Give each call of a file, and whether it is made where the file is imported, in no function."""
    tree = ast.parse((ROOT / source).read_text())
    within = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, id(node) not in within


def test_json_is_read_by_decoders_that_are_made_at_import() -> None:
    # msgspec works out what a class wants when it is first asked, and two threads that ask at once crash the process.
    late = [
        f"{source}:{call.lineno}"
        for source in SOURCES
        if source.parts[0] in ("csi", "provisioner")
        for call, at_import in calls(source)
        for name in [ast.unparse(call.func)]
        if (name.endswith("decode") and any(word.arg == "type" for word in call.keywords))
        or (name.endswith("Decoder") and not at_import)
        or (name == "msgspec.convert" and source != CONFIGURATION)
    ]
    assert not late, f"make a msgspec.json.Decoder beside the class, and call its decode: {', '.join(late)}"


def test_each_ignore_has_its_reason_beside_it() -> None:
    bare = [
        f"{source}:{number}"
        for source in SOURCES
        for number, line in enumerate((ROOT / source).read_text().splitlines(), 1)
        if BARE_IGNORE.search(line)
    ]
    assert not bare, f"say why, after the code, as in `# noqa: S105  a name, no secret`: {', '.join(bare)}"
