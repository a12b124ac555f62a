"""The one sequence of checks that loading and ``aoti check`` share."""

from __future__ import annotations

import pytest

import aoti
from aoti.cache.cache import extract
from aoti.compat.check import check_package
from aoti.engine import libtorch, native


@pytest.fixture
def findings(packages):
    """Checks a package's model, with an engine or without."""

    def check(name: str, engine: str | None = None) -> list[str]:
        if engine is not None:
            {"libtorch": libtorch, "native": native}[engine].engine()
        with aoti.Package(packages / f"{name}.pt2") as package:
            extraction = extract(package, "model", form="native" if engine == "native" else "dir")
            try:
                found = check_package(
                    package, "model", extraction, aoti.Device("cpu"), engine=engine
                )
            finally:
                extraction.release()
        return [f"{finding.check} {finding.ok}" for finding in found]

    return check


def test_without_an_engine_only_the_files_are_checked(findings):
    checks = ["platform True", "symbols True", "versions True", "weights True"]
    assert findings("mlp") == checks


def test_with_libtorch_versions_are_compared_once(findings):
    files = ["platform True", "symbols True", "weights True"]
    libtorch = ["libraries True", "versions True", "symbols True", "operators True"]
    assert findings("mlp", "libtorch") == files + libtorch


def test_with_the_native_engine_libraries_and_functions_are_compared(findings):
    files = ["platform True", "symbols True", "weights True"]
    native = ["libraries True", "versions True", "symbols True"]
    assert findings("mlp", "native") == files + native


def test_all_that_is_wrong_is_found(findings):
    assert "operators False" in findings("custom", "libtorch")
