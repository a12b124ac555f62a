"""A compilation that fails is tried again without what may be the cause."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import aoti
from aoti.exporting.build.presets import PRESETS


class Spectrogram(nn.Module):
    """The front end of an audio model: a power spectrum by a bank of filters."""

    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.register_buffer("filters", torch.rand(33, 20))

    def forward(self, x):
        spectrum = torch.stft(x, 64, 16, 64, self.window, return_complex=True).abs() ** 2
        return torch.einsum("bft,fm->bmt", spectrum, self.filters).clamp(min=1e-10).log10()


# No kernel of these is for a batched product here, so Inductor finds none.
FAILING = {"max_autotune": True, "max_autotune_gemm_backends": "CPP"}


@pytest.fixture(scope="module")
def spectrogram(tmp_path_factory):
    """What the export of a model that does not compile with its options gave."""
    path = tmp_path_factory.mktemp("spectrogram") / "m.pt2"
    shapes = {"x": {0: "batch=1..8", 1: "length=200..2000"}}
    said = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        done = aoti.export(
            Spectrogram().eval(),
            (torch.randn(3, 800),),
            path=path,
            dynamic_shapes=shapes,
            options=FAILING,
            verify=True,
            progress=said.append,
        )
    return done, said, [text for w in warned if "compile" in (text := str(w.message))]


def test_what_does_not_compile_is_compiled_without_the_option(spectrogram):
    done, said, (warning,) = spectrogram
    model = done.models["model"]
    (note,) = (note for note in model.signature.notes if note.startswith("without"))
    assert note.startswith("without max_autotune, because that does not compile: InductorError")
    assert f"compiling model again, {note}" in said
    assert "max_autotune, max_autotune_gemm_backends" in warning
    assert model.signature.options.keys().isdisjoint(FAILING)
    assert all(case.outputs for case in model.cases)


def test_what_is_left_out_step_by_step():
    preset = PRESETS["portable"].with_options(FAILING)
    found = []
    while (weaker := preset.weaker(rewritten=bool(preset.passes))) is not None:
        what, preset = weaker
        found.append(what)
    assert found == ["without max_autotune", "not rewritten", "not frozen"]
    assert not preset.frozen
    required = {"cpp.march", "aot_inductor.package_constants_on_disk_format"}
    assert required & PRESETS["portable"].options.keys() == required & preset.options.keys()


def test_debugging_shows_the_traceback_of_the_compilation(tmp_path, monkeypatch):
    monkeypatch.setenv("AOTI_DEBUG", "1")
    with pytest.raises(aoti.ExportError, match="cannot compile model") as caught:
        aoti.export(
            nn.ReLU().eval(),
            (torch.ones(3),),
            path=tmp_path / "m.pt2",
            preset="updatable",
            options={"cpp.march": "nonsense"},
        )
    assert "Traceback (most recent call last)" in "".join(caught.value.__notes__)
    assert not any(tmp_path.iterdir())
