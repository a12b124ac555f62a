"""What is looked at before a model's code is mapped: each finding, in order and not."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import pytest

import aoti
from aoti.compat.binary import check_files
from aoti.compat.finding import Finding, require
from aoti.compat.libtorch import check_libtorch, stands_on_libtorch
from aoti.compat.platform import check_machine
from aoti.engine import libtorch as engine

MACHINE = os.uname().machine
HERE = {"AOTI_DEVICE_KEY": "cpu", "AOTI_PLATFORM": sys.platform, "AOTI_MACHINE": MACHINE}
AVX2 = {"avx2", "fma", "f16c"}
AVX512 = {*AVX2, "avx512f", "avx512dq", "avx512vl", "avx512bw"}


@pytest.fixture
def model(packages, tmp_path):
    """Unpacks a package; gives its model's directory, to be damaged at will."""

    def unpack(name: str) -> Path:
        with zipfile.ZipFile(packages / f"{name}.pt2") as archive:
            archive.extractall(tmp_path / name)
        return tmp_path / name / name / "data/aotinductor/model"

    return unpack


@pytest.fixture(scope="module")
def libtorch():
    engine.engine()
    return ctypes.CDLL("libtorch_cpu.so", mode=os.RTLD_NOLOAD | os.RTLD_LAZY), engine.has_operator


def code(directory: Path) -> Path:
    return next(directory.glob("*.wrapper.so"))


def replace(directory: Path, old: bytes, new: bytes) -> None:
    data = code(directory).read_bytes()
    assert old in data and len(old) == len(new)
    code(directory).write_bytes(data.replace(old, new))


def failed(findings: list[Finding]) -> list[Finding]:
    assert all(finding.fix for finding in findings if not finding.ok), "no failure without advice"
    return [finding for finding in findings if not finding.ok]


def only(findings: list[Finding], check: str) -> str:
    """The text of the one finding that is not in order."""
    (finding,) = failed(findings)
    assert finding.check == check
    return f"{finding.message}; {finding.fix}"


# -- the machine -------------------------------------------------------------------------------


def test_this_machine_fits_a_package_made_on_it(packages):
    findings = check_machine(aoti.load_metadata_from_package(packages / "mlp.pt2"))
    assert failed(findings) == []
    assert [finding.check for finding in findings] == ["platform", "isa", "device"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"AOTI_PLATFORM": "", "AOTI_MACHINE": ""}, None),
        ({"AOTI_MACHINE": {"x86_64": "AMD64", "aarch64": "arm64"}.get(MACHINE, MACHINE)}, None),
        ({"AOTI_PLATFORM": "win32"}, "compiled for Windows on .*, this is Linux"),
        ({"AOTI_PLATFORM": "plan9"}, "compiled for plan9 on"),
        ({"AOTI_MACHINE": "riscv64"}, f"on riscv64, .* on {MACHINE}; export the model on a"),
    ],
)
def test_platforms(changes, expected):
    findings = check_machine(HERE | changes)
    if expected is None:
        assert failed(findings) == []
    else:
        assert re.search(expected, only(findings, "platform"))


@pytest.mark.parametrize(
    ("isa", "flags", "missing", "fix"),
    [
        ("", AVX2, None, None),
        ("INVALID_VEC_ISA", AVX2, None, None),
        ("AVX2", AVX2, None, None),
        ("AVX512 AVX512_VNNI", AVX512 | {"avx512_vnni"}, None, None),
        ("ASIMD", {"asimd"}, None, None),
        ("AVX9000", AVX2, None, None),
        ("AVX512", set(), None, None),  # the system does not tell
        ("AVX2", {"sse4_2"}, "avx2, fma, f16c", "cpp.simdlen=1"),
        ("AVX512", AVX2, "avx512f, avx512dq", "cpp.march='x86-64-v3' and cpp.simdlen=256"),
        ("AVX9000 AVX512", AVX2, "avx512f, avx512dq", "v3"),  # the known ones are checked
        ("AVX512 AVX512_VNNI AMX_TILE", AVX512 | {"avx512_vnni"}, "amx_tile, amx_bf16", "v3"),
    ],
)
def test_instructions(monkeypatch, isa, flags, missing, fix):
    monkeypatch.setattr("aoti.compat.platform.cpu_flags", lambda: frozenset(flags))
    findings = check_machine(HERE | {"AOTI_CPU_ISA": isa})
    if missing is None:
        assert failed(findings) == []
    else:
        text = only(findings, "isa")
        assert isa in text and missing in text and fix in text


