"""Tracing a module to an exported program, in the first way that works.

The order is fixed. Non-strict is first: it runs the module's Python code, so that most code works,
and errors come from the user's line. If torch cannot prove that the module accepts all sizes, the
conditions on sizes are then put off to the calls: the package checks them. Strict reads the
bytecode instead, and can trace some code that non-strict cannot (a number taken out of a tensor,
numpy in between). If the caller allows fixed sizes, both are then tried again with the sizes of the
examples.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch.export import Dim
from torch.nn.modules import transformer
from torch.utils import _pytree as pytree

from aoti._logging import debugging
from aoti._warnings import warn
from aoti.errors import ExportError
from aoti.exporting.capture.attributes import attributes_kept
from aoti.exporting.capture.dynamic_shapes import (
    arguments_by_name,
    check_examples,
    shapes_by_tensor,
    shapes_for_torch,
)
from aoti.exporting.capture.free_sizes import any_sizes
from aoti.exporting.capture.module_source import Source, uncompiled
from aoti.exporting.capture.recurrent_layers import whole_sequences
from aoti.exporting.capture.state import unchanged
from aoti.exporting.capture.unregistered import Register
from aoti.exporting.describe.program_signature import names_of_symbols
from aoti.exporting.describe.size_guards import refuse_narrowed
from aoti.exporting.error_messages import cause, explain
from aoti.exporting.size_errors import is_unproven, located_guards

Say = Callable[[str], None]


@dataclass(frozen=True)
class Attempt:
    """One attempt to trace a module.

    Attributes
    ----------
    how : str
        ``non-strict`` or ``strict``, and whether sizes were fixed, or their conditions deferred.
    error : str or None
        Why it failed, in one line; None for the attempt that worked.
    """

    how: str
    error: str | None


@dataclass
class Traced:
    """A program, and how it was traced.

    Attributes
    ----------
    program : torch.export.ExportedProgram
        The program.
    names : dict of str to str
        The names that the user gave to symbols of sizes.
    attempts : tuple of Attempt
        All attempts; the last one worked. Empty if the source was a program.
    static : bool
        Whether sizes were fixed that should be dynamic.
    assigned : dict of str to str
        Attributes that the module's code changed, each with the line that did; the line may be
        empty. The module has its own values again.
    """

    program: torch.export.ExportedProgram
    names: dict[str, str]
    attempts: tuple[Attempt, ...] = ()
    static: bool = False
    assigned: dict[str, str] = field(default_factory=dict)


def trace(
    source: Source, *, or_static: bool, say: Say, register: Register = lambda _: None
) -> Traced:
    """Trace a module; an exported program is returned as it is.

    Parameters
    ----------
    source : Source
        The module and its example arguments.
    or_static : bool
        Whether sizes may be fixed if the module does not allow dynamic sizes.
    say : callable
        Called with a line of text at each attempt.
    register : callable, optional
        Makes torch flatten the containers of a result: see `registering`.

    Raises
    ------
    ExportError
        No attempt worked; the reason is that of the first one.
    """
    if isinstance(source.module, torch.export.ExportedProgram):
        if source.args or source.kwargs or source.dynamic_shapes:
            raise ValueError(
                "an exported program already contains its arguments and dynamic shapes"
            )
        if source.module.example_inputs is None:
            raise ExportError(
                "the exported program has no example inputs\nexport it again with example inputs"
            )
        return Traced(source.module, {})
    module = uncompiled(source.module)
    _refuse_torchscript(module)
    _warn_of_training(module)
    args, kwargs = _distinct((source.args, source.kwargs))
    arguments = arguments_by_name(module.forward, args, kwargs)
    wanted = source.dynamic_shapes
    in_order = arguments if isinstance(wanted, Mapping) else list(arguments.values())
    wanted = shapes_for_torch(in_order, wanted)
    check_examples(arguments, wanted)
    tried: list[Attempt] = []
    first: ExportError | None = None
    reason: BaseException | None = None
    assigned: dict[str, str] = {}
    for way in _ways(wanted, or_static):
        if way.deferred and not (reason and is_unproven(str(reason))):
            continue
        say(f"tracing, {way.how}")
        try:
            with (
                _quiet(),
                located_guards(),
                unchanged(module),
                attributes_kept(module, assigned, located=not way.strict),
                _seeing_results(module, register),
                _masks_as_given(),
                any_sizes() if way.shapes else contextlib.nullcontext(),
                contextlib.nullcontext() if way.strict else whole_sequences(),
            ):
                program = torch.export.export(
                    module,
                    args,
                    kwargs,
                    dynamic_shapes=way.shapes,
                    strict=way.strict,
                    prefer_deferred_runtime_asserts_over_guards=way.deferred,
                )
            names = names_of_symbols(program, (args, kwargs), way.shapes, arguments)
            if way.deferred:
                refuse_narrowed(program, names, _declared(arguments, way.shapes))
        except Exception as error:  # tracing runs the user's code: any error is possible
            refusal = explain(error, f"trace {type(module).__name__}")
            tried.append(Attempt(way.how, str(refusal).splitlines()[0]))
            if first is None:
                first, reason = refusal, error
        else:
            static = way.shapes is not wanted
            return Traced(program, names, (*tried, Attempt(way.how, None)), static, assigned)
    assert first is not None and reason is not None
    raise first from cause(reason)


class _Way(NamedTuple):
    """A way to trace; `deferred` is for modules of which torch refused the sizes before."""

    how: str
    shapes: Any
    strict: bool = False
    deferred: bool = False


def _ways(shapes: Any, or_static: bool) -> Iterator[_Way]:
    yield _Way("non-strict", shapes)
    yield _Way("non-strict with sizes checked at calls", shapes, deferred=True)
    yield _Way("strict", shapes, strict=True)
    if or_static and shapes:
        yield _Way("non-strict with fixed sizes", None)
        yield _Way("strict with fixed sizes", None, strict=True)


def _declared(arguments: Mapping[str, Any], shapes: Any) -> dict[str, Dim]:
    """The sizes that should be dynamic by name, without those that torch may fix."""
    sizes = (
        getattr(size, "root", size)
        for dims in shapes_by_tensor(arguments, shapes).values()
        for size in (dims.values() if isinstance(dims, Mapping) else dims)
    )
    return {size.__name__: size for size in sizes if isinstance(size, Dim)}


@contextlib.contextmanager
def _seeing_results(module: torch.nn.Module, register: Register) -> Iterator[None]:
    """Call a function with each result of a module."""
    hook = module.register_forward_hook(lambda _module, _args, result: register(result))
    try:
        yield
    finally:
        hook.remove()


def _masks_as_given() -> contextlib.AbstractContextManager[Any]:
    """Let the layers of `nn.Transformer` use masks without reading whether they are causal.

    They read it from the values, which a trace does not have, to choose a faster kernel.
    """
    return patch.object(
        transformer,
        "_detect_is_causal_mask",
        lambda _mask, is_causal=None, _size=None: bool(is_causal),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch logs about a failure: the error summarizes it."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        # The tracer asks for gradients, which an export does not have.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not")
        # The exporter's own warning says what that means for a package.
        warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export")
        # torch's recurrent layers list their weights in every call.
        listed = r"self\.(\w+\.)*_flat_weights\[\d+\]"
        warnings.filterwarnings("ignore", rf"The tensor attributes? {listed}(, {listed})* w")
        try:
            if not debugging():
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            logger.setLevel(level)


def _refuse_torchscript(module: torch.nn.Module) -> None:
    for name, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            what = f"its submodule {name!r}" if name else "it"
            raise ExportError(
                f"cannot trace {type(module).__name__}: {what} is a TorchScript module "
                "(torch.jit.script, torch.jit.trace, torch.jit.load), without the Python code that "
                "torch.export needs\nexport the module that it was made from, which can load its "
                "weights: original.load_state_dict(scripted.state_dict())"
            )


def _warn_of_training(module: torch.nn.Module) -> None:
    differs = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._NormBase)
    if any(child.training and isinstance(child, differs) for child in module.modules()):
        warn(
            "the module is in training mode: dropout and batch norm will behave as in training in "
            "the package, too; call module.eval() before the export"
        )


def _distinct(arguments: Any) -> Any:
    """Replace each repeated tensor among the examples by a separate object.

    The tracer treats a tensor at two places as one input, and the compiled model would then read
    the second place for both.
    """
    seen: set[int] = set()

    def another_if_seen(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            return tensor if tensor.is_leaf else tensor.detach()  # torch warns of its gradient
        if (
            0 in tensor.stride()
        ):  # broadcast: it does not have the memory that a copy would be written to
            return tensor.detach()
        # Not clone(), which gives a strided tensor another layout.
        copy = torch.empty_strided(
            tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
        return copy.copy_(tensor.detach())

    return pytree.tree_map_only(torch.Tensor, another_if_seen, arguments)
