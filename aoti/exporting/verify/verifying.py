"""Comparing a package with eager PyTorch, on random inputs over the whole ranges of its sizes.

Also golden values: the results of eager PyTorch for the examples, stored in the package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from aoti import golden
from aoti._text import assignments
from aoti.errors import AotiError, ExportError, InputError
from aoti.exporting.capture.containers import plain
from aoti.exporting.describe.random_inputs import (
    example_sizes,
    is_computable,
    random_leaves,
    sizes_to_refuse,
    sizes_to_try,
)
from aoti.golden import Comparison, compare
from aoti.signature.signature import Signature
from aoti.signature.spec import ConstantSpec, TensorSpec

_SEED = 0
_MAX_GOLDEN_BYTES = 16 << 20

Run = Callable[[Sequence[Any]], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Case:
    """One comparison with eager.

    Attributes
    ----------
    sizes : dict of str to int
        The dynamic sizes.
    outputs : tuple of Comparison
        How much each output differs from that of eager PyTorch.
    skipped : str or None
        Why nothing was compared: the module itself fails with these sizes, or a guard of the
        export does not hold for them and the package refused them.
    """

    sizes: dict[str, int]
    outputs: tuple[Comparison, ...]
    skipped: str | None = None


class Eager:
    """The module before the export, called with flat leaves.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        The exported module.
    examples : tuple
        Its example arguments, ``(args, kwargs)``.
    state : dict of str to torch.Tensor, optional
        The buffers that it changes: see `aoti.exporting.capture.state`.
    passes_state : bool, default False
        Whether these buffers are arguments, too.
    """

    def __init__(
        self,
        module: Any,
        examples: Any,
        state: Mapping[str, torch.Tensor] | None = None,
        *,
        passes_state: bool = False,
    ) -> None:
        program = isinstance(module, torch.export.ExportedProgram)
        self._module = module.module(check_guards=False) if program else module
        self._state = state or {}
        self._passed: list[torch.Tensor] = [*self._state.values()] if passes_state else []
        leaves, self._structure = pytree.tree_flatten(examples)
        self.leaves = [*leaves, *(buffer.clone() for buffer in self._passed)]

    def __call__(self, leaves: Sequence[Any]) -> list[Any]:
        """All leaves of the result. Changes of the module's buffers are undone."""
        with _unchanged([*self._module.buffers(), *self._state.values()]):
            return copied(pytree.tree_leaves(plain(self.call(leaves))))

    def call(self, leaves: Sequence[Any]) -> Any:
        """The result of the module as it returns it."""
        end = len(leaves) - len(self._passed)
        args, kwargs = pytree.tree_unflatten(list(leaves[:end]), self._structure)
        passed = list(zip(self._passed, leaves[end:], strict=True))
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for buffer, given in passed:
                buffer.copy_(given)
            result = self._module(*args, **kwargs)
            for buffer, given in passed:
                given.copy_(buffer)
        return result


