"""Compiles the array core and the native engine once, and the libtorch engine once for each torch.

Everything else is in pyproject.toml. Environment variables configure the build:

LIBTORCH, LIBTORCH_INCLUDE, LIBTORCH_LIB
    The root of a libtorch, its headers, its libraries. Default: the torch that is installed
    beside the building Python (it is not imported).
AOTI_TORCH_ROOTS
    Several such roots, separated by ``:``. The libtorch engine is built for each.
AOTI_BACKEND
    cpu, cuda or rocm. Default: the backend of the libtorch.
CUDA_HOME or CUDA_PATH, ROCM_PATH
    The toolkit, for its headers. Default: /usr/local/cuda, /opt/rocm. A build needs neither.
LIBTORCH_CXX11_ABI
    0 for a libtorch built with the old C++ ABI. Default 1.
AOTI_DEBUG
    1: symbols and assertions.
AOTI_SANITIZE
    address, thread or undefined: an instrumented build.
AOTI_OPENMP
    1: libgomp comes beside the native engine, out of openmp/ of the first of AOTI_TORCH_ROOTS
    (tools/torch_roots puts it there). So wheels run on systems that have none.
AOTI_LOCAL_VERSION
    The part of the version after a plus sign, such as ``cu130``, for indexes that accept it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from aoti.engine.backend import toolkit
from aoti.engine.libtorch_files import BACKEND_LIBRARIES, Libtorch, minor_of, read_version
from aoti.errors import LibtorchError
from aoti.package.elf_native import LIBRARY

CORE, ENGINE = "aoti.engine._core", "aoti.engine._libtorch"
NATIVE = f"aoti.engine._native.{LIBRARY.removesuffix('.so')}"
COMPAT = ("-include", str(ROOT / "csrc/aoti/core/compat.h"))  # for manylinux_2_28
LOOPS = re.compile(r"native/kernels/\w+/(avx2|avx512|bf16|generic|sleef_\w+|vnni)\.cpp$")
# That of CPython 3.11. A free-threaded Python has none: a wheel for it is for exactly that version.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")
BACKEND_MACROS = {
    "cpu": [],
    "cuda": [("USE_CUDA", "1")],
    "rocm": [("USE_ROCM", "1"), ("__HIP_PLATFORM_AMD__", "1")],
}


def modules(package: str) -> list[Extension]:
    """The Cython modules of a package, under their own names."""
    folder = package.replace(".", "/")
    names = sorted(path.stem for path in (ROOT / folder).glob("*.pyx"))
    return [Extension(f"{package}.{n}", [f"{folder}/{n}.pyx"], language="c++") for n in names]


@dataclass(frozen=True)
class Target:
    """A libtorch to build the engine against, and the backend to build it for."""

    libtorch: Libtorch
    include: Path
    backend: str

    @property
    def version(self) -> str:
        if self.libtorch.version is None:
            sys.exit(
                f"no torch version under {self.include.parent}: neither version.py, "
                "build-version nor version.h is there"
            )
        return self.libtorch.version

    @property
    def directory(self) -> str:
        return "torch" + minor_of(self.version).replace(".", "")


def targets(env: Mapping[str, str]) -> list[Target]:
    """The libtorches that the environment asks for."""
    if roots := env.get("AOTI_TORCH_ROOTS"):
        found = [_target(Path(root), env) for root in roots.split(os.pathsep) if root]
        if not found:
            sys.exit(f"AOTI_TORCH_ROOTS={roots} names no directory")
    else:
        root = Path(env["LIBTORCH"]) if env.get("LIBTORCH") else _installed_torch()
        include = Path(env["LIBTORCH_INCLUDE"]) if env.get("LIBTORCH_INCLUDE") else None
        lib = Path(env["LIBTORCH_LIB"]) if env.get("LIBTORCH_LIB") else None
        if root is None:
            if not (include and lib):
                sys.exit(
                    "no libtorch found: pip install torch and build with --no-build-isolation, "
                    "or set LIBTORCH"
                )
            root = include.parent
        found = [_target(root, env, include, lib)]
    directories = [target.directory for target in found]
    if len(set(directories)) < len(directories):
        sys.exit(f"two libtorches of one minor version: {', '.join(directories)}")
    return found


def _target(
    root: Path, env: Mapping[str, str], include: Path | None = None, lib: Path | None = None
) -> Target:
    libtorch = Libtorch.read(root, "named for the build", lib=lib)
    if include:  # the headers that a build includes decide which libtorch it fits
        libtorch = replace(libtorch, version=read_version(include.parent, include))
    include = include or root / "include"
    if not (include / "ATen").is_dir():
        sys.exit(f"no libtorch headers in {include}")
    backend = env.get("AOTI_BACKEND") or libtorch.backend
    if backend not in BACKEND_LIBRARIES:
        sys.exit(f"AOTI_BACKEND={backend}: known are {', '.join(BACKEND_LIBRARIES)}")
    if backend not in ("cpu", libtorch.backend):
        sys.exit(
            f"AOTI_BACKEND={backend}, but the libtorch in {root} is for {libtorch.backend}: "
            f"install a torch for {backend}, or build with AOTI_BACKEND={libtorch.backend}"
        )
    return Target(libtorch, include, backend)


def _installed_torch() -> Path | None:
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def _debug(env: Mapping[str, str]) -> bool:
    return env.get("AOTI_DEBUG", "0") not in ("", "0")


def _flags(env: Mapping[str, str]) -> list[str]:
    flags = ["-std=c++20", "-fvisibility=hidden", "-fno-plt"]
    flags += ["-Og", "-g", "-D_GLIBCXX_ASSERTIONS", "-UNDEBUG"] if _debug(env) else ["-O2", "-g0"]
    if sanitize := env.get("AOTI_SANITIZE", ""):
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"]
    return flags


def _cpp(folder: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for p in ROOT.glob(f"csrc/aoti/{folder}/*.cpp"))


def _extension(
    name: str, sources: list[str], compile_args: list[str], env: Mapping[str, str], **more: Any
) -> Extension:
    """A shared object that exports what its map in csrc names."""
    sanitize = env.get("AOTI_SANITIZE", "")
    exports = more.pop("exports", name.rpartition("._")[2])
    exported = f"-Wl,--version-script={ROOT}/csrc/{exports}.map"
    return Extension(
        name,
        sources,
        language="c++",
        include_dirs=[str(ROOT / "csrc"), *more.pop("include_dirs", ())],
        define_macros=[
            # Python.h defines the second one too, but some of the C++ does not include Python.h.
            ("Py_LIMITED_API", "0x030b0000") if LIMITED else ("Py_GIL_DISABLED", "1"),
            *more.pop("define_macros"),
        ],
        # No path of the build machine in the file. The last prefix that fits counts, and headers
        # may be in a directory below the sources.
        extra_compile_args=[*_flags(env), *COMPAT, f"-ffile-prefix-map={ROOT}=.", *compile_args],
        extra_link_args=[
            *([f"-fsanitize={sanitize}"] if sanitize else []),
            *([] if sanitize or _debug(env) else ["-s", exported]),
            *more.pop("extra_link_args"),
            *("-ldl", "-lpthread"),  # part of libc since glibc 2.34
        ],
        py_limited_api=LIMITED,
        **more,
    )


def core(modules: list[str], env: Mapping[str, str]) -> Extension:
    """The array core: all its Cython modules in one shared object (aoti/engine/_core)."""
    return _extension(
        f"{CORE}._core",
        [*modules, *_cpp("core"), *_cpp("engine")],
        [f"-ffile-prefix-map={numpy.get_include()}=numpy/include"],
        env,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        include_dirs=[numpy.get_include()],
        extra_link_args=["-Wl,--as-needed"],
    )


def native(env: Mapping[str, str]) -> Extension:
    """The native engine: a plain shared library, which needs neither Python nor libtorch."""
    info = {
        "flags": " ".join(_flags(env)),
        "debug": _debug(env),
        "sanitize": env.get("AOTI_SANITIZE", ""),
    }
    return _extension(
        NATIVE,
        [*_cpp("native/**"), *(f"csrc/aoti/core/{name}.cpp" for name in ("memory", "tensor"))],
        ["-fopenmp", "-fno-math-errno"],
        env,
        exports="native",
        define_macros=[("AOTI_BUILD_INFO", json.dumps(json.dumps(info)[1:-1]))],
        extra_link_args=[
            *("-fopenmp", f"-Wl,-soname,{LIBRARY}", "-Wl,--as-needed"),
            "-Wl,-rpath,$ORIGIN",  # libgomp is there in a wheel
        ],
    )


def openmp(env: Mapping[str, str]) -> list[Path]:
    """The files that come beside the native engine for systems without OpenMP."""
    if env.get("AOTI_OPENMP", "0") in ("", "0"):
        return []
    root = Path(env.get("AOTI_TORCH_ROOTS", "").partition(os.pathsep)[0])
    found = sorted(root.glob("openmp/*"))
    if not found:
        sys.exit(f"AOTI_OPENMP: no openmp/libgomp.so.1 in {root}")
    return found


def engine(target: Target, modules: list[str], env: Mapping[str, str]) -> Extension:
    """The libtorch engine for one target."""
    cxx11_abi = int(env.get("LIBTORCH_CXX11_ABI", "1"))
    info = {
        "torch": target.version,
        "backend": target.backend,
        "flags": " ".join(_flags(env)),
        "cxx11_abi": bool(cxx11_abi),
        "debug": _debug(env),
        "sanitize": env.get("AOTI_SANITIZE", ""),
    }
    include = target.include.resolve()  # gcc follows links before it looks for a mapped prefix
    includes = [include, include / "torch/csrc/api/include"]
    try:
        root = toolkit(target.backend, env)
    except LibtorchError as error:
        sys.exit(str(error))
    includes += [root / "include"] if root else []
    return _extension(
        f"{ENGINE}.{target.directory}._libtorch",
        [*modules, *_cpp("libtorch")],
        [
            # Warnings from libtorch's headers are not ours to fix.
            *(word for path in includes for word in ("-isystem", str(path))),
            # torch's headers put __FILE__ into messages.
            f"-ffile-prefix-map={include}=torch/include",
        ],
        env,
        define_macros=[
            ("_GLIBCXX_USE_CXX11_ABI", str(cxx11_abi)),
            ("AOTI_BUILD_INFO", json.dumps(json.dumps(info)[1:-1])),
            *BACKEND_MACROS[target.backend],
        ],
        library_dirs=[str(target.libtorch.lib)],
        extra_link_args=[
            # Named even if a stub replaces the library and defines nothing: some gcc leave unused
            # libraries out by default.
            *("-Wl,--no-as-needed", "-ltorch_cpu", "-lc10", "-Wl,--as-needed"),
            # Where torch and the provider are beside an installed aoti. The libraries are
            # preloaded by absolute path; auditwheel and `ldd` use these run paths.
            *(f"-Wl,-rpath,$ORIGIN/../../../../{name}/lib" for name in ("torch", "aoti_libtorch")),
        ],
    )


def options_of(source: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the compiler for one file.

    ThreadSanitizer leaves out the loops over numbers: they know of no other thread, and would take
    fifty times as long.
    """
    flags = options.get("extra_postargs") or []
    if "-fsanitize=thread" not in flags or not LOOPS.search(source):
        return options
    return {**options, "extra_postargs": [*flags, "-fno-sanitize=thread"]}


