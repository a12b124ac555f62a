"""The document in a package that describes a model's signature: JSON, written and read here.

`aoti.export` puts it into the package's metadata. docs/signature.md describes the format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from aoti.errors import PackageError
from aoti.signature.dtypes import DTYPES
from aoti.signature.signature import Signature, scaled
from aoti.signature.size_expr import affine, polynomial, symbols_of
from aoti.signature.size_guard import Range, SizeGuard
from aoti.signature.spec import MAX_RANK, ConstantSpec, Dim, TensorSpec

METADATA_KEY = "aoti.signature"
VERSION = 1

_ReadSize = Callable[[Any, Mapping[str, Range]], int | Dim]

_MAX_SIZE = 1 << 62  # sizes and values are counted in 64 bits
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write_signature(signature: Signature) -> str:
    """The document of a signature whose arguments and results are known."""
    assert signature.arguments is not None and signature.results is not None
    export = {
        "preset": signature.preset,
        "options": signature.options,
        "notes": signature.notes,
    }
    return json.dumps(
        {
            "version": VERSION,
            "exporter": signature.exporter,
            "symbols": {k: {"min": v[0], "max": v[1]} for k, v in signature.ranges.items()},
            "guards": signature.guards,
            "inputs": [describe(spec) for spec in signature.arguments],
            "outputs": [describe(spec) for spec in signature.results],
            "parameters": signature.parameters,
            "fields": signature.fields,
            "unchecked_indices": signature.unchecked_indices,
            "call_spec": signature.call_spec,
            **({"export": export} if signature.preset else {}),
        },
        allow_nan=False,
    )


def read_signature(text: str, package: str) -> Signature:
    """Read the document that `write_signature` wrote.

    Parameters
    ----------
    text : str
        The document.
    package : str
        The package's name, for messages.

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
        return Signature(
            arguments=tuple(
                _read_leaf(item, ranges, _input_size) for item in _list(record["inputs"])
            ),
            results=tuple(
                _read_leaf(item, ranges, _output_size) for item in _list(record["outputs"])
            ),
            ranges=ranges,
            guards=tuple(_guard(text, ranges) for text in _list(record.get("guards", []))),
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


def describe(spec: TensorSpec | ConstantSpec) -> dict[str, Any]:
    """A specification, as the document has it."""
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


# -- parts of the document: each function raises TypeError or ValueError for what does not fit -----


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
    """How the model was exported. Older exporters did not write that."""
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
    except ValueError:  # nothing computes with it, so any text will do
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
            raise ValueError(f"not a range: {low!r:.30}..{high!r:.30}")
    return low, high


def _guard(text: Any, ranges: Mapping[str, Range]) -> str:
    if not SizeGuard.parse(_text(text)).symbols <= ranges.keys():
        raise ValueError(f"a guard over unknown symbols: {text:.60}")
    return str(text)


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
