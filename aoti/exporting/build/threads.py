"""How many threads a package's own kernels are made for.

Waking other threads takes some microseconds on an idle machine and a hundred times that on a busy
one, for every kernel. A model that computes little is faster without, whatever the machine has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# Multiplications in a call that one core does in about a quarter of a millisecond.
_LITTLE = 15_000_000
# Parts that generated matrix products are divided into. A run with fewer threads does several each.
_PARTS = 16


def thread_options(program: torch.export.ExportedProgram) -> dict[str, bool | int]:
    """Inductor's options: kernels for one thread, or for as many as a run is given.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        Counted at the sizes of its example inputs.

    Returns
    -------
    dict of str to bool or int
        ``cpp.threads`` and ``cpp.dynamic_threads``. Without them Inductor makes kernels for the
        number of threads that the exporting process happens to have.
    """
    if multiplications(program) < _LITTLE:
        return {"cpp.threads": 1, "cpp.dynamic_threads": False}
    return {"cpp.threads": _PARTS, "cpp.dynamic_threads": True}


def multiplications(program: torch.export.ExportedProgram) -> float:
    """Of the matrix products, convolutions and attention in a call with the example inputs.

    Infinitely many where sizes within the program depend on values.
    """
    module = program.module(check_guards=False)
    counter = FlopCounterMode(display=False, custom_mapping=_FLOPS)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad(), counter:

        def fake(value: torch.Tensor) -> torch.Tensor:
            return mode.from_tensor(value.detach())  # to whose gradients nothing hooks itself

        class Shapes(torch.fx.Interpreter):
            """Computes shapes only: a buffer that the program changes keeps its values."""

            def fetch_attr(self, target: str) -> Any:
                value = super().fetch_attr(target)
                return fake(value) if isinstance(value, torch.Tensor) else value

        args, kwargs = pytree.tree_map_only(torch.Tensor, fake, program.example_inputs)
        try:
            # Not a call of the module, whose gradients the counter would hook itself to.
            Shapes(module).run(*args, *kwargs.values())
        except (DataDependentOutputException, DynamicOutputShapeException):
            return math.inf
    return int(counter.get_total_flops()) // 2


def _layer_flops(x: Sequence[int], *arguments: Sequence[int], **_: Any) -> int:
    """Of one direction of one layer of an LSTM: two matrices for each row of (steps, batch)."""
    weights = sum(map(math.prod, arguments[:2]))
    return 2 * math.prod(x[:-1]) * weights


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


# Operators of the CPU that torch's counter does not know.
_FLOPS = {
    torch.ops.aten.mkldnn_rnn_layer: _layer_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}
