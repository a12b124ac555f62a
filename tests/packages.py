"""The packages that the tests run: small models, each exported for something it shows.

usage: python tests/packages.py DIRECTORY

Run once per content of this file and of aoti/exporting (see conftest.py): compiling takes a while.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._inductor import aoti_compile_and_package
from torch.export import Dim
from torch.utils._pytree import _register_namedtuple, register_pytree_node

import aoti

# All in one process, which saves the start of one for each.
export = partial(aoti.export, in_process=True)


class MLP(nn.Module):
    """10-16-1, sigmoid at the end: small enough that the call is what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(10, 16)
        self.l2 = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.l2(torch.relu(self.l1(x))))


Pair = namedtuple("Pair", ["first", "second"])
# torch only writes namedtuples into a treespec that were given a name for it.
_register_namedtuple(Pair, serialized_type_name="packages.Pair")


class Tree(nn.Module):
    """Containers of every kind in and out."""

    def forward(self, a, b, c, *, options, mask=None):
        return {
            "sum": a["x"] + a["y"]["z"],
            "list": [b[0] * 2, (b[1] + 1,)],
            "pair": Pair(c.first - c.second, c.second * options["scale"]),
            "mask": OrderedDict(inverse=~mask),
        }


class Alias(nn.Module):
    """Outputs that share memory: with the input, transposed, and with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4))

    def forward(self, x):
        return x, x.t(), x + 1, self.weight, self.weight.t()


class Dtypes(nn.Module):
    """Every dtype passes through, and those that torch computes with are added to."""

    names = (
        "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 "
        "float16 float32 float64 complex64 complex128"
    ).split()

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return dict(inputs)


class Shared(nn.Module):
    """Two inputs that must agree in their batch."""

    def forward(self, x, y):
        return x * y.sum(dim=1, keepdim=True)


class Layouts(nn.Module):
    """Inputs exported channels-last, transposed and strided."""

    def forward(self, image, matrix, strided):
        return image * 2, matrix + 1, strided - 1


class InPlace(nn.Module):
    """Writes into its first input, and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x, y):
        self.calls.add_(1)
        x.add_(y)
        return x.sum() + self.calls


class Derived(nn.Module):
    """Sizes that depend on each other: rows, and twice as many plus one."""

    def forward(self, x, y):
        return x.sum() + y.sum()


class Lookup(nn.Module):
    """Fails for an index that is not in the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(20.0).reshape(5, 4))

    def forward(self, index):
        return self.table[index]


class Slow(nn.Module):
    """Some hundred milliseconds of matrix products for 1000 x 1000."""

    def forward(self, x):
        for _ in range(12):
            x = torch.tanh(x @ x)
        return x


class Scalars(nn.Module):
    """Arguments that are no tensors: compiled in."""

    def forward(self, x, n: int, flag: bool = True):
        return x * n if flag else x


class Custom(nn.Module):
    """Calls an operator that only the exporting program registers."""

    def forward(self, x):
        return torch.ops.aoti_tests.halve(x + 1)


def register_operator() -> None:
    """Register what `Custom` calls. Not at import: tests import this module for its classes."""
    halve = torch.library.custom_op(
        "aoti_tests::halve", lambda x: x / 2, mutates_args=(), schema="(Tensor x) -> Tensor"
    )
    halve.register_fake(torch.empty_like)


@dataclass
class Result:
    value: Tensor


class Registered(nn.Module):
    """Returns a type that only this program knows."""

    def forward(self, x):
        return Result(x + 1)


def stock(module, args, path: Path, dynamic_shapes=None, **options) -> None:
    """Export as PyTorch does by default: no signature, this machine's instructions and threads."""
    program = torch.export.export(module.eval(), args, dynamic_shapes=dynamic_shapes)
    configs = {name.replace("__", "."): value for name, value in options.items()}
    with torch.no_grad():
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=configs)


def main(directory: Path) -> None:
    torch.manual_seed(0)
    batch = Dim("batch", min=1, max=1024)
    mlp = MLP().eval()
    rows = torch.randn(8, 10)
    export(mlp, (rows,), path=directory / "mlp.pt2", dynamic_shapes={"x": {0: batch}},
                metadata={"author": "the tests"})  # fmt: skip
    torch.save(mlp.state_dict(), directory / "mlp.pth")

    x = torch.randn(3, 4)
    export(
        Tree(),
        ({"x": x, "y": {"z": x}}, [x, x], Pair(x, x)),
        {"options": OrderedDict(scale=x), "mask": x > 0},
        path=directory / "tree.pt2",
    )
    export(Alias(), (x,), path=directory / "alias.pt2")
    dtypes = {name: torch.ones(2, 3).to(getattr(torch, name)) for name in Dtypes.names}
    export(Dtypes(), (), dtypes, path=directory / "dtypes.pt2")
    export(
        Shared(),
        (torch.randn(4, 3), torch.randn(4, 5)),
        path=directory / "shared.pt2",
        dynamic_shapes=({0: batch}, {0: batch}),
    )
    export(
        Layouts(),
        (
            torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            torch.randn(4, 3).t(),
            torch.randn(3, 8)[:, ::2],
        ),
        path=directory / "layouts.pt2",
    )
    index = {"index": {0: batch}}
    export(Lookup(), (torch.tensor([0, 1]),), path=directory / "lookup.pt2", dynamic_shapes=index)
    export(InPlace(), (x, x), path=directory / "inplace.pt2", buffers="reset")
    rows_dim = Dim("rows", min=2, max=100)
    export(
        Derived(),
        (torch.ones(4, 2), torch.ones(9, 2)),
        path=directory / "derived.pt2",
        dynamic_shapes=({0: rows_dim}, {0: 2 * rows_dim + 1}),
    )
    export(Slow(), (torch.randn(1000, 1000),), path=directory / "slow.pt2")
    export(Scalars(), (x, 3), path=directory / "scalars.pt2")
    register_pytree_node(
        Result, lambda result: ([result.value], None), lambda values, _: Result(*values),
        serialized_type_name="packages.Result",
    )  # fmt: skip
    stock(Registered(), (x,), directory / "registered.pt2")
    torch.export.save(torch.export.export(mlp, (rows,)), directory / "program.pt2")

    stock(mlp, (rows,), directory / "stock.pt2", {"x": {0: batch}})
    stock(Scalars(), (x, 3), directory / "stock_scalars.pt2")
    # On one thread a bad index is an error; inside an OpenMP region nothing can catch it.
    index, length = (torch.zeros(4096, dtype=torch.long),), {"index": {0: Dim("length")}}
    stock(Lookup(), index, directory / "stock_lookup.pt2", length, cpp__threads=1)
    stock(Lookup(), index, directory / "stock_abort.pt2", length, cpp__threads=2)
    register_operator()
    stock(Custom(), (x,), directory / "custom.pt2")
    stock(mlp, (rows,), directory / "unlinked.pt2", aot_inductor__link_libtorch=False)
    # Every place for weights but the usual one, which is the code.
    outside = {"aot_inductor__package_constants_in_so": False}
    on_disk = "aot_inductor__package_constants_on_disk_format"
    stock(mlp, (rows,), directory / "weights_none.pt2", **outside)
    stock(mlp, (rows,), directory / "weights_blob.pt2", **outside, **{on_disk: "binary_blob"})
    stock(mlp, (rows,), directory / "weights_pickle.pt2", **outside, **{on_disk: "pickle_weights"})
    stock(mlp, (rows,), directory / "weights_mmap.pt2", aot_inductor__force_mmap_weights=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