class BuildCompiled(build_ext):
    """build_ext that compiles on all cores, without the run paths that some Pythons add."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Time stamps do not show that the environment asks for another build than last time.
        self.force = True

    def get_ext_filename(self, fullname: str) -> str:
        if fullname.endswith(NATIVE.rpartition(".")[2]):  # not a module
            return fullname.replace(".", os.sep) + ".so"
        return super().get_ext_filename(fullname)

    def build_extensions(self) -> None:
        for name in ("linker_so", "linker_so_cxx"):
            # pyenv's Pythons name their own library directory in every link.
            if command := getattr(self.compiler, name, None):
                words = [word for word in command if not word.startswith("-Wl,-rpath")]
                setattr(self.compiler, name, words)
        compile_one = self.compiler.compile
        with ThreadPoolExecutor(os.cpu_count()) as pool:

            def compile_all(sources, **options):
                objects = pool.map(
                    lambda source: compile_one([source], **options_of(source, options)), sources
                )
                return [name for names in objects for name in names]

            self.compiler.compile = compile_all
            super().build_extensions()
        for path in openmp(os.environ):
            shutil.copy(path, Path(self.get_ext_fullpath(NATIVE)).parent)

    def copy_extensions_to_source(self) -> None:
        # For editable installs; the directories of the engine's builds are not in the source tree.
        for ext in self.extensions:
            Path(*ext.name.split(".")[:-1]).mkdir(exist_ok=True)
        super().copy_extensions_to_source()


def extensions(env: Mapping[str, str]) -> list[Extension]:
    from Cython.Build import cythonize

    found = targets(env)
    # Cythonized once, however many builds are compiled from it: two extensions that list the same
    # .pyx do not build.
    of_core, of_engine = (
        [module.sources[0] for module in cythonize(modules(package), build_dir="build/cython")]
        for package in (CORE, ENGINE)
    )
    return [core(of_core, env), native(env), *(engine(target, of_engine, env) for target in found)]


def main(commands: list[str], env: Mapping[str, str]) -> None:
    options = {"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {}
    if local := env.get("AOTI_LOCAL_VERSION"):
        options["egg_info"] = {"tag_build": f"+{local}"}
    # The sdist and the metadata are made without a libtorch.
    sources_only = {"sdist", "egg_info", "dist_info"} & set(commands)
    setup(
        ext_modules=modules(CORE) + modules(ENGINE) if sources_only else extensions(env),
        cmdclass={"build_ext": BuildCompiled},
        options=options,
    )


if __name__ == "__main__":
    os.chdir(ROOT)
    main(sys.argv, os.environ)
