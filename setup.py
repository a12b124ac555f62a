"""Compiles the core for one backend, once for each torch that it shall run on.

Everything else about the distribution stands in pyproject.toml. The environment decides:

LIBTORCH, LIBTORCH_INCLUDE, LIBTORCH_LIB
    The root of a libtorch, its headers, its libraries. Default: the torch that is installed
    beside the building Python (it is not imported).
AOTI_TORCH_ROOTS
    Several such roots, separated by ``:``: one core is built for each.
AOTI_BACKEND
    cpu, cuda or rocm. Default: what the libtorch found is.
CUDA_HOME or CUDA_PATH, ROCM_PATH
    The toolkit, whose headers libtorch's may ask for. Default: /usr/local/cuda, /opt/rocm, where
    they are; a build needs none.
LIBTORCH_CXX11_ABI
    0 for a libtorch built with the old C++ ABI. Default 1.
AOTI_DEBUG
    1: symbols and assertions.
AOTI_SANITIZE
    address, thread or undefined: an instrumented build.
AOTI_LOCAL_VERSION
    What follows the version after a plus sign, such as ``cu130``, for indexes that take it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from aoti.engine.backend import toolkit  # noqa: E402
from aoti.engine.libtorch import BACKEND_LIBRARIES, Libtorch, minor_of, read_version  # noqa: E402
from aoti.errors import LibtorchError  # noqa: E402

CORE = Extension("aoti._core", ["aoti/_core.pyx"], language="c++")
LIMITED_API = "0x030b0000"  # CPython 3.11
# A free-threaded Python has no limited API: a wheel for it is for this very version.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")
BACKEND_MACROS = {
    "cpu": [],
    "cuda": [("USE_CUDA", "1")],
    "rocm": [("USE_ROCM", "1"), ("__HIP_PLATFORM_AMD__", "1")],
}


@dataclass(frozen=True)
class Target:
    """A libtorch to build a core against, and the backend to build it for."""

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
        return "_torch" + minor_of(self.version).replace(".", "")


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
    if include:  # what a core fits is decided by the headers it was compiled with
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


def extension(target: Target, source: str, env: Mapping[str, str]) -> Extension:
    """The core for one target, compiled from the C++ that Cython wrote."""
    import numpy

    debug = env.get("AOTI_DEBUG", "0") not in ("", "0")
    sanitize = env.get("AOTI_SANITIZE", "")
    flags = ["-std=c++20", "-fvisibility=hidden", "-fno-plt"]
    flags += ["-Og", "-g", "-D_GLIBCXX_ASSERTIONS", "-UNDEBUG"] if debug else ["-O2", "-g0"]
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"]
    cxx11_abi = int(env.get("LIBTORCH_CXX11_ABI", "1"))
    info = {
        "torch": target.version,
        "backend": target.backend,
        "flags": " ".join(flags),
        "cxx11_abi": bool(cxx11_abi),
        "debug": debug,
        "sanitize": sanitize,
    }
    include = target.include.resolve()  # gcc follows links before it looks for a mapped prefix
    includes = [include, include / "torch/csrc/api/include"]
    try:
        root = toolkit(target.backend, env)
    except LibtorchError as error:
        sys.exit(str(error))
    includes += [root / "include"] if root else []
    return Extension(
        f"aoti.{target.directory}._core",
        [source],
        language="c++",
        include_dirs=[str(ROOT / "csrc"), numpy.get_include()],
        define_macros=[
            *([("Py_LIMITED_API", LIMITED_API)] if LIMITED else []),
            ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
            ("_GLIBCXX_USE_CXX11_ABI", str(cxx11_abi)),
            ("AOTI_BUILD_INFO", json.dumps(json.dumps(info)[1:-1])),
            *BACKEND_MACROS[target.backend],
        ],
        extra_compile_args=[
            *flags,
            # libtorch's headers are not ours to mend: no warnings from them
            *(word for path in includes for word in ("-isystem", str(path))),
            # No path of the build machine in the file: torch's headers put __FILE__ into messages.
            # The last that fits counts, and headers may stand below the sources.
            f"-ffile-prefix-map={ROOT}=.",
            f"-ffile-prefix-map={include}=torch/include",
            f"-ffile-prefix-map={numpy.get_include()}=numpy/include",
        ],
        library_dirs=[str(target.libtorch.lib)],
        extra_link_args=[
            *([f"-fsanitize={sanitize}"] if sanitize else []),
            *([] if debug or sanitize else ["-s", f"-Wl,--version-script={ROOT}/csrc/core.map"]),
            # Named even where a stub stands in for the library and defines nothing: some gcc leave
            # unused libraries out by default.
            *("-Wl,--no-as-needed", "-ltorch_cpu", "-lc10", "-Wl,--as-needed"),
            *("-ldl", "-lpthread"),  # part of libc since glibc 2.34
            # Where torch and the provider stand beside an installed aoti. The libraries are
            # preloaded by absolute path; this is what auditwheel and `ldd` go by.
            "-Wl,-rpath,$ORIGIN/../../torch/lib",
            "-Wl,-rpath,$ORIGIN/../../aoti_libtorch/lib",
        ],
        depends=[str(path) for path in ROOT.glob("csrc/**/*.*")],
        py_limited_api=LIMITED,
    )


class BuildCore(build_ext):
    """build_ext without the run paths that some Pythons add to every link (pyenv's do)."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Time stamps do not tell that the environment asks for another build than last time.
        self.force = True

    def build_extensions(self) -> None:
        for name in ("linker_so", "linker_so_cxx"):
            command = getattr(self.compiler, name, None)
            if command:
                words = [word for word in command if not word.startswith("-Wl,-rpath")]
                setattr(self.compiler, name, words)
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        # For editable installs; the cores' directories are not in the source tree.
        for ext in self.extensions:
            Path(*ext.name.split(".")[:-1]).mkdir(exist_ok=True)
        super().copy_extensions_to_source()


def extensions(env: Mapping[str, str]) -> list[Extension]:
    from Cython.Build import cythonize

    # Cythonized once, however many cores are compiled from it: two extensions that list the same
    # .pyx do not build.
    (generated,) = cythonize([CORE], build_dir="build/cython")
    source = generated.sources[0]
    return [extension(target, source, env) for target in targets(env)]


def main(commands: list[str], env: Mapping[str, str]) -> None:
    options = {"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {}
    if local := env.get("AOTI_LOCAL_VERSION"):
        options["egg_info"] = {"tag_build": f"+{local}"}
    # The sdist and the metadata are made without a libtorch.
    sources_only = {"sdist", "egg_info", "dist_info"} & set(commands)
    setup(
        ext_modules=[CORE] if sources_only else extensions(env),
        cmdclass={"build_ext": BuildCore},
        options=options,
    )


if __name__ == "__main__":
    os.chdir(ROOT)
    main(sys.argv, os.environ)
