"""Which libtorch is chosen, what is refused, and that nothing of a wrong one is ever run.

Loading is done in fresh processes, each with a tree of its own on disk.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import aoti
from aoti.engine.libtorch_files import builds

HOME = Path(aoti.__file__).parents[1]
SPEC = importlib.util.find_spec("torch")
if not builds() or SPEC is None or SPEC.origin is None:
    pytest.skip("needs a built engine and an installed torch", allow_module_level=True)
pytestmark = pytest.mark.engines("libtorch")
TORCH = Path(SPEC.origin).parent
BUILD = builds()[0]
FITTING = BUILD.minor
BUILT = {build.minor for build in builds()}
OLDER = next(f"2.{n}" for n in itertools.count(12, -1) if f"2.{n}" not in BUILT)
NEWER = next(f"2.{n}" for n in itertools.count(15) if f"2.{n}" not in BUILT)
REMEDY = f"pip install 'torch=={FITTING}.*'"

HIDE_TORCH = "import sys; sys.modules['torch'] = None\n"
RUN = """
import json, sys
from pathlib import Path
import numpy as np
import aoti

rows = np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)
with aoti.load(sys.argv[1]) as model:
    out = model(rows)
print(json.dumps({"out": out.tolist(), "aoti": aoti.__file__, **aoti.build_info()["libtorch"]}))
"""
ONE_LIBTORCH = """
maps = Path("/proc/self/maps").read_text().splitlines()
assert len({line.split()[4] for line in maps if line.endswith("libtorch_cpu.so")}) == 1  # inodes
"""
REFUSED = """
import sys
from aoti.engine import libtorch
from aoti.errors import LibtorchError
try:
    libtorch.engine()
except LibtorchError as error:
    print(error)
assert "aoti.engine._libtorch._libtorch" not in sys.modules
"""


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """Where Python and the dynamic loader look is up to each test, not to the caller's shell."""
    for name in ("LIBTORCH", "LD_LIBRARY_PATH", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(HOME))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # not in the working directory


@pytest.fixture
def answer(run_python, packages, mlp, rows):
    """Run the network in a fresh process; check what it gives, return the libtorch it used."""

    def answer(before: str = "", after: str = ONE_LIBTORCH, **env: str) -> dict[str, str]:
        result = json.loads(run_python(before + RUN + after, packages / "mlp.pt2", **env))
        assert result.pop("out") == mlp(rows).tolist()
        return result

    return answer


@pytest.fixture
def refusal(run_python):
    """Ask for the engine in a fresh process that must not import it; return the error's message."""

    def refusal(before: str = "", **env: object) -> str:
        return run_python(before + REFUSED, **{name: str(value) for name, value in env.items()})

    return refusal


def put_first(directory: Path) -> str:
    """A PYTHONPATH on which `directory` comes before everything that is installed."""
    return f"{directory}{os.pathsep}{HOME}"


def write_tree(root: Path, version: str | None, *libraries: str) -> Path:
    """What looks like a torch of that version: its libraries are empty files."""
    (root / "lib").mkdir(parents=True)
    (root / "__init__.py").touch()
    for name in ("libc10.so", "libtorch_cpu.so", *libraries):
        (root / "lib" / name).touch()
    if version:
        (root / "version.py").write_text(f"__version__ = '{version}'\n")
    return root


def link_tree(root: Path, version_file: str | None = "version.py") -> Path:
    """The installed torch once more, by links to its libraries."""
    (root / "lib").mkdir(parents=True)
    (root / "__init__.py").touch()
    for path in (TORCH / "lib").glob("*.so*"):
        (root / "lib" / path.name).symlink_to(path)
    if version_file == "build-version":
        (root / version_file).write_text(f"{FITTING}.0+cpu\n")
    elif version_file:
        (root / version_file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TORCH / version_file, root / version_file)
    return root


