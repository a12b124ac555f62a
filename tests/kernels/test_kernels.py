"""The kernels under csrc/aoti/native/kernels, by tests in C++, with sanitizers and for aarch64.

Each file of tests is a program of its own, with the main function of the tests of the core.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
KERNELS = sorted(CSRC.glob("aoti/native/kernels/**/*.cpp"))
TESTS = sorted(HERE.glob("test_*.cpp"))
MAIN = HERE.parent / "cpp/main.cpp"

CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++20", "-fvisibility=hidden", "-fopenmp", "-Wall", "-Wextra", "-Werror", "-g1"]


class Mode(NamedTuple):
    """A compiler, its flags, and what runs the programs."""

    compiler: str
    flags: list[str]
    runner: tuple[str, ...] = ()


MODES = {
    "plain": Mode(CXX, ["-O2"]),  # as the extension is compiled: for any CPU
    "address": Mode(
        CXX, ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    ),
    "aarch64": Mode("aarch64-linux-gnu-g++", ["-O2", "-static"], ("qemu-aarch64-static",)),
}
# Without what a sanitized build of the extension preloads into Python, and for the best of ISAs.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "AOTI_ISA")}
ENVIRONMENT["UBSAN_OPTIONS"] = "print_stacktrace=1"


def run(*command: str | Path) -> None:
    """Run a command; if it fails, fail with what it printed."""
    done = subprocess.run(
        command,
        check=False,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=300,
    )
    if done.returncode != 0:
        words = " ".join(map(str, command))
        pytest.fail(f"{words}\nended with {done.returncode}:\n{done.stdout}", pytrace=False)


def works(directory: Path, compiler: str, flags: list[str]) -> bool:
    """Whether programs can be made with these flags."""
    empty = directory / "empty.cpp"
    empty.write_text("int main() {}\n")
    command = [compiler, *flags, empty, "-o", directory / "empty"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module", params=MODES)
def programs(request, tmp_path_factory) -> tuple[Path, tuple[str, ...]]:
    """The directory of the tests' programs, built in one of the modes, and what runs them."""
    directory = tmp_path_factory.mktemp(request.param)
    compiler, options, runner = MODES[request.param]
    for tool in (compiler, *runner):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    flags = [*FLAGS, *options, f"-I{CSRC}"]
    if not works(directory, compiler, flags):
        pytest.skip(f"{compiler} has no such sanitizer, or no OpenMP")

    def compile_(source: Path) -> Path:
        target = directory / f"{source.parent.name}_{source.stem}.o"
        run(compiler, *flags, "-c", source, "-o", target)
        return target

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        tests = pool.map(compile_, TESTS)
        shared = list(pool.map(compile_, [*KERNELS, MAIN]))
    for source, test in zip(TESTS, tests, strict=True):
        run(compiler, *flags, test, *shared, "-o", directory / source.stem)
    return directory, runner


@pytest.mark.parametrize("source", TESTS, ids=lambda source: source.stem)
def test_in_cpp(programs, source):
    directory, runner = programs
    run(*runner, directory / source.stem, source.name)
