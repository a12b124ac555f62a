"""Convolutions rewritten at export: the same values, where asked for, and nothing else touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from aoti.exporting.passes.convolutions import fold_batch_norms, rewrite_convolutions
from aoti.exporting.passes.graph_editing import copied

aten = torch.ops.aten
CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.convolution.default,
}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # of float32, for sums of a few hundred terms


def exported(module, *args, shapes=None):
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.dtype == torch.float32:
            tensor.uniform_(0.1, 1.0)
    return torch.export.export(module.eval(), args, dynamic_shapes=shapes)


def left(program) -> int:
    """The number of convolutions in a program."""
    return sum(node.target in CONVOLUTIONS for node in program.graph_module.graph.nodes)


def assert_equal(program, other, *args):
    with torch.no_grad():
        torch.testing.assert_close(other.module()(*args), program.module()(*args), **TOLERANCE)


ONE, TWO = torch.randn(2, 4, 17), torch.randn(2, 4, 11, 9)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Conv1d(4, 5, 3), ONE),
        (nn.Conv1d(4, 5, 3, bias=False), ONE),
        (nn.Conv1d(4, 5, 1), ONE),
        (nn.Conv1d(4, 5, 1, stride=3), ONE),
        (nn.Conv1d(4, 5, 1, padding=2), ONE),
        (nn.Conv1d(4, 5, 17), ONE),
        (nn.Conv1d(4, 5, 4, stride=2, padding=3, dilation=2), ONE),
        (nn.Conv1d(4, 5, 4, padding="same"), ONE),
        (nn.Conv1d(4, 5, 4, padding="valid"), ONE),
        (nn.Conv1d(4, 5, 3, padding=1, padding_mode="reflect"), ONE),
        (nn.Conv1d(4, 67, 3), ONE),
        (nn.Conv1d(4, 67, 1), ONE),
        (nn.Conv1d(4, 6, 3, groups=2), ONE),
        (nn.Conv1d(4, 8, 3, groups=4), ONE),
        (nn.Conv1d(4, 4, 3, groups=4, stride=2, padding=1), ONE),
        (nn.Conv1d(4, 4, 3, groups=4, bias=False, dilation=3), ONE),
        (nn.Conv2d(4, 5, 3), TWO),
        (nn.Conv2d(4, 5, 1, stride=2), TWO),
        (nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3)), TWO),
        (nn.Conv2d(4, 5, (2, 4), padding="same", dilation=2), TWO),
        (nn.Conv2d(4, 5, 3, bias=False), TWO.to(memory_format=torch.channels_last)),
        (nn.Conv2d(4, 5, 3), TWO.transpose(2, 3)),
        (nn.Conv2d(4, 6, 3, groups=2, stride=2, dilation=(2, 1)), TWO),
        (nn.Conv2d(4, 6, 1, groups=2), TWO),
        (nn.Conv2d(4, 4, (9, 8), groups=4, padding=1), TWO),
        (nn.Conv2d(4, 4, (3, 2), groups=4, stride=2, padding=1), TWO),
        (nn.Conv2d(4, 4, 3, groups=4, padding="same", dilation=2), TWO),
        (nn.Conv1d(20, 20, 3, groups=20, stride=2, padding=1), torch.randn(2, 20, 17)),
        (nn.Conv2d(20, 20, (3, 2), groups=20, stride=2, padding=1), torch.randn(2, 20, 11, 9)),
        (nn.Conv2d(20, 20, 3, groups=20, padding="same", dilation=2), torch.randn(2, 20, 11, 9)),
    ],
)
def test_a_rewritten_convolution_computes_the_same(module, x):
    program = exported(module, x)
    rewritten, report = rewrite_convolutions(program)
    assert (left(program), left(rewritten), len(report)) == (1, 0, 1)
    assert_equal(program, rewritten, x)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.ConvTranspose1d(4, 6, 3), ONE),
        (nn.Conv1d(4, 6, 3), ONE[0]),
        (nn.Conv3d(4, 6, 3), torch.randn(1, 4, 5, 5, 5)),
        (nn.Conv1d(4, 6, 3).double(), ONE.double()),
        (nn.Linear(17, 3), ONE),
    ],
    ids="transposed unbatched 3d double linear".split(),
)
def test_what_is_not_known_is_left_alone(module, x):
    program = exported(module, x)
    rewritten, report = rewrite_convolutions(program)
    assert (left(rewritten), report) == (left(program), [])
    assert_equal(program, rewritten, x)


MANY = torch.randn(1, 32, 11, 8)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Conv2d(32, 48, 3), MANY),
        (nn.Conv2d(32, 32, 3, padding=1, bias=False), MANY),
        (nn.Conv2d(32, 80, 3, padding="same"), MANY),
        (nn.Conv2d(32, 48, 3, padding=(0, 5)), MANY),
    ],
)
def test_many_channels_take_fewer_multiplications(module, x):
    program = exported(module, x)
    rewritten, report = rewrite_convolutions(program)
    assert report == ["1 as products by Winograd's algorithm"]
    assert_equal(program, rewritten, x)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Conv2d(32, 32, 3, stride=2), MANY),
        (nn.Conv2d(32, 32, 3, dilation=2), MANY),
        (nn.Conv2d(32, 32, (3, 2)), MANY),
        (nn.Conv2d(32, 64, 3, groups=2), MANY),
        (nn.Conv2d(32, 40, 3), MANY),
        (nn.Conv2d(16, 32, 3), MANY[:, :16]),
        (nn.Conv2d(32, 32, 3), MANY[:, :, :7, :7]),
        (nn.Conv1d(32, 32, 3), torch.randn(2, 32, 40)),
    ],
    ids="strided dilated oblong groups outputs channels positions line".split(),
)
def test_others_are_plain_products(module, x):
    program = exported(module, x)
    rewritten, report = rewrite_convolutions(program)
    assert report == ["1 as products"]
    assert_equal(program, rewritten, x)


class Net(nn.Module):
    """Convolutions one behind the other, one of them twice, and a result changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x):
        x = self.again(self.again(self.first(x).relu_()).relu_())
        return {"sum": self.depthwise(x).add_(1).sum((2, 3)), "x": x}


