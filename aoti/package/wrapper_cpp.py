"""Reads what a model takes from the C++ that Inductor generated for it.

A package made by the stock exporter carries no signature as such, but the C++ that Inductor
generated for it (``*.wrapper.cpp``) holds the checks it could make itself:

* one ``check_input_N`` function per input, with the dtype, the static sizes and strides, bounds of
  the dynamic sizes, and the device;
* in ``run_impl``, an ``assert_size_stride`` per used input, where dynamic sizes stand as symbols:
  inputs that must agree in a size name the same symbol.

The bounds are kept for people to see but not enforced: they can be narrower than what works.
"""

from __future__ import annotations

import re

from aoti.signature.size_expr import fingerprint
from aoti.signature.spec import Dim, TensorSpec

_DEVICE_TYPES = {0: "cpu", 1: "cuda", 12: "xpu", 13: "mps"}  # c10/core/DeviceType.h

# Numbers are cut short, so that a hostile text gives none that Python or the core refuses.
_INPUT = re.compile(r"ConstantHandle (\w+) = ConstantHandle\(input_handles\[(\d{1,6})\]\);")
_CHECKS_END = re.compile(r"void AOTInductorModel::run_impl\(")
_DTYPE = re.compile(r"_expected_dtype = aoti_torch_dtype_(\w+)\(\)")
_DEVICE = re.compile(r"_expected_device_type = (\d{1,3});")
_STATIC = re.compile(r"if \((\d{1,18}) != \w+_(size|stride)\[(\d{1,2})\]\)")
_BOUND = re.compile(r"if \(\w+_size\[(\d{1,2})\] ([<>]) (\d{1,19})\)")
_SYMBOL = re.compile(r"int64_t ([a-z]+\d+) = (\w+)_size\[(\d{1,2})\];")
_ASSERT = re.compile(r"assert_size_stride\((\w+), \{([^{}]*)\}, \{([^{}]*)\}")
# Kernels take memory that they write to as non-const; operators that write to their first argument
# are named so. The bounds keep hostile texts from taking long.
_WRITTEN = re.compile(r"\((?!const )[\w ]{1,40}\*\)\((\w{1,80})\.data_ptr\(\)\)")
_OPERATOR = re.compile(r"\baoti_torch_(\w{1,120})\((\w{1,80})[,)]")
_NUM_CONSTANTS = re.compile(r"AOTInductorModelBase\(\s*\d+,\s*\d+,\s*(\d{1,9}),")
_CONSTANT_SIZE = re.compile(r"constants_info_\[\d{1,9}\]\.data_size = (\d{1,18});")
_NUM_THREADS = re.compile(r"#pragma omp parallel\b[^\n]{0,99}?\bnum_threads\((\d{1,6})\)")
_UNREADABLE = re.compile(r"::|\d{19}")  # functions, whose arguments have commas; too large
_MAX_RANK = 64


def read_wrapper(source: str) -> tuple[TensorSpec, ...] | None:
    """The inputs of a model, from the C++ that Inductor generated for it.

    Parameters
    ----------
    source : str
        The text of ``*.wrapper.cpp``. Format: `generate_input_output_runtime_checks` and
        `codegen_input_size_asserts` in ``torch/_inductor/codegen/cpp_wrapper_cpu.py``.

    Returns
    -------
    tuple of TensorSpec, or None
        None if the text holds no such checks.
    """
    end = _CHECKS_END.search(source)
    checks_end = end.start() if end else len(source)
    found = list(_INPUT.finditer(source, 0, checks_end))
    if [int(match[2]) for match in found] != list(range(len(found))) or not found:
        return None
    run = source[checks_end:]
    symbols: dict[str, dict[int, str]] = {}
    for match in _SYMBOL.finditer(run):
        symbols.setdefault(match[2], {})[int(match[3])] = match[1]
    mutated = set(_WRITTEN.findall(run))
    mutated.update(name for op, name in _OPERATOR.findall(run) if op.endswith(("_out", "_")))
    asserted: dict[str, tuple[list[str], list[str]]] = {}
    for match in _ASSERT.finditer(run):
        sizes, strides = _expressions(match[2]), _expressions(match[3])
        if len(sizes) == len(strides) <= _MAX_RANK and not _UNREADABLE.search(match[0]):
            asserted.setdefault(match[1], (sizes, strides))
    ends = [match.start() for match in found[1:]] + [checks_end]
    return tuple(
        _read_input(
            source[match.end() : stop],
            match[1],
            symbols.get(match[1], {}),
            asserted.get(match[1]),
            mutated=match[1] in mutated,
        )
        for match, stop in zip(found, ends, strict=True)
    )


