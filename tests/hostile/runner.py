"""One row of a table, in a process of its own: 200 times, and then the model still answers.

usage: python runner.py PACKAGES

Reads lines of a row, as TABLE/ID, and a directory for it, with a tab between them; prints how the
row's process ended. TABLE is a module beside this one. Fails, with words on standard error, if the
row did anything else than raise its error: leave a file or a descriptor open, keep memory, change
an argument, spoil the model. What a process cannot tell of itself (a signal, what C++ wrote, what
is left after its end) the caller looks at.
"""

from __future__ import annotations

import copy
import gc
import importlib
import os
import signal
import sys
import tempfile
import zipfile
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import aoti
from aoti.cache.cache import extract
from aoti.engine import libtorch

REPEATS, WARM_UP = 200, 20
LONGEST = 60  # seconds
GROWTH = 4 << 20  # bytes; a leak of one small input a call is 200 times as many
Pair = namedtuple("Pair", ["first", "second"])


@dataclass(frozen=True, eq=False)
class Input:
    """A call. `error` None: it is right, and gives `expected`, by default the good call's result.

    `call` gets the model and what `good` made, whose arrays it must leave as they are.
    """

    id: str
    model: str
    call: Callable[[Any, Any], Any]
    error: type[Exception] | None = None
    words: tuple[str, ...] = ()
    expected: Callable[[Any], Any] = lambda good: good.expected
    repeats: int = REPEATS


