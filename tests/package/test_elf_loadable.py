"""What the dynamic loader would crash on is refused, and every library of this machine is not."""

from __future__ import annotations

import platform
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import aoti
from aoti.package.elf import read_elf
from aoti.package.elf_loadable import check_loadable

ROOT = Path(__file__).parents[2]
MACHINE = platform.machine()
FLAGS = {
    "as compilers link": [],
    "with both hash tables": ["-Wl,--hash-style=both"],
    "with the old hash table": ["-Wl,--hash-style=sysv"],
    "with packed relocations": ["-Wl,-z,pack-relative-relocs"],
    "without symbols": ["-fvisibility=hidden"],
    "with all functions bound at once": ["-Wl,-z,now,-z,relro"],
    "without read-only segments": ["-Wl,-z,norelro"],
    "in one segment": ["-Wl,-z,noseparate-code"],
}
SOURCE = """
#include <stdlib.h>
__thread int each = 3;
static int zero[100];
int *pointer = zero, (*function)(void);
__attribute__((weak)) int answer(void) { return 42 + each; }
static int one(void) { return 1; }
static void *resolve(void) { return one; }
int chosen(void) __attribute__((ifunc("resolve")));
__attribute__((constructor)) void start(void) { function = answer; free(malloc(3)); }
__attribute__((destructor)) void stop(void) { pointer = 0; }
int total(void) { return function() + chosen() + *pointer; }
"""


@pytest.fixture(scope="module")
def link(tmp_path_factory) -> Callable[..., Path]:
    """A function that links a small library that has something of everything."""
    directory = tmp_path_factory.mktemp("linked")

    def run(*flags: str) -> Path:
        path = directory / f"lib{abs(hash(flags))}.so"
        (directory / "code.c").write_text(SOURCE)
        command = ["gcc", "-shared", "-fPIC", *flags, "-o", path, directory / "code.c"]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this linker does not know these flags")
        return path

    return run


@pytest.fixture(scope="module")
def shared_object(code_of) -> Path:
    """The small network's code."""
    return code_of("mlp")


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_a_library_is_loadable_however_it_is_linked(link, flags):
    check_loadable(link(*flags), MACHINE)


def test_libraries_of_this_machine_are_loadable():
    import numpy as np

    assert np.__version__  # brings the C++ library
    mapped = set(re.findall(r"(/\S+\.so\S*)\n", Path("/proc/self/maps").read_text()))
    folder = Path("/usr/lib") / f"{MACHINE}-linux-gnu"
    paths = {*map(Path, mapped), *sorted(folder.glob("*.so.*"))[:200]}
    for path in paths:
        if path.read_bytes()[:4] == b"\x7fELF":
            check_loadable(path, MACHINE)


def test_models_are_loadable(packages, tmp_path):
    paths = [path for path in packages.glob("*.pt2") if path.stem != "program"]
    for number, path in enumerate(sorted(paths)):
        with aoti.Package(path) as package:
            for model in package.models:
                target = tmp_path / f"{number}-{package.models.index(model)}"
                package.extract(model, target)
                for code in target.rglob("*.wrapper.so"):
                    check_loadable(code, MACHINE)


def dynamic_value(path: Path, tag: int) -> tuple[int, int]:
    """Where the value of a dynamic entry stands in a file, and the value."""
    data = path.read_bytes()
    for n in range(struct.unpack_from("<H", data, 56)[0]):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", data, 64 + 56 * n)
        if kind == 2:
            for place in range(offset, offset + size, 16):
                if struct.unpack_from("<Q", data, place)[0] == tag:
                    return place + 8, struct.unpack_from("<Q", data, place + 8)[0]
    raise AssertionError(f"no entry {tag}")


