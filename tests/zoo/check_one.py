"""Compare a package of the zoo with eager's results, on both engines and without torch.

usage: python tests/zoo/check_one.py DIRECTORY

The directory has `model.pt2` and `calls.npz`. The result is written to `check.json`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import aoti

ENGINES = "native", "libtorch"


def numbered(arrays: Any, prefix: str) -> list[np.ndarray[Any, Any]]:
    """The arrays `prefix/0`, `prefix/1` and so on."""
    return [arrays[f"{prefix}/{i}"] for i in range(len(arrays)) if f"{prefix}/{i}" in arrays]


def difference(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """The largest difference, relative to the largest element; infinite for another kind."""
    if found.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind in "biu":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    kind = np.complex128 if expected.dtype.kind == "c" else np.float64
    found, expected = found.astype(kind), expected.astype(kind)
    same = np.isfinite(expected)
    if not np.array_equal(found[~same], expected[~same], equal_nan=True):
        return float("inf")
    largest = np.abs(expected[same]).max(initial=0)
    return float(np.abs(found[same] - expected[same]).max(initial=0) / (largest or 1))


def milliseconds(call: Any) -> float:
    """The shortest of many calls."""
    call()
    found, end = [], time.perf_counter() + 0.1
    while len(found) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return 1e3 * min(found)


def check(path: Path, arrays: Any, engine: str) -> dict[str, Any]:
    """The largest difference at all sizes, and how long a call of the example takes."""
    count = len({name.split("/")[1] for name in arrays if name.startswith("out/")})
    errors = []
    with aoti.load(path, engine=engine, intra_op_threads=1) as model:
        for call in range(count):
            found = model.run(numbered(arrays, f"in/{call}"))
            expected = numbered(arrays, f"out/{call}")
            if len(found) != len(expected):
                raise ValueError(f"{len(found)} results, not {len(expected)}")
            pairs = zip(found, expected, strict=True)
            errors.append(max((difference(np.asarray(f), e) for f, e in pairs), default=0.0))
        example = numbered(arrays, "in/0")
        return {"errors": errors, "ms": milliseconds(lambda: model.run(example))}


def main() -> None:
    directory = Path(sys.argv[1])
    results: dict[str, Any] = {}
    with np.load(directory / "calls.npz") as file:
        arrays = dict(file)
    for engine in ENGINES:
        try:
            results[engine] = check(directory / "model.pt2", arrays, engine)
        except Exception as error:  # the failures of a model are results, too
            results[engine] = {"error": f"{type(error).__name__}: {error}"}
    assert "torch" not in sys.modules
    (directory / "check.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
