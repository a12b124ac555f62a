"""From a module to an exported program, by the first way that works.

The order is fixed. Non-strict goes first: it runs the module's own Python, so that most code just
works, and errors come from the user's own line. Strict reads the bytecode instead, and so gets past
some code that non-strict stops at (a number taken out of a tensor, numpy in between). Only where
the caller agrees that sizes may be fixed, both are tried again with the sizes of the examples.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch.utils import _pytree as pytree

from aoti._logging import debugging
from aoti.errors import ExportError
from aoti.exporting.capture.dynamic_shapes import check_examples
from aoti.exporting.capture.module_source import Source
from aoti.exporting.describe.program_signature import names_of_symbols
from aoti.exporting.error_messages import cause, explain

Say = Callable[[str], None]


@dataclass(frozen=True)
class Attempt:
    """One way that was tried to trace a module.

    Attributes
    ----------
    how : str
        ``non-strict`` or ``strict``, and whether sizes were fixed.
    error : str or None
        Why it failed, in a line; None for the one that worked.
    """

    how: str
    error: str | None


@dataclass
class Traced:
    """A program, and how it came about.

    Attributes
    ----------
    program : torch.export.ExportedProgram
        What was traced.
    names : dict of str to str
        The names that people gave to the symbols of sizes.
    attempts : tuple of Attempt
        All that was tried; the last one worked. Empty for a program that was given.
    static : bool
        Whether sizes were fixed that were asked to be dynamic.
    """

    program: torch.export.ExportedProgram
    names: dict[str, str]
    attempts: tuple[Attempt, ...] = ()
    static: bool = False


def trace(source: Source, *, or_static: bool, say: Say) -> Traced:
    """Trace a module; an exported program is taken as it is.

    Parameters
    ----------
    source : Source
        The module and its example arguments.
    or_static : bool
        Whether sizes may be fixed where the module does not allow for dynamic ones.
    say : callable
        Is told what is being tried.

    Raises
    ------
    ExportError
        Nothing worked; the reason is that of the first attempt.
    """
    if isinstance(source.module, torch.export.ExportedProgram):
        if source.args or source.kwargs or source.dynamic_shapes:
            raise ValueError("an exported program has its arguments and dynamic shapes already")
        if source.module.example_inputs is None:
            raise ExportError(
                "the exported program has no example inputs\nexport it again with them"
            )
        return Traced(source.module, {})
    module = getattr(source.module, "_orig_mod", source.module)  # what torch.compile wraps
    _warn_of_training(module)
    args, kwargs = _distinct((source.args, source.kwargs))
    check_examples(
        (args, kwargs), source.dynamic_shapes, list(signature(module.forward).parameters)
    )
    tried: list[Attempt] = []
    first: ExportError | None = None
    reason: BaseException | None = None
    for how, strict, shapes in _ways(source.dynamic_shapes, or_static):
        say(f"tracing, {how}")
        try:
            with _quiet():
                program = torch.export.export(
                    module, args, kwargs, dynamic_shapes=shapes, strict=strict
                )
        except Exception as error:  # tracing runs the user's code: anything can come out
            told = explain(error, f"trace {type(module).__name__}")
            tried.append(Attempt(how, str(told).splitlines()[0]))
            if first is None:
                first, reason = told, error
        else:
            names = names_of_symbols(program, (args, kwargs), shapes)
            static = shapes is not source.dynamic_shapes
            return Traced(program, names, (*tried, Attempt(how, None)), static)
    assert first is not None and reason is not None
    raise first from cause(reason)


def _ways(shapes: Any, or_static: bool) -> Iterator[tuple[str, bool, Any]]:
    yield "non-strict", False, shapes
    yield "strict", True, shapes
    if or_static and shapes:
        yield "non-strict with fixed sizes", False, None
        yield "strict with fixed sizes", True, None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch logs about a failure out of the way: it is told in short."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        try:
            if not debugging():
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            logger.setLevel(level)


def _warn_of_training(module: torch.nn.Module) -> None:
    differs = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._NormBase)
    if any(child.training and isinstance(child, differs) for child in module.modules()):
        warnings.warn(
            "the module is in training mode: dropout drops and batch norm learns in the package "
            "too; call module.eval() before the export",
            stacklevel=4,
        )


def _distinct(arguments: Any) -> Any:
    """Replace each further appearance of a tensor among the examples by an object of its own.

    The tracer takes one tensor at two places for one input, and the compiled model would then read
    the second place for both.
    """
    seen: set[int] = set()

    def another_if_seen(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            return tensor
        if 0 in tensor.stride():  # broadcast: there is no memory that a copy could be written to
            return tensor.detach()
        # Not clone(), which gives a strided tensor another layout.
        copy = torch.empty_strided(
            tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
        return copy.copy_(tensor.detach())

    return pytree.tree_map_only(torch.Tensor, another_if_seen, arguments)
