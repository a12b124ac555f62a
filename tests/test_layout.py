"""The architecture, held by reading the code."""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import re
from pathlib import Path

import pytest

import aoti
from aoti.options import LoadOptions
from aoti.signature.dtypes import DTYPES

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "aoti").rglob("*.py"))
CYTHON = sorted((ROOT / "aoti").rglob("*.p[yx][xd]"))
SOURCES = [*MODULES, *CYTHON]
WITH_TORCH = ("exporting/", "bench/engines/")

# By folder, or module of the top level, what its files may import besides one another; `aoti` is
# the public names. An arrow only points down this list.
BELOW = {
    "cli": """aoti _files _logging _text _version _warnings errors options machine signature
        package arrays compat cache engine model config registry golden diagnostics bench
        exporting serving""",
    "bench": """aoti _processes _text errors machine signature package arrays engine registry golden
        exporting""",
    "exporting": """aoti _files _logging _processes _text _version _warnings errors machine
        signature package golden diagnostics""",
    "serving": "errors signature package model config registry loading",
    "diagnostics": "errors machine package cache compat engine model loading",
    "loading": """_logging _warnings errors machine signature package cache compat engine weights
        model options config registry golden""",
    "testing": "errors signature package arrays protocol",
    "profiling": "_files signature protocol model",
    "golden": "errors signature package protocol",
    "model": """aoti errors machine signature package cache engine arrays weights options protocol
        background""",
    "background": "_logging errors engine arrays options protocol",
    "protocol": "signature",
    "registry": "errors options config",
    "config": "errors options",
    "weights": "_text errors signature package cache compat engine arrays options",
    "arrays": "_text _warnings errors machine signature engine options",
    "compat": "_text errors machine signature package cache engine",
    "cache": "errors machine signature package engine",
    "engine": "_text _version _warnings errors machine signature options package",
    "options": "errors machine package",
    "package": "_text errors signature",
    "signature": "errors",
    "machine": "errors",
    "_processes": "errors",
    "errors": "",
    "_files": "",
    "_logging": "_text",
    "_text": "",
    "_warnings": "",
    "_version": "",
}
LINES, TOP_LEVEL_MODULES = 450, 20
SOURCE_SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".h", ".cpp"}


def dotted(path: Path) -> str:
    """A file's name as a module: ``engine.libtorch``; of a folder's `__init__`, the folder's."""
    parts = path.relative_to(ROOT / "aoti").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "aoti"


# Modules of Python, and compiled ones.
NAMES = {dotted(path): path for path in (*MODULES, *(p for p in CYTHON if p.suffix == ".pyx"))}


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """The modules that a file imports, anywhere or when it is imported itself."""
    if path.suffix != ".py":
        return cython_imports(path, top_level=top_level)
    tree = ast.parse(path.read_text())
    names: set[str] = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                full = {f"{child.module}.{alias.name}" for alias in child.names}
                names.update(full)
                if not full <= {f"aoti.{name}" for name in NAMES}:
                    names.add(child.module)
            lazy = isinstance(child, ast.FunctionDef) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            )
            if not (top_level and lazy):
                visit(child)

    visit(tree)
    return names


def cython_imports(path: Path, *, top_level: bool) -> set[str]:
    """The same for Cython: a module that is cimported is imported, too."""
    indent = "" if top_level else r"\s*"
    statement = rf"^{indent}(?:from (\S+) )?c?import \(?([^#()]*?)(?:\)|#|$)"
    names = set()
    for module, what in re.findall(statement, path.read_text(), re.MULTILINE):
        listed = {name.split()[0] for name in what.split(",") if name.split()}
        names |= {module, *(f"{module}.{name}" for name in listed)} if module else listed
    return names


