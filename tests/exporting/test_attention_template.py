"""`flex_attention`: a package gives what eager gives, on any number of threads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import aoti

torch = pytest.importorskip("torch")

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
