"""Kernels of our own, compiled: layers of every kind, and what is fused with them."""

from __future__ import annotations

import pytest
import torch

import aoti


@pytest.mark.parametrize("layers", ["convolutions", "images", "linears"])
@pytest.mark.parametrize("made_for", [1, 16])
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_layers_compute_what_eager_does(template_packages, layers, made_for, threads):
    path = template_packages / f"{layers}-{made_for}.pt2"
    with aoti.load(path, intra_op_threads=threads) as model:
        for *given, expected in torch.load(template_packages / f"{layers}.pth"):
            actual = model(*given)
            assert actual.keys() == expected.keys()
            for name, values in expected.items():
                assert torch.allclose(actual[name], values, rtol=1e-4, atol=1e-4), name
