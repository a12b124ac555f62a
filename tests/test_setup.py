"""What setup.py builds, for which libtorch, and what the built libraries give away."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools")

ROOT = Path(__file__).parents[1]
LIBRARIES = {"cpu": [], "cuda": ["libtorch_cuda.so"], "rocm": ["libtorch_hip.so"]}


@pytest.fixture(scope="module")
def build():
    """The module setup.py. It calls setup() only where it is the program."""
    spec = importlib.util.spec_from_file_location("_aoti_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """An installed torch 2.13.0+cpu, whatever else is installed."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    return write_tree(tmp_path / "site/torch")


def write_tree(root: Path, version: str = "2.13.0+cpu", backend: str = "cpu") -> Path:
    """What a build needs to see of a libtorch."""
    (root / "include/ATen").mkdir(parents=True)
    (root / "lib").mkdir()
    (root / "__init__.py").touch()
    for name in ("libc10.so", "libtorch_cpu.so", *LIBRARIES[backend]):
        (root / "lib" / name).touch()
    if version:
        (root / "version.py").write_text(f"__version__ = '{version}'\n")
    return root


def write_header(include: Path, name: str, version: str) -> None:
    path = include / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION \\\n  "{version}"\n')


def target_of(build, root: Path, **env: str):
    (target,) = build.targets({"LIBTORCH": str(root), **env})
    return target


def refusal(build, **env: object) -> str:
    """The one sentence that the build ends with."""
    with pytest.raises(SystemExit) as caught:
        for target in build.targets({name: str(value) for name, value in env.items()}):
            build.engine(target, ["engine.cpp"], {})
    message = caught.value.code
    assert isinstance(message, str)
    assert "\n" not in message
    return message


# -- which libtorch ------------------------------------------------------------------------------


def test_the_installed_torch_is_the_default(build, installed):
    (target,) = build.targets({})
    assert target.libtorch.lib == installed / "lib"
    assert (target.include, target.backend) == (installed / "include", "cpu")


@pytest.mark.usefixtures("installed")
def test_the_named_libtorch_comes_before_the_installed_one(build, tmp_path):
    named = write_tree(tmp_path / "named", "2.12.1")
    target = target_of(build, named)
    assert (target.libtorch.lib, target.include) == (named / "lib", named / "include")
    assert (target.version, target.directory) == ("2.12.1", "torch212")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("include", ["tree/include", "headers"])
@pytest.mark.parametrize(
    "header", ["torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"]
)
def test_headers_and_libraries_named_apart_decide_the_version(build, tmp_path, include, header):
    """Not the files of the torch that happens to be installed: an engine fits what it includes."""
    (tmp_path / include / "ATen").mkdir(parents=True)
    write_header(tmp_path / include, header, "2.12.1")
    lib = tmp_path / "libraries"
    lib.mkdir()
    (lib / "libtorch_cuda.so").touch()
    env = {"LIBTORCH_INCLUDE": str(tmp_path / include), "LIBTORCH_LIB": str(lib)}
    (target,) = build.targets(env)
    assert (target.include, target.libtorch.lib) == (tmp_path / include, lib)
    assert (target.version, target.backend) == ("2.12.1", "cuda")


def test_the_library_directory_alone_can_be_another(build, tmp_path):
    named = write_tree(tmp_path / "named")
    target = target_of(build, named, LIBTORCH_LIB=str(tmp_path))
    assert (target.include, target.libtorch.lib) == (named / "include", tmp_path)
    assert target.version == "2.13.0+cpu"


@pytest.mark.parametrize("told_by", ["version.py", "build-version", "headeronly", "api"])
def test_the_version_is_read_from_whatever_file_tells_it(build, tmp_path, told_by):
    root = write_tree(tmp_path / "named", "2.14.1" if told_by == "version.py" else "")
    if told_by == "build-version":
        (root / "build-version").write_text("2.14.1\n")
    elif told_by == "headeronly":
        write_header(root / "include", "torch/headeronly/version.h", "2.14.1")
        # What the old place holds since the new one exists.
        old = root / "include/torch/csrc/api/include/torch/version.h"
        old.parent.mkdir(parents=True)
        old.write_text("#include <torch/headeronly/version.h>\n")
    elif told_by == "api":
        write_header(root / "include", "torch/csrc/api/include/torch/version.h", "2.14.1")
    assert target_of(build, root).directory == "torch214"


