"""Mutated packages and mutated documents, read in one process that may not have much.

usage: python fuzz.py PACKAGES DIRECTORY SEED NUMBER_OF_PACKAGES NUMBER_OF_DOCUMENTS

Each case must end in an AotiError or in none, within a second of processor time. Nothing may be
written outside of DIRECTORY: an audit hook sees every attempt. Nothing of a package is run. Prints
how the cases ended; what breaks a rule ends the process with the case's number.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import unittest.mock
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from craft import FILES, METADATA, MODEL, SO, zipped

import aoti
from aoti import AotiError, Package, Signature
from aoti.package.wrapper_cpp import may_abort, read_call_spec, read_inputs
from aoti.signature.document import read_signature
from aoti.signature.pytree import CallPlan

MEMORY = 512 << 20  # bytes of address space over what the process has at the start
LONGEST = 1.0  # seconds
WRITES = {"os.mkdir", "os.symlink", "os.link", "os.rename", "os.remove", "os.truncate", "os.chmod"}
NUMBERS = [0, 1, 7, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
NAMES = [
    "../x", "../../x", "/x", "//x/y", "C:/x", "a\\..\\x", "m/../x", "m/./x", "m//x", "nul", "m/con",
    "a\0b", "", ".", "..", "m/", f"{MODEL}/../../../../../x", f"{MODEL}/../x", SO + "/x",
    f"{MODEL}/{'x' * 300}", "m/\x1b[2J", "data/aotinductor/../model/x.so", "m/data/constants/../x",
    "m/data/aotinductor/../x.so", "m/data/aotinductor/model/\n", "m/\ud7ff\uffff/x", "~/x",
    "$HOME/x", SO.upper(),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1 << 62, 1 << 64, 10**400, 1e308, float("nan"), float("inf"), "", "x",
    "n", "n*n", "2*n + 1", "-n", "9**9**9", "n" + "+n" * 60, "(" * 90 + "n" + ")" * 90,
    "exit()", "\x1b[2J", "\ud800", "a" * 5000, [], {}, [[]], [None], {"": None}, ["n"] * 70,
    "builtins.tuple", "builtins.dict", "builtins.list", "collections.namedtuple",
    "collections.deque", "os.system", "collections.defaultdict", '["a", "a"]',
    "[" * 2000, "null", "1" * 5000, '"os.path"', "float32",
]  # fmt: skip


def watch(directory: Path) -> None:
    """End the process at the first attempt to write anywhere else than under a directory."""
    inside = str(directory.resolve()) + os.sep

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WRITES:
            paths = [item for item in arguments if isinstance(item, str | bytes)]
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            paths = [arguments[0]]
        elif event in (
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "ctypes.dlopen",
            "socket.connect",
        ):
            raise SystemExit(f"{event}{arguments}")
        else:
            return
        for path in paths:
            if isinstance(path, int):
                continue
            if not os.path.realpath(os.fsdecode(path)).startswith(inside):
                raise SystemExit(f"{event} outside of the directory: {arguments}")

    sys.addaudithook(look)


class Fuzzer:
    """Makes the cases, all from one seed."""

    def __init__(self, packages: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.contents = [self.small(packages / f"{n}.pt2") for n in ("mlp", "tree", "stock")]
        seeds = [*self.contents, {**FILES, f"{MODEL}/a_weights.blob": bytes(90)}]
        seeds.append({**FILES, SO.replace("/model/", "/other/"): b"", "m/data/constants/c": b"c"})
        self.seeds = [
            zipped(files, method)
            for files in seeds
            for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        ]
        with unittest.mock.patch.object(zipfile, "ZIP_FILECOUNT_LIMIT", 1):
            self.seeds.append(zipped())  # of 64 bits
        documents: list[tuple[str, str]] = []
        for files in self.contents:
            for name, content in files.items():
                if name.endswith("wrapper.cpp"):
                    documents.append(("wrapper", content.decode()))
                elif name.endswith("wrapper_metadata.json"):
                    documents.append(("metadata", content.decode()))
                    record = json.loads(content).get("aoti.signature")
                    if record is not None:
                        documents.append(("signature", record))
                        spec = json.loads(record)["call_spec"]
                        documents.append(("treespec", json.dumps(list(map(json.loads, spec)))))
        self.documents = documents

    @staticmethod
    def small(path: Path) -> dict[str, bytes]:
        """A package's files, with the beginning of its code only."""
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name)[: 4096 if name.endswith(".so") else None]
                    for name in archive.namelist()}  # fmt: skip

    def package(self) -> bytes:
        """A package with one to four things wrong."""
        pick = self.random
        if pick.random() < 0.3:
            files = list(pick.choice(self.contents).items())
            for _ in range(pick.randint(1, 2)):
                at = pick.randrange(len(files))
                name, content = files[at]
                if pick.random() < 0.5:
                    files[at] = pick.choice([*NAMES, name, files[0][0]]), content
                else:
                    files[at] = (
                        name,
                        self.text(content.decode("latin-1")).encode("latin-1", "replace"),
                    )
            if pick.random() < 0.4:
                files.append(
                    (METADATA, json.dumps(self.grown(json.loads(FILES[METADATA]))).encode())
                )
            with contextlib.suppress(ValueError, IndexError, struct.error):
                return zipped(files)
        data = bytearray(pick.choice(self.seeds))
        for _ in range(pick.randint(1, 4)):
            self.damage(data)
        return bytes(data)

    def damage(self, data: bytearray) -> None:
        """Turn bits, cut, splice, or forge a field of a header."""
        pick = self.random
        at = pick.randrange(len(data) + 1)
        match pick.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << pick.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + pick.randrange(1, 200)]
            case 3:
                other = pick.choice(self.seeds)
                start = pick.randrange(len(other))
                data[at : at + pick.choice([0, 50])] = other[start : start + pick.randrange(300)]
            case 4:
                name = pick.choice(NAMES).encode("utf-8", "replace")
                old = pick.choice([b"wrapper.so", b"model", b"archive_format", b"a.wrapper"])
                start = data.find(old)
                if start >= 0:
                    data[start : start + len(name)] = name
            case _:  # a field of a header
                magic = pick.choice([b"PK\1\2", b"PK\3\4", b"PK\5\6"])
                places = [n for n in range(len(data) - 50) if data.startswith(magic, n)]
                if places:
                    kind = pick.choice(["<H", "<I"])
                    value = pick.choice(NUMBERS) & (0xFFFF if kind == "<H" else 0xFFFFFFFF)
                    place = pick.choice(places) + pick.randrange(4, 46)
                    struct.pack_into(kind, data, min(place, len(data) - 4), value)

    def text(self, text: str) -> str:
        """A text with something else in it."""
        pick = self.random
        for _ in range(pick.randint(1, 4)):
            at, length = pick.randrange(len(text) + 1), pick.randrange(1, 40)
            new = pick.choice([
                "", chr(pick.randrange(256)), pick.choice('[]{}",:()0123456789\\'), "9" * 25,
                "(" * 300, text[at : at + 400], json.dumps(pick.choice(VALUES)),
                text[:at][-60:] * 5,
            ])  # fmt: skip
            text = text[:at] + new + text[at + pick.choice([0, length]) :]
        return text

    def grown(self, document: Any) -> Any:
        """A JSON document with other values in it."""
        document = copy.deepcopy(document)
        for _ in range(self.random.randint(1, 3)):
            place = document
            while isinstance(place, dict | list) and place:
                key = self.random.choice(
                    list(place) if isinstance(place, dict) else range(len(place))
                )
                inner = place[key]
                if not isinstance(inner, dict | list) or not inner or self.random.random() < 0.2:
                    place[key] = copy.deepcopy(
                        self.random.choice([*VALUES, [inner] * 3, {"a": inner}])
                    )
                    break
                place = inner
        return document

    def document(self) -> tuple[str, str]:
        """A document that is not as it was written, and what it is."""
        kind, text = self.random.choice(self.documents)
        if kind == "wrapper" or self.random.random() < 0.3:
            return kind, self.text(text)
        return kind, json.dumps(self.grown(json.loads(text)))


