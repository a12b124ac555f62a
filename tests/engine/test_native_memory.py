"""The native engine keeps the memory of large tensors from call to call, and not for longer."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

import numpy as np
import pytest

import aoti

ROWS = np.random.default_rng(0).integers(0, 1000, (8, 128))
MB = 1 << 20


@pytest.fixture
def inputs():
    return {"input_ids": ROWS, "attention_mask": np.ones_like(ROWS)}


def resident() -> int:
    """Bytes of this process that are in memory and belong to no file."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def test_calls_ask_the_system_for_no_memory(minilm, inputs):
    with aoti.load(minilm, engine="native") as model:
        for _ in range(3):
            model(**inputs)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            model(**inputs)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 500  # pages: a call's tensors have thousands


def test_smaller_calls_keep_less(minilm, inputs):
    few = {name: rows[:1, :8] for name, rows in inputs.items()}
    with aoti.load(minilm, engine="native") as model:
        model(**few)
        gc.collect()
        before = resident()
        model(**inputs)
        assert resident() - before > 8 * MB
        for _ in range(200):
            model(**few)
        assert resident() - before < 8 * MB


def test_a_closed_model_keeps_none(minilm, inputs):
    with aoti.load(minilm, engine="native") as model:
        model(**{name: rows[:1, :8] for name, rows in inputs.items()})
    gc.collect()
    before = resident()
    with aoti.load(minilm, engine="native") as model:
        model(**inputs)
    gc.collect()
    assert resident() - before < 8 * MB
