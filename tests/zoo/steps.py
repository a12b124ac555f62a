"""The steps of the zoo: what is in build/zoo is not done again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "build/zoo"
SECONDS = 300  # for an export
ENGINES = "native", "libtorch"


def export(names: list[str], *, with_stock: bool) -> None:
    """Export models in one process, and go on in another one after one that ends or hangs."""
    parts = ("ours", "stock") if with_stock else ("ours",)
    command = [sys.executable, "-W", "ignore", str(HERE / "export_models.py")]
    command += ["--stock"] if with_stock else []
    while todo := [(n, p) for n in names for p in parts if not result(n, p).exists()]:
        RESULTS.mkdir(parents=True, exist_ok=True)
        with (
            (RESULTS / "export.log").open("a") as log,
            tempfile.TemporaryDirectory() as scratch,
            subprocess.Popen(
                [*command, *dict.fromkeys(name for name, _ in todo)],
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": scratch, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            ) as process,
        ):
            for name, part in todo:
                said = wait_for(process, result(name, part))
                if said:
                    result(name, part).parent.mkdir(exist_ok=True)
                    result(name, part).write_text(json.dumps({"error": said}))
                    break


def result(name: str, part: str) -> Path:
    """The file with what a step found."""
    return RESULTS / name / f"{part}.json"


def wait_for(process: subprocess.Popen[bytes], path: Path) -> str:
    """Wait until a process writes a file; why it did not, if so."""
    end = time.monotonic() + SECONDS
    while not path.exists():
        if process.poll() is not None and not path.exists():
            return f"the process ended with exit code {process.returncode}"
        if time.monotonic() > end:
            process.kill()
            return f"stopped after {SECONDS} s"
        time.sleep(0.05)
    return ""


def check(name: str) -> None:
    """Compare the package of a model with eager's results, unless that was done."""
    if result(name, "check").exists() or "error" in read(name, "ours"):
        return
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, str(HERE / "check_one.py"), str(RESULTS / name)],
            env={**os.environ, "AOTI_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
    if not result(name, "check").exists():
        said = f"the process ended with exit code {done.returncode}"
        result(name, "check").write_text(json.dumps({"error": said}))


def read(name: str, part: str) -> dict[str, Any]:
    """What a step found; nothing if it did not run."""
    path = result(name, part)
    return json.loads(path.read_text()) if path.exists() else {}


def found(name: str) -> dict[str, dict[str, Any]]:
    """What all steps found: the exports `ours` and `stock`, and a comparison for each engine."""
    compared = read(name, "check")
    parts = {"ours": read(name, "ours"), "stock": read(name, "stock")}
    return parts | {engine: compared.get(engine, compared) for engine in ENGINES}


def line(name: str) -> str:
    """How the steps of a model ended, for people."""
    said = [f"{name:24}"]
    for part, facts in found(name).items():
        figure = f"{facts['seconds']:.1f} s" if "seconds" in facts else "-"
        figure = f"{max(facts['errors'], default=0.0):.1e}" if "errors" in facts else figure
        said.append(f"{part}: {facts.get('error', figure).splitlines()[0][:160]}")
    return "  ".join(said)