def read_package(data: bytes, directory: Path) -> None:
    """Ask a package everything, and extract it."""
    with Package(data) as package:
        _ = package.digest, repr(package), package.identity
        for number, model in enumerate(package.models):
            for ask in (package.metadata, package.source, package.signature, package.exporter,
                        package.device, package.may_abort, package.call_spec):  # fmt: skip
                with contextlib.suppress(AotiError):
                    ask(model)
            with contextlib.suppress(AotiError):
                use(package.signature(model))
            package.extract(model, directory / f"out{number}")


def use(signature: Signature) -> None:
    """What loading and calling do with a signature."""
    with contextlib.suppress(AotiError):
        signature.layouts()
    if signature.call_spec is not None:
        call(signature.plan(signature.call_spec), signature)


def call(plan: CallPlan, signature: Signature) -> None:
    """Flatten a call of everything and of nothing, and build a result."""
    renamed = signature.renamed(plan)
    _ = [str(spec) for spec in (*(renamed.arguments or ()), *(renamed.outputs or ()))]
    for args, kwargs in (
        ((), {}),
        (([1], {"a": (2,)}, 3), {"mask": 1}),
        ((1,) * plan.num_inputs, {}),
    ):
        with contextlib.suppress(AotiError):
            plan.flatten(args, kwargs)
    plan.rebuild([None] * plan.num_outputs)


