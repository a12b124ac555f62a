"""Recurrent layers over sequences of any length: the same values as eager."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import aoti
from aoti.exporting.build.threads import multiplications
from aoti.exporting.capture.recurrent_layers import whole_sequences

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


class Packed(nn.Module):
    """Layers of sequences of several lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 20, 2, bidirectional=True, batch_first=True)
        self.projected = nn.LSTM(8, 20, proj_size=5, bidirectional=True)
        self.gru = nn.GRU(8, 16)
        self.relu = nn.RNN(8, 16, nonlinearity="relu", bidirectional=True)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        turned = pack_padded_sequence(x.transpose(0, 1), lengths, enforce_sorted=False)
        lstm, states = self.lstm(packed)
        projected, _ = self.projected(turned)
        gru, hidden = self.gru(packed, torch.ones(1, x.shape[0], 16))
        return {
            "lstm": pad_packed_sequence(lstm, batch_first=True),
            "states": states,
            "projected": pad_packed_sequence(projected),
            "gru": pad_packed_sequence(gru, padding_value=-1.0, total_length=x.shape[1]),
            "hidden": hidden,
            "relu": self.relu(turned)[1],
        }


def given(batch, steps):
    torch.manual_seed(batch)
    return torch.randn(batch, steps, 8), torch.randn(1, batch, 16)


def with_lengths(batch, steps):
    torch.manual_seed(batch)
    return torch.randn(batch, steps, 8), torch.randint(1, steps + 1, (batch,))


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Layers().eval()


@pytest.fixture(scope="module")
def packed():
    torch.manual_seed(0)
    return Packed().eval()


@pytest.fixture(scope="module")
def package(module, packed, tmp_path_factory):
    path = tmp_path_factory.mktemp("recurrent") / "layers.pt2"
    x = {0: "batch", 1: "steps"}
    models = {
        "model": (module, given(3, 5), {}, {"x": x, "hidden": {1: "batch"}}),
        "packed": (packed, with_lengths(3, 5), {}, {"x": x, "lengths": {0: "batch"}}),
    }
    aoti.export(models, path=path)
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


@pytest.mark.parametrize("engine", ["native", "libtorch"])
def test_packed_sequences_of_any_lengths(packed, package, engine):
    with aoti.load(package, model_name="packed", engine=engine) as model:
        for shape in SHAPES:
            arguments = with_lengths(*shape)
            with torch.no_grad():
                assert_same(model(*arguments), packed(*arguments))
        with pytest.raises(aoti.ExecutionError):
            model(torch.randn(2, 3, 8), torch.tensor([2, 5]))


def test_a_packed_sequence_that_is_used_as_a_tensor_is_refused(tmp_path):
    class Doubled(nn.Module):
        def forward(self, x, lengths):
            return torch.relu(pack_padded_sequence(x, lengths, enforce_sorted=False).data)

    with pytest.raises(
        aoti.ExportError, match=r"packed sequence can be passed to .*: not to 'relu'"
    ):
        aoti.export(Doubled(), with_lengths(3, 3), path=tmp_path / "model.pt2")


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
            with whole_sequences():
                actual = module(*arguments)
            assert_same(actual, module(*arguments))


def test_layers_of_other_dtypes_are_left_alone():
    layer = nn.GRU(8, 16).double().eval()
    x = torch.randn(5, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        with whole_sequences():
            actual = layer(x)
        torch.testing.assert_close(actual, layer(x), rtol=0, atol=0)


def test_their_multiplications_are_counted():
    with whole_sequences():
        program = torch.export.export(nn.LSTM(8, 16).eval(), (torch.randn(5, 3, 8),))
    assert multiplications(program) == 5 * 3 * 4 * 16 * (8 + 16)
