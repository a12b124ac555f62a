"""Files without an end, or of more than the model takes: an error, soon and in little memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import aoti
from aoti.cli.io.array_files import read_inputs, read_sources
from aoti.cli.io.input_stream import in_lines

SMALL = [aoti.TensorSpec("x", "float32", (aoti.Dim("batch", 1, 64), 10))]
UNKNOWN = [aoti.TensorSpec("x", "float32", (aoti.Dim("batch"), 10))]
KINDS = [".json", ".npy", ".npz", ".safetensors"]
HUGE = {"descr": "<f4", "fortran_order": False, "shape": (1 << 38, 1)}  # a terabyte


@pytest.fixture(autouse=True)
def little_memory():
    """Reading may take 4 GiB of addresses more than there are now, and no more."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize(("kind", "specs"), [*((kind, SMALL) for kind in KINDS), (".npy", UNKNOWN)])
def test_a_device_without_an_end_is_refused(tmp_path, kind, specs):
    if kind == ".safetensors":
        pytest.importorskip("safetensors")
    source = tmp_path / f"x{kind}"
    source.symlink_to("/dev/zero")
    with pytest.raises(aoti.InputError, match=rf"cannot read {source}: it has more than .* MB"):
        read_sources([f"x={source}"], specs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("specs", [SMALL, UNKNOWN, None], ids=["small", "unknown", "undescribed"])
def test_a_sparse_file_of_a_terabyte_is_refused(tmp_path, kind, specs):
    if kind == ".safetensors":
        pytest.importorskip("safetensors")
    source = tmp_path / f"x{kind}"
    with source.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, HUGE)
        file.truncate(1 << 40)
    with pytest.raises(aoti.InputError, match=rf"cannot read {source}: it has more than .* MB"):
        read_inputs(str(source), specs)


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path):
    source = tmp_path / "x.npz"
    np.savez_compressed(source, np.zeros((1 << 20, 10), np.float32))
    assert source.stat().st_size < 1 << 20
    with pytest.raises(aoti.InputError, match="more than the model's inputs take"):
        read_inputs(str(source), SMALL)


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    source = tmp_path / "x.npy"
    with source.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, HUGE)
    with pytest.raises(aoti.InputError, match=f"cannot read {source}: it does not fit into memory"):
        read_inputs(str(source), SMALL)


@pytest.mark.parametrize("specs", [SMALL, UNKNOWN], ids=["small", "unknown"])
def test_a_line_without_an_end_is_refused(tmp_path, specs):
    source = tmp_path / "x.jsonl"
    source.symlink_to("/dev/zero")
    with pytest.raises(aoti.InputError, match=rf"cannot read {source}: it has more than .* MB"):
        list(in_lines(str(source), specs))


def test_an_endless_standard_input_is_refused(packages):
    program = "from aoti.cli.group import main; main()"
    command = [sys.executable, "-c", program, "infer", packages / "mlp.pt2", "-i", "-"]
    with Path("/dev/zero").open() as zeros:
        process = subprocess.run(command, stdin=zeros, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("aoti: cannot read -: it has more than ")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_a_pipe_is_read_to_its_end(tmp_path, kind):
    array, pipe = np.arange(20, dtype=np.float32).reshape(2, 10), tmp_path / f"x{kind}"
    if kind == ".npz":
        np.savez(tmp_path / "file", array)
    else:
        np.save(tmp_path / "file", array)
    content = (tmp_path / f"file{kind}").read_bytes()
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    (back,) = read_inputs(str(pipe), SMALL)
    writer.join()
    np.testing.assert_array_equal(back, array)


def test_an_input_may_be_as_large_as_the_model_takes(tmp_path):
    array = np.linspace(0, 1, 640, dtype=np.float64).reshape(64, 10)
    (tmp_path / "x.json").write_text(str({"data": array.tolist()}).replace("'", '"'))
    (back,) = read_inputs(str(tmp_path / "x.json"), SMALL)
    np.testing.assert_array_equal(back, array.astype(np.float32))