def of(package: str, names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == package}


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """The modules of aoti that a file imports; `aoti` itself for the public names."""
    found = set()
    for name in of("aoti", imports(path, top_level=top_level)):
        module = name.removeprefix("aoti.")
        if module in NAMES and not (NAMES[module].name == "__init__.py" and module != "aoti"):
            found.add(module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_is_imported_only_where_it_belongs(path):
    if not path.relative_to(ROOT / "aoti").as_posix().startswith(WITH_TORCH):
        assert not of("torch", imports(path))


def test_compiled_modules_do_not_import_torch():
    for path in CYTHON:
        assert not of("torch", imports(path)), path


def test_imports_of_cython_are_found():
    """Else the rules for them would hold by themselves."""
    found = {name: imported(path) for name, path in NAMES.items() if path.suffix == ".pyx"}
    assert {"engine._core._inputs", "engine._core._status"} <= found["engine._core._program"]
    assert "signature.dtypes" in found["engine._core._dtypes"]
    assert found["engine._libtorch._libtorch"] == set()


@pytest.mark.parametrize("folder", ["core", "engine", "libtorch", "native"])
def test_cxx_includes_only_what_is_below_it(folder):
    """ATen is in csrc/aoti/libtorch alone, and Python.h is nowhere."""
    below = {"core": "core", "engine": "core engine"}.get(folder, f"core engine {folder}")
    for path in (ROOT / "csrc/aoti" / folder).rglob("*.*"):
        text = path.read_text()
        ours = set(re.findall(r"#include [<\"]aoti/(\w+)", text))
        assert ours <= set(below.split()), path
        assert "Python.h" not in text, path
        if folder != "libtorch":
            assert not re.search(r"\b(at|c10|torch)::", text), path
            assert not re.search(r"#include [<\"](ATen|c10|torch)/", text), path


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
    assert broken == set()


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
    # The array core's has the finder of its modules.
    [p for p in MODULES if p.name == "__init__.py" and dotted(p) not in ("aoti", "engine._core")],
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
    users = {dotted(path) for path in MODULES if any(text in s for s in strings(path))}
    assert users == {KNOWN_ONCE[text]}


def test_there_is_one_table_of_dtypes():
    few = 8  # names that a file may need apart, as for tolerances
    tables = {dotted(path) for path in MODULES if len(DTYPES.keys() & {*strings(path)}) > few}
    assert tables == {"signature.dtypes"}


def test_files_and_the_top_level_stay_small():
    everywhere = (ROOT / folder for folder in ("aoti", "csrc/aoti", "tests", "tools"))
    files = [path for folder in everywhere for path in folder.rglob("*.*") if path.is_file()]
    sources = [path for path in files if path.suffix in SOURCE_SUFFIXES]
    long = {
        str(p.relative_to(ROOT)): n
        for p in sources
        if (n := len(p.read_text().splitlines())) > LINES
    }
    assert long == {}
    assert len(list((ROOT / "aoti").glob("*.py"))) <= TOP_LEVEL_MODULES


def words(node: ast.AST) -> set[str]:
    """The names that a node lists: parameters, keywords, keys, items or fields."""
    match node:
        case ast.arguments():
            return {arg.arg for arg in (*node.posonlyargs, *node.args, *node.kwonlyargs)}
        case ast.Call():
            return {keyword.arg for keyword in node.keywords if keyword.arg}
        case ast.ClassDef():
            return {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}
        case ast.Dict():
            items = node.keys
        case ast.Tuple() | ast.List() | ast.Set():
            items = node.elts
        case _:
            items = []
    return {item.value for item in items if isinstance(item, ast.Constant)}


def test_the_options_of_load_are_listed_once():
    names = {option.name for option in dataclasses.fields(LoadOptions)}
    lists = {
        dotted(path): sorted(listed)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if len(listed := words(node) & names) > 5
    }
    assert lists == {"options": sorted(names)}


def test_one_module_reads_whether_to_debug():
    read = r"environ.*AOTI_DEBUG|getenv.*AOTI_DEBUG"
    readers = {dotted(path) for path in MODULES if re.search(read, path.read_text())}
    assert readers <= {"_logging", "cli.group"}


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


def test_stubs_of_compiled_modules_are_up_to_date(tmp_path):
    import subprocess
    import sys

    tool = Path(sys.executable).with_name("stubgen-pyx")
    if not tool.exists():
        pytest.skip("stubgen-pyx is not installed")
    command = [tool, "aoti/engine", "--file", "_*/*.pyx", "--output-dir", tmp_path]
    command += ["--exclude-docstrings", "--exclude-attribution"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    kept, written = (
        {path.relative_to(root): path.read_text() for path in root.rglob("*.pyi")}
        for root in (ROOT / "aoti/engine", tmp_path)
    )
    assert kept == written
    assert len(kept) == len([path for path in CYTHON if path.suffix == ".pyx"])


def test_the_tests_use_public_facts_only():
    """Neither a private name of a module is replaced, nor a private attribute of an object read."""
    objects = r"\b(?:model|cache|loading|registry|digests|config|package|weights|signature)"
    private = re.compile(rf"setattr\([^()]*?(?:, \"|\.)_[a-zA-Z]|{objects}\._[a-z]\w*(?![\w.])")
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for match in private.finditer(path.read_text())
    }
    assert found == set()
