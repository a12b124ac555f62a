"""What sanitizers instrument."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["gemm/avx2", "gemm/gemm", "attention/generic", "math/math"])
def test_thread_sanitizer_leaves_out_the_loops_over_numbers(monkeypatch, name):
    spec = importlib.util.spec_from_file_location("_aoti_setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, spec.name, setup)
    spec.loader.exec_module(setup)
    source = f"csrc/aoti/native/kernels/{name}.cpp"
    assert (ROOT / source).exists()
    flags = setup.options_of(source, {"extra_postargs": ["-O2", "-fsanitize=thread"]})
    left_out = "-fno-sanitize=thread" in flags["extra_postargs"]
    assert left_out == name.endswith(("avx2", "generic"))
    assert setup.options_of(source, {"extra_postargs": ["-O2"]}) == {"extra_postargs": ["-O2"]}
