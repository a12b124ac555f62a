"""The reader of shared objects, with binutils' readelf as the oracle, and files that lie."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import aoti
from aoti.package.elf import drop_libtorch, forbid_executable_stack, read_elf

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shared_object(code_of) -> Path:
    """The small network's code, with its weights in it."""
    return code_of("stock")


def libraries() -> list[Path]:
    """Shared objects of other makers: the extensions, and libraries that this process maps."""
    mapped = re.findall(r"(/\S+/(?:libstdc\+\+|libc|libm|libgcc_s)\.so\S*)\n", maps())
    return [*sorted((ROOT / "aoti").rglob("*.so")), *sorted({Path(name) for name in mapped})]


def maps() -> str:
    import numpy as np

    assert np.__version__  # brings the C++ library
    return Path("/proc/self/maps").read_text()


def readelf(*arguments: object) -> str:
    tool = shutil.which("readelf")
    if tool is None:
        pytest.skip("readelf is not installed")
    return subprocess.run(
        [tool, "-W", *map(str, arguments)], capture_output=True, text=True, check=False
    ).stdout


def symbols(path: Path) -> tuple[set[str], set[tuple[str, str | None, bool]]]:
    """Defined names; undefined names with their versions and whether they are weak."""
    defined, undefined = set(), set()
    for line in readelf("--dyn-syms", path).splitlines():
        parts = re.sub(r"<OS specific>: \d+", "UNIQUE", line).split()
        if len(parts) < 8 or not re.fullmatch(r"\d+:", parts[0]) or parts[4] == "LOCAL":
            continue
        name, _, version = parts[7].partition("@")
        if parts[6] == "UND":
            undefined.add((name, version or None, parts[4] == "WEAK"))
        else:
            defined.add(name)
    return defined, undefined


def check_against_readelf(path: Path) -> None:
    so = read_elf(path)
    defined, undefined = symbols(path)
    assert set(so.defined) == defined
    assert {(s.name, s.version, s.weak) for s in so.undefined} == undefined
    dynamic = readelf("-d", path)
    assert list(so.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert [so.runpath or ""] == (re.findall(r"\(RUNPATH\).*\[(.*)\]", dynamic) or [""])
    assert so.executable_stack == bool(re.search(r"GNU_STACK.* RWE ", readelf("-l", path)))
    asked = {s.version: s.library for s in so.undefined if s.version}
    assert set(asked.values()) <= {*so.needed, None}
    listing = readelf("--dyn-syms", path)
    for name, address in list(so.defined.items())[:50]:
        assert re.search(rf"{address:016x} .* {re.escape(name)}(@|$)", listing, re.MULTILINE)


def test_a_model_is_read_as_readelf_reads_it(shared_object):
    check_against_readelf(shared_object)
    so = read_elf(shared_object)
    assert (so.machine, so.bits, so.byteorder) == (aoti_machine(), 64, "little")
    assert "libtorch_cpu.so" in so.needed
    assert "AOTInductorModelContainerRun" in so.defined
    assert so.size == shared_object.stat().st_size
    begin, end = (so.defined[f"_binary_constants_bin_{edge}"] for edge in ("start", "end"))
    assert len(so.read(begin, end - begin)) == end - begin >= 160 * 4


@pytest.mark.parametrize("path", libraries(), ids=lambda path: path.name)
def test_libraries_are_read_as_readelf_reads_them(path):
    check_against_readelf(path)


def aoti_machine() -> str:
    import platform

    return platform.machine()


def test_reading_is_bound_to_what_is_mapped(shared_object):
    so = read_elf(shared_object)
    for address, size in ((0, 1 << 40), (1 << 60, 8), (-8, 8), (0, -1)):
        with pytest.raises(aoti.PackageError, match="damaged"):
            so.read(address, size)


def altered(source: Path, target: Path, *changes: tuple[int, str, int]) -> Path:
    data = bytearray(source.read_bytes())
    for place, form, value in changes:
        struct.pack_into(form, data, place, value)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(18, "<H", 183)], ("aarch64", 64, "little")),
        ([(18, "<H", 9999)], ("machine number 9999", 64, "little")),
        ([(4, "<B", 1), (18, "<H", 40)], ("arm", 32, "little")),
        ([(5, "<B", 2), (16, ">H", 3), (18, ">H", 22)], ("s390x", 64, "big")),
    ],
)
def test_other_machines_are_named(shared_object, tmp_path, changes, expected):
    so = read_elf(altered(shared_object, tmp_path / "x.so", *changes))
    assert (so.machine, so.bits, so.byteorder) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ELF"),
        (b"MZ\x90\0" * 40, "not an ELF"),
        (b"\x7fELF", "not an ELF"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 1, 62) + bytes(44), "object file"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62) + bytes(44), "a program"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 62) + bytes(40), "its header"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 62) + bytes(44), "headers do"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "x.so"
    path.write_bytes(content)
    with pytest.raises(aoti.PackageError, match=message):
        read_elf(path)