def read_document(kind: str, text: str) -> None:
    """Read a document as what it says it is."""
    match kind:
        case "signature":
            use(read_signature(text, "m.pt2"))
        case "metadata":
            with Package(zipped({**FILES, METADATA: text.encode("utf-8", "replace")})) as package:
                use(package.signature())
        case "wrapper":
            may_abort(text)
            use(Signature.of_wrapper(read_inputs(text), read_call_spec(text)))
        case "treespec":
            try:
                first, second = map(json.dumps, json.loads(text))
            except ValueError:
                first = second = text
            call(CallPlan.from_json(first, second), Signature())


def too_long(*_: Any) -> None:
    raise SystemExit(f"more than {LONGEST} s")


def main() -> None:
    """Run the cases that the command line asks for."""
    packages, directory = Path(sys.argv[1]), Path(sys.argv[2])
    seed, num_packages, num_documents = map(int, sys.argv[3:])
    fuzzer = Fuzzer(packages, seed)
    _ = aoti.load  # imported before the hook looks
    ends: collections.Counter[str] = collections.Counter()

    def attempt(case: str, read: Callable[[], None]) -> None:
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        try:
            read()
            ends[f"{case}: read"] += 1
        except AotiError as error:
            ends[f"{case}: {type(error).__name__}"] += 1
        except BaseException as error:
            error.add_note(f"{case} number {sum(ends.values())} of seed {seed}")
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    signal.signal(signal.SIGPROF, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (now := int(
        Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY, now
    ))  # fmt: skip
    inner = directory / "a" / "b" / "c"
    inner.mkdir(parents=True)
    os.chdir(inner)
    watch(inner)
    for _ in range(num_packages):
        data = fuzzer.package()
        attempt("package", lambda data=data: read_package(data, inner))  # type: ignore[misc]
        for path in inner.iterdir():
            shutil.rmtree(path)
    for _ in range(num_documents):
        kind, text = fuzzer.document()
        attempt(kind, lambda k=kind, t=text: read_document(k, t))  # type: ignore[misc]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"ends": dict(sorted(ends.items())), "peak_mb": peak}))


if __name__ == "__main__":
    main()
