"""Packages whose metadata or signature is missing, damaged, or made to hurt whoever reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from craft import FILES, METADATA, described, of, real_metadata, without
from runner import File, refused

from aoti import IncompatiblePackageError, PackageError

RECORD: dict[str, Any] = {
    "version": 1,
    "exporter": "aoti 9",
    "symbols": {"n": {"min": 1, "max": 8}},
    "inputs": [
        {"name": "x", "dtype": "float32", "shape": ["n", 10], "strides": ["10", "1"],
         "device": "cpu", "mutated": False, "values": None},
    ],
    "outputs": [],
    "parameters": ["x"],
    "fields": {},
    "unchecked_indices": [],
    "call_spec": ["[1, {}]", "[1, {}]"],
}  # fmt: skip


def text(content: bytes) -> Any:
    """A package with this for its metadata."""
    return of({**FILES, METADATA: content})


def signed(record: Any) -> Any:
    """A package with this for its signature."""
    return described(**{"aoti.signature": record if type(record) is str else json.dumps(record)})


def record(**changes: Any) -> Any:
    return signed({**RECORD, **changes})


def tensor(**changes: Any) -> Any:
    return record(inputs=[{**RECORD["inputs"][0], **changes}])


def really(**changes: Any) -> Callable[..., Any]:
    """The exported network under another signature: it gets as far as its code's being loaded."""
    return real_metadata(**{"aoti.signature": json.dumps({**RECORD, **changes})})


JSON = "is not valid JSON"
STRINGS = "is not an object of strings"
DAMAGED = "its signature is damaged"
AGAIN = "export it again"

