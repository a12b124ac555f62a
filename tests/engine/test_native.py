"""The native engine beside other libraries: code binds to it alone, whatever else is loaded."""

from __future__ import annotations

import json

import numpy as np
import pytest

import aoti

PRELUDE = """
import ctypes, json, os, sys
from pathlib import Path
import numpy as np
import aoti

x = np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)

def libraries():
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({Path(line.split()[5]).name for line in lines if ".so" in line})

def run(path, engine):
    with aoti.load(path, engine=engine) as model:
        assert model.engine == engine
        return model(x)
"""
ORDERS = {
    "torch absent": "out = run(sys.argv[1], 'native')",
    "torch before": "import torch\nout = run(sys.argv[1], 'native')\n"
    "assert torch.ones(3).sum() == 3",
    "torch after": "out = run(sys.argv[1], 'native')\nimport torch\n"
    "assert np.array_equal(out, run(sys.argv[1], 'native'))\nassert torch.ones(3).sum() == 3",
    "libtorch for everybody": """
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
import torch
out = run(sys.argv[1], 'native')
assert torch.ones(3).sum() == 3
""",
    "both engines in turns": """
native, libtorch = (aoti.load(sys.argv[1], engine=name) for name in ("native", "libtorch"))
for _ in range(20):
    assert np.array_equal(native(x), libtorch(x))
assert (native.engine, libtorch.engine) == ("native", "libtorch")
out = native(x)
""",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["mlp", "stock"])
def test_code_binds_to_the_native_engine(packages, mlp, run_python, order, name):
    pytest.importorskip("torch")
    program = f"{PRELUDE}{ORDERS[order]}\nprint(json.dumps([out.tolist(), libraries()]))"
    out, libraries = json.loads(run_python(program, packages / f"{name}.pt2"))
    x = np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)
    assert np.allclose(out, mlp(x))
    assert "libaoti_cpu.so" in libraries
    assert ("libtorch_cpu.so" in libraries) == (order != "torch absent")


def test_lazy_binding_is_not_relied_on(packages, run_python):
    program = f"{PRELUDE}print(run(sys.argv[1], 'native').shape)"
    assert run_python(program, packages / "mlp.pt2", LD_BIND_NOW="1") == "(3, 1)\n"


def test_two_packages_run_side_by_side(packages):
    x = np.ones((2, 10), np.float32)
    one, other = (aoti.load(packages / f"{name}.pt2", engine="native") for name in ("mlp", "stock"))
    with one, other:
        assert np.allclose(one(x), other(x))
