"""What weights cost: memory, in one process and in several."""

from __future__ import annotations

import json
import mmap
import zipfile

import numpy as np
import pytest

import aoti

INDEX = np.zeros(4, np.int64)


def test_a_load_costs_no_copies(weight_packages, anonymous):
    with aoti.load(weight_packages / "table250.pt2") as model:  # now it is in the cache
        assert model(INDEX).tolist() == [512.0] * 4
    before = anonymous()
    with aoti.load(weight_packages / "table250.pt2", warmup=True) as model:
        assert model(INDEX).tolist() == [512.0] * 4
        assert anonymous() - before < 20 << 20


def test_runners_share_large_weights_that_stand_in_the_code(weight_packages, anonymous):
    path = weight_packages / "table8_inside.pt2"
    aoti.load(path).close()

    def grown(runners):
        before = anonymous()
        with aoti.load(path, num_runners=runners, warmup=True) as model:
            assert model(INDEX).tolist() == [512.0] * 4
            return anonymous() - before

    assert grown(8) - grown(1) < 8 << 20


def test_cycles_of_loading_leave_no_memory(weight_packages, anonymous):
    def cycle():
        with aoti.load(weight_packages / "table50.pt2", warmup=True) as model:
            model(INDEX)

    for _ in range(10):
        cycle()
    before = anonymous()
    for _ in range(100):
        cycle()
    assert anonymous() - before < 5 << 20


def test_updates_free_what_they_replace(weight_packages, anonymous):
    weights = {"table": np.ones((50 * 256, 1024), np.float32)}
    with aoti.load(weight_packages / "table50.pt2") as model:
        for _ in range(3):
            model.update_weights(weights)
        before = anonymous()
        for _ in range(10):
            model.update_weights(weights)
        assert anonymous() - before < 5 << 20
        model.load_constants(weights)
        assert before - anonymous() > 40 << 20  # the set to go back to
        model.load_constants(weights, share=True)
        assert before - anonymous() > 90 << 20


# Processes that load a model, or are forked from one that has. Each says how much memory it has,
# and how much of that is the file of weights.
PSS = """
import os, sys, numpy as np, aoti
from pathlib import Path
path, count, fork = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fork"
ready, asked, told, done = os.pipe(), os.pipe(), os.pipe(), os.pipe()
def load():
    return aoti.load(path, intra_op_threads=1, warmup=True)
def pss(model):
    text = Path("/proc/self/smaps").read_text()
    weights = text.partition(str(model.info().weights_file))[2].partition("VmFlags")[0]
    return [sum(int(line.split()[1]) << 10 for line in part.split("\\n") if line[:4] == "Pss:")
            for part in (text, weights)]
def serve():
    model = inherited or load()
    model.weights.populate()  # a fork leaves the pages of shared files out
    model.run([np.zeros(4, np.int64)])
    os.write(ready[1], b"x")
    os.read(asked[0], 1)
    os.write(told[1], "{} {}\\n".format(*pss(model)).encode())
    os.read(done[0], 1)  # another pipe: this must not take what another child waits for
inherited = load() if fork else None
for _ in range(count):
    if os.fork() == 0:
        try:
            serve()
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
for end in (ready[1], told[1], asked[0]):
    os.close(end)
for _ in range(count):
    assert os.read(ready[0], 1)
os.write(asked[1], b"x" * count)
with os.fdopen(told[0]) as lines:
    found = [map(int, next(lines).split()) for _ in range(count)]
    found += [pss(inherited)] if fork else []
    print(*map(sum, zip(*found)))
    os.write(done[1], b"x" * count)
while count:
    count -= os.wait()[1] == 0
"""


def test_processes_share_the_weights(weight_packages, run_python, cache_directory):
    """Proportional memory: a page that n processes share counts a nth for each."""

    def total(*how):
        options = {"AOTI_CACHE_DIR": str(cache_directory), "OMP_NUM_THREADS": "1"}
        path = weight_packages / "table250.pt2"
        return tuple(map(int, run_python(PSS, path, *how, **options).split()))

    with aoti.load(weight_packages / "table250.pt2"):  # now it is in the cache
        pass
    weights = 250 << 20
    assert weights <= total(4, "load")[1] < 1.1 * weights
    # And libtorch, if they were forked from a process that had loaded the model.
    (one, _), (four, _) = total(0, "fork"), total(3, "fork")
    assert weights < one and four < 1.3 * one, (one, four)


def test_two_gigabytes_load_at_once(weight_packages, tmp_path, anonymous):
    """Sparse, so that nothing of it needs to be there: nobody reads it."""
    shape, size = [2048 * 256, 1024], 2048 << 20
    path = tmp_path / "table.safetensors"
    header = json.dumps({"table": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
    header += " " * (-len(header) % 8)  # as the library aligns what follows
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + size)
    before = anonymous()
    with aoti.load(weight_packages / "table2048.pt2", weights=path, map_source=True) as model:
        assert model(INDEX + shape[0] - 1).tolist() == [0.0] * 4
        assert anonymous() - before < 20 << 20


@pytest.mark.slow
def test_two_gigabytes_in_a_package(weight_packages, tmp_path, anonymous):
    size, blob = 2048 << 20, mmap.mmap(-1, 1 << 20)
    source, path = weight_packages / "table2048.pt2", tmp_path / "table.pt2"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
            if name.endswith(".wrapper.so"):
                entry = name.removesuffix(".so") + "_weights.blob"
        with new.open(entry, "w", force_zip64=True) as file:
            for _ in range(size >> 20):
                file.write(blob)
    with aoti.load(path):
        pass
    before = anonymous()
    with aoti.load(path, warmup=True) as model:
        assert model(INDEX).tolist() == [0.0] * 4
        assert anonymous() - before < 20 << 20
