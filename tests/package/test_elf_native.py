"""What binding a shared object to the native engine changes, and what it leaves alone."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from aoti.errors import PackageError
from aoti.package.elf import read_elf
from aoti.package.elf_native import LIBRARY, bind, native_name


def test_only_names_of_libtorch_change(code_of):
    path = code_of("mlp")
    before, content = read_elf(path), path.read_bytes()
    bind(path)
    after = read_elf(path)
    assert after.defined == before.defined
    assert [native_name(s.name) or s.name for s in before.undefined] == [
        s.name for s in after.undefined
    ]
    assert [(s.version, s.library, s.weak) for s in before.undefined] == [
        (s.version, s.library, s.weak) for s in after.undefined
    ]
    assert set(before.needed) - set(after.needed) == {"libtorch_cpu.so"}
    assert set(after.needed) - set(before.needed) == {LIBRARY}
    assert len(path.read_bytes()) == len(content)


def test_names_are_as_long_as_before():
    for name in ("aoti_torch_clone", "Sleef_expf8_u10", "_ZN2at6native7cpublas6brgemmElb"):
        assert len(native_name(name)) == len(name)
    assert native_name("cos") is None and native_name("_ZN2at4ones") is None


def compiled(directory, source: str, *needed: str):
    """A shared object that needs libraries of these names, in this order."""
    for name in needed:
        stub = ["gcc", "-shared", "-o", directory / name, f"-Wl,-soname,{name}", "-xc", "/dev/null"]
        subprocess.run(list(map(str, stub)), check=True)
    (directory / "code.c").write_text(source)
    links = [f"-l:{name}" for name in needed]
    command = ["gcc", "-shared", "-fPIC", "-o", "code.so", "code.c", "-L.", "-Wl,--no-as-needed"]
    subprocess.run([*command, *links], cwd=directory, check=True)
    return directory / "code.so"


CALLS = "int aoti_torch_clone(void); int call(void) { return aoti_torch_clone(); }"
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@needs_gcc
def test_of_all_libraries_of_torch_one_is_left(tmp_path):
    path = compiled(tmp_path, CALLS, "libtorch.so", "libtorch_cpu.so", "libc10.so")
    bind(path)
    assert [name for name in read_elf(path).needed if not name.startswith("libc.")] == [LIBRARY]


@needs_gcc
def test_what_is_not_linked_to_libtorch_is_refused(tmp_path):
    with pytest.raises(PackageError, match="is not linked to libtorch_cpu"):
        bind(compiled(tmp_path, CALLS))


@needs_gcc
def test_a_name_that_another_one_ends_with_is_refused(tmp_path):
    source = CALLS + " int not_aoti_torch_clone(void) { return 1; }"
    path = compiled(tmp_path, source, "libtorch_cpu.so")
    content = path.read_bytes()
    with pytest.raises(PackageError, match="shares the names"):
        bind(path)
    assert path.read_bytes() == content
