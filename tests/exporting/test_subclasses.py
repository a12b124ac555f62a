"""Weights that are subclasses of tensors: programs without them compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from aoti.exporting.capture.subclasses import with_plain_weights
from aoti.exporting.passes.linears import block_linears


def test_a_program_with_plain_weights_stays_as_it_is():
    program = torch.export.export(nn.Linear(3, 4), (torch.randn(2, 3),))
    assert with_plain_weights(program) is program


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", ["Int8DynamicActivationInt8Weight", "Int8WeightOnly"])
def test_layers_that_torchao_quantises(config, dtype):
    quantization = pytest.importorskip("torchao.quantization")
    module, x = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)), torch.randn(5, 64)
    module, x = module.eval().to(dtype), x.to(dtype)
    quantization.quantize_(module, getattr(quantization, f"{config}Config")())
    program = torch.export.export(module, (x,), dynamic_shapes=({0: Dim("rows", min=1)},))
    plain = with_plain_weights(program)
    assert not any(map(is_traceable_wrapper_subclass, plain.state_dict.values()))
    names = {str(node.target) for node in plain.graph.nodes if node.op == "call_function"}
    assert not any(name.startswith("torchao") for name in names)
    rewritten, report = block_linears(plain)
    assert report == ["2 with weights in blocks"]
    with torch.no_grad():
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(rewritten.module()(x), module(x), rtol=tolerance, atol=tolerance)
