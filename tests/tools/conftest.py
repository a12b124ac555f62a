"""Fixtures for the tests of tools/: fake torches and small wheels."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(tmp_path):
    """Run a tool that must succeed, must not, or (None) may; give its output, or all it says."""

    def run(name: str, *arguments: object, check: bool | None = True, **env: str) -> str:
        command = [sys.executable, ROOT / "tools" / name, *map(str, arguments)]
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PATH": path, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), **env},
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check is not None:
            assert done.returncode == (0 if check else 1), done.stdout + done.stderr
        return done.stdout if check else done.stdout + done.stderr

    return run


@pytest.fixture
def link():
    """Link a small shared object."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")

    def link(path: Path, *arguments: object, code: str = "", soname: str | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = [f"-Wl,-soname,{soname}"] if soname else []
        words = ["gcc", "-shared", "-fPIC", *name, "-xc", "-", "-o", path, "-xnone", *arguments]
        subprocess.run(words, input=code, text=True, check=True)
        return path

    return link


@pytest.fixture
def torch(link, tmp_path):
    """Make an installed torch: site-packages with headers, libraries and metadata."""

    def torch(version: str = "2.13.0+cpu", libraries=("libtorch_cpu.so",)) -> Path:
        site = tmp_path / "site"
        root = site / "torch"
        (root / "include/ATen").mkdir(parents=True)
        (root / "include/ATen/ATen.h").write_text("// headers\n")
        (root / "version.py").write_text(f"__version__ = '{version}'\n")
        lib = root / "lib"
        origin = "-Wl,-rpath,$ORIGIN"
        c10 = link(lib / "libc10.so", origin, soname="libc10.so", code="int c10;")
        places = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../../nvidia/cu13/lib:$ORIGIN"  # as CUDA's
        gomp = link(lib / "libgomp.so.1", places, soname="libgomp.so.1", code="int gomp;")
        debug = tmp_path / "libgomp.so.1.0.0-8.5.0-28.el8.x86_64.debug"
        debug.write_bytes(b"symbols")
        subprocess.run(["objcopy", f"--add-gnu-debuglink={debug}", gomp], check=True)
        for name in libraries:
            needed = ["-Wl,--no-as-needed", c10, gomp, origin]
            link(lib / name, *needed, soname=name, code="int cpu; static int hidden = 1;")
        info = site / f"torch-{version}.dist-info"
        (info / "licenses/third_party/fmt").mkdir(parents=True)
        (info / "licenses/LICENSE").write_text("of torch\n")
        (info / "licenses/third_party/fmt/LICENSE").write_text("of fmt\n")
        stated = (
            "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND BSD-3-Clause "
            "AND BSL-1.0 AND MIT"
        )
        (info / "METADATA").write_text(f"Name: torch\nLicense-Expression: {stated}\n")
        return root

    return torch


def pack(directory: Path, wheel: Path) -> Path:
    """Zip a directory as a wheel, with its RECORD."""
    (info,) = directory.glob("*.dist-info")
    lines = [f"{info.name}/RECORD,,"]
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            name = path.relative_to(directory).as_posix()
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
            lines.append(f"{name},sha256={digest.decode().rstrip('=')},{path.stat().st_size}")
            archive.write(path, name)
        archive.writestr(f"{info.name}/RECORD", "\n".join(lines) + "\n")
    return wheel


@pytest.fixture
def wheel(tmp_path):
    """Make a wheel of a directory."""

    def wheel(directory: Path, name: str) -> Path:
        version = "-".join(name.split("-")[:2])
        info = directory / f"{version}.dist-info"
        (info / "licenses").mkdir(parents=True, exist_ok=True)
        (info / "licenses/LICENSE").write_text("a licence\n")
        tag = "-".join(name.split("-")[2:])
        purelib = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"
        (info / "WHEEL").write_text(f"{purelib}Tag: {tag}\n")
        plain, number = name.split("-")[:2]
        text = f"Metadata-Version: 2.4\nName: {plain.replace('_', '-')}\nVersion: {number}\n"
        (info / "METADATA").write_text(text)
        return pack(directory, tmp_path / f"{name}.whl")

    return wheel
