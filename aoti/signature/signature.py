"""What a model takes and gives as a whole: read from a package, matched with a call.

``aoti.export`` writes it into the package's metadata as a JSON document, which docs/signature.md
describes. Of other packages as much is known as their generated C++ tells.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from aoti.errors import IncompatiblePackageError, PackageError
from aoti.signature.dtypes import DTYPES
from aoti.signature.pytree import CallPlan
from aoti.signature.size_expr import affine, polynomial, symbols_of
from aoti.signature.spec import MAX_RANK, ConstantSpec, Dim, Layout, TensorSpec

METADATA_KEY = "aoti.signature"
VERSION = 1

Range = tuple[int | None, int | None]

_ReadSize = Callable[[Any, Mapping[str, Range]], int | Dim]

_MAX_SIZE = 1 << 62  # of what is counted in 64 bits
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def on_one_thread(options: Mapping[str, Any]) -> bool:
    """Whether kernels compiled with these Inductor options run on the calling thread alone."""
    return options.get("cpp.threads") == 1 and not options.get("cpp.dynamic_threads", False)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model takes and gives.

    Attributes
    ----------
    arguments : tuple of TensorSpec or ConstantSpec, or None
        The leaves of a call in flat order; None if the package does not tell.
    results : tuple of TensorSpec or ConstantSpec, or None
        The leaves of the result in flat order; None if the package does not tell.
    ranges : dict of str to (int or None, int or None)
        The least and the largest size that each symbol may stand for.
    enforced : bool
        Whether a size out of its range is refused. What only the generated C++ says can be
        narrower than what works, and is warned of once.
    call_spec : tuple of two str, or None
        The input and the output treespec, as JSON.
    parameters : tuple of str
        The names of the positional arguments.
    fields : dict of str to tuple of str
        The field names of namedtuples, by the name that the treespecs have for their class.
    unchecked_indices : tuple of str
        Inputs that index tables in a way whose range could not be told at the export.
    exporter : str or None
        Which program wrote it.
    preset : str or None
        The name of the options that it was compiled with.
    options : dict of str to bool, int, float, str or None
        Those options, by Inductor's names, and what was set on top of them.
    notes : tuple of str
        What the export gave up or rewrote, for people.
    """

    arguments: tuple[TensorSpec | ConstantSpec, ...] | None = None
    results: tuple[TensorSpec | ConstantSpec, ...] | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
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
        """The arguments that are tensors; None if the package does not tell."""
        if self.arguments is None:
            return None
        return tuple(spec for spec in self.arguments if isinstance(spec, TensorSpec))

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """The leaves of the result that are tensors; None if the package does not tell."""
        if self.results is None:
            return None
        return tuple(spec for spec in self.results if isinstance(spec, TensorSpec))

    @classmethod
    def of_wrapper(
        cls, inputs: Sequence[TensorSpec] | None, call_spec: tuple[str, str] | None
    ) -> Signature:
        """What the generated C++ of a package tells (see aoti.package.wrapper_cpp)."""
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

    @classmethod
    def from_json(cls, text: str, package: str) -> Signature:
        """Read the record that `to_json` made.

        Raises
        ------
        PackageError
            It is damaged, or of a version that this aoti does not know.
        """
        try:
            record = json.loads(text)
            if record["version"] != VERSION:
                raise PackageError(
                    f"{package} was exported by a newer aoti ({record['exporter']!s:.60}), whose "
                    f"signature format is {record['version']!s:.20}: this one reads {VERSION}; "
                    "install a newer aoti-runtime"
                )
            ranges = {_name(k): _range(v["min"], v["max"]) for k, v in record["symbols"].items()}
            in_spec, out_spec = record["call_spec"]
            return cls(
                arguments=tuple(
                    _read_leaf(item, ranges, _input_size) for item in _list(record["inputs"])
                ),
                results=tuple(
                    _read_leaf(item, ranges, _output_size) for item in _list(record["outputs"])
                ),
                ranges=ranges,
                call_spec=(_text(in_spec), _text(out_spec)),
                parameters=tuple(map(_name, _list(record["parameters"]))),
                fields={_text(k): tuple(map(_name, _list(v))) for k, v in record["fields"].items()},
                unchecked_indices=tuple(map(_name, _list(record["unchecked_indices"]))),
                exporter=_text(record["exporter"]),
                **_read_export(record.get("export")),
            )
        except PackageError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise PackageError(
                f"{package}: its signature is damaged ({type(error).__name__}: {error!s:.100}); "
                "get the package again, or export it again"
            ) from error

    def to_json(self) -> str:
        """The record that goes into a package's metadata. The format is in docs/signature.md."""
        assert self.arguments is not None and self.results is not None
        export = {"preset": self.preset, "options": self.options, "notes": self.notes}
        return json.dumps(
            {
                "version": VERSION,
                "exporter": self.exporter,
                "symbols": {k: {"min": v[0], "max": v[1]} for k, v in self.ranges.items()},
                "inputs": [describe(spec) for spec in self.arguments],
                "outputs": [describe(spec) for spec in self.results],
                "parameters": self.parameters,
                "fields": self.fields,
                "unchecked_indices": self.unchecked_indices,
                "call_spec": self.call_spec,
                **({"export": export} if self.preset else {}),
            },
            allow_nan=False,
        )

    def plan(self, call_spec: tuple[str, str]) -> CallPlan:
        """How the model is called, by the treespecs that the model itself gives.

        Where results are no tensors, the model does not give them: its own record then tells.

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
        """The same under the names that people know arguments and results by."""
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

    def layouts(self) -> tuple[list[Layout], list[Range]] | None:
        """What the core needs to check the inputs: their layouts, and the ranges of the symbols.

        None if nothing is known.

        Raises
        ------
        IncompatiblePackageError
            As `TensorSpec.layout`, or sizes depend on each other in a way that the core cannot
            check: kernels read out of bounds where they are not what they assume.
        """
        if self.inputs is None:
            return None
        self._check_independent(self.inputs)
        symbols: dict[str, int] = {}
        layouts = [spec.layout(symbols) for spec in self.inputs]
        return layouts, [self.ranges.get(symbol, (None, None)) for symbol in symbols]

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


def describe(spec: TensorSpec | ConstantSpec) -> dict[str, Any]:
    """A specification as JSON has it."""
    if isinstance(spec, ConstantSpec):
        value: Any = spec.value
        if isinstance(value, float) and not math.isfinite(value):
            value = {"float": str(value)}
        return {"name": spec.name, "constant": value}
    record = asdict(spec)
    for key in ("shape", "values"):
        sizes = getattr(spec, key)
        record[key] = sizes and [s.name if isinstance(s, Dim) else s for s in sizes]
    return record


# -- reading the record: every function raises TypeError or ValueError for what does not fit -------


def _read_leaf(
    item: Any, ranges: Mapping[str, Range], read_size: _ReadSize
) -> TensorSpec | ConstantSpec:
    if "constant" not in item:
        return _read_tensor(item, ranges, read_size)
    value = item["constant"]
    if isinstance(value, dict):
        value = _NOT_FINITE[value["float"]]
    if not isinstance(value, bool | int | float | str | None):
        raise TypeError("a constant of an unknown type")
    return ConstantSpec(_name(item["name"]), value)


def _read_export(record: Any) -> dict[str, Any]:
    """How it was exported; nothing in packages of exporters that do not say."""
    if record is None:
        return {}
    options = {_name(name): value for name, value in record["options"].items()}
    if not all(isinstance(value, bool | int | float | str | None) for value in options.values()):
        raise TypeError("an option of an unknown type")
    notes = tuple(_name(note) for note in _list(record["notes"]))
    return {"preset": _name(record["preset"]), "options": options, "notes": notes}


def _read_tensor(item: Any, ranges: Mapping[str, Range], read_size: _ReadSize) -> TensorSpec:
    dtype, shape, strides = _text(item["dtype"]), _list(item["shape"]), _list(item["strides"])
    if dtype not in DTYPES or len(shape) > MAX_RANK or len(strides) not in (0, len(shape)):
        raise ValueError(f"a tensor of {dtype:.40} in {len(shape)} dimensions")
    if not all(stride in ("?", "0") or polynomial(_text(stride)) for stride in strides):
        raise ValueError("a stride that is not an expression")
    values = item["values"]
    if values is not None:
        low, high = _list(values)
        values = _value_bound(low, ranges), _value_bound(high, ranges)
    if not isinstance(item["mutated"], bool):
        raise TypeError("mutated is true or false")
    return TensorSpec(
        name=_name(item["name"]),
        dtype=dtype,
        shape=tuple(read_size(size, ranges) for size in shape),
        strides=tuple(strides),
        device=_text(item["device"]),
        mutated=item["mutated"],
        values=values,
    )


def _output_size(value: Any, ranges: Mapping[str, Range]) -> int | Dim:
    try:
        return _input_size(value, ranges)
    except ValueError:  # nobody computes with it: any text will do
        return Dim(_name(value))


def _input_size(value: Any, ranges: Mapping[str, Range]) -> int | Dim:
    if type(value) is int and 0 <= value < _MAX_SIZE:
        return value
    form = affine(_text(value))
    if not symbols_of(value) <= ranges.keys() or not symbols_of(value):
        raise ValueError(f"a size over unknown symbols: {value:.60}")
    if form is None:
        return Dim(value)
    return Dim(value, *scaled(ranges[form[0]], form))


def _value_bound(value: Any, ranges: Mapping[str, Range]) -> int | Dim:
    if type(value) is int and abs(value) < _MAX_SIZE:
        return value
    form = affine(_text(value))
    if form is None or form[0] not in ranges:
        raise ValueError(f"a bound of values over unknown symbols: {value:.60}")
    return Dim(value)


def _range(low: Any, high: Any) -> Range:
    for bound in (low, high):
        if bound is not None and not (type(bound) is int and 0 <= bound < _MAX_SIZE):
            raise ValueError(f"a range that is none: {low!r:.30}..{high!r:.30}")
    return low, high


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise TypeError(f"a list expected, not {type(value).__name__}")
    return value


def _name(value: Any) -> str:
    if not _text(value).isprintable() or len(value) > 1000:
        raise ValueError("a name that cannot be printed")
    return str(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"text expected, not {type(value).__name__}")
    return value