ROWS: tuple[File, ...] = (
    refused("no metadata", of(without(METADATA)), PackageError, "has no metadata file"),
    refused("empty metadata", text(b""), PackageError, JSON),
    refused("metadata cut short", text(FILES[METADATA][:-9]), PackageError, JSON),
    refused("metadata that is no JSON", text(b"AOTI_DEVICE_KEY=cpu"), PackageError, JSON, METADATA),
    refused("metadata that is no UTF-8", text(b'{"a": "\xff\xfe"}'), PackageError, JSON),
    refused("metadata in UTF-16 cut short", text('{"a": "b"}'.encode("utf-16")[:-1]), PackageError,
            JSON),
    refused("metadata nested 100,000 deep", text(b"[" * 100_000), PackageError, JSON),
    refused("objects nested 100,000 deep", text(b'{"a":' * 100_000), PackageError, JSON),
    refused("a number of 5000 digits", text(b'{"a": ' + b"1" * 5000 + b"}"), PackageError, JSON),
    refused("metadata that is a list", text(b'["a"]'), PackageError, STRINGS),
    refused("metadata that is null", text(b"null"), PackageError, STRINGS),
    refused("metadata with a number", text(b'{"AOTI_DEVICE_KEY": 1}'), PackageError, STRINGS),
    refused("metadata with NaN", text(b'{"AOTI_DEVICE_KEY": NaN}'), PackageError, STRINGS),
    refused("metadata with a list", text(b'{"AOTI_DEVICE_KEY": ["cpu"]}'), PackageError, STRINGS),
    refused("metadata of zeros", text(bytes(1000)), PackageError, JSON),
    refused("no device", described(AOTI_DEVICE_KEY=None), IncompatiblePackageError,
            "compiled for no device"),
    refused("an empty device", described(AOTI_DEVICE_KEY=""), IncompatiblePackageError,
            "compiled for no device"),
    refused("a device that nobody knows", described(AOTI_DEVICE_KEY="cpw"),
            IncompatiblePackageError, "compiled for cpw, which is not a device"),
    refused("a device that moves the cursor", described(AOTI_DEVICE_KEY="cpu\n\x1b[2J"),
            IncompatiblePackageError, "\\x1b[2J"),
    refused("a device of 100,000 letters", described(AOTI_DEVICE_KEY="x" * 100_000),
            IncompatiblePackageError, "which is not a device"),
    refused("a package for CUDA, where a GPU is missing", described(AOTI_DEVICE_KEY="cuda"),
            IncompatiblePackageError, "needs a GPU", "export the model on the CPU"),
    refused("a package for Apple's GPUs", described(AOTI_DEVICE_KEY="mps"),
            IncompatiblePackageError, "compiled for mps"),
    refused("another instruction set", real_metadata(AOTI_CPU_ISA="AMX_TILE"),
            IncompatiblePackageError, "for CPUs with AMX_TILE", "x86-64-v3"),
    refused("another platform", real_metadata(AOTI_PLATFORM="win32"),
            IncompatiblePackageError, "for Windows on x86_64", "export the model on a Linux"),
    refused("another machine", real_metadata(AOTI_MACHINE="riscv64"),
            IncompatiblePackageError, "for Linux on riscv64", "export the model on a Linux"),

    refused("an empty signature", signed(""), PackageError, DAMAGED, AGAIN),
    refused("a signature that is no JSON", signed("{'version': 1}"), PackageError, DAMAGED),
    refused("a signature that is null", signed("null"), PackageError, DAMAGED),
    refused("a signature that is a number", signed("1"), PackageError, DAMAGED),
    refused("a signature nested 50,000 deep", signed("[" * 50_000), PackageError, DAMAGED),
    refused("a signature without anything", signed({}), PackageError, DAMAGED),
    refused("a signature of the future", record(version=2), PackageError, "newer aoti (aoti 9)",
            "install a newer aoti-runtime"),
    refused("a signature of a long future", record(version="9" * 100_000, exporter="x" * 100_000),
            PackageError, "newer aoti"),
    refused("an unknown dtype", tensor(dtype="float7"), PackageError, DAMAGED, "float7"),
    refused("a dtype that is a list", tensor(dtype=["float32"]), PackageError, DAMAGED),
    refused("a dtype of 100,000 letters", tensor(dtype="f" * 100_000), PackageError, DAMAGED),
    refused("a negative size", tensor(shape=[-1, 10]), PackageError, DAMAGED),
    refused("a size of 30 digits", tensor(shape=[10**30, 10]), PackageError, DAMAGED),
    refused("a size that is true", tensor(shape=[True, 10]), PackageError, DAMAGED),
    refused("a size that is NaN", tensor(shape=[float("nan"), 10]), PackageError, DAMAGED),
    refused("a size over nothing known", tensor(shape=["m", 10]), PackageError, DAMAGED, "unknown"),
    refused("a size that is code", tensor(shape=["__import__('os')", 10]), PackageError, DAMAGED),
    refused("a size of a power tower", tensor(shape=["9**9**9**9*n", 10]), PackageError, DAMAGED),
    refused("a size of 1000 terms", tensor(shape=["n" + " + n" * 1000, 10]), PackageError, DAMAGED),
    refused("65 dimensions", tensor(shape=[1] * 65), PackageError, DAMAGED),
    refused("a stride too few", tensor(strides=["1"]), PackageError, DAMAGED),
    refused("a stride that is code", tensor(strides=["exit()", "1"]), PackageError, DAMAGED),
    refused("a name that clears the screen", tensor(name="\x1b[2J"), PackageError, DAMAGED),
    refused("a name of 100,000 letters", tensor(name="x" * 100_000), PackageError, DAMAGED),
    refused("values without an end", tensor(values=[0]), PackageError, DAMAGED),
    refused("values over nothing known", tensor(values=[0, "m"]), PackageError, DAMAGED),
    refused("a range that is negative", record(symbols={"n": {"min": -1, "max": 1}}), PackageError,
            DAMAGED),
    refused("a range of 400 digits", record(symbols={"n": {"min": 1, "max": 10**400}}),
            PackageError, DAMAGED),
    refused("guards that are a text", record(guards="n"), PackageError, DAMAGED),
    refused("a guard that is a number", record(guards=[3]), PackageError, DAMAGED),
    refused("a guard that is no expression", record(guards=["n ="]), PackageError, DAMAGED),
    refused("a guard that is code", record(guards=["__import__('os')"]), PackageError, DAMAGED),
    refused("a guard that is a call", record(guards=["n.bit_length() > 1"]), PackageError, DAMAGED),
    refused("a guard over nothing known", record(guards=["m > 1"]), PackageError, DAMAGED),
    refused("a guard of a power tower", record(guards=["9**9**9**9 > n"]), PackageError, DAMAGED),
    refused("a guard that shifts", record(guards=["1 << 1 << n > 0"]), PackageError, DAMAGED),
    refused("a guard nested 10,000 deep", record(guards=["(" * 10_000 + "n" + ")" * 10_000]),
            PackageError, DAMAGED),
    refused("a guard of 100,000 terms", record(guards=["n" + " + n" * 100_000 + " > 0"]),
            PackageError, DAMAGED),
    refused("inputs that are an object", record(inputs={}), PackageError, DAMAGED),
    refused("a constant that is a list", record(inputs=[{"name": "n", "constant": [1]}]),
            PackageError, DAMAGED),
    refused("treespecs that are numbers", record(call_spec=[1, 2]), PackageError, DAMAGED),
    refused("one treespec", record(call_spec=["[]"]), PackageError, DAMAGED),
    refused("sizes that depend on each other without measure",
            really(symbols={"n": {"min": 1, "max": 8}, "m": {"min": 1, "max": 8}},
                   inputs=[{**RECORD["inputs"][0], "shape": ["n*m", "n"]}]),
            IncompatiblePackageError, "depend on each other", repeats=30),
    refused("strides that nobody can follow",
            really(inputs=[{**RECORD["inputs"][0], "strides": ["7*n", "3"]}]),
            IncompatiblePackageError, "memory layout that aoti cannot read", repeats=30),
    refused("more symbols than the core has",
            really(symbols={f"s{n}": {"min": 1, "max": 8} for n in range(65)},
                   inputs=[{**RECORD["inputs"][0], "shape": [f"s{n}"], "strides": ["1"]}
                           for n in range(65)]),
            IncompatiblePackageError, "more than 64 independent sizes", repeats=30),
)  # fmt: skip
