"""How many threads the kernels of a package use.

Waking other threads takes some microseconds per kernel on an idle machine, and a hundred times that
on a busy one. A model that computes little is faster on one thread, whatever the machine has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import HigherOrderOperator as _OfGraphs
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from aoti.exporting.error_messages import attempt
from aoti.exporting.passes import experts, recurrence  # noqa: F401 (register their operators)

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

    Infinitely many if sizes within the program, or the steps of a loop, depend on values.
    """
    module = program.module(check_guards=False)
    counter = FlopCounterMode(display=False, custom_mapping=_FLOPS)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad(), counter:

        def fake(value: torch.Tensor) -> torch.Tensor:
            # Without gradients: the counter adds hooks to them.
            return mode.from_tensor(value.detach())

        args, kwargs = pytree.tree_map_only(torch.Tensor, fake, program.example_inputs)
        try:
            # Not a call of the module: the counter would add hooks to its gradients.
            further = _Shapes(module, fake, counter).flops(*args, *kwargs.values())
        except (DataDependentOutputException, DynamicOutputShapeException):
            return math.inf
    return (int(counter.get_total_flops()) + further) // 2


class _Shapes(torch.fx.Interpreter):
    """Computes shapes only: a buffer that the program changes keeps its values."""

    def __init__(
        self,
        module: torch.fx.GraphModule,
        fake: Callable[[torch.Tensor], torch.Tensor],
        counter: FlopCounterMode,
    ) -> None:
        super().__init__(module)
        self._fake, self._counter = fake, counter
        self._further = 0  # FLOPs that the counter does not see

    def flops(self, *args: Any) -> int:
        """Run the program; the FLOPs that the counter did not see."""
        self.run(*args)
        return self._further

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        return self._fake(value) if isinstance(value, torch.Tensor) else value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        match getattr(target, "name", lambda: "")() if isinstance(target, _OfGraphs) else "":
            case "while_loop":
                raise DynamicOutputShapeException(target)
            case "scan":
                body, start, rows, more = args
                steps = rows[0].shape[0]
                found = self._steps(body, steps, [*start, *(row[0] for row in rows), *more])
                return [*found[: len(start)], *(_stacked(y, steps) for y in found[len(start) :])]
            case "map_impl":
                body, rows, more = args
                steps = rows[0].shape[0]
                found = self._steps(body, steps, [*(row[0] for row in rows), *more])
                return [_stacked(y, steps) for y in found]
            case "cond":
                _, yes, no, given = args
                return [self._steps(branch, 1, given) for branch in (yes, no)][-1]
            case "flex_attention":
                q, k, v = args[:3]
                self._further += _attention_flops(q.shape, k.shape, v.shape)
                rows = q.new_empty(q.shape[:-1])
                return q.new_empty((*q.shape[:-1], v.shape[-1])), rows, rows
        return super().call_function(target, args, kwargs)

    def _steps(self, body: torch.fx.GraphModule, steps: int, given: Sequence[Any]) -> Any:
        """The results of one step of a body; the others are counted, too."""
        before = self._counter.get_total_flops()
        inner = _Shapes(body, self._fake, self._counter)
        found = inner.run(*given)
        counted = int(self._counter.get_total_flops() - before)
        self._further += (steps - 1) * counted + steps * inner._further
        return found


def _stacked(result: torch.Tensor, steps: int) -> torch.Tensor:
    return result[None].expand(steps, *result.shape)


def _layer_flops(x: Sequence[int], *arguments: Sequence[int], **_: Any) -> int:
    """FLOPs of one direction of one LSTM layer: two matrices for each row of (steps, batch)."""
    weights = sum(map(math.prod, arguments[:2]))
    return 2 * math.prod(x[:-1]) * weights


def _recurrent_flops(_: str, gates: Sequence[int], *others: Any, **__: Any) -> int:
    """FLOPs of one direction of a recurrent layer, without those of its inputs."""
    weight: Sequence[int] = others[2]
    return 2 * math.prod(gates[:-1]) * math.prod(weight)


def _grouped_flops(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of products of rows, each with one of several weights."""
    return 2 * x[0] * math.prod(weight[1:])


def _bytes_flops(a: Sequence[int], b: Sequence[int], **_: Any) -> int:
    """FLOPs of a product of bytes, which takes about a fourth of the time of one of float32."""
    return a[0] * a[1] * b[1] // 2


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


# CPU operators that are unknown to torch's counter.
_FLOPS = {
    torch.ops.aten.mkldnn_rnn_layer: _layer_flops,
    torch.ops.aoti.recurrent_layer: _recurrent_flops,
    torch.ops.aoti.grouped_product: _grouped_flops,
    torch.ops.aten._int_mm: _bytes_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}