def test_an_unknown_instruction_set_is_said_to_be_unknown():
    isa = check_machine(HERE | {"AOTI_CPU_ISA": "AVX9000"})[1]
    assert isa.ok and "AVX9000" in isa.message and "unknown to this version" in isa.message


@pytest.mark.parametrize(
    ("key", "device", "expected"),
    [
        ("cpu", "cpu", None),
        ("", None, "for no device"),
        ("tpu", None, "tpu, which is not a device"),
        ("cpu", "cuda", "compiled for cpu, but cuda was requested; load it with device='cpu'"),
        ("cuda", "cpu", "compiled for cuda, but cpu was requested"),
    ],
)
def test_devices(key, device, expected):
    findings = check_machine(HERE | {"AOTI_DEVICE_KEY": key}, device and aoti.Device(device))
    if expected is None:
        assert failed(findings) == []
    else:
        assert expected in only(findings, "device")


def gpus(*architectures):
    found = tuple(
        aoti.DeviceInfo(aoti.Device(f"cuda:{i}"), "A Card", architecture, 1, 1)
        for i, architecture in enumerate(architectures)
    )
    return lambda: (found, "" if found else "no GPU driver is installed")


@pytest.mark.parametrize(
    ("capability", "device", "architectures", "expected"),
    [
        ("90", "cuda", ["sm_90"], None),
        ("80", "cuda", ["sm_86"], None),
        ("90", "cuda", ["sm_100"], None),  # portable kernels may be in it
        ("", "cuda", ["sm_90"], None),
        ("whatever", "cuda", ["sm_90"], None),
        ("90", "cuda:1", ["sm_80", "sm_90"], None),
        ("gfx942", "cuda", ["gfx942"], None),
        ("gfx90a:sramecc+:xnack-", "cuda", ["gfx90a"], None),
        ("90", "cuda", [], "there is none: no GPU driver is installed; export the model on the"),
        ("90", "cuda:2", ["sm_90", "sm_90"], "no cuda:2: this machine has cuda:0, cuda:1"),
        ("90", "cuda", ["sm_89"], "for 90, cuda:0 is a A Card (sm_89)"),
        ("86", "cuda", ["sm_80"], "emit_multi_arch_kernel=True"),
        ("90", "cuda:1", ["sm_90", "sm_75"], "cuda:1 is a A Card (sm_75)"),
        ("gfx942", "cuda", ["gfx90a"], "for gfx942"),
        ("90", "cuda", ["gfx942"], "gfx942"),
    ],
)
def test_gpus(monkeypatch, capability, device, architectures, expected):
    monkeypatch.setattr("aoti.compat.platform.gpus", gpus(*architectures))
    metadata = HERE | {"AOTI_DEVICE_KEY": "cuda", "AOTI_COMPUTE_CAPABILITY": capability}
    findings = check_machine(metadata, aoti.Device(device))
    if expected is None:
        assert failed(findings) == []
    else:
        assert expected in only(findings, "gpu")


def test_hostile_metadata_is_only_text(monkeypatch):
    monkeypatch.setattr("aoti.compat.platform.gpus", gpus("sm_90"))
    dice = random.Random(3)
    values = ["", "\0", "\ud800", "9" * 5000, "cuda", "linux", "\x1b[31m", "x" * 10**6, "gfx", "²³"]
    for _ in range(300):
        metadata = {
            f"AOTI_{key}": dice.choice(values)
            for key in ("DEVICE_KEY", "PLATFORM", "MACHINE", "CPU_ISA", "COMPUTE_CAPABILITY")
        }
        for finding in check_machine(metadata):
            assert finding.message.isprintable() and len(finding.message) < 500


# -- the files ---------------------------------------------------------------------------------

SOUND = ("mlp", "tree", "stock", "weights_blob", "weights_mmap", "weights_none", "custom")


@pytest.mark.parametrize("name", SOUND)
def test_sound_files(model, name):
    findings = check_files(model(name))
    assert failed(findings) == []
    assert [f.check for f in findings] == ["platform", "symbols", "versions", "weights"]