def copied(leaves: Sequence[Any]) -> list[Any]:
    """The same leaves, with copies of the tensors."""
    return [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


def golden_values(eager: Eager) -> str:
    """The document of golden values: the example arguments and the results of eager PyTorch.

    Raises
    ------
    ExportError
        They are too large for a package.
    """
    inputs = [leaf for leaf in eager.leaves if isinstance(leaf, torch.Tensor)]
    outputs = [leaf for leaf in eager(copied(eager.leaves)) if isinstance(leaf, torch.Tensor)]
    total = sum(tensor.nbytes for tensor in (*inputs, *outputs))
    if total > _MAX_GOLDEN_BYTES:
        raise ExportError(
            f"golden values would take {total >> 20} MiB, more than {_MAX_GOLDEN_BYTES >> 20}\n"
            "export with smaller example arguments, which dynamic sizes allow"
        )
    return golden.to_json(list(map(_named, inputs)), list(map(_named, outputs)))


def verify(
    eager: Eager, signature: Signature, package: Path, name: str, say: Callable[[str], None]
) -> list[Case]:
    """Compare a package with eager.

    Returns
    -------
    list of Case
        The first case has the sizes of the examples.

    Raises
    ------
    ExportError
        An output differs by more than the tolerances, or the package fails on inputs that work
        with eager PyTorch.
    """
    generator = torch.Generator().manual_seed(_SEED)
    example = example_sizes(signature, eager.leaves)
    tries = [example]
    if is_computable(signature):
        tries = sizes_to_try(signature, example, generator)
    cases = []
    with runner(signature, package, name) as run:
        for number, sizes in enumerate(tries):
            shown = assignments(sizes)
            say(f"verifying {name}, {number + 1} of {len(tries)}{shown and ': '}{shown}")
            leaves = eager.leaves
            if is_computable(signature):
                leaves = random_leaves(signature, eager.leaves, sizes, generator)
            case = _compare(eager, run, leaves, sizes, signature)
            cases.append(case)
            for output in case.outputs:
                if not output.ok:
                    raise ExportError(
                        f"the package of {name} differs from eager{shown and ' at '}{shown}: "
                        f"output {output.name}: {output.reason}\nexport with other options "
                        "(preset='updatable' changes the least), and report it"
                    )
        if is_computable(signature) and _runs_here(signature):
            for sizes in sizes_to_refuse(signature, example):
                say(f"verifying {name}: {assignments(sizes)} must be refused")
                leaves = random_leaves(signature, eager.leaves, sizes, generator)
                cases.append(_refused(run, leaves, sizes, signature))
    return cases


def _refused(run: Run, leaves: Sequence[Any], sizes: dict[str, int], signature: Signature) -> Case:
    guard = signature.broken_guard(sizes)
    try:
        run([leaf for leaf in leaves if isinstance(leaf, torch.Tensor)])
    except InputError:
        return Case(sizes, (), f"refused: the trace holds only for {guard}")
    raise ExportError(
        f"the package runs at {assignments(sizes)}, but the trace holds only for {guard}\n"
        "give these sizes fixed values, and report it"
    )


def _compare(
    eager: Eager, run: Run, leaves: Sequence[Any], sizes: dict[str, int], signature: Signature
) -> Case:
    theirs, ours = copied(leaves), copied(leaves)
    try:
        expected = eager(theirs)
    except Exception as error:  # of the module: it does not accept these sizes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Case(sizes, (), f"eager fails: {reason}")
    try:
        got = run([leaf for leaf in ours if isinstance(leaf, torch.Tensor)])
    except AotiError as error:
        raise ExportError(
            f"the package fails where eager does not{f', at {sizes}' if sizes else ''}: {error}\n"
            "narrow the ranges of the dynamic sizes to those that the package accepts"
        ) from error
    tensors = iter(got)
    outputs = []
    for spec, value in zip(signature.results or (), expected, strict=True):
        if isinstance(spec, ConstantSpec):
            spec_matches = repr(spec.value) == repr(value)
            if not spec_matches:
                raise ExportError(
                    f"result {spec.name} was {spec.value!r} when traced, eager returns {value!r}"
                    "\nreturn it as a tensor: other results are compiled in"
                )
        else:
            outputs.append(compare(spec.name, str(spec.dtype), _wide(next(tensors)), _wide(value)))
    for argument, left, right in zip(signature.arguments or (), ours, theirs, strict=True):
        if isinstance(argument, TensorSpec) and argument.mutated:
            name = f"{argument.name}, after the call"
            outputs.append(compare(name, str(argument.dtype), _wide(left), _wide(right)))
    return Case(sizes, tuple(outputs))


@contextlib.contextmanager
def runner(signature: Signature, package: Path, name: str) -> Iterator[Run]:
    """A function that runs the package on flat tensors."""
    if _runs_here(signature):
        import aoti

        with aoti.load(package, model_name=name, cache=False) as model:
            yield lambda tensors: model.run(tensors, outputs="torch")
    else:  # torch's own loader supports devices that aoti does not
        from torch._inductor.package import load_package  # type: ignore[attr-defined]

        loader = load_package(str(package), name).loader
        yield lambda tensors: loader.run(list(tensors))


def _runs_here(signature: Signature) -> bool:
    specs = (*(signature.inputs or ()), *(signature.outputs or ()))
    return {spec.device for spec in specs} <= {"cpu"}


@contextlib.contextmanager
def _unchanged(buffers: Sequence[torch.Tensor]) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def _wide(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype.is_complex:
        return tensor.to(torch.complex128).numpy()
    return (tensor.double() if tensor.dtype.is_floating_point else tensor).numpy()


def _named(tensor: torch.Tensor) -> tuple[str, Any]:
    """The dtype of a tensor, and its elements; as integers if numpy does not have the dtype."""
    name = str(tensor.dtype).removeprefix("torch.")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    try:
        return name, tensor.numpy()
    except TypeError:
        integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.element_size()]
        return name, tensor.view(integer).numpy()
