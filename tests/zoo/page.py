"""Writes docs/zoo.md from what the steps of all models measured."""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from catalogue import Entry
from steps import ENGINES, ROOT, found, read

PAGE = ROOT / "docs/zoo.md"
TITLES = {
    "text": "Text encoders",
    "decoders": "Language models with a cache",
    "seq2seq": "Encoders with decoders",
    "cnns": "Convolutional networks",
    "vision transformers": "Vision transformers",
    "dense vision": "Detection, segmentation and depth",
    "diffusion": "Diffusion",
    "audio": "Audio",
    "recurrent": "Recurrent networks",
    "graphs": "Graph networks",
    "tabular": "Tables and recommendations",
    "series": "Time series",
    "quantised": "Quantised models",
    "control flow": "Control flow",
}
COLUMNS = ("model", "from", "export", "size", "error", "call", "notes")
TIMES = ("export", "call")  # left out without stock exports: there is nothing to compare them with
INTRODUCTION = """\
# Zoo

Models of many kinds, most of them from other people's packages, in small configurations with
random weights. `python tests/zoo` exports each one with `aoti.export` and dynamic sizes. A process
without torch then calls the package at several sizes on both engines, and compares the results with
those of eager PyTorch. The command writes this page, with the models that were exported so far. The
packages that the models are from: `pip install --no-deps -r tests/zoo/requirements.txt`. Columns:
"""
EXPLANATIONS = {
    "export": """\
seconds of CPU time of `aoti.export`. In parentheses, those of `torch.export.export`
  and `aoti_compile_and_package` with their default options, in the same process.""",
    "size": "the size of the package, in KiB.",
    "error": """\
the largest difference from eager at any size, relative to the largest element of the
  output, on the native engine and on the libtorch engine.""",
    "call": """\
milliseconds of a call with the example on one thread, the shortest of many: eager,
  native engine, libtorch engine.""",
    "notes": "why a step failed, and which operators the native engine does not have.",
}


def first_line(error: str) -> str:
    """The beginning of an error, for a cell of a table."""
    return error.splitlines()[0][:160].replace("|", "\\|")


def note(engine: str, part: dict[str, Any], tolerance: float) -> str:
    """What is wrong on an engine; empty if nothing is."""
    if names := re.findall(r"aoti_torch_(?:cpu_)?(\w+)", part.get("error", "")):
        return f"{engine}: no {', '.join(f'`{name}`' for name in names)}"
    if "error" in part:
        return f"{engine}: {first_line(part['error'])}"
    different = max(part.get("errors", [0.0])) > tolerance
    return f"{engine}: differs from eager by more than {tolerance:g}" if different else ""


def number(value: float | None, form: str) -> str:
    return "-" if value is None or math.isinf(value) else format(value, form)


def table_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def row(entry: Entry, columns: Sequence[str]) -> str:
    """The row of a model."""
    parts = found(entry.name)
    ours, stock, engines = parts["ours"], parts["stock"], {name: parts[name] for name in ENGINES}
    notes = [f"export: {first_line(ours['error'])}"] if "error" in ours else []
    notes += [f"stock export: {first_line(stock['error'])}"] if "error" in stock else []
    notes += [said for name in engines if (said := note(name, engines[name], entry.tolerance))]
    seconds = (number(part.get("cpu_seconds"), ".0f") for part in (ours, stock))
    errors = (number(max(p.get("errors", [math.inf])), ".0e") for p in engines.values())
    calls = [ours.get("eager_ms"), *(part.get("ms") for part in engines.values())]
    size = f"{ours['bytes'] / 1024:.0f}" if "bytes" in ours else "-"
    cells = [
        f"`{entry.name}`",
        entry.source,
        "{} ({})".format(*seconds),
        size,
        ", ".join(errors),
        ", ".join(number(ms, ".3g") for ms in calls),
        "; ".join(notes),
    ]
    return table_row(c for name, c in zip(COLUMNS, cells, strict=True) if name in columns)


def summary(entries: list[Entry]) -> str:
    """How many models work, and how long exports take."""
    results = {entry.name: found(entry.name) for entry in entries}
    exported = sum("seconds" in parts["ours"] for parts in results.values())
    right = dict.fromkeys(ENGINES, 0)
    for entry in entries:
        for engine in ENGINES:
            part = results[entry.name][engine]
            right[engine] += "errors" in part and not note(engine, part, entry.tolerance)
    kinds = {entry.kind for entry in entries}
    said = [
        f"{len(entries)} models of {len(kinds)} kinds: {exported} were exported; "
        f"{right['native']} equal eager on the native engine, {right['libtorch']} on libtorch's."
    ]
    for what, key in (("time", "seconds"), ("CPU time", "cpu_seconds")):
        ratios = [
            parts["ours"][key] / parts["stock"][key]
            for parts in results.values()
            if key in parts["ours"] and key in parts["stock"]
        ]
        if ratios:
            said.append(
                f"Exports take {statistics.median(ratios):.2f} times the {what} of stock ones (the "
                f"median of {len(ratios)} models; at most {max(ratios):.2f} times)."
            )
    said.append(
        f"Python {platform.python_version()}, torch {version('torch')}, {os.cpu_count()} cores. "
        "The versions of the other packages are in `tests/zoo/requirements.txt`."
    )
    return "\n".join(said)


def write_page(entries: dict[str, Entry]) -> None:
    """Write the page, with whatever results there are."""
    ran = [entry for name, entry in entries.items() if read(name, "ours")]
    timed = any("seconds" in read(entry.name, "stock") for entry in ran)
    columns = [name for name in COLUMNS if timed or name not in TIMES]
    explained = [f"- **{name}**: {EXPLANATIONS[name]}" for name in columns if name in EXPLANATIONS]
    heading = [table_row(columns), f"|{'---|' * len(columns)}"]
    parts = [INTRODUCTION, "\n".join(explained), summary(ran)]
    for kind, title in TITLES.items():
        rows = [row(entry, columns) for entry in ran if entry.kind == kind]
        if rows:
            parts.append("\n".join([f"## {title}\n", *heading, *rows]))
    PAGE.write_text("\n\n".join(part.strip() for part in parts) + "\n")