@pytest.mark.parametrize(
    ("damage", "check", "expected"),
    [
        (lambda d: code(d).unlink(), "file", "0 shared objects"),
        (lambda d: shutil.copy(code(d), d / "b.wrapper.so"), "file", "2 shared objects"),
        (lambda d: code(d).write_bytes(b"text"), "file", "not an ELF shared object"),
        (lambda d: os.truncate(code(d), 200_000), "file", "ends at 200000 bytes"),
        (
            lambda d: replace(d, b"ContainerRun\0", b"ContainerXun\0"),
            "symbols",
            "lacks AOTInductorModelContainerRun;",
        ),
        (lambda d: replace(d, b"\0GLIBC_2.34\0", b"\0GLIBC_9.99\0"), "versions", "GLIBC_9.99"),
        (lambda d: replace(d, b"GLIBCXX_3.4.21\0", b"GLIBCXX_3.4.99\0"), "versions", "3.4.99 of"),
    ],
)
def test_damaged_files(model, libtorch, damage, check, expected):
    directory = model("mlp")
    damage(directory)
    assert expected in only(check_files(directory), check)


def test_code_for_another_machine(model):
    directory = model("mlp")
    data = bytearray(code(directory).read_bytes())
    struct.pack_into("<H", data, 18, 22)
    code(directory).write_bytes(data)
    assert "code is for s390x" in only(check_files(directory), "platform")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stock", "in the model's code: 768 bytes"),
        ("weights_blob", "in a file: 768 bytes"),
        ("weights_mmap", "behind the model's code: 768 bytes"),
        ("weights_none", "no weights, and its model has 3 constants"),
        ("custom", "no weights, as for a model without constants"),
    ],
)
def test_weights_are_found(model, packages, name, message):
    with aoti.Package(packages / f"{name}.pt2") as package:
        count = package.num_constants()
    assert count == (0 if name == "custom" else 3)
    (weights,) = [f for f in check_files(model(name), lambda: count) if f.check == "weights"]
    assert weights.ok and message in weights.message


def resize(path: Path, by: int) -> None:
    os.truncate(path, path.stat().st_size + by)


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("weights_blob", lambda d: next(d.glob("*.blob")).unlink(), "there is no such file"),
        ("weights_blob", lambda d: resize(next(d.glob("*.blob")), -1), "that file has 767"),
        ("weights_mmap", lambda d: resize(code(d), -1), "damaged or cut short"),
        ("weights_mmap", lambda d: resize(code(d), -16384), "damaged or cut short"),
        ("weights_mmap", lambda d: resize(code(d), 8), "damaged or cut short"),
        ("weights_mmap", lambda d: resize(code(d), 16384), "damaged or cut short"),
    ],
)  # fmt: skip
def test_weights_that_are_not_there(model, name, damage, expected):
    directory = model(name)
    damage(directory)
    assert expected in only(check_files(directory, lambda: 3), "weights")


# -- libtorch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "stock", "weights_mmap"])
def test_this_libtorch_fits(model, libtorch, name):
    findings = check_libtorch(model(name), *libtorch)
    assert failed(findings) == []
    assert [f.check for f in findings] == ["libraries", "versions", "symbols", "operators"]


@pytest.mark.parametrize(
    ("old", "new", "check", "expected"),
    [
        (b"libgcc_s.so.1\0", b"libgcc_s.so.9\0", "libraries", "needs libgcc_s.so.9, which cannot"),
        (
            b"\0aoti_torch_get_numel\0",
            b"\0aoti_torch_got_numel\0",
            "symbols",
            "got_numel, but this",
        ),
    ],
)
def test_another_libtorch(model, libtorch, old, new, check, expected):
    directory = model("mlp")
    replace(directory, old, new)
    assert expected in only(check_libtorch(directory, *libtorch), check)


def test_a_torch_library_is_never_loaded_by_name(model, libtorch):
    directory = model("mlp")
    replace(directory, b"libtorch_cpu.so\0", b"libtorch_gpu.so\0")
    findings = check_libtorch(directory, *libtorch)
    assert "libtorch_gpu.so" in failed(findings)[0].message


def test_the_symbols_may_be_asked_of_a_function(model, libtorch):
    directory = model("mlp")
    replace(directory, b"\0aoti_torch_get_numel\0", b"\0aoti_torch_got_numel\0")
    asked = []
    findings = check_libtorch(directory, lambda name: not asked.append(name), libtorch[1])
    assert failed(findings) == []
    assert asked == ["aoti_torch_got_numel"]


