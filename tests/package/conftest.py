"""What the tests of packages share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import aoti


@pytest.fixture(scope="session")
def code_of(packages, tmp_path_factory) -> Callable[[str], Path]:
    """A function that extracts a package, and gives the file of its model's code."""

    def code(name: str) -> Path:
        target = tmp_path_factory.mktemp("elf") / "model"
        with aoti.Package(packages / f"{name}.pt2") as package:
            package.extract("model", target)
        return next(target.rglob("*.wrapper.so"))

    return code
