"""What was built: the libraries that lie beside the code."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from aoti.engine.libtorch_files import builds

ROOT = Path(__file__).parents[1]
BUILT = [pytest.param(build.path, id=build.minor) for build in builds()]
CORE = importlib.util.find_spec("aoti.engine._core._program").origin
RELEASED = not any(build.build["debug"] or build.build["sanitize"] for build in builds())


@pytest.mark.parametrize("path", BUILT)
def test_an_engine_looks_for_libraries_only_beside_itself(path, run_paths):
    beside = ["$ORIGIN/../../../../torch/lib", "$ORIGIN/../../../../aoti_libtorch/lib"]
    assert run_paths(path) == beside


def test_the_array_core_has_no_run_path(run_paths):
    assert run_paths(CORE) == []


@pytest.mark.parametrize("path", [pytest.param(CORE, id="core"), *BUILT])
def test_nothing_built_names_a_path_of_the_machine_that_built_it(path):
    if not RELEASED:
        pytest.skip("a build for debugging names its sources")
    content = Path(path).read_bytes()
    # /usr is on every machine: the C++ library's own headers are there.
    for directory in {str(ROOT), sys.prefix, sys.base_prefix} - {"/usr"}:
        assert os.fsencode(directory) + b"/" not in content
