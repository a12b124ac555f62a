"""Kernels of our own, compiled: convolutions of every kind, and what is fused with them."""

from __future__ import annotations

import pytest
import torch

import aoti


@pytest.mark.parametrize("made_for", [1, 16])
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_convolutions_compute_what_eager_does(convolution_packages, made_for, threads):
    path = convolution_packages / f"convolutions-{made_for}.pt2"
    with aoti.load(path, intra_op_threads=threads) as model:
        for image, line, expected in torch.load(convolution_packages / "expected.pth"):
            actual = model(image, line)
            assert actual.keys() == expected.keys()
            for name, values in expected.items():
                assert torch.allclose(actual[name], values, rtol=1e-4, atol=1e-4), name