def test_images_of_dynamic_sizes_count_as_large():
    free = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    program = exported(nn.Conv2d(32, 32, 3), torch.randn(2, 32, 6, 5), shapes=(free,))
    rewritten, report = rewrite_convolutions(program)
    assert report == ["1 as products by Winograd's algorithm"]
    for size in ((3, 32, 4, 5), (2, 32, 9, 8)):
        assert_equal(program, rewritten, torch.randn(size))


def test_batch_and_sizes_may_stay_dynamic():
    shapes = {"x": {0: Dim("batch", min=1, max=8), 2: Dim("height", min=6, max=64), 3: Dim.AUTO}}
    program = exported(Net(), torch.randn(3, 3, 16, 20), shapes=shapes)
    rewritten, _ = rewrite_convolutions(program)
    assert left(rewritten) == 0
    for size in ((1, 3, 6, 7), (8, 3, 64, 33)):
        assert_equal(program, rewritten, torch.randn(size))


class Viewed(nn.Module):
    """Written as in 2015: what comes out of a convolution is viewed as rows."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.convolution, self.inplace = nn.Conv2d(3, 8, 3), inplace

    def forward(self, x):
        rows = self.convolution(x).relu_().view(x.size(0), -1)
        return rows.mul_(2) if self.inplace else rows


def test_a_result_may_be_viewed():
    program = exported(Viewed(), torch.randn(2, 3, 8, 8))
    rewritten, _ = rewrite_convolutions(program)
    assert left(rewritten) == 0
    assert_equal(program, rewritten, torch.randn(2, 3, 8, 8))
    written, _ = rewrite_convolutions(exported(Viewed(inplace=True), torch.randn(2, 3, 8, 8)))
    assert "aten.view.default" in str(written.graph_module.graph)


def test_the_given_program_stays_as_it_is():
    program = exported(Net(), torch.randn(1, 3, 8, 8))
    before = str(program.graph_module.graph)
    rewrite_convolutions(program)
    fold_batch_norms(program)
    assert str(program.graph_module.graph) == before


def test_a_rewritten_program_can_be_saved(tmp_path):
    program = exported(Net(), torch.randn(1, 3, 8, 8))
    rewritten, _ = rewrite_convolutions(program)
    torch.export.save(rewritten, tmp_path / "program.pt2")
    assert_equal(program, torch.export.load(tmp_path / "program.pt2"), torch.randn(1, 3, 8, 8))


def test_the_report_counts_the_forms():
    _, report = rewrite_convolutions(exported(Net(), torch.randn(1, 3, 8, 8)))
    assert report == ["3 as products", "1 as sums"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_batch_norm_is_folded_into_the_convolution_before_it(bias, affine, groups):
    layers = nn.Conv2d(4, 6, 3, groups=groups, bias=bias), nn.BatchNorm2d(6, affine=affine)
    program = exported(nn.Sequential(*layers, nn.ReLU()), TWO)
    folded, report = fold_batch_norms(program)
    assert report == ["1 folded into convolutions"]
    targets = [node.target for node in folded.graph_module.graph.nodes]
    assert aten.batch_norm.default not in targets
    assert left(folded) == 1
    assert_equal(program, folded, TWO)
    rewritten, _ = rewrite_convolutions(folded)
    assert left(rewritten) == 0
    assert_equal(program, rewritten, TWO)


class Reused(nn.Module):
    """What goes into the batch norm is wanted elsewhere, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4)

    def forward(self, x):
        x = self.convolution(x)
        return self.norm(x) + x


@pytest.mark.parametrize(
    "module", [Reused(), nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4))], ids=["reused", "alone"]
)
def test_other_batch_norms_stay(module):
    program = exported(module, ONE)
    folded, report = fold_batch_norms(program)
    assert report == []
    assert_equal(program, folded, ONE)


def test_a_copy_of_a_program_has_its_weights():
    program = exported(nn.Conv1d(4, 5, 3), ONE)
    assert copied(program).state_dict["weight"] is program.state_dict["weight"]
