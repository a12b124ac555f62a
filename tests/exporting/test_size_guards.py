"""What a trace assumes of sizes is in the package, and checked before a run."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

import aoti

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.export import Dim  # noqa: E402

from aoti.exporting.capture.dynamic_shapes import named_shapes  # noqa: E402
from aoti.exporting.capture.module_source import Source  # noqa: E402
from aoti.exporting.capture.trace import trace  # noqa: E402
from aoti.exporting.describe.size_guards import size_guards  # noqa: E402
from aoti.signature.size_guard import SizeGuard  # noqa: E402


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, y):
        return self.function(x, y)


# By what it computes: sizes of (8, 12) and (6, 12) that it takes in any case, and others.
FUNCTIONS = {
    "parity": (lambda x, y: x + y.sum() if x.shape[0] % 2 == 0 else x, {"x": (7, 12)}),
    "compared": (lambda x, y: x if x.shape[0] > y.shape[0] else y, {"y": (8, 12)}),
    "elements": (lambda x, y: x * 2 + y.sum() if x.numel() > 30 else x, {"x": (3, 10)}),
    "reshape": (lambda x, y: x.reshape(-1, 4).sum() + y, {"x": (5, 5)}),
    "view": (lambda x, y: x.view(x.shape[0] // 2, 2, -1) + y.sum(), {"x": (9, 12)}),
    "split": (lambda x, y: x.split(x.shape[0] // 2)[1] + y.sum(), {"x": (9, 12)}),
    "chunk": (lambda x, y: torch.stack(y.chunk(3)) + x.sum(), {"y": (7, 12)}),
    "slice": (lambda x, y: x[: y.shape[0]] + 1, {"y": (9, 12)}),
    "ratio": (lambda x, y: x + 1 if x.shape[0] / 3 > 2.5 else x + y.sum(), {"x": (7, 12)}),
    "minimum": (lambda x, y: x + y.sum() if min(x.shape[0], y.shape[0]) > 5 else x, {"y": (5, 12)}),
    "both": (lambda x, y: x + y.sum() if x.shape[0] > 6 and y.shape[0] > 3 else x, {"y": (3, 12)}),
}


def bound_sizes(program, shapes):
    """The values of a program's symbols for arguments of these shapes."""
    sizes = {}
    for node, shape in zip(
        (n for n in program.graph.nodes if n.op == "placeholder"), shapes, strict=True
    ):
        for size, there in zip(node.meta["val"].shape, shape, strict=True):
            sizes.setdefault(str(size), there)
    return sizes


def loaded(program):
    content = io.BytesIO()
    torch.export.save(program, content)
    content.seek(0)
    return torch.export.load(content)