def compile_stub(path: Path, code: str = "") -> None:
    """Compile a library that has the name of a real one, and nothing but the C code given."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-xc", "-", "-o", path]
    subprocess.run(command, input=code, text=True, check=True)


def stub_tree(root: Path, stated: str | None, says: str | None) -> Path:
    """A tree whose files state one version, and whose library says another or none."""
    write_tree(root, stated)
    function = (
        "unsigned long long aoti_torch_abi_version(void) { return %sull << 56 | %sull << 48; }"
    )
    compile_stub(root / "lib/libc10.so")
    compile_stub(root / "lib/libtorch_cpu.so", function % (*says.split("."),) if says else "")
    return root


# -- where it is looked for ----------------------------------------------------------------------


def test_a_loaded_libtorch_comes_first(answer, tmp_path):
    used = answer("import torch\n", LIBTORCH=str(tmp_path))
    assert used["source"] == "loaded in this process"
    assert Path(used["path"]).samefile(TORCH / "lib")


@pytest.mark.parametrize(
    "version_file", ["version.py", "build-version", "include/torch/headeronly/version.h", None]
)
def test_the_named_libtorch_comes_before_the_installed_one(answer, tmp_path, version_file):
    """Whichever file tells its version; where none does, the library itself is asked."""
    used = answer(LIBTORCH=str(link_tree(tmp_path / "named", version_file)))
    assert (used["path"], used["source"]) == (str(tmp_path / "named/lib"), "named by LIBTORCH")
    assert used["version"].startswith(FITTING + ".")


def test_a_relative_name_means_the_working_directory(answer, tmp_path):
    link_tree(tmp_path / "named")
    used = answer(f"import os; os.chdir({str(tmp_path)!r})\n", LIBTORCH="named")
    assert used["path"] == str(tmp_path / "named/lib")


def test_the_installed_torch_comes_before_the_provider(answer, tmp_path):
    link_tree(tmp_path / "aoti_libtorch")
    used = answer(PYTHONPATH=put_first(tmp_path))
    assert (used["path"], used["source"]) == (str(TORCH / "lib"), "the installed package torch")


def test_the_provider_is_used_where_no_torch_is(answer, tmp_path):
    provider = write_tree(tmp_path / "aoti_libtorch", f"{FITTING}.0+cpu")
    shutil.rmtree(provider / "lib")
    (provider / "lib").symlink_to(TORCH / "lib")
    used = answer(HIDE_TORCH, PYTHONPATH=put_first(tmp_path))
    assert used["path"] == str(provider / "lib")
    assert used["source"] == "the installed package aoti_libtorch"


def test_no_libtorch_is_an_error_that_says_where_it_was_looked_for(refusal):
    message = refusal(HIDE_TORCH)
    assert "LIBTORCH is not set, and neither torch nor aoti_libtorch is installed" in message
    assert REMEDY in message


def test_a_failed_attempt_is_not_remembered(answer):
    failing = REFUSED.replace("print(error)", "pass")
    naming = f"import os; os.environ['LIBTORCH'] = {str(TORCH)!r}\n"
    assert answer(HIDE_TORCH + failing + naming)["source"] == "named by LIBTORCH"


def test_threads_that_load_at_once_get_the_same_engine(run_python):
    run_python("""
from concurrent.futures import ThreadPoolExecutor
from aoti.engine import libtorch
with ThreadPoolExecutor(8) as pool:
    assert len(set(pool.map(lambda _: libtorch.engine(), range(8)))) == 1
""")


# -- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "minor"), [("torch", OLDER), ("torch", NEWER), ("aoti_libtorch", OLDER)]
)
def test_an_installed_libtorch_of_another_minor_is_refused(refusal, tmp_path, package, minor):
    tree = write_tree(tmp_path / package, f"{minor}.1+cpu")
    message = refusal("" if package == "torch" else HIDE_TORCH, PYTHONPATH=put_first(tmp_path))
    where = f"in {tree / 'lib'}, the installed package {package}"
    assert f"found torch {minor}.1+cpu (cpu) {where}, but this aoti needs torch" in message
    assert REMEDY in message


def test_a_provider_stands_in_for_an_installed_torch_that_does_not_fit_with_a_warning(
    answer, tmp_path
):
    write_tree(tmp_path / "torch", f"{OLDER}.1+cpu")
    link_tree(tmp_path / "aoti_libtorch")
    record = "import warnings; caught = []; warnings.resetwarnings()\n"
    record += "warnings.showwarning = lambda *warning: caught.append(warning)\n"
    check = f"""
