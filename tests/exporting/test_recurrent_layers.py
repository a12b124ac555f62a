"""Recurrent layers over sequences of any length: the same values as eager."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import aoti
from aoti.exporting.build.threads import multiplications
from aoti.exporting.capture.recurrent_layers import WholeSequences

pytestmark = [  # of torch
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
    pytest.mark.filterwarnings("ignore:The tensor attributes"),
]

SHAPES = [(1, 1), (2, 3), (7, 30), (80, 2)]  # batch, steps


class Layers(nn.Module):
    """Layers of all kinds, of sequences and states from the call."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 20, 2, bidirectional=True, batch_first=True, dropout=0.1)
        self.projected = nn.LSTM(8, 20, proj_size=5, bidirectional=True)
        self.gru = nn.GRU(8, 20, 2, bidirectional=True)
        self.stated = nn.GRU(8, 16, batch_first=True, bias=False)
        self.tanh = nn.RNN(8, 16)
        self.relu = nn.RNN(8, 100, nonlinearity="relu", bias=False, batch_first=True)

    def forward(self, x, hidden):
        turned = x.transpose(0, 1)
        return {
            "lstm": self.lstm(x),
            "projected": self.projected(turned),
            "gru": self.gru(turned),
            "stated": self.stated(x, hidden),
            "tanh": self.tanh(turned),
            "relu": self.relu(x),
            "unbatched": self.gru(x[0]),
            "followed": torch.tanh(self.tanh(turned)[0]) * 2,
        }


def given(batch, steps):
    torch.manual_seed(batch)
    return torch.randn(batch, steps, 8), torch.randn(1, batch, 16)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Layers().eval()


@pytest.fixture(scope="module")
def package(module, tmp_path_factory):
    path = tmp_path_factory.mktemp("recurrent") / "layers.pt2"
    shapes = {"x": {0: "batch", 1: "steps"}, "hidden": {1: "batch"}}
    aoti.export(module, given(3, 5), path=path, dynamic_shapes=shapes)
    return path


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", ["native", "libtorch"])
def test_a_package_computes_the_same_for_any_batch_and_length(module, package, engine, threads):
    with aoti.load(package, engine=engine, intra_op_threads=threads) as model:
        for shape in SHAPES:
            arguments = given(*shape)
            with torch.no_grad():
                assert_same(model(*arguments), module(*arguments))


def test_the_loader_of_pytorch_computes_the_same(module, package):
    stock = torch._inductor.aoti_load_package(str(package))
    for shape in SHAPES:
        arguments = given(*shape)
        with torch.no_grad():
            assert_same(stock(*arguments), module(*arguments))


def test_layers_are_replaced_by_operators_of_the_same_values(module):
    for shape in SHAPES:
        arguments = given(*shape)
        with torch.no_grad():
            with WholeSequences():
                actual = module(*arguments)
            assert_same(actual, module(*arguments))


def test_layers_of_other_dtypes_are_left_alone():
    layer = nn.GRU(8, 16).double().eval()
    x = torch.randn(5, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        with WholeSequences():
            actual = layer(x)
        torch.testing.assert_close(actual, layer(x), rtol=0, atol=0)


def test_their_multiplications_are_counted():
    with WholeSequences():
        program = torch.export.export(nn.LSTM(8, 16).eval(), (torch.randn(5, 3, 8),))
    assert multiplications(program) == 5 * 3 * 4 * 16 * (8 + 16)
