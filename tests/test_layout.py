"""The architecture, held by reading the code."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

import aoti
from aoti.signature.dtypes import DTYPES

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "aoti").rglob("*.py"))
SOURCES = [*MODULES, *(ROOT / "aoti").rglob("*.p[yx][xdi]")]
WITH_TORCH = ("exporting/", "bench/engines/")

# By folder, or module of the top level, what its files may import besides one another; `aoti` is
# the public names. An arrow only points down this list.
BELOW = {
    "cli": """aoti _logging _version errors machine signature package arrays compat cache engine
        model config registry golden diagnostics bench exporting""",
    "bench": """aoti _processes errors machine signature package arrays engine registry golden
        exporting""",
    "exporting": "aoti _processes _version errors machine signature package golden",
    "diagnostics": "errors machine package cache compat engine model loading",
    "loading": """_logging errors machine signature package cache compat engine weights model config
        registry golden""",
    "testing": "errors signature package arrays protocol",
    "profiling": "signature protocol model",
    "golden": "errors signature package model",
    "model": """errors machine signature package cache engine arrays weights protocol run_queue
        background""",
    "background": "arrays run_queue",
    "protocol": "signature",
    "run_queue": "errors",
    "weights": "errors signature package cache compat engine arrays",
    "arrays": "errors signature engine",
    "compat": "errors machine signature package cache engine",
    "engine": "_version errors machine",
    "cache": "errors signature package",
    "package": "errors signature",
    "signature": "errors",
    "machine": "errors",
    "registry": "errors config",
    "config": "errors",
    "errors": "",
    "_logging": "",
    "_processes": "",
    "_version": "",
}
# What breaks a row today: the module that imports, and what.
EXCEPTIONS = {
    ("model", "loading"),  # to be split
    ("signature.spec", "arrays.libraries"),  # to be split
}
LINES, TOP_LEVEL_MODULES = 450, 20


def dotted(path: Path) -> str:
    """A file's name as a module: ``engine.libtorch``; of a folder's `__init__`, the folder's."""
    parts = path.relative_to(ROOT / "aoti").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "aoti"


NAMES = {dotted(path): path for path in MODULES}


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """The modules that a file imports, anywhere or when it is imported itself."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                full = {f"{child.module}.{alias.name}" for alias in child.names}
                names.update(full)
                if not full <= {"aoti._core", *(f"aoti.{name}" for name in NAMES)}:
                    names.add(child.module)
            lazy = isinstance(child, ast.FunctionDef) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            )
            if not (top_level and lazy):
                visit(child)

    visit(tree)
    return names


def of(package: str, names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == package}


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """The modules of aoti that a file imports; `aoti` itself for the public names."""
    found = set()
    for name in of("aoti", imports(path, top_level=top_level)):
        module = name.removeprefix("aoti.")
        if module == "_core":
            found.add("engine._core")
        elif module in NAMES and not (NAMES[module].name == "__init__.py" and module != "aoti"):
            found.add(module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_is_imported_only_where_it_belongs(path):
    if not path.relative_to(ROOT / "aoti").as_posix().startswith(WITH_TORCH):
        assert not of("torch", imports(path))


def test_the_core_does_not_import_torch():
    for path in (ROOT / "aoti").rglob("*.p[yx][xdi]"):
        assert not re.search(r"^\s*(from|c?import) torch\b", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("folder", BELOW)
def test_an_arrow_only_points_down(folder):
    allowed = {folder, *BELOW[folder].split()}
    broken = {
        (name, other)
        for name, path in NAMES.items()
        if name.split(".")[0] == folder
        for other in imported(path)
        if other.split(".")[0] not in allowed
    }
    assert broken == {(name, other) for name, other in EXCEPTIONS if name.split(".")[0] == folder}


def test_every_module_has_a_row_and_every_row_points_down():
    assert {name.split(".")[0] for name in NAMES} == {*BELOW, "aoti", "__main__"}
    rows = list(BELOW)
    for folder, below in BELOW.items():
        for other in below.split():
            assert other == "aoti" or rows.index(other) > rows.index(folder), (folder, other)


def test_no_modules_import_each_other():
    graph = {name: imported(path, top_level=True) - {name} for name, path in NAMES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises where there is a cycle


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.name == "__init__.py" and p.parent != ROOT / "aoti"],
    ids=dotted,
)
def test_a_folder_is_described_and_imports_nothing(path):
    (only,) = ast.parse(path.read_text()).body
    assert isinstance(only, ast.Expr)
    assert "May import: " in only.value.value


def strings(path: Path) -> list[str]:
    """The string literals of a file, without docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [c.value for c in constants if isinstance(c.value, str) and id(c) not in docstrings]


# Facts that one file knows, by a text that only it may contain.
KNOWN_ONCE = {
    "data/aotinductor": "package.layout",
    "data/constants": "package.layout",
    "weights_config.json": "package.layout",
    "_weights.blob": "package.layout",
    ".wrapper.so": "package.layout",
    ".wrapper.cpp": "package.layout",
    "_binary_constants_bin": "package.layout",
    "aoti/golden/": "package.layout",
    "input_handles": "package.wrapper_cpp",
    "constants_info_": "package.wrapper_cpp",
    "AOTInductorModelBase": "package.wrapper_cpp",
    "assert_size_stride": "package.wrapper_cpp",
    "avx512f": "machine.cpu",
    "/proc/cpuinfo": "machine.cpu",
}


@pytest.mark.parametrize("text", KNOWN_ONCE)
def test_a_fact_is_known_once(text):
    users = {name for name, path in NAMES.items() if any(text in s for s in strings(path))}
    assert users == {KNOWN_ONCE[text]}


def test_there_is_one_table_of_dtypes():
    few = 8  # names that a file may need apart, as for tolerances
    tables = {name for name, path in NAMES.items() if len(DTYPES.keys() & {*strings(path)}) > few}
    assert tables == {"signature.dtypes"}


def test_files_and_the_top_level_stay_small():
    assert {dotted(p): n for p in SOURCES if (n := p.read_text().count("\n")) > LINES} == {}
    assert len(list((ROOT / "aoti").glob("*.py"))) <= TOP_LEVEL_MODULES


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
