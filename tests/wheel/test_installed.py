"""An installed wheel, from export to call: what cibuildwheel runs, without the source tree."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.wheel

EXPORT = """
import sys, torch, aoti
torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
x = torch.randn(3, 10)
aoti.export(module.eval(), (x,), path=sys.argv[1] + "/mlp.pt2")
import numpy as np
np.save(sys.argv[1] + "/in.npy", x.numpy())
np.save(sys.argv[1] + "/out.npy", module(x).detach().numpy())
"""
RUN = """
import sys
import numpy as np
import aoti
x, out = (np.load(sys.argv[1] + name) for name in ("/in.npy", "/out.npy"))
with aoti.load(sys.argv[1] + "/mlp.pt2") as model:
    np.testing.assert_allclose(model(x), out, rtol=0, atol=1e-6)
assert "torch" not in sys.modules
import torch  # after it, in the same process
assert torch.ones(2).sum() == 2
"""


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    pytest.importorskip("torch")
    directory = tmp_path_factory.mktemp("models")
    run(sys.executable, "-W", "ignore", "-c", EXPORT, directory)
    return directory


def test_an_exported_model_runs(models):
    run(sys.executable, "-c", RUN, models)


def test_the_command_line_is_installed(models):
    tool = sys.executable.rpartition("/")[0] + "/aoti"
    run(tool, "check", models / "mlp.pt2", "-i", models / "in.npy")
