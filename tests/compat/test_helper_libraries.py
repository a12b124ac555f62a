"""Libraries that a model's code brings along: found without the current directory, loaded last."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aoti.compat.finding import Finding
from aoti.compat.libtorch import check_libtorch

HELPER = """
#include <stdio.h>
#include <stdlib.h>
int help(void) { return 1; }
__attribute__((constructor)) static void start(void) { fclose(fopen(getenv("LOADED"), "w")); }
"""
FINE = "int help(void); int run(void) { return help(); }"
BROKEN = "int help(void); int gone(void); int run(void) { return help() + gone(); }"
ORIGIN = "-Wl,-rpath,$ORIGIN"


@pytest.fixture
def loaded(tmp_path, monkeypatch) -> Path:
    """A file that is there once the helper's constructor has run."""
    monkeypatch.setenv("LOADED", str(tmp_path / "loaded"))
    return tmp_path / "loaded"


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Compiles code that needs a helper; gives the directory of both, which is the current one."""
    directory = tmp_path / "model"
    directory.mkdir()
    monkeypatch.chdir(directory)
    helper = f"libhelp-{tmp_path.name}.so"  # once loaded, a library is found by its name

    def compiled(source: str, *options: str, by_path: bool = False) -> Path:
        build(HELPER, helper)
        build(source, "a.wrapper.so", f"./{helper}" if by_path else f"-l:{helper}", *options)
        return directory

    return compiled


def build(source: str, target: str, *options: str) -> None:
    command = ["gcc", "-shared", "-fPIC", "-L.", "-o", target, "-xc", "-", "-xnone", *options]
    subprocess.run(command, input=source, text=True, check=True)


def look(directory: Path, *, load: bool = True) -> list[Finding]:
    findings = check_libtorch(directory, lambda _: False, lambda *_: True, load=load)
    return [finding for finding in findings if not finding.ok]


def test_a_library_beside_the_code_is_loaded(model, loaded):
    assert look(model(FINE, ORIGIN)) == []
    assert loaded.exists()


def test_a_library_is_loaded_after_all_other_checks(model, loaded):
    (finding,) = look(model(BROKEN, ORIGIN))
    assert "calls gone, but" in finding.message
    assert not loaded.exists()
    assert look(model(FINE, ORIGIN), load=False) == []
    assert not loaded.exists()


def test_a_library_that_is_no_library_is_not_loaded(model, loaded):
    directory = model(FINE, ORIGIN)
    next(directory.glob("libhelp*")).write_bytes(b"\x7fELF" + bytes(500))
    assert "which cannot be loaded here" in look(directory)[0].message
    assert not loaded.exists()


@pytest.mark.parametrize("places", ["", ".", "lib", "$ORIGIN:", ":/usr/lib", "./$ORIGIN"])
def test_the_current_directory_is_not_searched(model, loaded, places):
    directory = model(FINE, f"-Wl,-rpath,{places}" if places else "-O0", by_path=not places)
    (finding,) = look(directory)
    assert "depends on the current directory" in finding.message
    assert not loaded.exists()
