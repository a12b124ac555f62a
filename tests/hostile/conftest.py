"""Runs the rows of the tables, each in a process of its own, one at a time per processor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The tables are modules that the processes import too, so they stand under plain names.
sys.path.insert(0, str(HERE))


class Server:
    """A process that forks one per row."""

    def __init__(self, packages: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "OPENBLAS_NUM_THREADS": "1",  # no threads before the fork
            "OMP_NUM_THREADS": "1",  # as many processes as processors are busy already
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", HERE / "runner.py", packages],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, row: str, directory: Path) -> tuple[str, Path]:
        """Run one row; give the exit status of its process, and the directory that it had."""
        for name in ("tmp", "cache", "files"):
            (directory / name).mkdir()
        self._process.stdin.write(f"{row}\t{directory}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip(), directory

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()


@pytest.fixture(scope="session")
def processes(request, packages, tmp_path_factory) -> Iterator[dict[str, Future]]:
    """The outcomes of all rows that this session runs, under way or waiting their turn."""
    rows = {
        item.callspec.params["row"]
        for item in request.session.items
        if "row" in getattr(getattr(item, "callspec", None), "params", ())
    }
    count = os.cpu_count() or 1
    idle: SimpleQueue[Server] = SimpleQueue()
    servers = [Server(packages) for _ in range(count)]
    for server in servers:
        idle.put(server)

    def run(row: str) -> tuple[str, Path]:
        server = idle.get()
        try:
            return server.run(row, tmp_path_factory.mktemp("row"))
        finally:
            idle.put(server)

    with ThreadPoolExecutor(count) as pool:
        yield {row: pool.submit(run, row) for row in sorted(rows)}
        pool.shutdown(cancel_futures=True)
    for server in servers:
        server.stop()


@pytest.fixture
def passes(processes) -> Callable[[str], None]:
    """Wait for a row's process, and fail if it found something or did not end as it should."""

    def look(row: str) -> None:
        status, directory = processes[row].result()
        said = (directory / "stderr").read_text("utf-8", "replace")
        assert status == "0", f"ended with {status}: {said}"
        assert said == (directory / "stdout").read_text() == ""
        names = ["cache", "files", "stderr", "stdout", "tmp"]
        assert sorted(path.name for path in directory.iterdir()) == names
        assert list((directory / "tmp").iterdir()) == []

    return look