def test_a_file_that_was_cut_short_is_refused(shared_object, tmp_path):
    data = shared_object.read_bytes()
    headers = [struct.unpack_from("<IIQQQQ", data, 64 + 56 * n) for n in range(data[56])]
    mapped = max(offset + size for kind, _, offset, _, _, size in headers if kind == 1)
    path = tmp_path / "x.so"
    for size in (mapped - 1, mapped // 2, 4096, 100, 64):
        path.write_bytes(data[:size])
        with pytest.raises(aoti.PackageError, match=r"needs|headers|ends"):
            read_elf(path)
    path.write_bytes(data[:mapped])  # without section headers, which the loader does not need
    assert read_elf(path).undefined == read_elf(shared_object).undefined


def test_whatever_is_damaged_nothing_but_an_error_comes(shared_object, tmp_path):
    """Seeded: bytes and words changed where the tables stand, most of all in the small ones."""
    data = shared_object.read_bytes()
    (headers,) = struct.unpack_from("<Q", data, 32)
    dynamic = int(re.search(rb"DYNAMIC\s+0x(\w+)", readelf("-l", shared_object).encode())[1], 16)
    versions = int(re.search(r"Addr.*Offset: 0x(\w+)  Link: \d+ \(.dynstr\)",
                             readelf("-V", shared_object))[1], 16)  # fmt: skip
    regions = [(0, 64), (headers, 56 * 11), (dynamic, 16 * 28), (versions, 448), (0x2D0, 4096)]
    dice = random.Random(7)
    path = tmp_path / "x.so"
    refused = 0
    for _ in range(400):
        changed = bytearray(data[: dynamic + 4096])
        for _ in range(dice.choice((1, 1, 2, 8))):
            start, size = dice.choice(regions)
            value = dice.choice((0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, dice.getrandbits(32)))
            struct.pack_into("<I", changed, start + dice.randrange(size), value)
        path.write_bytes(changed + data[len(changed) :])
        begin = time.monotonic()
        try:
            read_elf(path)
        except aoti.PackageError:
            refused += 1
        assert time.monotonic() - begin < 2
    assert refused > 50


def test_lists_that_go_on_for_ever_end(shared_object, tmp_path):
    """A version list that links to itself, byte by byte, and counts that no file has."""
    data = shared_object.read_bytes()
    text = readelf("-V", shared_object)
    place = int(re.search(r"Addr.*Offset: 0x(\w+)  Link: \d+ \(.dynstr\)", text)[1], 16)
    count = data.index(struct.pack("<QQ", 0x6FFFFFFF, len(re.findall(r"Version: 1  File", text))))
    changes = [(count + 8, "<Q", (1 << 64) - 1), (place + 2, "<H", 0xFFFF), (place + 12, "<I", 1)]
    path = altered(shared_object, tmp_path / "x.so", *changes)
    begin = time.monotonic()
    with pytest.raises(aoti.PackageError):
        read_elf(path)
    assert time.monotonic() - begin < 2


def test_no_executable_stack_is_left(shared_object, tmp_path):
    assert not read_elf(shared_object).executable_stack  # extraction did it
    path = tmp_path / "x.so"
    data = bytearray(shared_object.read_bytes())
    place = next(at for at in range(64, 64 + 56 * 11, 56) if data[at : at + 4] == b"\x51\xe5\x74d")
    data[place + 4] |= 1
    path.write_bytes(data)
    assert read_elf(path).executable_stack
    forbid_executable_stack(path)
    assert path.read_bytes() == shared_object.read_bytes()


@pytest.fixture
def linked(tmp_path):
    """A function that links a library with others, all of them named, as `ld` does by itself."""

    def link(name: str, *needed: str, code: str = "") -> Path:
        (tmp_path / "code.c").write_text(code)
        (tmp_path / "lib").mkdir(exist_ok=True)
        path = tmp_path / "lib" / f"lib{name}.so"
        subprocess.run(
            ["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{path.name}", "-Wl,--no-as-needed"]
            + ["-o", path, tmp_path / "code.c", f"-L{path.parent}", "-Wl,-rpath,$ORIGIN"]
            + [f"-l{other}" for other in needed],
            check=True,
        )
        return path

    return link


def test_libtorch_is_not_asked_for_where_its_parts_are(linked, run_python):
    """It brings the libraries of its backend, and there is none beside the provider's."""
    linked("torch_cpu", code="int two(void) { return 2; }")
    linked("c10")
    torch = linked("torch", "torch_cpu")
    path = linked(
        "model", "torch", "torch_cpu", "c10", code="int two(void); int f() { return two(); }"
    )
    torch.unlink()
    program = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).f())"
    assert read_elf(path).needed == ("libtorch.so", "libtorch_cpu.so", "libc10.so")
    drop_libtorch(path)
    assert read_elf(path).needed == ("libtorch_cpu.so", "libc10.so")
    check_against_readelf(path)
    assert run_python(program, path) == "2\n"
    alone = linked("alone", "c10")
    for other in (path, alone):
        before = other.read_bytes()
        drop_libtorch(other)
        assert other.read_bytes() == before


def test_extraction_drops_libtorch(packages, tmp_path):
    with zipfile.ZipFile(packages / "stock.pt2") as archive:
        archive.extractall(tmp_path)
    (path,) = tmp_path.glob("stock/data/**/*.wrapper.so")
    linked = []
    for name in ("libtorch.so", "libtorch_cpu.so"):
        linked.append(tmp_path / name)
        build = ["gcc", "-shared", "-o", linked[-1], f"-Wl,-soname,{name}", "-xc", "/dev/null"]
        subprocess.run(build, check=True)
    command = ["gcc", "-shared", "-o", path, "-Wl,--no-as-needed", "-xc", "/dev/null", "-xnone"]
    subprocess.run([*command, *linked], check=True)
    before = read_elf(path).needed
    assert "libtorch.so" in before
    with aoti.Package(tmp_path / "stock") as package:
        package.extract("model", tmp_path / "model")
    (path,) = (tmp_path / "model").rglob("*.wrapper.so")
    assert read_elf(path).needed == tuple(name for name in before if name != "libtorch.so")


@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files")
def test_large_files_are_not_read_in(shared_object, tmp_path):
    path = tmp_path / "x.so"
    shutil.copy(shared_object, path)
    with path.open("r+b") as file:
        file.truncate(8 << 30)  # sparse
    begin = time.monotonic()
    assert read_elf(path).size == 8 << 30
    assert time.monotonic() - begin < 0.5