@pytest.mark.parametrize("way", ["non-strict", "strict", "loaded"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_sizes_that_a_trace_does_not_hold_for_break_a_guard(name, way):
    function, others = FUNCTIONS[name]
    shapes = {"x": (8, 12), "y": (6, 12)}
    free = {0: Dim.AUTO, 1: Dim.AUTO}
    program = torch.export.export(
        Function(function),
        tuple(map(torch.ones, shapes.values())),
        dynamic_shapes={"x": free, "y": free} if way == "strict" else (free, free),
        strict=way == "strict",
    )
    if way == "loaded":
        program = loaded(program)
    guards = [SizeGuard.parse(text) for text in size_guards(program)]
    assert all(guard.holds(bound_sizes(program, shapes.values())) for guard in guards)
    broken = bound_sizes(program, (shapes | others).values())
    assert not all(guard.holds(broken) for guard in guards)


def test_sizes_in_containers_are_found():
    class Deep(nn.Module):
        def forward(self, tree, *, more):
            return tree["a"][0].reshape(-1, 3), more["b"] if more["b"].shape[0] > 4 else 0 * more[
                "b"
            ]

    free = {0: Dim.DYNAMIC}
    program = torch.export.export(
        Deep(),
        ({"a": [torch.ones(12)]},),
        {"more": {"b": torch.ones(6)}},
        dynamic_shapes={"tree": {"a": [free]}, "more": {"b": free}},
    )
    (first, second) = bound_sizes(program, [(12,), (6,)])
    guards = size_guards(program)
    assert f"{first} % 3 == 0" in guards
    assert f"{second} > 4" in guards


def test_a_guard_that_cannot_be_checked_is_refused_with_its_text():
    def only(x, y):
        return x + y.sum() if (x.shape[0] * 0.3) ** 0.7 > 1 else x

    free = {0: Dim.AUTO}
    program = torch.export.export(
        Function(only), (torch.ones(8), torch.ones(6)), dynamic_shapes=(free, free)
    )
    try:
        guards = size_guards(program)
    except aoti.ExportError as error:
        assert "0.7" in str(error)
        assert "cannot be checked before a run" in str(error)
    else:
        assert any("0.7" in guard for guard in guards)


# -- packages --------------------------------------------------------------------------------------

RIGHT = {
    "even": (8, 3),
    "long": (9,),
    "short": (5,),
    "rows": (24,),
    "image": (2, 3, 16, 16),
    "many": (8, 8),
}
WRONG = {
    "even": (7, 3),
    "short": (9,),
    "rows": (23,),
    "image": (2, 3, 15, 16),
    "many": (5, 6),
}


@pytest.fixture(scope="module")
def guarded(exporter_packages):
    with aoti.load(exporter_packages / "guarded.pt2") as model:
        yield model


def arguments(shapes):
    return {name: np.random.default_rng(0).random(s, np.float32) for name, s in shapes.items()}


def eager(even, long, short, rows, image, many):
    unshuffled = nn.functional.pixel_unshuffle(torch.from_numpy(image), 2).numpy()
    return {
        "branch": even + 1 if even.shape[0] % 2 == 0 else even - 1,
        "compared": long * 2 if long.shape[0] > short.shape[0] else short * 3,
        "rows": rows.reshape(-1, 4).sum(1),
        "image": unshuffled,
        "many": many * 2 if many.size > 30 else many,
    }


SIZES = [
    {},
    {"even": (10, 3), "rows": (100,), "image": (3, 3, 8, 20)},
    {"long": (50,), "short": (49,), "many": (2, 16)},
]


@pytest.mark.parametrize("sizes", SIZES)
def test_sizes_that_guards_allow_give_what_eager_gives(guarded, sizes):
    given = arguments(RIGHT | sizes)
    found, wanted = guarded(**given), eager(**given)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6)


@pytest.mark.parametrize("name", WRONG)
def test_sizes_that_break_a_guard_are_refused_before_a_run(guarded, name):
    given = arguments(RIGHT | {name: WRONG[name]})
    flat = list(given.values())
    calls = (
        lambda: guarded(**given),
        lambda: guarded.run(flat),
        lambda: guarded.boxed_run(list(flat)),
        lambda: guarded.submit(**given).result(10),
        lambda: guarded.bind(**given),
    )
    for call in calls:
        guarded(**arguments(RIGHT))  # the sizes that were accepted last are others
        with pytest.raises(aoti.InputError, match=rf"exported for sizes with .*\({name!r}|{name}"):
            call()
    plans = guarded.plan(**given)
    assert [plan.action for plan in plans].count("refused") == 1


def test_guards_are_told(guarded, exporter_packages, capsys):
    from aoti.cli.group import run

    assert any(guard.endswith("% 2 == 0") for guard in guarded.signature.guards)
    assert run(["info", str(exporter_packages / "guarded.pt2"), "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["guards"] == list(guarded.signature.guards)


def test_without_validation_guards_are_not_checked(exporter_packages):
    with aoti.load(exporter_packages / "guarded.pt2", validate=False) as model:
        found = model(**arguments(RIGHT | {"even": (7, 3)}))
        assert found["branch"].shape == (7, 3)


def test_a_warm_up_has_sizes_that_guards_allow(exporter_packages):
    aoti.load(exporter_packages / "guarded.pt2", warmup=True).close()


def test_verification_tries_sizes_that_must_be_refused(exporter_packages):
    skipped = json.loads((exporter_packages / "results.json").read_text())["guarded"]
    refused = [text for text in skipped if text]
    assert all(text.startswith("refused: the trace holds only for ") for text in refused)
    assert any("% 2 == 0" in text for text in refused)
    assert skipped.count(None) > len(refused)


def test_a_view_does_not_ask_whether_one_size_divides_another():
    def flattened(x, y):
        return (x[:, :, None] * y).transpose(0, 1).reshape(x.shape[0] * x.shape[1], -1)

    source = Source(Function(flattened), (torch.ones(2, 7), torch.ones(5)), {})
    source.dynamic_shapes = named_shapes({"x": {0: "batch=1..8", 1: "n=2..50"}, "y": None}, {})
    program = trace(source, or_static=False, say=lambda _: None).program
    assert not any("%" in guard for guard in size_guards(program))
