"""The inputs of a benchmark: given, or random in the requested sizes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aoti._text import assignments
from aoti.arrays.batching import Batches
from aoti.bench.process.job import Inputs
from aoti.bench.report.report import Case
from aoti.errors import ConfigError, InputError, PackageError
from aoti.package.package import Package
from aoti.signature import example_inputs
from aoti.signature.pytree import CallPlan
from aoti.signature.record import Record
from aoti.signature.signature import Signature
from aoti.signature.size_guard import sizes_that_hold
from aoti.signature.spec import ConstantSpec, Dim


@dataclass(frozen=True)
class Takes:
    """The inputs of a model, and how it is called.

    Attributes
    ----------
    signature : Signature
        The signature, with the names of the arguments of the call.
    plan : CallPlan or None
        None if the structure of calls is not known.
    """

    signature: Signature
    plan: CallPlan | None

    @classmethod
    def of(cls, package: Package, model_name: str) -> Takes:
        """Read it from a package."""
        signature = package.signature(model_name)
        plan = None
        if signature.call_spec is not None:
            with contextlib.suppress(PackageError):  # a type that only the exporting program has
                plan = signature.plan(signature.call_spec)
                signature = signature.renamed(plan)
        return cls(signature, plan)

    def given(self, arrays: Sequence[Any]) -> tuple[Case, Inputs]:
        """The case of given arrays.

        Raises
        ------
        InputError
            There are more or fewer arrays than the model has inputs.
        """
        specs = self.signature.inputs
        if specs is not None and len(arrays) != len(specs):
            raise InputError(f"the model takes {len(specs)} inputs, got {len(arrays)}")
        sizes: dict[str, int] = {}
        for spec, array in zip(specs or (), arrays, strict=False):
            for size, there in zip(spec.shape or (), array.shape, strict=False):
                if isinstance(size, Dim) and size.form[1:] == (1, 0):
                    sizes[size.name] = int(there)
        return self._case(sizes, list(arrays))

    def made(
        self,
        dims: Mapping[str, Sequence[int]],
        shapes: Mapping[str, Sequence[int]],
        seed: int,
    ) -> list[tuple[Case, Inputs]]:
        """A case for each combination of sizes.

        Parameters
        ----------
        dims : mapping of str to sequence of int
            The values of dynamic sizes. Sizes that are not given are as small as possible.
        shapes : mapping of str to sequence of int
            The shapes of inputs, by their names.
        seed : int
            The seed of the values.

        Raises
        ------
        ConfigError
            A size or an input does not exist, or the model does not accept a size.
        """
        least = example_inputs.least_sizes(self.signature)
        fixed: dict[str, int] = {}
        for name, shape in shapes.items():
            self._bind(name, shape, fixed)
        for name in dims:
            if name not in least:
                known = ", ".join(least) or "none: all sizes are fixed"
                raise ConfigError(f"no dynamic size is named {name!r:.60}; the model has {known}")
            if name in fixed:
                raise ConfigError(f"size {name} is given twice, by its name and in a shape")
        for name, values in {**dims, **{n: [v] for n, v in fixed.items()}}.items():
            self._check_range(name, values)
        cases = []
        for chosen in itertools.product(*dims.values()):
            given = {**fixed, **dict(zip(dims, chosen, strict=True))}
            sizes = self._allowed({**least, **given}, given)
            cases.append(self._case(sizes, example_inputs.random(self.signature, sizes, seed)))
        return cases

    def _case(self, sizes: dict[str, int], arrays: list[Any]) -> tuple[Case, Inputs]:
        specs = self.signature.inputs
        names = [spec.name for spec in specs or ()] or [str(n) for n in range(len(arrays))]
        shapes = {
            name: tuple(map(int, array.shape)) for name, array in zip(names, arrays, strict=True)
        }
        batches = Batches.of(self.signature)
        rows = None if batches is None or not arrays else batches.rows(arrays)
        return Case(sizes, shapes, rows), self._inputs(arrays)

    def _inputs(self, arrays: list[Any]) -> Inputs:
        arguments = self.signature.arguments
        if self.plan is None or arguments is None or len(arguments) != self.plan.num_inputs:
            return Inputs(arrays)
        rest = iter(arrays)
        leaves = [a.value if isinstance(a, ConstantSpec) else next(rest) for a in arguments]
        args, kwargs = self.plan.arguments(leaves)
        if not _is_plain((args, kwargs)):
            return Inputs(arrays)
        return Inputs(arrays, args, kwargs)

    def _bind(self, name: str, shape: Sequence[int], sizes: dict[str, int]) -> None:
        """Find the values of the symbols for an input of this shape."""
        specs = {spec.name: spec for spec in self.signature.inputs or ()}
        if name not in specs:
            raise ConfigError(f"no input is named {name!r:.60}; the model has {', '.join(specs)}")
        wanted = specs[name].shape or ()
        refusal = ConfigError(
            f"input {name} cannot have the shape {', '.join(map(str, shape))}: the model takes "
            f"{specs[name]}"
        )
        if len(shape) != len(wanted):
            raise refusal
        for size, there in zip(wanted, shape, strict=True):
            if not isinstance(size, Dim):
                if size != there:
                    raise refusal
                continue
            symbol, scale, offset = size.form
            number, rest = divmod(there - offset, scale)
            if rest or sizes.setdefault(symbol, number) != number:
                raise refusal

    def _allowed(self, sizes: dict[str, int], given: Mapping[str, int]) -> dict[str, int]:
        """These sizes, with those that are not given changed as guards demand."""
        signature = self.signature
        ranges = {**signature.ranges, **{name: (size, size) for name, size in given.items()}}
        found = sizes_that_hold(signature.guards, ranges, sizes)
        if found is None:
            raise ConfigError(
                f"the model was exported for sizes with {signature.broken_guard(sizes)}, which "
                f"does not hold for {assignments(sizes)}"
            )
        return found

    def _check_range(self, name: str, values: Sequence[int]) -> None:
        low, high = self.signature.ranges.get(name, (None, None))
        if not self.signature.enforced:
            high = None
        low = max(low or 0, 0)
        for value in values:
            if value < low or (high is not None and value > high):
                bounds = f"{low} to {high}" if high is not None else f"at least {low}"
                raise ConfigError(f"size {name} must be {bounds}, not {value}")


def _is_plain(tree: Any) -> bool:
    """Whether other processes know all containers, so that no container is a stand-in here."""
    if isinstance(tree, Record) or (isinstance(tree, tuple) and type(tree) is not tuple):
        return False
    if isinstance(tree, dict):
        return all(map(_is_plain, tree.values()))
    return not isinstance(tree, list | tuple) or all(map(_is_plain, tree))
