"""Ranges of index inputs: found by following them through the exported graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from aoti.exporting.capture.containers import simplify
from aoti.exporting.describe.program_signature import describe_program, names_of_symbols
from aoti.signature.document import read_signature, write_signature

INDEX = torch.zeros(4, dtype=torch.long)
TABLE = torch.zeros(5, 3)


class Model(nn.Module):
    """A function as a module, with a table of ten rows to look up."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("table", torch.zeros(10, 4))

    def forward(self, i, x):
        return self.function(self.table, i, x)


def signature_of(function, i=INDEX, x=TABLE, shapes=None):
    module = Model(function)
    program = torch.export.export(module, (i, x), dynamic_shapes=shapes)
    return describe_program(simplify(program), names_of_symbols(program, ((i, x), {}), shapes))


def found(function, **options):
    """The values that the index may have, and whether there are uses that were not understood."""
    signature = signature_of(function, **options)
    values = signature.inputs[0].values
    return values and tuple(map(str, values)), signature.unchecked_indices


F = nn.functional
ZEROS = torch.zeros(4, 4)


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda t, i, x: F.embedding(i, t), 0, 9),
        (lambda t, i, x: F.embedding(i, t, padding_idx=0), 0, 9),
        (lambda t, i, x: F.embedding_bag(i, t, i * 0), 0, 9),
        (lambda t, i, x: t[i], -10, 9),
        (lambda t, i, x: t.t()[:, i], -10, 9),
        (lambda t, i, x: t[i, 0], -10, 9),
        (lambda t, i, x: t.index_select(0, i), 0, 9),
        (lambda t, i, x: t.index_select(1, i), 0, 3),
        (lambda t, i, x: t.gather(0, i.view(1, 4)), 0, 9),
        (lambda t, i, x: t.gather(-1, i.view(1, 4)), 0, 3),
        (lambda t, i, x: torch.take_along_dim(t, i.view(1, 4), 1), -4, 3),
        (lambda t, i, x: t.take(i), -40, 39),
        (lambda t, i, x: t.scatter(0, i.view(1, 4), 1.0), 0, 9),
        (lambda t, i, x: t.scatter_add(0, i.view(1, 4), t), 0, 9),
        (lambda t, i, x: t.index_add(0, i, ZEROS), 0, 9),
        (lambda t, i, x: t.index_copy(0, i, ZEROS), 0, 9),
        (lambda t, i, x: t.index_put((i,), ZEROS), -10, 9),
        (lambda t, i, x: t.index_fill(0, i, 1.0), 0, 9),
        (lambda t, i, x: t.index_reduce(0, i, ZEROS, "amax"), 0, 9),
        (lambda t, i, x: t.put(i, ZEROS[0]), -40, 39),
        (lambda t, i, x: t.put(i, ZEROS[0], accumulate=True), -40, 39),
        (lambda t, i, x: t[t[:, 0] > 0, i[:1].clamp(0, 0)].sum() + t[i], -10, 9),
        (lambda t, i, x: t[None][t[None, :, 0] > 0].sum() + t[i], -10, 9),
        (lambda t, i, x: F.one_hot(i, 4), 0, 3),
        (lambda t, i, x: F.multi_margin_loss(t[:4], i), 0, 3),
        # Through what keeps every value, and the tables' intersection.
        (lambda t, i, x: t[i.view(2, 2).t().unsqueeze(0).expand(3, 2, 2).clone()], -10, 9),
        (lambda t, i, x: t[i.flip(0).repeat(2)] , -10, 9),
        (lambda t, i, x: F.embedding(i.to(torch.int32), t), 0, 9),
        (lambda t, i, x: (t[i], x[i]), -5, 4),
        (lambda t, i, x: (F.embedding(i, t), x[i]), 0, 4),
        (lambda t, i, x: (x.gather(0, i.view(1, 4)[:, :3] * 0), t[i]), -10, 9),
    ],
)  # fmt: skip
def test_what_indexes_has_a_range(function, low, high):
    values, _ = found(function)
    assert values == (str(low), str(high))


@pytest.mark.parametrize(
    "function",
    [
        lambda t, i, x: t * i.sum(),
        lambda t, i, x: t * (i > 0).any(),
        lambda t, i, x: t[torch.argmax(x, 1)] + i.sum(),
        lambda t, i, x: t[i.clamp(0, 9)],
        lambda t, i, x: t[i.clamp(2, 5).view(2, 2)],
        lambda t, i, x: F.one_hot(i.clamp(0, 3), 4),
    ],
)
def test_what_does_not_index_has_no_range(function):
    assert found(function) == (None, ())


