"""Models that are exported on the GPU, for the tests that run them there.

Without a GPU that this build can use, everything here is skipped, with the reason; but not where
tools/test_backend asked for it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import aoti
from aoti.engine.devices import usable_gpus


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands in this directory; skip it where there is no GPU."""
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    found, reason = usable_gpus() if here else ((), "")
    for item in here:
        item.add_marker(pytest.mark.gpu)
        if not found and not os.environ.get("AOTI_TEST_BACKEND"):
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {reason}"))


@pytest.fixture(scope="session")
def torch():
    """PyTorch, with a GPU."""
    import torch

    assert torch.cuda.is_available(), "torch sees no GPU"
    torch.manual_seed(0)
    return torch


@pytest.fixture(scope="session")
def modules(torch):
    """What the packages were exported from, on the GPU, by their names."""
    nn = torch.nn

    class Products(nn.Module):
        """Takes some milliseconds for 2048 x 2048."""

        def forward(self, x):
            for _ in range(20):
                x = torch.tanh(x @ x / x.shape[0])
            return x

    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.head = nn.Linear(8, 4)

        def forward(self, image):
            return self.head(torch.relu(self.conv(image)).mean((2, 3)))

    class Same(nn.Module):
        def forward(self, x):
            return {"same": x, "more": x + 1}

    class Lookup(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 4)

        def forward(self, index):
            return self.table(index)

    mlp = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    made = {"mlp": mlp, "conv": Conv(), "products": Products(), "same": Same(), "lookup": Lookup()}
    return {name: module.eval().to("cuda:0") for name, module in made.items()}


@pytest.fixture(scope="session")
def examples(torch) -> dict[str, object]:
    """An input for each."""
    return {
        "mlp": torch.randn(8, 10, device="cuda:0"),
        "conv": torch.randn(2, 3, 16, 16, device="cuda:0"),
        "products": torch.randn(2048, 2048, device="cuda:0"),
        "same": torch.randn(3, 4, device="cuda:0"),
        "lookup": torch.tensor([0, 4, 2], device="cuda:0"),
    }


@pytest.fixture(scope="session")
def gpu_packages(modules, examples, torch, tmp_path_factory) -> Path:
    """The directory of the packages; stock.pt2 is the network as PyTorch exports it."""
    directory = tmp_path_factory.mktemp("packages")
    for name, module in modules.items():
        shapes = {"mlp": ({0: "batch=1..64"},), "conv": ({0: "batch=1..8"},)}.get(name)
        aoti.export(
            module,
            (examples[name],),
            path=directory / f"{name}.pt2",
            dynamic_shapes=shapes,
            in_process=True,
            golden=name == "mlp",
        )
    from torch._inductor import aoti_compile_and_package

    program = torch.export.export(modules["mlp"], (examples["mlp"],))
    with torch.no_grad():
        aoti_compile_and_package(program, package_path=str(directory / "stock.pt2"))
    return directory


@pytest.fixture
def mlp(gpu_packages):
    """The loaded 10-16-1 network."""
    with aoti.load(gpu_packages / "mlp.pt2") as model:
        yield model


@pytest.fixture
def rows() -> np.ndarray:
    """Input for the network: float32 of shape (3, 10)."""
    return np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)


@pytest.fixture
def wanted(modules, rows, torch) -> np.ndarray:
    """What the network gives for it."""
    with torch.no_grad():
        return modules["mlp"](torch.from_numpy(rows).cuda()).cpu().numpy()
