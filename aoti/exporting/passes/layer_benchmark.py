"""How long layers take in a package, before and after a rewrite: compiled and run in a child.

Both forms of each layer are compiled as in the package, and run in turns. One child process does it
all, and releases its memory and files at the end.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aoti._processes import Channel, ChildError
from aoti.exporting.build.children import run_child
from aoti.exporting.passes.convolutions import Layer

_ROUNDS = 15
_SLICE = 2e-3  # seconds that a layer runs before it is the other form's turn
_TOLERANCE = 1e-3  # sums of thousands of terms, added in another order


def measure(
    layers: Sequence[Layer],
    options: Mapping[str, Any],
    say: Callable[[str], None] = lambda _: None,
) -> list[tuple[float, float]]:
    """Seconds that layers take before and after their rewrite.

    This needs two compilations per layer: about ten seconds each on one core.

    Parameters
    ----------
    layers : sequence of Layer
        The layers, which run on random numbers.
    options : mapping
        Inductor's options of the package.
    say : callable, optional
        Called with a line of text for each layer.

    Returns
    -------
    list of (float, float)
        The minimum of some rounds. A form that does not compile or run takes infinitely long.

    Raises
    ------
    RuntimeError
        The child ended early, or a compiled layer differs from the original. The message contains
        the reason that it gave.
    """
    with tempfile.TemporaryDirectory(prefix="aoti-export-") as scratch:
        directory = Path(scratch) / "layers"
        directory.mkdir()
        job = {"layers": [asdict(layer) for layer in layers], "options": dict(options)}
        (directory / "job.json").write_text(json.dumps(job))

        def stage() -> str:
            done = sum(path.is_dir() for path in directory.iterdir())
            return f"timing layer {max(done, 1)} of {len(layers)}"

        try:
            times = run_child(f"{__name__}:time_layers", directory, stage, say)
        except ChildError as error:
            raise RuntimeError(f"layers could not be timed: {error}") from None
        return [tuple(pair) for pair in times]


# -- the child -------------------------------------------------------------------------------------


class _Alone(nn.Module):
    """One layer as a model."""

    def __init__(self, layer: Layer, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.compute = compute
        drawn = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(layer.weight, generator=drawn))
        bias = torch.randn(layer.weight[0], generator=drawn)
        self.bias = nn.Parameter(bias) if layer.bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x, self.weight, self.bias)


def time_layer(layer: Layer, options: Mapping[str, Any], directory: Path) -> tuple[float, float]:
    """Seconds of a layer before and after its rewrite; infinity for what does not compile."""
    x = torch.randn(layer.input)
    forms = [
        compiled(_Alone(layer, compute), x, layer.dynamic, options, directory / name)
        for name, compute in (("before.pt2", layer.original), ("after.pt2", layer.rewritten))
    ]
    before, after = forms
    if before and after:
        (expected,), (actual,) = before.run([x]), after.run([x])
        if not torch.allclose(actual, expected, _TOLERANCE, _TOLERANCE):
            raise ArithmeticError(f"{layer}, compiled as a {layer.rewrite}, differs")
    rounds = [(_slice(before, x), _slice(after, x)) for _ in range(_ROUNDS)]
    # The minimum: other work on the machine only adds to the time.
    first, second = zip(*rounds, strict=True)
    return min(first), min(second)


def compiled(
    module: nn.Module, x: Tensor, dynamic: Sequence[int], options: Mapping[str, Any], path: Path
) -> Any:
    """The loaded package of a module, or None if it does not compile."""
    from torch._inductor import aoti_compile_and_package

    shapes = (dict.fromkeys(dynamic, torch.export.Dim.AUTO),)
    try:
        with torch.no_grad():
            program = torch.export.export(module.eval(), (x,), dynamic_shapes=shapes)
            aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=dict(options)
            )
        runner = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        runner.run([x])
    except Exception as error:  # whatever Inductor or the compiler raises: that form is not there
        print(f"{path.stem}: {type(error).__name__}: {error}")
        return None
    return runner


def _slice(runner: Any, x: Tensor) -> float:
    """Seconds a call, over some calls."""
    if runner is None:
        return math.inf
    inputs = [x]
    runner.run(inputs)  # warm again after the other one
    calls, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < _SLICE:
        runner.run(inputs)
        calls += 1
    return passed / calls if calls else passed


def time_layers(channel: Channel, directory: Path) -> None:
    """Time the layers of a job, and answer with the seconds."""
    import aoti.exporting.passes.kernel_templates  # noqa: F401 (registers them with Inductor)

    torch.set_num_threads(1)  # on a busy machine, several would wait for each other
    job = json.loads((directory / "job.json").read_text())
    times = []
    for number, layer in enumerate(map(_layer, job["layers"])):
        (directory / str(number)).mkdir()
        times.append(time_layer(layer, job["options"], directory / str(number)))
    channel.answer(times)


def _layer(fields: Mapping[str, Any]) -> Layer:
    """Read a layer from JSON, which has lists in place of tuples."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return Layer(**{name: tuples(value) for name, value in fields.items()})