@pytest.mark.parametrize(
    "function",
    [
        lambda t, i, x: t[i + 1],
        lambda t, i, x: t[i[:2]],
        lambda t, i, x: t[torch.where(i == -100, 0, i)],
        lambda t, i, x: t[i.clamp(0, 10)],
        lambda t, i, x: t[i.clamp(-1, 9)],
        lambda t, i, x: t[i.cumsum(0)],
    ],
)
def test_what_cannot_be_told_is_named(function):
    assert found(function) == (None, ("i",))


@pytest.mark.parametrize(
    "function",
    [
        lambda t, i, x: F.cross_entropy(t[:4], i),
        lambda t, i, x: F.cross_entropy(t[:4], i, ignore_index=1),
        lambda t, i, x: F.cross_entropy(t[:4], i, weight=t[0], label_smoothing=0.1),
        lambda t, i, x: F.cross_entropy(t[0], i[0]),
        lambda t, i, x: F.nll_loss(t[:4], i),
        lambda t, i, x: F.nll_loss(t[:4], i, t[0], reduction="none"),
        lambda t, i, x: F.nll_loss(t[:8].view(1, 4, 2, 4), torch.stack([i, i])[None]),
        lambda t, i, x: F.nll_loss(t[:8].view(4, 4, 2), torch.stack([i, i], 1)),
        lambda t, i, x: F.multilabel_margin_loss(t[0], i),
        lambda t, i, x: F.multilabel_margin_loss(t[:4], i.expand(4, 4)),
        lambda t, i, x: F.max_unpool1d(t[:, :2], i[:2].expand(10, 2), 2),
        lambda t, i, x: F.max_unpool2d(t[None, :2, :2], i.view(1, 2, 2), 2),
        lambda t, i, x: F.max_unpool3d(t[None, None, :2, :2], i.view(1, 1, 2, 2), 2),
        lambda t, i, x: t[i.sort()[0]],
        lambda t, i, x: t[i.topk(2)[0]],
        lambda t, i, x: t[i.chunk(2)[0]],
        lambda t, i, x: t[torch.stack([i, i])],
        lambda t, i, x: t[i.float().exp().long()],
        lambda t, i, x: t[t[:, 0] > 0, i.cumsum(0)[:1]],
        lambda t, i, x: t[(i > 0).cumsum(0)],
    ],
)
def test_every_other_use_as_an_index_is_reported(function):
    assert "i" in found(function)[1]


@pytest.mark.parametrize(
    "function",
    [
        lambda t, i, x: t[x[:, 0].long()],
        lambda t, i, x: F.embedding(x.round().to(torch.int32), t),
        lambda t, i, x: t.gather(0, (x[:1] * 3).int().long()),
    ],
)
def test_a_float_input_may_index(function):
    assert found(function) == (None, ("x",))


@pytest.mark.parametrize(
    "function",
    [
        lambda t, i, x: t[x.topk(2, 0)[1]],
        lambda t, i, x: t[x.sort(0)[1]],
        lambda t, i, x: t[x.max(1)[1]],
        lambda t, i, x: t[torch.bucketize(x, t[0])],
        lambda t, i, x: t[torch.searchsorted(t[0], x)],
        lambda t, i, x: t[(x > 0).long()],
        lambda t, i, x: F.max_pool2d(x[None], 2, return_indices=True),
        lambda t, i, x: (i.sum(), i.sort()[0], i.float() @ t[:4], torch.cat([i, i])),
        lambda t, i, x: (i.amax(), i.prod(), i.cumsum(0), i.roll(1), i.unique(), i @ i),
        lambda t, i, x: (torch.where(i > 0, t[:4, 0], 0), F.pad(i, (1, 1)), torch.isin(i, i)),
        lambda t, i, x: x.masked_fill(i[0] > 0, 1.0) + i.view(4)[:3],
    ],
)
def test_positions_and_numbers_need_no_range(function):
    assert found(function) == (None, ())


def test_a_function_of_a_condition_may_index():
    def function(t, i, x):
        return torch.cond(x.sum() > 0, lambda t, i: t[i], lambda t, i: t[i] * 2, (t, i))

    def plain(t, i, x):
        return torch.cond(x.sum() > 0, lambda t, i: t + i, lambda t, i: t * i, (t, i))

    assert "i" in found(function)[1]
    assert found(plain) == (None, ())


def test_tables_may_be_inputs_of_dynamic_size():
    shapes = {"i": None, "x": {0: Dim("rows", min=2, max=100)}}
    assert found(lambda t, i, x: x[i], shapes=shapes) == (("-1*(rows)", "(rows) - 1"), ())
    values, unchecked = found(lambda t, i, x: (x[i], t[i]), shapes=shapes)
    assert unchecked == ("i",)
    assert values is not None


def _messages(x, source, target):
    return torch.zeros_like(x).index_add(0, target, x[source])


def _with_loops(x, edges):
    loops = torch.arange(x.shape[0])
    edges = torch.cat([edges, loops.unsqueeze(0).repeat(2, 1)], 1)
    return _messages(x, edges[0], edges[1])


