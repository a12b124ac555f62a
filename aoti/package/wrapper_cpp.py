"""Reads facts about a model from the C++ that Inductor generated for it (``*.wrapper.cpp``).

A package made by the stock exporter has no signature of aoti's. Its generated C++ contains:

* one ``check_input_N`` function per input, with the dtype, the static sizes and strides, bounds of
  the dynamic sizes, and the device;
* in ``run_impl``, an ``assert_size_stride`` per used input, where dynamic sizes are symbols: inputs
  that must agree in a size name the same symbol;
* the treespecs of a call, and a description of every constant.

Bounds of sizes are kept for people to see but not enforced: they can be narrower than what works.
"""

from __future__ import annotations

import re

from aoti.errors import PackageError
from aoti.package.constants import Constant, ConstantTable
from aoti.signature.dtypes import DTYPES
from aoti.signature.size_expr import polynomial
from aoti.signature.spec import MAX_RANK, Dim, TensorSpec

_DEVICE_TYPES = {0: "cpu", 1: "cuda", 12: "xpu", 13: "mps"}  # c10/core/DeviceType.h

# Numbers and names are bounded, so that a hostile text gives none that Python or the core refuses,
# and does not take long to search.
#
# `generate_input_output_runtime_checks` in torch/_inductor/codegen/cpp_wrapper_cpu.py.
_INPUT = r"ConstantHandle (\w+) = ConstantHandle\(input_handles\[(\d{1,6})\]\);"
_CHECKS_END = r"void AOTInductorModel::run_impl\("
_DTYPE = r"_expected_dtype = aoti_torch_dtype_(\w+)\(\)"
_DEVICE = r"_expected_device_type = (\d{1,3});"
_STATIC = r"if \((\d{1,18}) != \w+_(size|stride)\[(\d{1,2})\]\)"
_BOUND = r"if \(\w+_size\[(\d{1,2})\] ([<>]) (\d{1,19})\)"
# `codegen_input_size_asserts`, in the same file.
_SYMBOL = r"int64_t ([a-z]+\d+) = (\w+)_size\[(\d{1,2})\];"
_ASSERT = r"assert_size_stride\((\w+), \{([^{}]*)\}, \{([^{}]*)\}"
_UNREADABLE = r"::|\d{19}"  # functions, whose arguments have commas; too large
_LONG = r"\b(\d+)L\b"
# Kernels take memory that they write to as non-const. Operators that write to their first argument
# have names that end in "_out" or "_".
_WRITTEN = r"\((?!const )[\w ]{1,40}\*\)\((\w{1,200})\.data_ptr\(\)\)"
_OPERATOR = r"\baoti_torch_(\w{1,120})\((\w{1,200})[,)]"
_NUM_THREADS = r"#pragma omp parallel\b[^\n]{0,99}?\bnum_threads\((\d{1,6})\)"
# `codegen_model_constructor`, in the same file.
_NUM_CONSTANTS = r"AOTInductorModelBase\(\s*\d+,\s*\d+,\s*(\d{1,9}),"
_FIELD = r"constants_info_\[(\d{1,9})\]\.(\w{1,40}) = ([^\n]{0,10000});\n"
_CONSTANT_SIZE = r"constants_info_\[\d{1,9}\]\.data_size = (\d{1,18});"
_QUOTED = r'"([^"\\]{1,1000})"'
_NUMBERS = rf"\{{((?:\d{{1,18}}L?(?:, )?){{0,{MAX_RANK}}})\}}"
_NUMBER = r"\d{1,18}"
_KIND = r"ConstantType::(\w{1,40})\)"
_KINDS = {"Parameter": "parameter", "Buffer": "buffer", "TensorConstant": "constant"}


def read_inputs(source: str) -> tuple[TensorSpec, ...] | None:
    """The inputs of a model; None if the text contains no checks of inputs."""
    end = re.search(_CHECKS_END, source)
    checks_end = end.start() if end else len(source)
    found = list(re.finditer(_INPUT, source[:checks_end]))
    if [int(match[2]) for match in found] != list(range(len(found))) or not found:
        return None
    run = source[checks_end:]
    symbols: dict[str, dict[int, str]] = {}
    for match in re.finditer(_SYMBOL, run):
        symbols.setdefault(match[2], {})[int(match[3])] = match[1]
    mutated = set(re.findall(_WRITTEN, run))
    mutated.update(name for op, name in re.findall(_OPERATOR, run) if op.endswith(("_out", "_")))
    asserted: dict[str, tuple[list[str], list[str]]] = {}
    for match in re.finditer(_ASSERT, run):
        sizes, strides = _expressions(match[2]), _expressions(match[3])
        if len(sizes) == len(strides) <= MAX_RANK and not re.search(_UNREADABLE, match[0]):
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
    """The input and the output treespec, as JSON; None if they are not in the text."""
    # Not a regular expression: without an end, it would search for one again from every start.
    found = []
    for name in ("in", "out"):
        _, _, rest = source.partition(f'{name}_spec_ = R"(')
        spec, end, _ = rest.partition(')";')
        if not end:
            return None
        found.append(spec)
    return found[0], found[1]


