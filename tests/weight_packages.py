"""The packages that the tests of weights run.

usage: python tests/weight_packages.py DIRECTORY

Run once per content of this file, as tests/packages.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from packages import MLP
from torch import Tensor, nn
from torch._inductor import aoti_compile_and_package
from torch.export import Dim

import aoti

# Everything that is a constant stays one: Inductor puts small ones into the code.
PLAIN = {  # Inductor's own ways with weights
    "aot_inductor.package_constants_in_so": True,
    "aot_inductor.package_constants_on_disk_format": None,
    "always_keep_tensor_constants": False,
}
KEPT = {"always_keep_tensor_constants": True}
OUTSIDE = {"aot_inductor.package_constants_in_so": False}
BLOB = {**OUTSIDE, "aot_inductor.package_constants_on_disk_format": "binary_blob"}
PICKLES = {**OUTSIDE, "aot_inductor.package_constants_on_disk_format": "pickle_weights"}


class Scale(nn.Module):
    """One weight of each kind; most is computed from them before the first run."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(16.0).reshape(4, 4))
        self.bias = nn.Parameter(torch.ones(4))
        self.register_buffer("offset", torch.full((4,), 2.0))
        self.lifted = torch.full((4,), 3.0)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight.t() * 2 + 1) + self.bias + self.offset + self.lifted


class Same(nn.Module):
    """Gives the weight itself, and ones beside it: which weights ran can be seen anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.ones(64))
        self.second = nn.Parameter(torch.ones(64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * self.first, x * self.second, self.first


class Counter(nn.Module):
    """Writes to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(1000))

    def forward(self, x: Tensor) -> Tensor:
        self.state.copy_(x)
        return self.state + 1


class Half(nn.Module):
    """Weights of a dtype that numpy does not have, and transposed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
        self.turned = nn.Parameter(torch.arange(12.0).reshape(3, 4).t())

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.low.float()) @ self.turned


class Table(nn.Module):
    """A table of as many megabytes as it is told."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.full((megabytes * 256, 1024), 0.5), requires_grad=False)

    def forward(self, index: Tensor) -> Tensor:
        return self.table[index].sum(-1)


def main(directory: Path) -> None:
    torch.manual_seed(0)
    rows, four = torch.randn(8, 10), torch.randn(3, 4)
    mlp = MLP().eval()
    batch = {"x": {0: Dim("batch", min=1, max=1024)}}

    def export(name, module, *args, dynamic_shapes=None, **options) -> None:
        aoti.export(
            module,
            args,
            path=directory / f"{name}.pt2",
            dynamic_shapes=dynamic_shapes,
            preset="updatable",
            options={**PLAIN, **options},
            buffers="reset",
            in_process=True,
        )

    for name, place in (("inside", {}), ("blob", BLOB), ("bare", OUTSIDE)):
        export(name, mlp, rows, dynamic_shapes=batch, **KEPT, **place)
    program = torch.export.export(mlp, (rows,), dynamic_shapes=batch)
    with torch.no_grad():
        aoti_compile_and_package(
            program,
            package_path=str(directory / "pickles.pt2"),
            inductor_configs={**KEPT, **PICKLES},
        )
    torch.save(mlp.state_dict(), directory / "mlp.pth")
    fold = {"aot_inductor.use_runtime_constant_folding": True}
    export("fold", Scale(), four, **fold, **BLOB)
    export("fold_inside", Scale(), four, **fold)
    export("frozen", mlp, rows, dynamic_shapes=batch, freezing=True, **BLOB)
    export("same", Same(), torch.ones(64), **KEPT, **BLOB)
    export("same_inside", Same(), torch.ones(64), **KEPT)
    export("counter", Counter(), torch.ones(1000), **KEPT, **BLOB)
    export("half", Half(), four, **KEPT, **BLOB)
    index = torch.zeros(4, dtype=torch.long)
    export("table8_inside", Table(8), index)
    export("table50", Table(50), index, **BLOB)
    export("table250", Table(250), index, **BLOB)
    export("table2048", Table(2048), index, **OUTSIDE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