(warning,) = caught
assert warning[1] is RuntimeWarning
assert warning[2] == "<string>"  # whoever called aoti.load
assert "torch {OLDER}.1+cpu" in str(warning[0])
"""
    used = answer(record, check, PYTHONPATH=put_first(tmp_path))
    assert used["path"] == str(tmp_path / "aoti_libtorch/lib")


def test_a_named_libtorch_that_does_not_fit_is_an_error_whatever_is_installed(refusal, tmp_path):
    message = refusal(LIBTORCH=write_tree(tmp_path / "named", f"{OLDER}.1+cpu"))
    assert f"found torch {OLDER}.1+cpu" in message
    assert "named by LIBTORCH" in message


def test_a_named_directory_without_libtorch_is_an_error_whatever_is_installed(refusal, tmp_path):
    assert f"LIBTORCH={tmp_path} holds no lib/libtorch_cpu.so" in refusal(LIBTORCH=tmp_path)


def test_libraries_that_do_not_load_are_an_error(refusal, tmp_path):
    tree = write_tree(tmp_path / "named", f"{FITTING}.0+cpu")
    assert "cannot be loaded" in refusal(LIBTORCH=tree)


@pytest.mark.parametrize("says", [OLDER, None])
def test_a_library_that_is_not_what_its_files_state_is_refused(refusal, tmp_path, says):
    message = refusal(LIBTORCH=stub_tree(tmp_path / "lying", f"{FITTING}.0+cpu", says))
    assert (f"says it is torch {OLDER}" if says else "too old to say its version") in message
    assert "mixed up" in message


def test_a_tree_without_version_files_is_judged_by_its_library(refusal, tmp_path):
    message = refusal(LIBTORCH=stub_tree(tmp_path / "named", None, OLDER))
    assert f"found torch {OLDER}.0 (cpu) in {tmp_path / 'named/lib'}, named by" in message


def test_a_library_that_lacks_symbols_is_refused(refusal, tmp_path):
    message = refusal(LIBTORCH=stub_tree(tmp_path / "named", f"{FITTING}.0+cpu", FITTING))
    assert "does not load" in message
    assert "undefined symbol" in message


@pytest.mark.parametrize("says", [OLDER, None])
def test_a_loaded_libtorch_that_does_not_fit_is_refused(refusal, tmp_path, says):
    library = stub_tree(tmp_path / "other", None, says) / "lib/libtorch_cpu.so"
    message = refusal(f"import ctypes; ctypes.CDLL({str(library)!r})\n")
    assert f"in {library.parent}, loaded in this process" in message


BACKENDS = {"cpu": [], "cuda": ["libtorch_cuda.so"], "rocm": ["libtorch_hip.so"]}
FIND = """
import sys
from aoti.engine.libtorch import Build, LibtorchError, find
try:
    libtorch, build = find([Build(None, {"torch": "2.13.1", "backend": b}) for b in sys.argv[1:]])
    print(libtorch.backend, build.backend)
except LibtorchError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("tree", "built", "chosen"),
    [
        *((tree, "cpu", tree + " cpu") for tree in BACKENDS),
        *((tree, "cpu cuda rocm", f"{tree} {tree}") for tree in BACKENDS),
        *((tree, "rocm cuda cpu", f"{tree} {tree}") for tree in BACKENDS),
        ("cpu", "cuda", "needs torch 2.13 for cuda."),
        ("rocm", "cuda", "needs torch 2.13 for cuda."),
        ("cuda", "rocm", "needs torch 2.13 for rocm."),
    ],
)
def test_a_build_for_the_same_backend_is_best_and_one_for_the_cpu_runs_on_all(
    run_python, tmp_path, tree, built, chosen
):
    root = write_tree(tmp_path / "named", "2.13.0", *BACKENDS[tree])
    assert chosen in run_python(FIND, *built.split(), LIBTORCH=str(root))


# -- in company ----------------------------------------------------------------------------------


def test_a_hostile_library_path_changes_nothing(answer, tmp_path):
    code = "#include <stdlib.h>\n__attribute__((constructor)) static void run(void) { abort(); }"
    for name in ("libtorch_cpu.so", "libc10.so", "libgomp.so.1"):
        compile_stub(tmp_path / name, code)
    assert answer(LD_LIBRARY_PATH=str(tmp_path))["path"] == str(TORCH / "lib")


TORCH_RUNS_TOO = """
import warnings
warnings.simplefilter("ignore")
import torch
from torch._inductor import aoti_load_package
theirs = aoti_load_package(sys.argv[1])
with aoti.load(sys.argv[1]) as model:
    for _ in range(20):
        assert theirs(torch.from_numpy(rows)).tolist() == model(rows).tolist() == out.tolist()
"""


