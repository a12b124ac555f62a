"""The architecture, held by reading the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import aoti

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "aoti").rglob("*.py"))
WITH_TORCH = ("exporting/", "bench/engines/")


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """The modules that a file imports, anywhere or when it is imported itself."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                names.update({child.module, *(f"{child.module}.{a.name}" for a in child.names)})
            lazy = isinstance(child, ast.FunctionDef) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            )
            if not (top_level and lazy):
                visit(child)

    visit(tree)
    return names


def of(package: str, names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == package}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_is_imported_only_where_it_belongs(path):
    if not path.relative_to(ROOT / "aoti").as_posix().startswith(WITH_TORCH):
        assert not of("torch", imports(path))


def test_the_core_does_not_import_torch():
    for path in (ROOT / "aoti").glob("*.p[yx]*"):
        assert not re.search(r"^\s*(from|c?import) torch\b", path.read_text(), re.MULTILINE)


def test_importing_aoti_imports_neither_numpy_nor_native_code(run_python):
    program = """
import sys
before = set(sys.modules)
import aoti
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(new & {"numpy", "torch", "ctypes", "click", "rich", "zipfile"}))
assert "libtorch" not in open("/proc/self/maps").read()
"""
    assert run_python(program) == "\n"


def test_helpers_in_cxx_never_include_python():
    for path in (ROOT / "csrc").rglob("*.h"):
        assert "Python.h" not in path.read_text(), path


def test_every_public_name_is_there_and_documented():
    assert set(aoti.__all__) <= set(dir(aoti))
    for name in aoti.__all__:
        if name != "__version__":
            assert getattr(aoti, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = aoti.nonsense


def test_every_error_is_also_a_builtin():
    for name in aoti.__all__:
        error = getattr(aoti, name)
        if isinstance(error, type) and issubclass(error, aoti.AotiError):
            builtin = [base for base in error.__mro__ if base.__module__ == "builtins"]
            assert error is aoti.AotiError or builtin[0] is not Exception, name


def test_stubs_of_the_core_are_up_to_date(tmp_path):
    import subprocess
    import sys

    tool = Path(sys.executable).with_name("stubgen-pyx")
    if not tool.exists():
        pytest.skip("stubgen-pyx is not installed")
    written = tmp_path / "_core.pyi"
    command = [tool, ".", "--file", "_core.pyx", "--output-file", written]
    command += ["--exclude-docstrings", "--exclude-attribution"]
    subprocess.run(command, cwd=ROOT / "aoti", check=True, capture_output=True)
    assert written.read_text() == (ROOT / "aoti/_core.pyi").read_text()
