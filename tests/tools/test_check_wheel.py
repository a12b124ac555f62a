"""Each promise that a wheel can break is found and named."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("auditwheel")
pytest.importorskip("abi3audit")
pytest.importorskip("elftools")

ROOT = Path(__file__).parents[2]
TAG = f"manylinux_2_28_{platform.machine()}"
NAME = f"aoti_runtime-1.0-cp311-abi3-{TAG}"
ENGINE = "aoti/engine/_libtorch/torch213/_libtorch.abi3.so"
CORE = "aoti/engine/_core/_core.abi3.so"
NATIVE = "aoti/engine/_native/libaoti_cpu.so"
LICENCES = "tools/provider/licenses/libgomp"
OPENMP = "aoti/engine/_native/libgomp.so.1"
SERVED = (
    "aoti_native_engine aotinative_clone aotis_expf8_u10 _ZN4aoti6native5cblas6brgemmEv".split()
)
MODULES = sorted(path.stem for path in (ROOT / "aoti/engine/_core").glob("*.pyx"))
INFO = {"torch": "2.13.0+cpu", "backend": "cpu", "debug": False, "sanitize": ""}
RUN_PATH = "$ORIGIN/../../../../torch/lib:$ORIGIN/../../../../aoti_libtorch/lib"
HIDE = "#pragma GCC visibility push(hidden)\n"


@pytest.fixture
def runtime(link, wheel, tmp_path):
    """A wheel that keeps every promise, but for what is asked for of its engine or its core."""

    def runtime(name=NAME, engine=ENGINE, run_path=RUN_PATH, code="", info=INFO, flags=("-s",),
                core=CORE, core_flags=("-s",), modules=MODULES,
                native_flags=("-Wl,-rpath,$ORIGIN",)):  # fmt: skip
        stubs = [
            link(tmp_path / "stubs" / n, soname=n, code="")
            for n in ("libtorch_cpu.so", "libc10.so")
        ]
        marker = json.dumps("AOTI_BUILD_INFO:" + json.dumps(info))
        source = f"void *PyInit__libtorch(void) {{ return 0; }}\n{code}\n"
        source += f"{HIDE}const char *volatile marker = {marker};\n"
        words = ["-Wl,--no-as-needed", *stubs, f"-Wl,-rpath,{run_path}", *flags]
        link(tmp_path / "tree" / engine, *words, code=source)
        source = "".join(f"void *PyInit_{name}(void) {{ return 0; }}\n" for name in modules)
        words = [word.format(stubs=tmp_path / "stubs") for word in core_flags]
        link(tmp_path / "tree" / core, *words, code=source)
        openmp = link(tmp_path / "tree" / OPENMP, "-s", soname="libgomp.so.1", code="")
        source = "".join(f"void {name}(void) {{}}\n" for name in SERVED)
        words = ["-Wl,--no-as-needed", openmp, "-s", *native_flags]
        link(tmp_path / "tree" / NATIVE, *words, code=source)
        texts = tmp_path / "tree/aoti_runtime-1.0.dist-info/licenses" / LICENCES
        texts.mkdir(parents=True, exist_ok=True)
        for text in ("COPYING3", "COPYING.RUNTIME"):
            (texts / text).write_text("of libgomp\n")
        return wheel(tmp_path / "tree", name)

    return runtime


def test_a_good_wheel_passes(tool, runtime):
    path = runtime()
    assert tool("check_wheel", path) == f"{path.name}: {path.stat().st_size:,} bytes\n"


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ({"name": f"aoti_runtime-1.0-cp311-abi3-linux_{platform.machine()}"}, "tag: tagged"),
        ({"engine": ENGINE.replace("213", "214")}, "was built for torch 2.13.0+cpu"),
        ({"info": {**INFO, "sanitize": "address"}}, "is a build for debugging"),
        ({"run_path": "/home/me/torch/lib"}, "has the run path /home/me/torch/lib, not $ORIGIN"),
        ({"flags": ["-s", "-Wl,--disable-new-dtags"]}, "has a DT_RPATH"),
        ({"code": "int stray;"}, f"{ENGINE} exports stray"),
        ({"modules": [*MODULES, "_stray"]}, f"{CORE} exports PyInit__stray"),
        ({"modules": MODULES[1:]}, f"{CORE} does not export PyInit_{MODULES[0]}"),
        ({"core_flags": ["-s", "-Wl,--no-as-needed", "{stubs}/libc10.so"]}, "needs libc10.so"),
        ({"core_flags": ["-s", "-Wl,-rpath,$ORIGIN"]}, f"{CORE} has the run path $ORIGIN, not"),
        ({"native_flags": []}, f"{NATIVE} has the run path , not $ORIGIN"),
        ({"core_flags": ["-g"]}, f"{CORE} has debugging data: .symtab"),
        ({"core": "aoti/_core.abi3.so"}, "no library aoti/engine/_core/_core.*.so"),
        ({"core": "aoti/_core.abi3.so"}, "aoti/_core.abi3.so does not belong there"),
        ({"flags": ["-g"]}, "has debugging data: .symtab"),
        ({"flags": ["-s", "-Wl,--no-as-needed", "-lresolv"]}, "needs libresolv.so.2"),
        (
            {"code": 'static const char *volatile f = "/home/me/aoti/core.cpp";'},
            "names a path of the machine that built it: /home/me/aoti/core.cpp",
        ),
        (
            {"code": "int pthread_attr_setsigmask_np(void *, void *);"
             "static void *volatile f = pthread_attr_setsigmask_np;"},
            "system: needs manylinux_2_3",
        ),
        ({"code": "void PyUnicode_AsUTF8AndSize2(void); int _Py_NoSuch(void);"
          "static void *volatile f = _Py_NoSuch;"}, "abi3audit: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tool, runtime, options, finding):
    assert finding in tool("check_wheel", runtime(**options), check=False)


def test_a_wheel_too_large_is_named(tool, runtime, tmp_path):
    (tmp_path / "tree/aoti").mkdir(parents=True)
    (tmp_path / "tree/aoti/noise").write_bytes(hashlib.shake_128(b"").digest(2_500_000))
    assert "size: 2,5" in tool("check_wheel", runtime(), check=False)


def test_files_that_do_not_belong_there_are_named(tool, runtime, tmp_path):
    for name in ("aoti/engine/_core/_status.pyx", "tests/test_it.py"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).touch()
    said = tool("check_wheel", runtime(), check=False)
    assert "belonging: aoti/engine/_core/_status.pyx is no use there" in said
    assert "belonging: tests/test_it.py does not belong there" in said


def test_a_missing_licence_and_a_wrong_record_are_named(tool, runtime):
    path = runtime()
    subprocess.run(["zip", "-qd", path, "*/LICENSE"], check=True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("aoti/stray.py", "")
    said = tool("check_wheel", path, check=False)
    assert "licences: no licence LICENSE" in said
    assert "record: aoti/stray.py: in RECORD or in the wheel" in said
    assert "/LICENSE: in RECORD or in the wheel" in said


def test_an_unknown_distribution_is_refused(tool, wheel, tmp_path):
    path = wheel(tmp_path / "tree", f"other-1.0-py3-none-{TAG}")
    said = tool("check_wheel", path, check=False)
    assert "known are aoti-runtime, aoti-libtorch-cpu" in said