@pytest.mark.parametrize("before", ["", "import torch\n"], ids=["aoti first", "torch first"])
def test_aoti_and_torch_share_one_libtorch_in_either_order(answer, tmp_path, before):
    # torch leaves what it extracts behind, so it gets another temporary directory.
    answer(before, TORCH_RUNS_TOO + ONE_LIBTORCH, TMPDIR=str(tmp_path))


def test_torch_can_be_imported_after_a_link_to_its_libtorch_was_loaded(answer, tmp_path):
    tree = link_tree(tmp_path / "named")
    answer("", "import torch; assert torch.ones(3).sum() == 3\n" + ONE_LIBTORCH, LIBTORCH=str(tree))


def test_importing_aoti_loads_nothing(run_python):
    run_python("""
import sys
from pathlib import Path
import aoti
assert not {"numpy", "torch"} & set(sys.modules)
assert not [name for name in sys.modules if name.startswith("aoti.engine._")]
maps = Path("/proc/self/maps").read_text()
assert not any(name in maps for name in ("libtorch", "libc10", "libgomp", "/_core", "/_libtorch"))
""")


# -- the installation ----------------------------------------------------------------------------


def copy_package(target: Path, *ignored: str) -> Path:
    ignore = shutil.ignore_patterns("__pycache__", *ignored)
    return Path(shutil.copytree(HOME / "aoti", target / "aoti", ignore=ignore))


def test_a_moved_installation_works(answer, tmp_path):
    copy = copy_package(tmp_path)
    used = answer(PYTHONPATH=str(tmp_path))
    assert used["aoti"] == str(copy / "__init__.py")
    assert used["path"] == str(TORCH / "lib")


def test_an_installation_without_an_engine_says_how_to_build_one(refusal, tmp_path):
    copy_package(tmp_path, "torch2*")
    said = refusal(PYTHONPATH=tmp_path)
    assert "no build of the libtorch engine" in said
    assert "pip install --no-build-isolation ." in said


def test_an_installation_without_the_array_core_says_how_to_build_it(run_python, tmp_path):
    copy_package(tmp_path, "*.so")
    said = run_python("""
from aoti.errors import LibtorchError
try:
    import aoti.engine._core._program
except LibtorchError as error:
    print(error)
""", PYTHONPATH=str(tmp_path))  # fmt: skip
    assert "no compiled core" in said
    assert "pip install --no-build-isolation ." in said


@pytest.mark.parametrize("version_file", ["version.py", None])
def test_among_several_builds_the_one_that_fits_is_loaded(answer, tmp_path, version_file):
    copy = copy_package(tmp_path)
    content = BUILD.path.read_bytes()
    newer = content.replace(f'"torch": "{FITTING}'.encode(), f'"torch": "{NEWER}'.encode())
    assert newer != content
    directory = copy / "engine/_libtorch/torch_newer"
    directory.mkdir()
    (directory / BUILD.path.name).write_bytes(newer)
    tree = link_tree(tmp_path / "named", version_file)
    assert answer(PYTHONPATH=str(tmp_path), LIBTORCH=str(tree))["version"].startswith(FITTING)


def test_what_was_built_for_another_python_is_left_alone(answer, tmp_path):
    copy_package(tmp_path)
    core = Path(importlib.util.find_spec("aoti.engine._core._program").origin)
    for path in (BUILD.path, core):
        beside = tmp_path / path.parent.relative_to(HOME)
        content = path.read_bytes().replace(b"PyInit_", b"PyLost_")
        module = path.name.partition(".")[0]
        for version in ("1", "9"):  # before and after the right one, however they are sorted
            (beside / f"{module}.cpython-{version}99-x86_64-linux-gnu.so").write_bytes(content)
    assert answer(PYTHONPATH=str(tmp_path))["path"] == str(TORCH / "lib")


def test_build_info_tells_what_was_built_where_no_libtorch_is(run_python):
    program = "import aoti, json; print(json.dumps(aoti.build_info()))"
    info = json.loads(run_python(HIDE_TORCH + program))
    assert (info["version"], info["libtorch"]) == (aoti.__version__, None)
    keys = {"torch", "backend", "compiler", "flags", "cxx11_abi", "debug", "sanitize", "path"}
    assert [set(build) for build in info["builds"]] == [keys] * len(builds())
    assert all(Path(build["path"]).exists() for build in info["builds"])


def test_build_info_tells_the_libtorch_once_it_is_loaded(answer):
    used = answer("import aoti; assert aoti.build_info()['libtorch'] is None\n")
    assert used.keys() == {"aoti", "version", "backend", "path", "source"}
