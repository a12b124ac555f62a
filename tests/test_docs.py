"""The documentation: it builds, leaves out nothing public, and quotes what the code says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest

import aoti

ROOT = Path(__file__).parents[1]
TROUBLESHOOTING = ROOT / "docs/troubleshooting.md"


def test_it_builds_without_warnings(tmp_path):
    missing = [
        name for name in ("sphinx", "myst_parser", "furo", "sphinx_click") if not find_spec(name)
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install --group docs, or tools/docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "cache", ROOT / "docs", tmp_path / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html/api.html").read_text()
    for name in ("aoti.load", "aoti.AOTIModel.bind", "aoti.export", "aoti.testing.FakeModel"):
        assert f'id="{name}"' in page
    commands = (tmp_path / "html/cli.html").read_text()
    assert "--model-name" in commands
    assert (tmp_path / "html/troubleshooting.html").exists()


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs/api.md").read_text()
    named = set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE))
    errors = {name for name in aoti.__all__ if name.endswith("Error")}
    assert ".. automodule:: aoti.errors" in page
    assert named == {*aoti.__all__, "export"} - errors - {"__version__"}


def test_every_page_is_in_a_table_of_contents():
    entries = (ROOT / "docs/index.md").read_text().partition("toctree")[2].splitlines()
    for path in (ROOT / "docs").glob("*.md"):
        listed = any(fnmatch(path.stem, entry) for entry in entries)
        assert listed != (path.stem == "index"), path


def said_by_the_code() -> str:
    """All texts in the sources of aoti, with the gaps of f-strings as line ends."""
    texts = []
    for path in (ROOT / "aoti").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\n" for p in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n\n".join(texts)


def quotations(heading: str, column: int) -> list[str]:
    """What stands in backticks in a column of the tables below a heading."""
    section = TROUBLESHOOTING.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) > 2, heading
    return [text for row in rows[1:] for text in re.findall(r"`([^`]+)`", row[column])]


OURS = [
    ("Installing and starting", 0),
    ("Packages that do not load", 0),
    ("GPUs", 0),
    ("Calls that are refused", 0),
    ("Exports that fail", 1),
]
ELSEWHERE = ("index out of bounds",)  # said by PyTorch's kernels
FILLED_IN = r"\(?(?:torch )?\.\.\.\)?|(?<=for )(?:cuda|rocm)$|float32|float64"  # at run time


@pytest.mark.parametrize(("heading", "column"), OURS, ids=lambda value: str(value))
def test_messages_are_those_of_the_code(heading, column):
    code = said_by_the_code()
    for message in quotations(heading, column):
        if message not in ELSEWHERE:
            for part in re.split(FILLED_IN, message):
                assert part.strip(" ,:;.") in code, message


TORCH_SAYS = (  # 2.13, shortened
    "GuardOnDataDependentSymNode: Could not guard on data-dependent expression Eq(u0, 1)",
    "Unsupported: Data-dependent branching",
    "GuardOnDataDependentSymNode: Could not extract specialized integer from data-dependent "
    "expression u0",
    "FakeTensorDeviceMismatchError: Expected all tensors to be on the same device, but found at "
    "least two devices, cpu and meta!",
    "RuntimeError: We found a fake tensor in the exported program constant's list.",
    "AssertionError: Please convert all Tensors to FakeTensors first or instantiate FakeTensorMode",
    "AssertionError: Mixing fake modes NYI",
    "ConstraintViolationError: You marked batch as dynamic but your code specialized it to be a "
    "constant (3). If you're using Dim.DYNAMIC, replace it with either Dim.STATIC or Dim.AUTO.",
    "ConstraintViolationError: Not all values of batch = L['x'].size()[0] in the specified range "
    "satisfy the generated guard L['x'].size()[0] <= 16\nSuggested fixes:\n"
    "  batch = Dim('batch', max=16)",
    "UserError: Constraints violated (h)!\n  - The values of h = L['x'].size()[0] must always be "
    "related to the values of n = L['y'].size()[0] by h = 4*n.\nSuggested fixes:\n  h = 4*n",
    "UserError: When `dynamic_shapes` is specified as a dict, its top-level keys must be names",
    "UserError: Unsupported input type <class 'm.Result'>. Export only supports pytree containers",
    "AssertionError: Found <class 'm.Result'> in output, which is not a known type.",
    "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx",
    "OSError: No space left on device",
)


def matching(quotation: str, texts) -> str | None:
    pattern = re.escape(quotation).replace(r"\.\.\.", ".*")
    return next((text for text in texts if re.search(pattern, text.replace("`", ""))), None)


def test_what_torch_says_is_explained_as_the_table_says():
    from aoti.exporting.error_messages import explain_text

    table = TROUBLESHOOTING.read_text().partition("| torch says | aoti says |")[2]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 8
    for torch_says, aoti_says, *_ in rows:
        (ours,) = re.findall(r"`([^`]+)`", aoti_says)
        for theirs in re.findall(r"`([^`]+)`", torch_says):
            said = matching(theirs, TORCH_SAYS)
            assert said, theirs
            explained = str(explain_text(said, "trace Net", ""))
            assert matching(ours, [explained]), (theirs, explained)