def read_call_spec(source: str) -> tuple[str, str] | None:
    """The input and the output treespec in the text of ``*.wrapper.cpp``, None without them."""
    # Not a regex: where the end is missing, it would look for it again from every start.
    found = []
    for name in ("in", "out"):
        _, _, rest = source.partition(f'{name}_spec_ = R"(')
        spec, end, _ = rest.partition(')";')
        if not end:
            return None
        found.append(spec)
    return found[0], found[1]


def may_abort(source: str) -> bool:
    """Whether generated C++ holds a kernel that checks an index inside an OpenMP region.

    What it throws there nothing can catch: the process is aborted.
    """
    # A part per function; the text before the first is none.
    functions = source.split('extern "C"')[1:]
    return any("#pragma omp" in text and "index out of bounds" in text for text in functions)


def read_threads(source: str) -> int | None:
    """How many OpenMP threads generated C++ asks for by a number; None where it names none."""
    return max(map(int, _NUM_THREADS.findall(source)), default=None)


def read_weight_bytes(source: str) -> int | None:
    """How many bytes a model's constants have, by the text of ``*.wrapper.cpp``."""
    count = read_num_constants(source)
    sizes = [int(size) for size in _CONSTANT_SIZE.findall(source)]
    return sum(sizes) if count == len(sizes) else None


def read_num_constants(source: str) -> int | None:
    """How many constants a model has, by the text of ``*.wrapper.cpp``; None if it does not say."""
    match = _NUM_CONSTANTS.search(source)
    return int(match[1]) if match else None


def _expressions(text: str) -> list[str]:
    """``s77, 10L`` as ``["s77", "10"]``."""
    parts = [part.strip() for part in text.replace("static_cast<int64_t>", "").split(",")]
    return [re.sub(r"\b(\d+)L\b", r"\1", part) for part in parts if part]


def _read_input(
    checks: str,
    name: str,
    symbols: dict[int, str],
    asserted: tuple[list[str], list[str]] | None,
    *,
    mutated: bool,
) -> TensorSpec:
    static = {(what, int(dim)): value for value, what, dim in _STATIC.findall(checks)}
    bounds = {(int(dim), sign): int(value) for dim, sign, value in _BOUND.findall(checks)}
    dtype = _DTYPE.search(checks)
    device = _DEVICE.search(checks)
    told = [dim for _, dim in static] + [dim for dim, _ in bounds]
    told += symbols
    # The innermost stride of a dense tensor is always told: where nothing is, it is a scalar.
    rank = len(asserted[0]) if asserted else max(told, default=-1) + 1
    shape: list[int | Dim] = []
    for dim in range(rank):
        if ("size", dim) in static:
            shape.append(int(static["size", dim]))
            continue
        symbol = asserted[0][dim] if asserted else symbols.get(dim, "?")
        if symbol.isdecimal():
            shape.append(int(symbol))
            continue
        if not fingerprint(symbol):
            symbol = f"{name}.{dim}"  # agrees with nothing else
        shape.append(Dim(symbol, bounds.get((dim, "<")), bounds.get((dim, ">"))))
    strides = tuple(
        asserted[1][dim] if asserted else static.get(("stride", dim), "?") for dim in range(rank)
    )
    return TensorSpec(
        name=name,
        dtype=dtype[1] if dtype else None,
        shape=tuple(shape),
        strides=strides,
        device=_DEVICE_TYPES.get(int(device[1])) if device else None,
        mutated=mutated,
    )
