"""`flex_attention`: a package gives what eager gives, on any number of threads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import aoti

torch = pytest.importorskip("torch")

from torch.nn.attention.flex_attention import flex_attention  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
from exporter_packages import attention_inputs  # noqa: E402


@pytest.mark.parametrize("threads", [1, 32])
def test_attention_is_that_of_eager_on_any_number_of_threads(exporter_packages, threads):
    inputs = attention_inputs()
    with aoti.load(exporter_packages / "attention.pt2", intra_op_threads=threads) as model:
        for _ in range(20):
            for found, (query, key, value) in zip(model(inputs), inputs, strict=True):
                expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
                torch.testing.assert_close(found, expected)


class Attention(torch.nn.Module):
    """Attention of many queries and of one, for which Inductor has another template."""

    def forward(self, q, k, v):
        def nearer(score, _batch, _head, i, j):
            return score - (i - j).abs() * 0.1

        return flex_attention(q, k, v, score_mod=nearer), flex_attention(q[:, :, :1], k, v)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("attention") / "attention.pt2"
    example = tuple(torch.ones(2, 3, 40, 16) for _ in range(3))
    threads = {"cpp.threads": 16, "cpp.dynamic_threads": True}
    return aoti.export(Attention(), example, path=path, options=threads).path


@pytest.mark.parametrize("engine", ["native", "libtorch"])
@pytest.mark.parametrize("threads", [1, 32])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # of torch
def test_attention_runs_on_both_engines(package, engine, threads):
    q, k, v = (torch.randn(2, 3, 40, 16) for _ in range(3))
    positions = torch.arange(40)
    bias = -0.1 * (positions[:, None] - positions).abs()
    attention = torch.nn.functional.scaled_dot_product_attention
    expected = attention(q, k, v, attn_mask=bias), attention(q[:, :, :1], k, v)
    with aoti.load(package, engine=engine, intra_op_threads=threads) as model:
        for found, wanted in zip(model(q, k, v), expected, strict=True):
            torch.testing.assert_close(found, wanted)