def test_a_package_that_was_not_linked_with_libtorch(model, libtorch):
    text = only(check_libtorch(model("unlinked"), *libtorch), "symbols")
    assert "export it with aot_inductor.link_libtorch=True" in text


def test_operators_that_nobody_registered(model, libtorch):
    directory = model("custom")
    text = only(check_libtorch(directory, *libtorch), "operators")
    assert "calls aoti_tests::halve" in text
    assert "import the Python package that defines it, or export the model without it" in text
    asked = []
    assert not failed(check_libtorch(directory, libtorch[0], lambda *op: not asked.append(op)))
    assert asked == [("aoti_tests::halve", "")]


def test_what_calls_operators_of_others_does_not_stand_on_libtorch_alone(model, libtorch):
    assert all(stands_on_libtorch(model(name), libtorch[0]) for name in ("mlp", "stock", "lookup"))
    assert not stands_on_libtorch(model("custom"), libtorch[0])
    directory = model("tree")  # as with aot_inductor.custom_ops_to_c_shims: a function of a library
    replace(directory, b"\0aoti_torch_get_data_ptr\0", b"\0aoti_tests_shim_of_halv\0")
    assert not stands_on_libtorch(directory, libtorch[0])


def test_operators_of_a_library(model, libtorch):
    directory = model("custom")
    nodes = [{"node": {"target": target}} for target in ("aten::add.Tensor", "lib::a.b", "lib::c")]
    nodes.append({"node": {"target": "call_torchbind"}})
    code(directory).with_suffix(".json").write_text(json.dumps({"nodes": nodes}))
    text = only(check_libtorch(directory, *libtorch), "operators")
    assert "calls lib::a.b, lib::c, and" in text and "in lib;" in text and "ctypes.CDLL" in text


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"nodes": 3}', '{"nodes": [{}]}', '{"nodes": [{"node": []}]}',
     '{"nodes": [{"node": {"target": 3}}]}', '{"nodes": [{"node": {"target": "x"}}]}',
     '{"nodes": [{"node": {"target": "a::b.c.d"}}]}',
     '{"nodes": [{"node": {"target": "\\ud800"}}]}',
     '{"nodes": [{"node": {"target": "a::b", "metadata": 1}}]}', "[" * 100_000, "\0"],
)  # fmt: skip
def test_a_damaged_list_of_operators(model, libtorch, text):
    directory = model("custom")
    code(directory).with_suffix(".json").write_text(text)
    assert "operators is damaged" in only(check_libtorch(directory, *libtorch), "file")


def test_the_dispatcher_is_asked(libtorch):
    _, has_operator = libtorch
    assert has_operator("aten::add", "Tensor")
    assert not has_operator("aten::add", "Nonsense")
    assert not has_operator("aoti_tests::halve", "")
    assert not has_operator("", "")


# -- whatever the files hold -------------------------------------------------------------------


def test_damaged_code_gives_findings_and_nothing_else(model, libtorch):
    """Seeded: words changed where the dynamic loader's tables and the weights' marker stand."""
    directory = model("weights_mmap")
    sound = code(directory).read_bytes()
    dice = random.Random(11)
    judged = set()
    for number in range(150):
        data = bytearray(sound)
        for _ in range(dice.choice((1, 2, 20))):
            value = dice.choice((0, 1, 0xFFFFFFFF, dice.getrandbits(32)))
            struct.pack_into("<I", data, dice.randrange(0x4A000), value)
        code(directory).write_bytes(data)
        os.utime(code(directory), ns=(number, number))  # the clock's ticks are longer than this
        findings = check_files(directory, lambda: 3) + check_libtorch(directory, *libtorch)
        judged |= {finding.check for finding in failed(findings)}
    assert {"file", "symbols", "versions"} <= judged


# -- all together ------------------------------------------------------------------------------


def test_what_is_not_in_order_is_raised():
    require([Finding("a", True, "fine")])
    findings = [
        Finding("a", True, "fine"),
        Finding("b", False, "it wants x", "give it x"),
        Finding("c", False, "it wants y"),
    ]
    with pytest.raises(aoti.IncompatiblePackageError, match="it wants x; give it x") as caught:
        require(findings)
    assert str(caught.value) == "it wants x; give it x"
    assert caught.value.__notes__ == ["it wants y"]
