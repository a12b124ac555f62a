"""How many threads the kernels of a package use.

Waking other threads takes some microseconds per kernel on an idle machine, and a hundred times that
on a busy one. A model that computes little is faster on one thread, whatever the machine has.
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

from aoti.exporting.error_messages import attempt
from aoti.exporting.passes import recurrence  # noqa: F401 (registers its operator)

# Multiplications that one core does in about a quarter of a millisecond.
_LITTLE = 15_000_000
# Parts that generated matrix products are divided into. A run with fewer threads does several each.
_PARTS = 16


def thread_options(
    program: torch.export.ExportedProgram, notes: list[str]
) -> dict[str, bool | int]:
    """Inductor's options: kernels for one thread, or for as many as a run may use.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program. Its work is counted at the sizes of its example inputs.
    notes : list of str
        If the work cannot be counted, a note is added. The kernels then use all threads.

    Returns
    -------
    dict of str to bool or int
        ``cpp.threads`` and ``cpp.dynamic_threads``. Without them, Inductor makes kernels for the
        number of threads of the exporting process.
    """
    count = attempt("an estimate of the work", lambda: multiplications(program), math.inf, notes)
    if count < _LITTLE:
        return {"cpp.threads": 1, "cpp.dynamic_threads": False}
    return {"cpp.threads": _PARTS, "cpp.dynamic_threads": True}


def multiplications(program: torch.export.ExportedProgram) -> float:
    """Multiplications of matrix products, convolutions and attention, for the example inputs.

    Infinitely many if sizes within the program depend on values.
    """
    module = program.module(check_guards=False)
    counter = FlopCounterMode(display=False, custom_mapping=_FLOPS)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad(), counter:

        def fake(value: torch.Tensor) -> torch.Tensor:
            return mode.from_tensor(
                value.detach()
            )  # without gradients: the counter adds hooks to them

        class Shapes(torch.fx.Interpreter):
            """Computes shapes only: a buffer that the program changes keeps its values."""

            def fetch_attr(self, target: str) -> Any:
                value = super().fetch_attr(target)
                return fake(value) if isinstance(value, torch.Tensor) else value

        args, kwargs = pytree.tree_map_only(torch.Tensor, fake, program.example_inputs)
        try:
            # Not a call of the module: the counter would add hooks to its gradients.
            Shapes(module).run(*args, *kwargs.values())
        except (DataDependentOutputException, DynamicOutputShapeException):
            return math.inf
    return int(counter.get_total_flops()) // 2


def _layer_flops(x: Sequence[int], *arguments: Sequence[int], **_: Any) -> int:
    """FLOPs of one direction of one LSTM layer: two matrices for each row of (steps, batch)."""
    weights = sum(map(math.prod, arguments[:2]))
    return 2 * math.prod(x[:-1]) * weights


def _recurrent_flops(_: str, gates: Sequence[int], *others: Any, **__: Any) -> int:
    """FLOPs of one direction of a recurrent layer, without those of its inputs."""
    weight: Sequence[int] = others[2]
    return 2 * math.prod(gates[:-1]) * math.prod(weight)


def _bytes_flops(a: Sequence[int], b: Sequence[int], **_: Any) -> int:
    """FLOPs of a product of bytes, which takes about a fourth of the time of one of float32."""
    return a[0] * a[1] * b[1] // 2


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


# CPU operators that are unknown to torch's counter.
_FLOPS = {
    torch.ops.aten.mkldnn_rnn_layer: _layer_flops,
    torch.ops.aoti.recurrent_layer: _recurrent_flops,
    torch.ops.aten._int_mm: _bytes_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}