def refused(path: Path, target: Path, place: int, form: str, value: int) -> str:
    """Why a file with another number is refused."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, place, value)
    target.write_bytes(data)
    with pytest.raises(aoti.PackageError, match="is damaged: ") as caught:
        check_loadable(target, MACHINE)
    return str(caught.value)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (12, 0, "dynamic entries"),  # DT_INIT
        (9, 23, "dynamic entries"),  # DT_RELAENT
        (27, 1 << 20, "functions to call"),  # DT_INIT_ARRAYSZ
        (2, 25, "dynamic entries"),  # DT_PLTRELSZ
        (23, 0, "relocations"),  # DT_JMPREL, which is then the ELF header
        (10, 5000, "names"),  # DT_STRSZ
        (3, 0, "dynamic entries"),  # DT_PLTGOT
        (1, 1 << 40, "names"),  # DT_NEEDED
        (0x6FFFFFF9, 1 << 40, "relocations"),  # DT_RELACOUNT
        (0x6FFFFFF0, 0, "versions"),  # DT_VERSYM, which is then the ELF header
    ],
)
def test_a_wrong_dynamic_entry_is_refused(shared_object, tmp_path, tag, value, message):
    place, _ = dynamic_value(shared_object, tag)
    assert message in refused(shared_object, tmp_path / "x.so", place, "<Q", value)


@pytest.mark.parametrize(
    ("tag", "field", "form", "value", "message"),
    [
        (7, 0, "<Q", 0, "relocations"),  # into read-only memory
        (7, 0, "<Q", 1 << 50, "relocations"),  # into none
        (7, 8, "<I", 5, "relocations"),  # of a kind that only programs have
        (7, 12, "<I", 1 << 30, "relocations"),  # with a symbol that there is not
        (7, 16, "<Q", 0x10, "functions to call"),  # the first one is of DT_INIT_ARRAY
        (23, 12, "<I", 0, "relocations"),  # a call of no symbol
        (6, 4, "<B", 0x10, "symbols"),  # the symbol that is none
        (6, 24, "<I", 1 << 30, "symbols"),  # a name beyond all names
        (0x6FFFFEF5, 0, "<I", 0, "hash|nothing"),
        (0x6FFFFEF5, 8, "<I", 3, "hash"),
        (0x6FFFFEF5, 16, "<Q", 0, "hash"),  # of the filter
        (0x6FFFFFF0, 2, "<H", 0x7FFF, "versions"),
        (0x6FFFFFFE, 4, "<I", 0, "versions"),  # of a library that is not needed
        (0x6FFFFFFE, 12, "<I", 1 << 30, "versions"),
    ],
)
def test_a_wrong_row_is_refused(shared_object, tmp_path, tag, field, form, value, message):
    _, place = dynamic_value(shared_object, tag)  # before the data, addresses are offsets
    assert re.search(message, refused(shared_object, tmp_path / "x.so", place + field, form, value))


@pytest.mark.parametrize("stored", [1, 16, 1 << 30])
def test_first_values_of_thread_local_variables_are_no_other_table(shared_object, tmp_path, stored):
    """The compiled code has such variables, without first values: DT_INIT_ARRAY is behind them."""
    place = thread_local_header(shared_object)
    said = refused(shared_object, tmp_path / "x.so", place + 32, "<Q", stored)
    assert "thread-local variables" in said


@pytest.mark.parametrize("mapped", [0, 1, 39])
def test_thread_local_variables_have_room(shared_object, tmp_path, mapped):
    place = thread_local_header(shared_object)
    said = refused(shared_object, tmp_path / "x.so", place + 40, "<Q", mapped)
    assert "thread-local variables" in said


@pytest.mark.parametrize("start", [0, 1 << 40, (1 << 64) - 1])
def test_a_file_may_have_no_sections(shared_object, tmp_path, start):
    data = bytearray(shared_object.read_bytes())
    struct.pack_into("<Q", data, 40, start)
    (tmp_path / "x.so").write_bytes(data)
    check_loadable(tmp_path / "x.so", MACHINE)


def thread_local_header(path: Path) -> int:
    """Where a file's program header PT_TLS is."""
    data = path.read_bytes()
    headers = range(64, 64 + 56 * struct.unpack_from("<H", data, 56)[0], 56)
    (place,) = (at for at in headers if struct.unpack_from("<I", data, at)[0] == 7)
    return place


def test_an_old_hash_table_that_goes_on_for_ever_is_refused(link, tmp_path):
    path = link("-Wl,--hash-style=sysv")
    _, place = dynamic_value(path, 4)
    buckets, symbols = struct.unpack_from("<II", path.read_bytes(), place)
    for index in range(1, symbols):
        chain = place + 8 + 4 * (buckets + index)
        assert "hash tables" in refused(path, tmp_path / "x.so", chain, "<I", index)


def test_packed_relocations_are_checked(link, tmp_path):
    path = link("-Wl,-z,pack-relative-relocs")
    _, place = dynamic_value(path, 36)
    for word in (0, 1, 1 << 62, (1 << 64) - 2):
        assert "do not make sense" in refused(path, tmp_path / "x.so", place, "<Q", word)


def test_a_check_takes_little_time(shared_object):
    def seconds() -> float:
        begin = time.process_time()
        check_loadable(shared_object, MACHINE)
        return time.process_time() - begin

    assert min(seconds() for _ in range(20)) < 0.005


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs a compiler")
def test_a_linked_library_is_read_and_runs(link):
    import ctypes

    path = link()
    assert "total" in read_elf(path).defined
    assert ctypes.CDLL(str(path)).total() == 46