@dataclass(frozen=True, eq=False)
class File:
    """A package. `make` writes it into a directory, and gives what is passed to `load`."""

    id: str
    make: Callable[[Path], Any]
    error: type[Exception]
    words: tuple[str, ...]
    load: Callable[[Any], Any] = lambda source: aoti.load(source).close()
    repeats: int = REPEATS
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class State:
    """A cache that something was done to between an extraction and a load.

    `spoil` gets the entry's directory. The load gives a model that answers, or `error`.
    """

    id: str
    spoil: Callable[[Path], Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    error: type[Exception] | None = None
    words: tuple[str, ...] = ()


def bad(
    name: str,
    model: str,
    call: Callable[[Any, Any], Any],
    error: type,
    *words: str,
    repeats: int = REPEATS,
) -> Input:
    """A call that is refused, in these words."""
    return Input(name, model, call, error, words, repeats=repeats)


def right(name: str, model: str, call: Callable[[Any, Any], Any], **more: Any) -> Input:
    """A call that looks odd, and has the answer of a plain one."""
    return Input(name, model, call, **more)


def refused(name: str, make: Callable[[Path], Any], error: type, *words: str, **more: Any) -> File:
    """A file that is refused, in these words."""
    return File(name, make, error, words, **more)


# -- what is right -------------------------------------------------------------------------------


def mlp_answer(packages: Path, rows: np.ndarray) -> np.ndarray:
    """What the 10-16-1 network gives, from its weights alone: without torch, float32 by float32."""
    with zipfile.ZipFile(packages / "mlp.pth") as file:
        w1, b1, w2, b2 = (np.frombuffer(file.read(f"mlp/data/{n}"), np.float32) for n in range(4))
    hidden = np.maximum(rows @ w1.reshape(16, 10).T + b1, 0)
    return 1 / (1 + np.exp(-(hidden @ w2.reshape(1, 16).T + b2)))


def good(name: str, packages: Path) -> SimpleNamespace:
    """The arguments of a call and what it gives."""
    values = np.random.default_rng(0).standard_normal(400, dtype=np.float32)
    x, y = values[:12].reshape(3, 4), values[12:24].reshape(3, 4)
    args: tuple[Any, ...] = (x,)
    kwargs: dict[str, Any] = {}
    match name:
        case "mlp" | "stock":
            args = (values[:30].reshape(3, 10),)
            expected: Any = mlp_answer(packages, args[0])
        case "shared":
            args = values[:12].reshape(4, 3), values[12:32].reshape(4, 5)
            expected = args[0] * args[1].sum(1, keepdims=True)
        case "derived":
            args = values[:6].reshape(3, 2), values[6:20].reshape(7, 2)
            expected = args[0].sum() + args[1].sum()
        case "layouts":
            image = np.ascontiguousarray(values[:120].reshape(2, 4, 5, 3)).transpose(0, 3, 1, 2)
            args = image, values[:12].reshape(4, 3).T, values[:24].reshape(3, 8)[:, ::2]
            expected = image * 2, args[1] + 1, args[2] - 1
        case "lookup" | "stock_lookup":
            args = (np.array([0, 4, -5, 2]),)
            expected = np.arange(20, dtype=np.float32).reshape(5, 4)[args[0]]
        case "inplace":
            args, expected = (x, y), (x + y).sum() + 1
        case "scalars":
            args, expected = (x, 3), x * 3
        case "alias":
            weight = np.arange(12, dtype=np.float32).reshape(3, 4)
            expected = x, x.T, x + 1, weight, weight.T
        case "dtypes":
            names = "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 "
            names += "float16 float32 float64 complex64 complex128"
            args = ()
            kwargs = {name: np.arange(6).reshape(2, 3).astype(name) for name in names.split()}
            expected = list(kwargs.values())
        case "tree":
            args = {"x": x, "y": {"z": y}}, [x, y], Pair(x, y)
            kwargs = {"options": {"scale": y}, "mask": x > 0}
            expected = x + y, x * 2, y + 1, x - y, y * y, x <= 0
    named = dict(zip("xyz", args, strict=False))
    return SimpleNamespace(args=args, kwargs=kwargs, expected=expected, **named)


def leaves(value: Any) -> list[Any]:
    """The arrays in a result, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in leaves(item)] if isinstance(
        value, list | tuple
    ) else [value]  # fmt: skip


def require_equal(got: Any, wanted: Any) -> None:
    """Stop unless two results are equal but for rounding."""
    for a, b in zip(leaves(got), leaves(wanted), strict=True):
        b = np.asarray(b).reshape(a.shape)  # noqa: PLW2901
        if not np.allclose(a, b, 1e-5, 1e-6, equal_nan=True):  # without the words, much faster
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def answers(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any) -> None:
    """Stop unless a model gives what it must. It gets copies: one model writes into its input."""
    args = tuple(a.copy(order="A") if isinstance(a, np.ndarray) else a for a in args)
    require_equal(model(*args, **kwargs), expected)


# -- the run -------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that this process has at the moment."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kept() -> dict[str, Any]:
    """What may not become more: open descriptors, and files where packages are extracted to.

    But for the index: the digest of a file that has been the same for two seconds is kept.
    """
    places = Path(tempfile.gettempdir()), Path(os.environ["AOTI_CACHE_DIR"])
    files = (path for place in places for path in place.rglob("*") if "index" not in path.parts)
    return {"descriptors": descriptors(), "files": sorted(map(str, files))}


def descriptors() -> list[str]:
    """What is open, but for the one that lists it."""
    links = list(Path("/proc/self/fd").iterdir())
    return sorted(os.path.realpath(link) for link in links if link.is_symlink())


def repeat(attempt: Callable[[], Any], repeats: int) -> None:
    """Attempt often, and stop if anything is left of it."""
    warm_up = min(WARM_UP, (repeats + 1) // 2)
    for _ in range(warm_up):
        attempt()
    before, memory = kept(), resident()
    for _ in range(repeats):
        attempt()
    grown = resident() - memory
    if grown > GROWTH:
        raise SystemExit(f"{grown >> 20} MB more after {repeats} attempts")
    if (after := kept()) != before:
        raise SystemExit(f"left behind: {before} has become {after}")


def refusal(attempt: Callable[[], Any], error: type, words: tuple[str, ...]) -> None:
    """Attempt what must fail, and stop if it does not, or not as people need it."""
    try:
        result = attempt()
    except BaseException as caught:
        message = str(caught)
        if type(caught) is not error or not all(word in message for word in words):
            raise SystemExit(f"wanted {error.__name__}: {words}; got {caught!r}") from caught
        if "\n" in message or not 20 <= len(message) < 1000:
            raise SystemExit(f"not one line for people: {message!r}") from caught
        return
    raise SystemExit(f"not refused: gave {result!r:.500}")


def run_input(row: Input, packages: Path) -> None:
    """The model answers, the row's call is made, the model answers."""
    prepared = good(row.model, packages)
    untouched = copy.deepcopy((prepared.args, prepared.kwargs))
    expected = row.expected(prepared)
    with aoti.load(packages / f"{row.model}.pt2") as model:
        answers(model, prepared.args, prepared.kwargs, prepared.expected)

        def attempt() -> None:
            if row.error is None:
                require_equal(row.call(model, prepared), expected)
            else:
                refusal(lambda: row.call(model, prepared), row.error, row.words)

        repeat(attempt, row.repeats)
        np.testing.assert_equal((prepared.args, prepared.kwargs), untouched)
        if not model.closed:
            answers(model, prepared.args, prepared.kwargs, prepared.expected)
    if row.error is aoti.ModelClosedError:
        with aoti.load(packages / f"{row.model}.pt2") as model:
            answers(model, prepared.args, prepared.kwargs, prepared.expected)


def run_file(row: File, packages: Path, directory: Path) -> None:
    """The file is refused, and a good one loads and answers."""
    source = row.make(directory)
    repeat(lambda: refusal(lambda: row.load(source), row.error, row.words), row.repeats)
    if callable(close := getattr(source, "close", None)):
        close()
    prepared = good("mlp", packages)
    with aoti.load(packages / "mlp.pt2") as model:
        answers(model, prepared.args, prepared.kwargs, prepared.expected)


def run_state(row: State, packages: Path) -> None:
    """A model is extracted, the cache is spoiled, and a load gives the right model or an error."""
    path = packages / "mlp.pt2"
    with aoti.Package(path) as package:
        options = {
            name: package.digest if name == "sha256" else v for name, v in row.options.items()
        }
        extraction = extract(package, "model", form="native")
        extraction.release()
    row.spoil(extraction.directory)
    if row.error is not None:
        refusal(lambda: aoti.load(path, **options), row.error, row.words)
        return
    prepared = good("mlp", packages)
    with aoti.load(path, **options) as model:
        answers(model, prepared.args, prepared.kwargs, prepared.expected)
    extraction.directory.joinpath("manifest.json").stat()
    for item in [extraction.directory, *extraction.directory.rglob("*")]:
        if item.lstat().st_mode & 0o022 or item.lstat().st_uid != os.geteuid():
            raise SystemExit(f"others may write to {item}")


def run(name: str, packages: Path, directory: Path) -> None:
    """Run one row, in the process that is to be judged by it."""
    # The directories that the caller looks into afterwards.
    tempfile.tempdir = str(directory / "tmp")
    os.environ["TMPDIR"], os.environ["AOTI_CACHE_DIR"] = tempfile.tempdir, str(directory / "cache")
    os.environ["AOTI_TEST_PACKAGES"] = str(packages)
    for number, stream in ((1, "stdout"), (2, "stderr")):
        with (directory / stream).open("wb") as file:
            os.dup2(file.fileno(), number)
    signal.alarm(LONGEST)
    table, _, row_id = name.partition("/")
    (row,) = (row for row in importlib.import_module(table).ROWS if row.id == row_id)
    if isinstance(row, File):
        run_file(row, packages, directory / "files")
    elif isinstance(row, State):
        run_state(row, packages)
    else:
        run_input(row, packages)


def main() -> None:
    """Fork a process per row. Loading numpy and libtorch each time would take minutes in all."""
    packages = Path(sys.argv[1]).absolute()
    libtorch.engine()  # starts no thread
    _ = aoti.load, np.ma.MaskedArray, np.random.default_rng, np.testing.assert_allclose
    for line in iter(sys.stdin.readline, ""):
        row, _, directory = line.rstrip("\n").partition("\t")
        importlib.import_module(row.partition("/")[0])
        gc.freeze()  # a child collects what is its own only, which halves its time
        child = os.fork()
        if child == 0:
            run(row, packages, Path(directory))
            return  # and end as programs do, with all that is registered for the end
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    # Under the name that the tables import it by: their rows are of that module's classes.
    sys.modules["runner"] = sys.modules["__main__"]
    main()