@pytest.mark.usefixtures("installed")
def test_several_roots_are_an_engine_each(build, tmp_path):
    trees = [write_tree(tmp_path / v, f"{v}.0+cpu") for v in ("2.11", "2.13", "2.14")]
    found = build.targets({"AOTI_TORCH_ROOTS": os.pathsep.join(map(str, trees))})
    assert [target.directory for target in found] == ["torch211", "torch213", "torch214"]
    assert [build.engine(target, ["engine.cpp"], {}).name for target in found] == [
        "aoti.engine._libtorch.torch211._libtorch",
        "aoti.engine._libtorch.torch213._libtorch",
        "aoti.engine._libtorch.torch214._libtorch",
    ]


def test_two_roots_of_one_minor_are_refused(build, tmp_path):
    trees = [write_tree(tmp_path / v, v) for v in ("2.13.0", "2.13.1")]
    message = refusal(build, AOTI_TORCH_ROOTS=os.pathsep.join(map(str, trees)))
    assert "two libtorches of one minor version" in message


def test_no_libtorch_is_refused_with_what_to_do(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    message = refusal(build)
    for word in ("pip install torch", "--no-build-isolation", "LIBTORCH"):
        assert word in message


def test_a_libtorch_without_headers_or_version_is_refused(build, tmp_path):
    root = write_tree(tmp_path / "named", version="")
    assert f"no torch version under {root}" in refusal(build, LIBTORCH=root)
    (root / "include/ATen").rmdir()
    assert f"no libtorch headers in {root / 'include'}" in refusal(build, LIBTORCH=root)


# -- which backend -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", LIBRARIES)
def test_the_default_backend_is_what_the_libtorch_is(build, tmp_path, backend):
    root = write_tree(tmp_path / "named", backend=backend)
    assert target_of(build, root).backend == backend
    assert target_of(build, root, AOTI_BACKEND="").backend == backend
    assert target_of(build, root, AOTI_BACKEND="cpu").backend == "cpu"


@pytest.mark.parametrize(("wanted", "found"), [("cuda", "cpu"), ("rocm", "cpu"), ("rocm", "cuda")])
def test_a_backend_that_the_libtorch_lacks_is_refused(build, tmp_path, wanted, found):
    root = write_tree(tmp_path / "named", backend=found)
    message = refusal(build, LIBTORCH=root, AOTI_BACKEND=wanted)
    assert message == (
        f"AOTI_BACKEND={wanted}, but the libtorch in {root} is for {found}: "
        f"install a torch for {wanted}, or build with AOTI_BACKEND={found}"
    )


def test_an_unknown_backend_is_refused_with_the_known_ones(build, tmp_path):
    message = refusal(build, LIBTORCH=write_tree(tmp_path / "named"), AOTI_BACKEND="metal")
    assert "metal" in message
    assert all(backend in message for backend in LIBRARIES)


# -- how it is compiled --------------------------------------------------------------------------


@pytest.fixture
def extension(build, tmp_path):
    """The engine for a fake tree, as the environment asks for it."""

    def extension(backend: str = "cpu", **env: str):
        root = write_tree(tmp_path / backend, f"2.13.0+{backend}", backend)
        return build.engine(target_of(build, root, **env), ["engine.cpp"], env)

    return extension


@pytest.fixture(params=["core", "engine"])
def either(request, build, extension):
    """The array core, and the engine for a fake tree, as the environment asks for them."""
    return extension if request.param == "engine" else lambda **env: build.core(["core.cpp"], env)


def info_of(extension) -> dict[str, object]:
    """What the C++ compiler makes of the macro AOTI_BUILD_INFO: the inside of a JSON object."""
    literal = dict(extension.define_macros)["AOTI_BUILD_INFO"]
    return json.loads("{" + json.loads(literal) + "}")


@pytest.mark.parametrize(
    ("backend", "macros"),
    [
        ("cpu", set()),
        ("cuda", {("USE_CUDA", "1")}),
        ("rocm", {("USE_ROCM", "1"), ("__HIP_PLATFORM_AMD__", "1")}),
    ],
)
def test_a_backend_adds_its_macros_and_links_nothing_more(extension, tmp_path, backend, macros):
    ext = extension(backend)
    names = ("USE_CUDA", "USE_ROCM", "__HIP_PLATFORM_AMD__")
    assert {macro for macro in ext.define_macros if macro[0] in names} == macros
    assert ext.library_dirs == [str(tmp_path / backend / "lib")]
    linked = [word for word in ext.extra_link_args if word.startswith("-l")]
    assert (ext.libraries, linked) == ([], ["-ltorch_cpu", "-lc10", "-ldl", "-lpthread"])
    assert info_of(ext)["backend"] == backend


@pytest.mark.parametrize(
    ("backend", "variable"), [("cuda", "CUDA_HOME"), ("cuda", "CUDA_PATH"), ("rocm", "ROCM_PATH")]
)
def test_the_headers_of_the_toolkit_come_after_libtorchs(extension, tmp_path, backend, variable):
    arguments = extension(backend, **{variable: str(tmp_path)}).extra_compile_args
    after = arguments.index(str(tmp_path / backend / "include"))
    assert arguments[arguments.index(str(tmp_path / "include")) - 1] == "-isystem"
    assert arguments.index(str(tmp_path / "include")) > after


def test_a_toolkit_that_is_not_there_ends_the_build_in_a_line(extension):
    with pytest.raises(SystemExit) as caught:
        extension("cuda", CUDA_HOME="/nowhere")
    assert caught.value.code == "CUDA_HOME=/nowhere is not a directory; correct it, or unset it"


def test_a_build_for_the_cpu_knows_no_toolkits(extension):
    assert "/nowhere/include" not in extension(CUDA_HOME="/nowhere").extra_compile_args


def test_the_libraries_of_a_gpu_are_not_linked(extension, tmp_path):
    """They are loaded where a model needs them; so a build runs CPU models without paying."""
    for backend, libraries in LIBRARIES.items():
        linked = " ".join(extension(backend).extra_link_args)
        assert not [name for name in libraries if name.removeprefix("lib")[:-3] in linked]
        assert str(tmp_path) not in linked


def test_a_release_build_is_optimised_stripped_and_for_every_later_python(either):
    ext = either()
    assert {"-std=c++20", "-O2", "-g0", "-fvisibility=hidden"} <= set(ext.extra_compile_args)
    assert "-s" in ext.extra_link_args
    (exported,) = (word for word in ext.extra_link_args if "version-script" in word)
    assert Path(exported.partition("=")[2]).exists()
    assert ext.py_limited_api
    assert ("Py_LIMITED_API", "0x030b0000") in ext.define_macros
    assert "Py_GIL_DISABLED" not in dict(ext.define_macros)


def test_an_engine_says_what_it_was_built_for(extension):
    assert info_of(extension()) == {
        "torch": "2.13.0+cpu",
        "backend": "cpu",
        "flags": "-std=c++20 -fvisibility=hidden -fno-plt -O2 -g0",
        "cxx11_abi": True,
        "debug": False,
        "sanitize": "",
    }


def test_all_of_the_cxx_keeps_to_old_systems(either):
    arguments = either().extra_compile_args
    assert arguments[arguments.index("-include") + 1] == str(ROOT / "csrc/aoti/core/compat.h")


def test_a_free_threaded_python_has_no_limited_api(build, either, monkeypatch):
    """All of the C++ is told, because not all of it includes Python.h."""
    monkeypatch.setattr(build, "LIMITED", False)
    ext = either()
    assert not ext.py_limited_api
    assert "Py_LIMITED_API" not in dict(ext.define_macros)
    assert ("Py_GIL_DISABLED", "1") in ext.define_macros


@pytest.mark.parametrize("abi", ["0", "1"])
def test_the_old_abi_can_be_asked_for(extension, abi):
    ext = extension(LIBTORCH_CXX11_ABI=abi)
    assert ("_GLIBCXX_USE_CXX11_ABI", abi) in ext.define_macros
    assert info_of(ext)["cxx11_abi"] is (abi == "1")


def test_a_debug_build_has_symbols_and_assertions(either):
    ext = either(AOTI_DEBUG="1")
    assert {"-Og", "-g", "-UNDEBUG", "-D_GLIBCXX_ASSERTIONS"} <= set(ext.extra_compile_args)
    assert not {"-O2", "-g0"} & set(ext.extra_compile_args)
    assert "-s" not in ext.extra_link_args


def test_an_engine_says_that_it_is_a_debug_build(extension):
    assert info_of(extension(AOTI_DEBUG="1"))["debug"] is True


@pytest.mark.parametrize("kind", ["address", "thread", "undefined"])
def test_an_instrumented_build_compiles_and_links(either, kind):
    ext = either(AOTI_SANITIZE=kind)
    assert {f"-fsanitize={kind}", "-fno-omit-frame-pointer"} <= set(ext.extra_compile_args)
    assert f"-fsanitize={kind}" in ext.extra_link_args
    assert "-s" not in ext.extra_link_args


def test_an_engine_says_that_it_is_instrumented(extension):
    assert info_of(extension(AOTI_SANITIZE="thread"))["sanitize"] == "thread"


def test_the_array_core_is_all_its_modules_and_knows_no_libtorch(build):
    modules = build.modules("aoti.engine._core")
    ext = build.core(["one.cpp", "two.cpp"], {})
    assert ext.name == "aoti.engine._core._core"
    assert ext.sources[:2] == ["one.cpp", "two.cpp"]
    folders = {str(Path(source).parent) for source in ext.sources[2:]}
    assert folders == {"csrc/aoti/core", "csrc/aoti/engine"}
    assert {module.name for module in modules} == {
        f"aoti.engine._core.{path.stem}" for path in ROOT.glob("aoti/engine/_core/*.pyx")
    }
    words = [*ext.extra_link_args, *ext.extra_compile_args, *ext.library_dirs]
    assert not [word for word in words if "torch" in word or "c10" in word or "rpath" in word]


def test_wheels_bring_the_libgomp_of_the_first_root(build, tmp_path):
    there = tmp_path / "one/openmp/libgomp.so.1"
    there.parent.mkdir(parents=True)
    there.touch()
    env = {"AOTI_TORCH_ROOTS": f"{tmp_path}/one:{tmp_path}/other"}
    assert (build.openmp(env), build.openmp({**env, "AOTI_OPENMP": "1"})) == ([], [there])
    with pytest.raises(SystemExit, match=r"no openmp/libgomp\.so\.1 in"):
        build.openmp({"AOTI_TORCH_ROOTS": f"{tmp_path}/other", "AOTI_OPENMP": "1"})


def test_libtorch_is_named_even_where_a_stub_defines_nothing(extension):
    arguments = extension().extra_link_args
    assert arguments.index("-Wl,--no-as-needed") < arguments.index("-ltorch_cpu")
    assert arguments.index("-lc10") < arguments.index("-Wl,--as-needed")


def test_run_paths_are_relative(extension):
    ext = extension()
    run_paths = [word for word in ext.extra_link_args if "rpath" in word]
    assert len(run_paths) == 2
    assert all(word.startswith("-Wl,-rpath,$ORIGIN/../../../../") for word in run_paths)
    assert ext.runtime_library_dirs == []


def test_source_paths_are_mapped_away_as_the_compiler_sees_them(build, tmp_path):
    """With every link followed."""
    root = write_tree(tmp_path / "named")
    (root / "include").rename(tmp_path / "headers")
    (root / "include").symlink_to(tmp_path / "headers")
    arguments = build.engine(target_of(build, root), ["engine.cpp"], {}).extra_compile_args
    assert f"-ffile-prefix-map={tmp_path / 'headers'}=torch/include" in arguments
    assert f"-ffile-prefix-map={ROOT}=." in arguments
    assert str(tmp_path / "headers") in arguments
    assert not [word for word in arguments if str(root) in word]


def test_run_paths_that_the_python_adds_are_left_out(build, monkeypatch, tmp_path, run_paths):
    """pyenv's Pythons name their own lib directory in every link."""
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    from setuptools import Distribution, Extension

    for name in ("LDSHARED", "LDCXXSHARED"):
        monkeypatch.setenv(name, "g++ -shared -Wl,-rpath,/of/python -Wl,-rpath=/of/python")
    source = tmp_path / "plain.cpp"
    source.write_text("int answer = 42;\n")
    monkeypatch.chdir(tmp_path)
    ours = "-Wl,-rpath,$ORIGIN/lib"
    ext = Extension("plain", ["plain.cpp"], language="c++", extra_link_args=[ours])
    command = build.BuildCompiled(Distribution({"ext_modules": [ext]}))
    command.build_lib = command.build_temp = str(tmp_path / "out")
    command.ensure_finalized()
    command.run()
    assert run_paths(Path(command.get_ext_fullpath("plain"))) == ["$ORIGIN/lib"]


# -- the distribution ----------------------------------------------------------------------------


@pytest.fixture
def asked(build, monkeypatch):
    """What setup() is called with."""

    def asked(*commands: str, **env: str) -> dict:
        seen = {}
        monkeypatch.setattr(build, "setup", lambda **arguments: seen.update(arguments))
        monkeypatch.setattr(build, "extensions", lambda env: ["compiled"])
        build.main(["setup.py", *commands], env)
        return seen

    return asked


@pytest.mark.parametrize("command", ["sdist", "egg_info", "dist_info"])
def test_sources_and_metadata_need_no_libtorch(asked, command):
    named = [ext.name for ext in asked(command)["ext_modules"]]
    assert {"aoti.engine._core._program", "aoti.engine._libtorch._libtorch"} <= set(named)


@pytest.mark.parametrize("command", ["bdist_wheel", "build_ext", "editable_wheel"])
def test_other_commands_compile(asked, command):
    assert asked(command)["ext_modules"] == ["compiled"]


def test_a_local_version_can_be_asked_for(asked):
    assert "egg_info" not in asked("bdist_wheel")["options"]
    options = asked("bdist_wheel", AOTI_LOCAL_VERSION="cu130")["options"]
    assert options["egg_info"] == {"tag_build": "+cu130"}


def test_the_wheel_is_for_every_later_python_but_free_threaded_ones(build, asked, monkeypatch):
    assert asked("bdist_wheel")["options"]["bdist_wheel"] == {"py_limited_api": "cp311"}
    monkeypatch.setattr(build, "LIMITED", False)
    assert "bdist_wheel" not in asked("bdist_wheel")["options"]


def test_the_sdist_has_all_that_is_compiled(tmp_path):
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path]
    env = {**os.environ, "LIBTORCH": "/nowhere"}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=env)
    (listing,) = tmp_path.glob("*.egg-info/SOURCES.txt")
    names = set(listing.read_text().splitlines())
    wanted = [ROOT / "LICENSE", *ROOT.glob("csrc/**/*.*")]
    wanted += [*ROOT.glob("aoti/**/*.py"), *ROOT.glob("aoti/**/*.p?[xdi]")]
    assert {str(path.relative_to(ROOT)) for path in wanted} <= names
    generated = [name for name in names if name.endswith((".so", ".cpp"))]
    assert [name for name in generated if not name.startswith(("tests/", "csrc/"))] == []
