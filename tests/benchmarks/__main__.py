"""All benchmarks whose figures the README shows, as one page and one picture.

usage: OMP_NUM_THREADS=1 python -m tests.benchmarks [--output build/benchmarks] [--quick]

Writes OUTPUT/benchmarks.md and benchmarks.svg, and what they are made from as benchmarks.json. It
needs what engines.py needs, and matplotlib: tools/benchmark installs it all. Packages are exported
first, unless they are there. It takes half an hour, on a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import cold_start  # noqa: E402
import engines  # noqa: E402
import load  # noqa: E402

from aoti.bench.environment import this_machine  # noqa: E402
from aoti.bench.report.markdown import table  # noqa: E402
from aoti.bench.report.plot import bars, figure_of, save  # noqa: E402
from aoti.bench.report.tables import Grid  # noqa: E402
from aoti.bench.report.units import digits, duration  # noqa: E402
from aoti.bench.settings import Settings  # noqa: E402

# By their names in packages: what the columns are called, and in what order they come.
ENGINES = {
    "aoti": "aoti",
    "aoti {name}-stock.pt2": "aoti, PyTorch's export",
    "stock": "PyTorch's loader",
    "eager": "eager",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
TITLES = {
    "minilm": "MiniLM-L6",
    "silero": "Silero VAD",
    "residual": "residual network, 32x32",
    "keyword": "keyword spotter",
}
DRAWN = ("minilm", "silero")


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """All figures, as JSON has them."""
    minilm = str(engines.exported(directory, "minilm", "portable"))
    packages = directory / "packages"
    if not (packages / "done").exists():
        packages.mkdir(exist_ok=True)
        script = [sys.executable, "-W", "ignore", HERE.parent / "packages.py", packages]
        subprocess.run(script, check=True)
        (packages / "done").touch()
    mlp = str(packages / "mlp.pt2")
    rows, tokens = str(directory / "rows.npz"), str(directory / "tokens.npz")
    np.savez(rows, np.ones((1, 10), np.float32))
    ids = np.arange(1000, 1032).reshape(2, 16)
    np.savez(tokens, ids, np.ones_like(ids))
    repeats, rounds = (1, 3) if quick else (7, 300)
    calls = [sys.executable, HERE / "calls.py", packages, "--rounds", str(rounds), "--json"]
    settings = Settings(threads=1, **({"duration": 0.2, "rounds": 2, "warmup": 0} if quick else {}))
    names = ["minilm"] if quick else list(TITLES)
    return {
        "machine": str(this_machine()),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "starts": {
            "a 10-16-1 network": cold_start.compare(mlp, rows, repeats),
            "MiniLM-L6": cold_start.compare(minilm, tokens, repeats),
        },
        "calls": json.loads(subprocess.run(calls, check=True, stdout=subprocess.PIPE).stdout),
        "loads": load.compare(minilm, tokens, mlp, repeats),
        "models": {
            name: engines.compare(name, directory, settings, ("portable", "stock")).to_dict()
            for name in names
        },
    }


def starts(figures: Mapping[str, Any]) -> Grid:
    """From a fresh process to the first result."""
    rows = []
    for model, found in figures["starts"].items():
        ours = found["aoti, warm cache"]["seconds"]
        for name, figure in found.items():
            cells = duration(figure["seconds"] * 1e3), f"{figure['megabytes']:.0f} MB"
            rows.append([f"{model}: {name}", *cells, f"{figure['seconds'] / ours:.1f}"])
    return Grid(["from a fresh process to the first result", "time", "peak memory", "times"], rows)


def calls(figures: Mapping[str, Any]) -> Grid:
    """What a call costs, and what threads bring."""
    found = figures["calls"]
    return Grid(["a 10-16-1 network", ""], [[name, digits(v)] for name, v in found.items()])


def loads(figures: Mapping[str, Any]) -> Grid:
    """Load time and memory."""
    found = figures["loads"]
    names = sorted({name.removeprefix("aoti ") for name in found if name.startswith("aoti ")})
    rows = [[name, *(digits(found[f"{who} {name}"]) for who in load.LOADERS)] for name in names]
    return Grid(["MiniLM-L6, in a process that runs models", "aoti", "PyTorch's loader"], rows)


def models(figures: Mapping[str, Any]) -> Grid:
    """Calls of whole models on all engines."""
    rows = []
    for name, report in figures["models"].items():
        labels = {label.format(name=name): label for label in ENGINES}
        for number, case in enumerate(report["cases"]):
            found = {
                labels[m["engine"]]: m
                for m in report["measurements"]
                if m["case"] == number and m["engine"] in labels
            }
            cells = [
                f"{duration(m['latency_ms']['median'])} ±{m['spread']:.0%}" if m else "-"
                for m in map(found.get, ENGINES)
            ]
            rows.append([_title(name, case), *cells])
    return Grid(["one thread", *ENGINES.values()], rows)


def page(figures: Mapping[str, Any]) -> str:
    """The tables, with date and machine."""
    versions = {
        name: version
        for report in figures["models"].values()
        for engine in report["engines"]
        for name, version in engine["versions"].items()
    }
    skipped = {
        f"{skipped['label']}: {skipped['reason']}"
        for report in figures["models"].values()
        for skipped in report["skipped"]
    }
    facts = [
        f"{figures['date']}, by `tools/benchmark`.",
        f"{figures['machine']}.",
        ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".",
        "Engines take turns; times are medians, ± is half the range of the rounds.",
        *(f"Not run: {reason}." for reason in sorted(skipped)),
    ]
    grids = map(table, (starts(figures), calls(figures), loads(figures), models(figures)))
    return "\n\n".join(["# Benchmarks", *grids, "\n".join(f"- {fact}" for fact in facts)]) + "\n"


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """A panel of bars for the starts, and one for each of the models that are drawn."""
    start = figures["starts"]["MiniLM-L6"]
    panels: list[tuple[str, Sequence[str], Sequence[float]]] = [
        (
            "MiniLM-L6, process start to first result",
            [name.replace("torch", "PyTorch's loader") for name in start],
            [figure["seconds"] * 1e3 for figure in start.values()],
        )
    ]
    for name, report in figures["models"].items():
        if name not in DRAWN:
            continue
        labels = {label.format(name=name): shown for label, shown in ENGINES.items()}
        found = [m for m in report["measurements"] if m["case"] == 0 and m["engine"] in labels]
        panels.append(
            (
                f"{_title(name, report['cases'][0])}, one thread",
                [labels[m["engine"]] for m in found],
                [m["latency_ms"]["median"] for m in found],
            )
        )
    most = max(len(names) for _, names, _ in panels)
    figure, axes = figure_of(len(panels), most, f"{figures['date']}; {figures['machine']}")
    for panel, (title, names, values) in zip(axes, panels, strict=True):
        bars(panel, title, names, values)
    save(figure, str(path), "svg")


def _title(name: str, case: Mapping[str, Any]) -> str:
    sizes = "x".join(map(str, case["sizes"].values()))
    return f"{TITLES[name]} {sizes}".strip()


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build/benchmarks")
    parser.add_argument("--quick", action="store_true", help="a try, whose figures say nothing")
    parser.add_argument("--again", action="store_true", help="write anew what was measured before")
    arguments = parser.parse_args()
    directory: Path = arguments.output
    directory.mkdir(parents=True, exist_ok=True)
    raw = directory / "benchmarks.json"
    if not arguments.again:
        raw.write_text(json.dumps(measure(directory, quick=arguments.quick), indent=1))
    figures = json.loads(raw.read_text())
    (directory / "benchmarks.md").write_text(page(figures))
    draw(figures, directory / "benchmarks.svg")
    print(page(figures))


if __name__ == "__main__":
    main()
