"""The one sequence of checks that loading and ``aoti check`` share."""

from __future__ import annotations

import pytest

import aoti
from aoti.cache.cache import extract
from aoti.compat.check import check_package
from aoti.engine import libtorch


@pytest.fixture
def findings(packages):
    """Checks a package's model; with libtorch or without it."""

    def check(name: str, *, with_libtorch: bool) -> list[str]:
        library = has_operator = None
        if with_libtorch:
            libtorch.engine()
            has_operator, library = libtorch.has_operator, libtorch.library()
        with aoti.Package(packages / f"{name}.pt2") as package:
            extraction = extract(package, "model", as_zip=False)
            try:
                found = check_package(
                    package,
                    "model",
                    extraction,
                    aoti.Device("cpu"),
                    library=library,
                    has_operator=has_operator,
                )
            finally:
                extraction.release()
        return [f"{finding.check} {finding.ok}" for finding in found]

    return check


def test_without_libtorch_only_the_files_are_checked(findings):
    checks = ["platform True", "symbols True", "versions True", "weights True"]
    assert findings("mlp", with_libtorch=False) == checks


def test_with_libtorch_versions_are_compared_once(findings):
    files = ["platform True", "symbols True", "weights True"]
    libtorch = ["libraries True", "versions True", "symbols True", "operators True"]
    assert findings("mlp", with_libtorch=True) == files + libtorch


def test_all_that_is_wrong_is_found(findings):
    assert "operators False" in findings("custom", with_libtorch=True)
