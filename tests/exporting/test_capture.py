"""What is exported, however it is named: sources, sizes, checkpoints, options, structures."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.export import Dim

import aoti
from aoti.exporting.build.presets import PRESETS, parse_option
from aoti.exporting.capture.checkpoints import load_checkpoint
from aoti.exporting.capture.containers import plain, simplify
from aoti.exporting.capture.dynamic_shapes import named_shapes, parse_size
from aoti.exporting.capture.module_source import Source
from aoti.exporting.capture.trace import trace
from aoti.exporting.describe.program_signature import describe_program
from aoti.exporting.describe.size_guards import size_guards

X = torch.ones(3, 4)


@pytest.fixture
def module_file(tmp_path):
    """A file with functions that make models, right and wrong ones."""
    path = tmp_path / "makers.py"
    path.write_text(
        """
import torch
linear = torch.nn.Linear(4, 2).eval()
def full():
    return linear, (torch.ones(3, 4),), {}, {"input": {0: "batch"}}
def short():
    return linear, torch.ones(3, 4)
def wrong():
    return 3
def fails():
    return undefined
class Deep:
    @staticmethod
    def make():
        return linear, torch.ones(3, 4)
"""
    )
    return path


@pytest.mark.parametrize("name", ["full", "short", "Deep.make"])
def test_a_function_in_a_file_gives_a_source(module_file, name):
    source = Source.find(f"{module_file}:{name}")
    assert type(source.module) is nn.Linear
    assert [tuple(x.shape) for x in source.args] == [(3, 4)]
    assert source.dynamic_shapes == ({"input": {0: "batch"}} if name == "full" else None)


def test_functions_that_fail_are_told_with_their_line(module_file):
    with pytest.raises(aoti.ExportError, match=r"makers.py:\d+, in fails: return undefined"):
        Source.find(f"{module_file}:fails")
    with pytest.raises(aoti.ExportError, match="gave int, which cannot be exported"):
        Source.find(f"{module_file}:wrong")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:nothing", "has no attribute 'nothing'"),
        ("nowhere.py:make", "the file nowhere.py does not exist"),
        ("no_such_module:make", "no module named 'no_such_module'"),
        ("no_such_program.pt2", "neither MODULE:CALLABLE"),
    ],
)
def test_names_of_nothing_are_refused(module_file, name, message):
    with pytest.raises(aoti.ConfigError, match=message):
        Source.find(name.format(module_file))


def test_a_saved_program_is_a_source(tmp_path):
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(nn.Linear(4, 2), (X,)), path)
    assert isinstance(Source.find(str(path)).module, torch.export.ExportedProgram)
    path.write_text("nonsense")
    with pytest.raises(aoti.ExportError, match=r"was not written by torch.export.save"):
        Source.find(str(path))


def test_a_source_moves_as_a_copy():
    source = Source(nn.Linear(4, 2), (X,))
    assert source.on("cpu") is source
    moved = source.on("meta")
    assert (moved.module.weight.device.type, moved.args[0].device.type) == ("meta", "meta")
    assert source.module.weight.device.type == "cpu"


# -- sizes by name -------------------------------------------------------------------------------


def test_sizes_have_names_and_ranges():
    shapes = named_shapes({"x": {0: "batch=1..64"}, "y": [{1: "batch"}], "z": None}, {})
    first, second = shapes["x"][0], shapes["y"][0][1]
    assert first is second
    assert (first.__name__, first.min, first.max) == ("batch", 1, 64)
    assert (parse_size("n=2..").low, parse_size("n=2..").high) == (2, None)


def test_ranges_of_names_can_be_given_apart():
    given = {"batch": parse_size("batch=1..8")}
    shapes = named_shapes(({0: Dim("batch", max=4)}, {0: "batch=1..2"}), given)
    assert shapes[0][0] is shapes[1][0]
    assert (shapes[0][0].min, shapes[0][0].max) == (1, 8)


@pytest.mark.parametrize(
    ("shapes", "dims"),
    [
        ({"x": {0: "h=4*n"}, "y": {0: "n=2..9"}}, {}),
        ({"x": {0: "4*n"}, "y": {0: "n=2..9"}}, {}),
        ({"x": {0: "h"}, "y": {0: "n"}}, {"h": "4*n", "n": "2..9"}),
        ({"x": {0: "h=2*m"}, "y": {0: "n=2..9"}}, {"m": "2*n"}),
        ({"x": {0: "h=4*n"}, "y": {0: Dim("n", min=2, max=9)}}, {}),
    ],
)
def test_a_size_may_be_computed_from_another_one(shapes, dims):
    dims = {name: parse_size(f"{name}={value}") for name, value in dims.items()}
    source = Source(Repeats(), (torch.ones(12), torch.ones(3)), {}, named_shapes(shapes, dims))
    traced = trace(source, or_static=False, say=lambda _: None)
    signature = describe_program(simplify(traced.program), traced.names)
    assert [str(spec.shape[0]) for spec in signature.inputs] == ["4*n", "n"]
    assert signature.ranges == {"n": (2, 9)}


def test_offsets_and_other_names_of_sizes():
    shapes = named_shapes(({0: "a=3*n - 2"}, {0: "b=n + 1"}, {0: "c=n"}, {0: "n=1..5"}), {})
    a, b, c, n = (shape[0] for shape in shapes)
    assert (a.min, a.max, b.min, b.max) == (1, 13, 2, 6)
    assert c is n


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (({0: "h=2*n"}, {0: "h=3*n"}), "size 'h' has two values"),
        (({0: "h=2*n"}, {0: "n=h+1"}), "the sizes h, n are computed from each other"),
    ],
)
def test_contradictory_sizes_are_refused(shapes, message):
    with pytest.raises(aoti.ConfigError, match=message):
        named_shapes(shapes, {})


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (13, 3, "size '4\\*n' is 13 in an example .* no whole number n gives that"),
        (12, 4, "size 'n' is 3 in one example and 4 in another"),
    ],
)
def test_examples_must_have_the_computed_sizes(first, second, message):
    shapes = named_shapes({"x": {0: "h=4*n"}, "y": {0: "n"}}, {})
    source = Source(Repeats(), (torch.ones(first), torch.ones(second)), {}, shapes)
    with pytest.raises(aoti.ExportError, match=message):
        trace(source, or_static=False, say=lambda _: None)


class Repeats(nn.Module):
    def forward(self, x, y):
        return x + y.repeat_interleave(4)


class Variadic(nn.Module):
    def forward(self, y, *xs):
        return y + xs[0] + xs[1]


@pytest.mark.parametrize(
    "shapes",
    [
        {"y": {0: "b=2..9"}, "xs": ({0: "b"}, {0: "b"})},
        ({0: "b=2..9"}, ({0: "b"}, {0: "b"})),
    ],
)
def test_the_arguments_of_a_star_may_have_dynamic_sizes(shapes):
    x = torch.ones(3)
    source = Source(Variadic(), (x, x.clone(), x.clone()), {}, named_shapes(shapes, {}))
    traced = trace(source, or_static=False, say=lambda _: None)
    guards = size_guards(traced.program)
    signature = describe_program(simplify(traced.program), traced.names, guards)
    assert [str(spec.shape[0]) for spec in signature.inputs] == ["b", "b", "b"]
    assert signature.ranges == {"b": (2, 9)}


@pytest.mark.parametrize(
    ("factor", "least", "expected"), [(1, 1, 1), (4, 1, 1), (4, 0, 0), (4, 3, 3), (2, 2, 2)]
)
def test_a_multiple_of_a_size_keeps_its_range(factor, least, expected):
    dim = Dim("n", min=least, max=50)
    source = Source(nn.ReLU(), (torch.ones(16),), {}, ({0: factor * dim},))
    traced = trace(source, or_static=False, say=lambda _: None)
    signature = describe_program(simplify(traced.program), traced.names)
    assert signature.ranges == {"n": (expected, 50)}


@pytest.mark.parametrize(
    "text",
    ["", "1..2", "batch=", "batch=1", "batch=8..1", "a b=1..2", "x=a..b", "h=n*m", "h=0*n", "h=-n"],
)
def test_misspelt_sizes_are_refused(text):
    with pytest.raises(aoti.ConfigError):
        parse_size(text)


# -- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped"])
def test_weights_come_from_a_file(tmp_path, kind):
    wanted, module = nn.Linear(4, 2), nn.Linear(4, 2)
    path = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(wanted.state_dict(), path)
    else:
        state = wanted.state_dict()
        torch.save({"state_dict": state, "epoch": 3} if kind == "wrapped" else state, path)
    load_checkpoint(module, path)
    assert torch.equal(module.weight, wanted.weight)


# -- options -------------------------------------------------------------------------------------


def test_options_are_json_or_text():
    texts = ["cpp.threads=1", "freezing=true", "freezing=False", "cpp.march=znver4", "a=None", "b="]
    assert [parse_option(text)[1] for text in texts] == [1, True, False, "znver4", None, ""]
    deep = "[" * 100_000
    assert parse_option(f"a={deep}") == ("a", deep)
    with pytest.raises(aoti.ConfigError, match="NAME=VALUE"):
        parse_option("freezing")


def test_what_is_given_up_follows_from_the_options():
    assert "cannot be replaced" in " ".join(PRESETS["portable"].gives_up)
    assert "can be replaced" in " ".join(PRESETS["updatable"].gives_up)
    thawed = PRESETS["portable"].with_options({"freezing": False})
    assert "can be replaced" in " ".join(thawed.gives_up)


# -- structures ----------------------------------------------------------------------------------

Named = namedtuple("Named", ["a", "b"])


@dataclass
class Data:
    first: object
    second: object = None


class ModelOutput(OrderedDict):
    """As libraries of models have it: a dict with more ways to be read."""


def test_types_become_plain_ones_with_the_same_names():
    value = (Data(1, [Named(2, ModelOutput(x=3))]), OrderedDict(y=4))
    result = plain(value)
    assert result == ({"first": 1, "second": [Named(2, {"x": 3})]}, {"y": 4})
    assert type(result[0]["second"][0]) is Named
    assert type(result[0]["second"][0].b) is dict
    assert type(result[1]) is OrderedDict


def test_presets_on_a_gpu_leave_out_what_tunes_for_a_cpu():
    portable = PRESETS["portable"].on_gpu((), passes=False)
    assert not portable.frozen
    assert not [name for name in portable.options if name.startswith("cpp.weight")]
    assert portable.options["aot_inductor.package_constants_on_disk_format"] == "binary_blob"
    assert portable.passes == ("batch-norms",)
    asked = PRESETS["portable"].with_options({"max_autotune": True, "freezing": True})
    kept = asked.on_gpu({"max_autotune"}, passes=True)
    assert kept.options["max_autotune"] is True
    assert not kept.frozen
    assert kept.passes == PRESETS["portable"].passes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "for sm_90: GPUs of another generation need aot_inductor.emit_multi_arch_kernel=True"),
        ({"aot_inductor.emit_multi_arch_kernel": True}, "for sm_90 and newer GPUs"),
    ],
)
def test_kernels_of_a_gpu_say_where_they_run(options, words):
    options["aot_inductor.embed_kernel_binary"] = True
    assert words in PRESETS["portable"].with_options(options).kernels_for("sm_90")


def test_masks_of_transformer_layers_may_be_made_in_the_module():
    """Whether a mask is causal is read from its values, if nobody says so."""

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, x):
            return self.layers(x, mask=torch.ones(x.shape[1], x.shape[1]).triu(1) > 0)

    module, free = Causal().eval(), {"x": {0: Dim("batch"), 1: Dim("length")}}
    source = Source(module, (torch.randn(3, 5, 8),), {}, free)
    program = trace(source, or_static=False, say=lambda _: None).program
    x = torch.randn(2, 9, 8)
    assert torch.allclose(program.module()(x), module(x), atol=1e-6)


def test_einsum_of_many_operands_takes_any_sizes():
    """With opt_einsum, which may be installed, the order of the products depends on the sizes."""

    class Experts(nn.Module):
        def forward(self, x, weights, experts):
            return torch.einsum("bk,bkio,bi->bo", weights, experts, x)

    module, free = Experts(), {0: Dim("batch")}
    examples = [(torch.rand(b, 4), torch.rand(b, 2), torch.rand(b, 2, 4, 5)) for b in (3, 7)]
    source = Source(module, examples[0], {}, (free, free, free))
    program = trace(source, or_static=False, say=lambda _: None).program
    assert torch.allclose(program.module()(*examples[1]), module(*examples[1]), atol=1e-6)
