"""Kernels of our own, compiled: layers of every kind, and what is fused with them."""

from __future__ import annotations

import pytest
import torch

import aoti

TOLERANCES = {torch.int32: 0.0, torch.bfloat16: 2e-2}


@pytest.mark.parametrize(
    ("layers", "engine"),
    [
        *(("convolutions", "auto"), ("images", "auto"), ("linears", "auto")),
        *(("many_channels", "native"), ("many_channels", "libtorch")),
        *(("narrow", "native"), ("narrow", "libtorch")),  # libtorch does not have the kernels
    ],
)
@pytest.mark.parametrize("made_for", [1, 16])
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_layers_compute_what_eager_does(
    template_packages, layers, engine, made_for, threads
):
    path = template_packages / f"{layers}-{made_for}.pt2"
    with aoti.load(path, engine=engine, intra_op_threads=threads) as model:
        for *given, expected in torch.load(template_packages / f"{layers}.pth"):
            actual = model(*given)
            assert actual.keys() == expected.keys()
            for name, values in expected.items():
                assert actual[name].dtype == values.dtype
                tolerance = TOLERANCES.get(values.dtype, 1e-4)
                assert torch.allclose(actual[name], values, rtol=tolerance, atol=tolerance), name
