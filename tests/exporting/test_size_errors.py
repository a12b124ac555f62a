"""Sizes that a module does not accept: which it accepts, where the code says so, what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

import aoti
from aoti.exporting.capture.dynamic_shapes import named_shapes, parse_size
from aoti.exporting.capture.module_source import Source
from aoti.exporting.capture.trace import trace
from aoti.exporting.describe.size_guards import size_guards


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, y):
        return self.function(x, y)


def traced(function, x, y, shapes, **dims):
    dims = {name: parse_size(f"{name}={value}") for name, value in dims.items()}
    source = Source(Function(function), (torch.ones(x), torch.ones(y)), {}, shapes)
    source.dynamic_shapes = named_shapes(shapes, dims)
    return trace(source, or_static=False, say=lambda _: None)


# By what the module needs: the function, the sizes of x and y, the dynamic shapes, and the two
# lines of the message.
REFUSED = {
    "a multiple": (
        lambda x, y: x.view(-1, 4), 32, 1, {"x": {0: "h=4..64"}, "y": None},
        r"size 'h' must be 4\*_h \(test_size_errors.py:\d+, in <lambda>: lambda x, y: x.view",
        "dims={'h': '4*_h', '_h': '1..16'}, or on the command line --dim h=4*_h --dim _h=1..16",
    ),
    "a multiple of another size": (
        lambda x, y: x + y.repeat_interleave(4), 32, 8, {"x": {0: "h"}, "y": {0: "n"}},
        r"size 'h' must be 4\*n \(test_size_errors.py:\d+",
        "dims={'h': '4*n'}, or on the command line --dim h=4*n",
    ),
    "one more than another size": (
        lambda x, y: x + y[1:], 4, 5, {"x": {0: "h"}, "y": {0: "w"}},
        r"size 'w' must be h\+1", "dims={'w': 'h+1'}",
    ),
    "the same size": (
        lambda x, y: x + y, 4, 4, {"x": {0: "h"}, "y": {0: "w"}},
        "size 'w' must be h", "dims={'w': 'h'}",
    ),
    "a constant": (
        lambda x, y: x.view(8, 4), 32, 1, {"x": {0: "h"}, "y": None},
        r"size 'h' cannot change: the module fixes it at 32 \(test_size_errors.py:\d+",
        "do not declare it as dynamic",
    ),
    "a constant, from another size": (
        lambda x, y: x.view(8, 4), 32, 1, {"x": {0: "2*n"}, "y": None},
        r"size '2\*n' cannot change: the module fixes it at 32", "do not declare it as dynamic",
    ),
    "any size but one": (
        lambda x, y: x + 1 if x.shape[0] != 8 else x, 5, 1, {"x": {0: "b=1..64"}, "y": None},
        r"whole range of size 'b' \(b <= 64\), only sizes with x.shape\[0\] != 8 "
        r"\(test_size_errors.py:\d+, in <lambda>: .*x.shape\[0\] != 8",
        "give it a range in which that always holds; or use torch.export.Dim.AUTO",
    ),
    "larger sizes": (
        lambda x, y: x + 1 if x.shape[0] > 3 else x, 5, 1, {"x": {0: "b=1..64"}, "y": None},
        r"only sizes with 4 <= x.shape\[0\] and x.shape\[0\] <= 64",
        "narrow the range: b in 4..64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_sizes_that_a_module_refuses(name):
    function, x, y, shapes, what, advice = REFUSED[name]
    with pytest.raises(aoti.ExportError) as caught:
        traced(function, x, y, shapes)
    first, second = str(caught.value).splitlines()
    assert first.startswith("cannot trace Function: ")
    caught.match(what)
    assert advice in second


def test_the_advice_works():
    function, x, y, shapes, *_ = REFUSED["a multiple of another size"]
    assert traced(function, x, y, shapes, h="4*n").names
    function, x, y, shapes, *_ = REFUSED["a multiple"]
    assert traced(function, x, y, shapes, h="4*_h", _h="1..16").names
    function, x, y, *_ = REFUSED["any size but one"]
    assert size_guards(traced(function, x, y, {"x": {0: Dim.AUTO}, "y": None}).program)


def test_conditions_that_torch_cannot_prove_are_checked_at_calls(tmp_path):
    def windows(x, y):
        count = x.shape[0] // 20 - 1
        parts = x.unfold(0, 40, 20)
        return (parts + y.sum()) * 2 if count * count > 1 else parts

    shapes = {"x": {0: "length=80..4000"}, "y": None}
    found = traced(windows, 200, 1, shapes)
    assert found.attempts[-1].how == "non-strict with sizes checked at calls"
    assert "must be 20*_length" in found.attempts[0].error
    assert any("// 20" in guard for guard in size_guards(found.program))
    with pytest.raises(aoti.ExportError, match=r"must be 20\*_length"):
        traced(windows, 200, 1, {"x": {0: "length=40..4000"}, "y": None})


def test_conditions_on_two_sizes_are_checked_at_calls(tmp_path):
    def windows(x, y):
        count = x.shape[0] // 20 - 1
        parts = x.unfold(0, 40, 20)
        return parts + y.sum() if count * count > y.shape[0] else parts

    free = {"x": {0: "length=80..4000"}, "y": {0: "n=1..50"}}
    path = tmp_path / "m.pt2"
    aoti.export(Function(windows), (torch.ones(200), torch.ones(3)), path=path, dynamic_shapes=free)
    with aoti.load(path) as model:
        x, y = torch.randn(215), torch.randn(7)
        torch.testing.assert_close(model(x, y), windows(x, y))
        with pytest.raises(aoti.InputError, match="was exported for sizes with"):
            model(torch.ones(80), torch.ones(9))