def may_abort(source: str) -> bool:
    """Whether a kernel checks an index inside an OpenMP region.

    Nothing can catch an exception that is thrown there: the process is aborted.
    """
    # One part per function. The text before the first is not a function.
    functions = source.split('extern "C"')[1:]
    return any("#pragma omp" in text and "index out of bounds" in text for text in functions)


def read_threads(source: str) -> int | None:
    """The largest number of OpenMP threads that kernels ask for; None if none asks for a number."""
    return max(map(int, re.findall(_NUM_THREADS, source)), default=None)


def read_weight_bytes(source: str) -> int | None:
    """The size of a model's constants in bytes; None if the text does not say."""
    count = read_num_constants(source)
    sizes = [int(size) for size in re.findall(_CONSTANT_SIZE, source)]
    return sum(sizes) if count == len(sizes) else None


def read_num_constants(source: str) -> int | None:
    """The number of a model's constants; None if the text does not say."""
    match = re.search(_NUM_CONSTANTS, source)
    return int(match[1]) if match else None


def read_constants(source: str) -> ConstantTable | None:
    """The constants of a model; None if the text does not describe them, or describes one that is
    not a plain tensor.

    Raises
    ------
    PackageError
        A constant is larger than its slot.
    """
    count = read_num_constants(source)
    if count is None:
        return None
    fields: dict[int, dict[str, str]] = {}
    for index, name, value in re.findall(_FIELD, source):
        fields.setdefault(int(index), {})[name] = value
    if sorted(fields) != list(range(count)):
        return None
    found = []
    for index in range(len(fields)):
        if fields[index].get("from_folded") == "true":
            continue
        if (constant := _read_constant(fields[index])) is None:
            return None
        found.append(constant)
    changed = set(re.findall(_WRITTEN, source))
    return ConstantTable(
        tuple(found),
        folds=len(found) < len(fields),
        # A buffer may be written to in ways that the text does not show; parameters are not.
        written=any(c.kind != "parameter" or c.name in changed for c in found),
    )


def _read_constant(fields: dict[str, str]) -> Constant | None:
    name, fqn = (
        re.fullmatch(_QUOTED, fields.get("name", "")),
        re.fullmatch(_QUOTED, fields.get("original_fqn", "")),
    )
    dtype = fields.get("dtype", "").rpartition("_torch_dtype_")[2]
    shape, strides = _numbers(fields.get("shape", "")), _numbers(fields.get("stride", ""))
    device = fields.get("device_type", "").rpartition("_device_type_")[2]
    size, kind = (
        re.fullmatch(_NUMBER, fields.get("data_size", "")),
        re.search(_KIND, fields.get("type", "")),
    )
    if (
        (not name or not fqn or dtype not in DTYPES or shape is None or strides is None)
        or (len(shape) != len(strides) or size is None or fields.get("offset") != "0")
        or device not in ("cpu", "cuda")
        or not fields.get("layout", "_strided)").endswith("_strided)")
    ):
        return None
    known = _KINDS.get(kind[1], "constant") if kind else "constant"
    constant = Constant(name[1], fqn[1], dtype, shape, strides, known, int(size[0]), device=device)
    if constant.extent > constant.slot:
        raise PackageError(
            f"the constant {constant.fqn} is {constant} and has {constant.slot} bytes; get the "
            "package again, or export it again"
        )
    return constant


def _numbers(text: str) -> tuple[int, ...] | None:
    match = re.fullmatch(_NUMBERS, text)
    return None if match is None else tuple(map(int, re.findall(_NUMBER, match[1])))


def _expressions(text: str) -> list[str]:
    """``s77, 10L`` as ``["s77", "10"]``."""
    parts = [part.strip() for part in text.replace("static_cast<int64_t>", "").split(",")]
    return [re.sub(_LONG, r"\1", part) for part in parts if part]


def _read_input(
    checks: str,
    name: str,
    symbols: dict[int, str],
    asserted: tuple[list[str], list[str]] | None,
    *,
    mutated: bool,
) -> TensorSpec:
    static = {(what, int(dim)): value for value, what, dim in re.findall(_STATIC, checks)}
    bounds = {(int(dim), sign): int(value) for dim, sign, value in re.findall(_BOUND, checks)}
    dtype = re.search(_DTYPE, checks)
    device = re.search(_DEVICE, checks)
    known = [dim for _, dim in static] + [dim for dim, _ in bounds] + [*symbols]
    # The innermost stride of a dense tensor is always checked: without any check, it is a scalar.
    rank = len(asserted[0]) if asserted else max(known, default=-1) + 1
    shape: list[int | Dim] = []
    for dim in range(rank):
        if ("size", dim) in static:
            shape.append(int(static["size", dim]))
            continue
        symbol = asserted[0][dim] if asserted else symbols.get(dim, "?")
        if symbol.isdecimal():
            shape.append(int(symbol))
            continue
        if not polynomial(symbol):
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
