"""The examples of the README and of docs/ run as they stand there.

Blocks of Python run in one process for each document, in their order, with the names of `NAMES`.
Lines of consoles run in a directory with the files that they name. What cannot run here says why.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ELSEWHERE = {  # documents
    "gpu.md": "needs a GPU",
    "benchmarking.md": "measures for minutes",
}
NOT_HERE = {  # commands, by how they begin
    "./tools/": "sets up an environment, builds, or exports MiniLM: minutes; CI runs each of them",
    "pip install": "needs a package index",
    "aoti serve": "serves until it is ended; tests/serving/test_kserve.py runs it",
    "curl": "asks that server",
    "serve deploy": "needs a Ray cluster; tests/serving/test_ray.py has one",
    "python tools/bundle": "tests/tools/test_bundle.py runs it",
    "python3 app/runtime": "tests/tools/test_bundle.py runs it",
    'eval "$(_AOTI_COMPLETE=zsh': "for another shell; tests/cli/test_cache.py has its script",
    "_AOTI_COMPLETE=fish": "for another shell; tests/cli/test_cache.py has its script",
}
NAMES = """
import os, queue
import numpy as np
import aoti
os.environ.pop("AOTI_CACHE_DIR")  # a file of settings may name one
__name__ = "example"
ids, mask = np.load("ids.npy"), np.load("mask.npy")
metrics, x = queue.SimpleQueue(), np.zeros((1, 10), np.float32)
"""


@dataclass
class Block:
    """A fenced block of a document."""

    language: str
    line: int
    text: str

    @property
    def file(self) -> str | None:
        """The name in the comment that a file begins with."""
        match = re.match(r"# (\w+\.py)\n", self.text)
        return match and match[1]

    @property
    def exports(self) -> bool:
        return "aoti.export(" in self.text

    @property
    def commands(self) -> list[str]:
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def blocks(path: Path, *languages: str) -> list[Block]:
    tokens = MarkdownIt().parse(path.read_text())
    found = [Block(t.info, t.map[0] + 1, t.content) for t in tokens if t.type == "fence"]
    return [block for block in found if block.language in languages]


def having(*languages: str) -> list[Path]:
    return [path for path in DOCUMENTS if blocks(path, *languages)]


def not_here(command: str) -> str | None:
    return next((why for start, why in NOT_HERE.items() if command.startswith(start)), None)


def once(key: str, name: str, make) -> Path:
    """A package that an example exports, kept as long as example and exporter stay the same."""
    sources = sorted((ROOT / "aoti/exporting").rglob("*.py"))
    content = "".join([key, version("torch"), *(source.read_text() for source in sources)])
    directory = ROOT / "build/packages" / hashlib.sha256(content.encode()).hexdigest()[:16]
    if not (directory / "done").exists():
        directory.mkdir(parents=True, exist_ok=True)
        make(directory)
        (directory / "done").touch()
    return directory / name


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> Path:
    """A directory with the commands that the examples call."""
    directory = tmp_path_factory.mktemp("bin")
    programs = {
        "aoti": f'exec {sys.executable} -c "from aoti.cli.group import main; main()" "$@"',
        "produce": "head -n 50 requests.jsonl",
        "consume": "cat > consumed.jsonl",
    }
    for name, program in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{program}\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture
def run(commands, monkeypatch):
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(command, directory, what):
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{what}\n{done.stdout}{done.stderr}"

    return run


@pytest.fixture
def model(run) -> Path:
    """The package that the README exports, by its example."""
    (block,) = (block for block in blocks(ROOT / "README.md", "python") if block.exports)

    def export(directory):
        run([sys.executable, "-W", "ignore", "-c", block.text], directory, "README.md: the export")

    return once(block.text, "model.pt2", export)


@pytest.fixture
def directory(tmp_path, model, minilm, weight_packages, state, other) -> Path:
    """The files that the examples name."""
    save_file = pytest.importorskip("safetensors.numpy").save_file
    directory = tmp_path / "examples"
    directory.mkdir()
    shutil.copy(model, directory / "model.pt2")
    (directory / "minilm.pt2").symlink_to(minilm)
    shutil.copy(minilm.with_suffix(".npz"), directory)
    arrays = np.load(directory / "minilm.npz")
    np.save(directory / "ids.npy", arrays["input_ids"])
    np.save(directory / "mask.npy", arrays["attention_mask"])
    np.save(directory / "in.npy", np.ones((1, 3), np.float32))
    requests = [{"data": [[1, 2, number]]} for number in range(100)]
    requests[50] = {"data": [[1, 2]]}
    (directory / "requests.jsonl").write_text("\n".join(map(json.dumps, requests)))
    for name, package in (("classifier", "blob"), ("bare", "bare"), ("mlp", "blob")):
        shutil.copy(weight_packages / f"{package}.pt2", directory / f"{name}.pt2")
    save_file(state, directory / "finetuned.safetensors")
    save_file(other, directory / "step-2000.safetensors")
    (directory / "models").mkdir()
    shutil.copy(ROOT / "docs/examples/aoti.toml", directory)
    for document in DOCUMENTS:
        for block in blocks(document, "python"):
            if block.file:
                (directory / block.file).write_text(block.text)
    return directory


@pytest.mark.parametrize("document", having("python"), ids=lambda path: path.name)
def test_the_python_of(document, directory, run):
    if document.name in ELSEWHERE:
        pytest.skip(ELSEWHERE[document.name])
    lines = [""] * len(document.read_text().splitlines())
    for block in blocks(document, "python"):
        if not block.exports:  # which `model` has run
            code = block.text.splitlines()
            lines[block.line : block.line + len(code)] = code
    # Every line where it stands in the document, so that a traceback names it.
    (directory / document.name).write_text("\n".join(lines))
    program = (
        f"names = {{}}; exec({NAMES!r}, names); text = open({document.name!r}).read(); "
        f"exec(compile(text, {document.name!r}, 'exec'), names)"
    )
    run([sys.executable, "-W", "error", "-c", program], directory, document.name)


@pytest.mark.parametrize("document", having("console", "sh"), ids=lambda path: path.name)
def test_the_commands_of(document, directory, run):
    if document.name in ELSEWHERE:
        pytest.skip(ELSEWHERE[document.name])
    found = [c for block in blocks(document, "console", "sh") for c in block.commands]
    if all(map(not_here, found)):
        pytest.skip("; ".join(dict.fromkeys(map(not_here, found))))
    for command in found:
        if not_here(command):
            continue
        shell = ["bash", "-eo", "pipefail", "-c", command]
        if export := re.match(r"aoti export .*-o (\S+)", command):
            text = (directory / "mymodel.py").read_text()

            def make(kept, text=text, shell=shell, command=command):
                (kept / "mymodel.py").write_text(text)
                run(shell, kept, command)

            shutil.copy(once(text + command, export[1], make), directory)
        else:
            run(shell, directory, f"{document.name}: {command}")


def test_every_reason_is_needed():
    found = [
        c for path in DOCUMENTS for block in blocks(path, "console", "sh") for c in block.commands
    ]
    for start in NOT_HERE:
        assert any(command.startswith(start) for command in found), start


def test_no_block_is_of_a_language_that_is_not_run():
    known = {"python", "console", "sh", "json", "toml", ""}
    for path in (path for path in DOCUMENTS if path.name not in ELSEWHERE):
        tokens = MarkdownIt().parse(path.read_text())
        languages = {token.info for token in tokens if token.type == "fence"}
        assert {name for name in languages if not name.startswith("{")} <= known, path


def test_the_server_of_the_guide_answers(directory, run):
    program = """
import asyncio, json
import aoti
from server import Server

async def main(model):
    server = await asyncio.start_server(Server(model).talk, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        for rows in ([[1, 2, 3]], [[1, 2]], "x"):
            writer.write(json.dumps({"data": rows}).encode() + b"\\n")
        answers = [json.loads(await reader.readline()) for _ in range(3)]
        writer.close()
    return answers

with aoti.load("model.pt2") as model:
    good, *bad = asyncio.run(main(model))
assert len(good["outputs"]) == 1, good
assert [answer["status"] for answer in bad] == [400, 400], bad
assert "dimension 1 must be 3, not 2" in bad[0]["error"]
"""
    run([sys.executable, "-W", "error", "-c", program], directory, "serving.md")
