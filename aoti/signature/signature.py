"""The signature of a model: what it takes and returns.

`aoti.export` writes it into a package (see aoti.signature.document). For other packages it contains
what their generated C++ says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aoti.errors import IncompatiblePackageError
from aoti.signature.pytree import CallPlan
from aoti.signature.size_expr import affine, symbols_of
from aoti.signature.size_guard import Range, SizeGuard, first_broken
from aoti.signature.spec import ConstantSpec, Dim, Layout, TensorSpec


def on_one_thread(options: Mapping[str, Any]) -> bool:
    """Whether kernels compiled with these Inductor options run on the calling thread alone."""
    return options.get("cpp.threads") == 1 and not options.get("cpp.dynamic_threads", False)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model takes and returns.

    Attributes
    ----------
    arguments : tuple of TensorSpec or ConstantSpec, or None
        The leaves of a call in flat order; None if the package does not describe them.
    results : tuple of TensorSpec or ConstantSpec, or None
        The leaves of the result in flat order; None if the package does not describe them.
    ranges : dict of str to (int or None, int or None)
        The least and the largest value of each symbol.
    guards : tuple of str
        Further conditions on the symbols that the export assumed, as Python expressions:
        ``batch % 2 == 0``. Sizes for which one does not hold are refused.
    enforced : bool
        Whether a size out of its range is refused. Ranges that come from the generated C++ can be
        narrower than what works, so a size out of them only raises a warning, once.
    call_spec : tuple of two str, or None
        The input and the output treespec, as JSON.
    parameters : tuple of str
        The names of the positional arguments.
    fields : dict of str to tuple of str
        The field names of namedtuples, by the name of their class in the treespecs.
    unchecked_indices : tuple of str
        Inputs that index tables, where the export could not determine the range of the values.
    exporter : str or None
        The program that wrote the package.
    preset : str or None
        The name of the options that the model was compiled with.
    options : dict of str to bool, int, float, str or None
        Those options and further ones that were set, by Inductor's names.
    notes : tuple of str
        For people: what the export gave up or rewrote.
    """

    arguments: tuple[TensorSpec | ConstantSpec, ...] | None = None
    results: tuple[TensorSpec | ConstantSpec, ...] | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    guards: tuple[str, ...] = ()
    enforced: bool = True
    call_spec: tuple[str, str] | None = None
    parameters: tuple[str, ...] = ()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unchecked_indices: tuple[str, ...] = ()
    exporter: str | None = None
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | None:
        """The arguments that are tensors; None if the package does not describe them."""
        if self.arguments is None:
            return None
        return tuple(spec for spec in self.arguments if isinstance(spec, TensorSpec))

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """The leaves of the result that are tensors; None if the package does not describe them."""
        if self.results is None:
            return None
        return tuple(spec for spec in self.results if isinstance(spec, TensorSpec))

    @classmethod
    def of_wrapper(
        cls, inputs: Sequence[TensorSpec] | None, call_spec: tuple[str, str] | None
    ) -> Signature:
        """The signature of a package without one, from its generated C++."""
        ranges: dict[str, Range] = {}
        for spec in inputs or ():
            for size in spec.shape or ():
                if isinstance(size, Dim) and (size.min, size.max) != (None, None):
                    symbol, scale, offset = size.form
                    if (scale, offset) == (1, 0):
                        ranges[symbol] = (size.min, size.max)
        return cls(
            arguments=None if inputs is None else tuple(inputs),
            ranges=ranges,
            enforced=False,
            call_spec=call_spec,
        )

    def plan(self, call_spec: tuple[str, str]) -> CallPlan:
        """How the model is called, by the treespecs of the compiled model.

        The compiled model leaves out results that are not tensors. The signature's own treespec is
        used if there are any.

        Raises
        ------
        PackageError
            As `CallPlan.from_json`.
        """
        in_spec, out_spec = call_spec
        if self.results is not None and self.outputs != self.results and self.call_spec:
            out_spec = self.call_spec[1]
        return CallPlan.from_json(in_spec, out_spec, parameters=self.parameters, fields=self.fields)

    def renamed(self, plan: CallPlan) -> Signature:
        """The same signature, with the names of the call plan for arguments and results."""
        arguments = self.arguments
        if arguments is not None and len(arguments) == plan.num_inputs:
            arguments = tuple(
                replace(spec, name=name)
                for spec, name in zip(arguments, plan.input_names, strict=True)
            )
        known = self.results if len(self.results or ()) == plan.num_outputs else None
        results = tuple(
            replace(known[n], name=name) if known else TensorSpec(name, None, None)
            for n, name in enumerate(plan.output_names)
        )
        return replace(self, arguments=arguments, results=results)

    def broken_guard(self, sizes: Mapping[str, int]) -> str | None:
        """The first guard that does not hold for these values of the symbols; None if all do."""
        return first_broken(self.guards, sizes)

    def layouts(self) -> tuple[list[Layout], dict[str, Range]] | None:
        """The description of the inputs for the core: their layouts, and the ranges of the symbols.

        The layouts number the symbols in the order of the ranges. None if nothing is known.

        Raises
        ------
        IncompatiblePackageError
            As `TensorSpec.layout`; or sizes depend on each other in a way that the core cannot
            check, and kernels would read out of bounds for other sizes.
        """
        if self.inputs is None:
            return None
        self._check_independent(self.inputs)
        symbols: dict[str, int] = {}
        layouts = [spec.layout(symbols) for spec in self.inputs]
        for text in self.guards:
            if unknown := SizeGuard.parse(text).symbols - symbols.keys():
                raise IncompatiblePackageError(
                    f"the model was exported for sizes with {text}, and no input has the size "
                    f"{', '.join(sorted(unknown))}"
                )
        return layouts, {symbol: self.ranges.get(symbol, (None, None)) for symbol in symbols}

    @staticmethod
    def _check_independent(inputs: Sequence[TensorSpec]) -> None:
        dims = {s.name for spec in inputs for s in spec.shape or () if isinstance(s, Dim)}
        users: dict[str, list[str]] = {}
        for name in dims:
            for symbol in symbols_of(name):
                users.setdefault(symbol, []).append(name)
        for name in dims:
            used = [users[symbol] for symbol in symbols_of(name)]
            if affine(name) is None and (together := max(used, key=len, default=[]))[1:]:
                raise IncompatiblePackageError(
                    f"the model takes sizes that depend on each other ({', '.join(together)}) in a "
                    "way that aoti cannot check; export it with dimensions that are equal, "
                    "independent, or a multiple of one another plus a number"
                )


def scaled(bounds: Range, form: tuple[str, int, int]) -> Range:
    """The range of ``scale * symbol + offset``, from that of the symbol."""
    _, scale, offset = form
    low, high = (None if n is None else scale * n + offset for n in bounds)
    return (low, high) if scale > 0 else (high, low)
