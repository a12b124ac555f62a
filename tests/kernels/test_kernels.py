"""The kernels under csrc/aoti/native/kernels, by tests in C++ and with sanitizers.

Each file of tests is a program of its own, with the main function of the tests of the core.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
KERNELS = sorted(CSRC.glob("aoti/native/kernels/**/*.cpp"))
TESTS = sorted(HERE.glob("test_*.cpp"))
MAIN = HERE.parent / "cpp/main.cpp"

CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++20", "-fvisibility=hidden", "-fopenmp", "-Wall", "-Wextra", "-Werror", "-g1"]
MODES = {
    "plain": ["-O2"],  # as the extension is compiled: for any CPU
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}
# Without what a sanitized build of the extension preloads into Python, and for the best of ISAs.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "AOTI_ISA")}
ENVIRONMENT["UBSAN_OPTIONS"] = "print_stacktrace=1"

pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")


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


def works(directory: Path, flags: list[str]) -> bool:
    """Whether programs can be made with these flags."""
    empty = directory / "empty.cpp"
    empty.write_text("int main() {}\n")
    command = [CXX, *flags, empty, "-o", directory / "empty"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module", params=MODES)
def programs(request, tmp_path_factory) -> Path:
    """The directory of the tests' programs, built in one of the modes."""
    directory = tmp_path_factory.mktemp(request.param)
    flags = [*FLAGS, *MODES[request.param], f"-I{CSRC}"]
    if not works(directory, flags):
        pytest.skip(f"{CXX} has no such sanitizer, or no OpenMP")

    def compile_(source: Path) -> Path:
        target = directory / f"{source.parent.name}_{source.stem}.o"
        run(CXX, *flags, "-c", source, "-o", target)
        return target

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        tests = pool.map(compile_, TESTS)
        shared = list(pool.map(compile_, [*KERNELS, MAIN]))
    for source, test in zip(TESTS, tests, strict=True):
        run(CXX, *flags, test, *shared, "-o", directory / source.stem)
    return directory


@pytest.mark.parametrize("source", TESTS, ids=lambda source: source.stem)
def test_in_cpp(programs, source):
    run(programs / source.stem, source.name)