EDGES = torch.zeros(2, 7, dtype=torch.long)
ALL, NOT_NEGATIVE = ("-1*(n)", "(n) - 1"), ("0", "(n) - 1")


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (lambda t, i, x: x[i], ALL),
        (lambda t, i, x: x[i[0]] + x[i[1]], ALL),
        (lambda t, i, x: x[i[0]] + x[i[-1]], ALL),
        (lambda t, i, x: x[i.t()[:, 0]] + x[i.permute(1, 0)[:, 1]], ALL),
        (lambda t, i, x: torch.zeros_like(x).index_put((i[1],), x[i[0]], accumulate=True), ALL),
        (lambda t, i, x: _messages(x, *i), NOT_NEGATIVE),
        (lambda t, i, x: _messages(x, *i.to(torch.int32).unbind(0)), NOT_NEGATIVE),
        (lambda t, i, x: _messages(x, i[1].clone(), i[0].view(-1)), NOT_NEGATIVE),
        (lambda t, i, x: x.scatter_add(0, i[1][:, None].expand(-1, 3), x[i[0]]), NOT_NEGATIVE),
        (lambda t, i, x: x.index_select(0, i[0]) + x.gather(0, i[1:].t()), None),
        (lambda t, i, x: _with_loops(x, i), NOT_NEGATIVE),
        (
            lambda t, i, x: x.new_zeros(x.shape[0], 3)
            .scatter_reduce(0, i[1].view(-1, 1).expand_as(x[i[0]]), x[i[0]], "amax"),
            NOT_NEGATIVE,
        ),
    ],
)  # fmt: skip
def test_edges_of_a_graph_are_nodes_of_it(function, values):
    shapes = {"i": {1: Dim("e", min=1, max=99)}, "x": {0: Dim("n", min=1, max=100)}}
    known, unchecked = found(function, i=EDGES, shapes=shapes)
    assert known == values
    assert unchecked == (() if values else ("i",))


@pytest.mark.parametrize(
    "function",
    [
        lambda t, i, x: x[i[0]],
        lambda t, i, x: x[i[0]] * i[1][:, None],
        lambda t, i, x: x[i[0]] + t[i[1], :3],
        lambda t, i, x: x[i[0] + 1] + x[i[1]],
        lambda t, i, x: x[i[:, 0]] + x[i[:, 1]],
        lambda t, i, x: x[i.flip(0)[0]] + x[i[1]],
        lambda t, i, x: x[torch.cat([i[0], torch.arange(t.shape[0])])] + x[i[1]].sum(),
    ],
)
def test_parts_that_index_alone_or_other_tables_are_reported(function):
    shapes = {"i": {1: Dim("e", min=2, max=99)}, "x": {0: Dim("n", min=1, max=100)}}
    assert "i" in found(function, i=EDGES, shapes=shapes)[1]


@pytest.mark.parametrize("sizes", [(4, 9), (9, 4)])
def test_columns_that_index_tables_of_two_sizes_have_no_common_range(sizes):
    first, second = map(torch.ones, sizes)
    shapes = {"i": {0: Dim("rows", min=1, max=99)}, "x": None}
    known, unchecked = found(
        lambda t, i, x: first[i[:, 0]] + second[i[:, 1]], i=EDGES.t(), shapes=shapes
    )
    assert known is None
    assert unchecked == ("i",)


def test_a_range_that_is_counted_indexes_as_far_as_it_goes():
    shapes = {"i": None, "x": {0: Dim("n", min=3, max=100)}}
    assert found(lambda t, i, x: x[torch.arange(x.shape[0])], shapes=shapes) == (None, ())
    assert found(lambda t, i, x: x[torch.arange(1, x.shape[0])], shapes=shapes) == (None, ())
    assert found(lambda t, i, x: t[torch.arange(x.shape[0])], shapes=shapes) == (None, ("x",))


def test_masks_and_floats_do_not_index():
    mask = torch.ones(5, dtype=torch.bool)
    assert found(lambda t, i, x: torch.where(i[:, None], x, 0), i=mask) == (None, ())


def test_results_may_have_sizes_of_any_form():
    shapes = {"i": None, "x": {0: 2 * Dim("rows", min=2, max=100)}}

    def function(t, i, x):
        return x[::2], x.reshape(-1, 1).expand(-1, x.shape[0]), x[x[:, 0] > 0]

    signature = signature_of(function, x=torch.zeros(6, 3), shapes=shapes)
    again = read_signature(write_signature(signature), "m.pt2")
    halves, squares, selected = again.outputs
    assert str(halves.shape[0]) == "rows"
    assert str(squares) == "float32 (6*rows, 2*rows)"
    assert str(selected.shape[0]).startswith("u")
