"""The C++ under csrc/aoti/core and csrc/aoti/engine, by tests in C++ and with sanitizers.

Neither libtorch nor Python is linked. Each file of tests runs in a process of its own.
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
CORE = sorted([*CSRC.glob("aoti/core/*.cpp"), *CSRC.glob("aoti/engine/*.cpp")])
TESTS = sorted(HERE.glob("test_*.cpp"))
WITHOUT_TESTS = {"compat", "engine"}  # nothing but declarations

CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++20", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-g1", f"-I{CSRC}"]
MODES = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}
# A forked child has a record of its parent's threads, which it never joins.
OPTIONS = {
    "ASAN_OPTIONS": "strict_string_checks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "die_after_fork=0 report_thread_leaks=0",
}
# Without what a sanitized build of the extension preloads into Python.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"} | OPTIONS

pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")


def run(*command: str | Path, timeout: float = 300) -> None:
    """Run a command; if it fails, fail with what it printed."""
    try:
        done = subprocess.run(
            command,
            check=False,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        pytest.fail(f"{command[0]} did not end in {timeout} s:\n{output}", pytrace=False)
    if done.returncode != 0:
        words = " ".join(map(str, command))
        pytest.fail(f"{words}\nended with {done.returncode}:\n{done.stdout}", pytrace=False)


def works(*command: str) -> bool:
    """Whether a command can be run, and succeeds."""
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


@pytest.fixture(scope="module", params=MODES)
def tests(request, tmp_path_factory) -> list[str | Path]:
    """The command that runs all tests, built in one of the modes."""
    mode = request.param
    directory = tmp_path_factory.mktemp(mode)
    program = directory / "core_tests"

    def compile_(source: Path) -> Path:
        target = directory / f"{source.parent.name}_{source.stem}.o"
        # To optimize a file of tests takes most of the time that it takes at all.
        level = "-O0" if source.parent == HERE else "-O1"
        run(CXX, *FLAGS, level, *MODES[mode], "-c", source, "-o", target)
        return target

    if mode != "plain":
        empty = directory / "empty.cpp"
        empty.write_text("int main() {}\n")
        if not works(CXX, *MODES[mode], str(empty), "-o", str(program)):
            pytest.skip(f"{CXX} has no such sanitizer")
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compile_, [*CORE, *HERE.glob("*.cpp")]))
    # gil.cpp finds the functions of Python, or what test_gil.cpp has in their place, by dlsym.
    run(CXX, *MODES[mode], *objects, "-o", program, "-rdynamic", "-ldl", "-lpthread")
    # ThreadSanitizer knows only some layouts of the address space.
    if mode == "thread" and works("setarch", "-R", "true"):
        return ["setarch", "-R", program]
    return [program]


@pytest.mark.parametrize("source", TESTS, ids=lambda source: source.stem)
def test_in_cpp(tests, source):
    run(*tests, source.name, timeout=120)


def test_every_header_has_tests():
    headers = {path.stem for path in (*CSRC.glob("aoti/core/*.h"), *CSRC.glob("aoti/engine/*.h"))}
    tests = {f"test_{header}" for header in headers - WITHOUT_TESTS}
    assert tests <= {source.stem for source in TESTS}
    assert all(source.stem.startswith(tuple(tests)) for source in TESTS)
