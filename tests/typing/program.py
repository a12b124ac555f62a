"""A user's program, as type checkers see it. Never run: see test_typing.py."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, assert_type

import numpy as np

import aoti
from aoti.bench.report.markdown import markdown
from aoti.bench.report.report import Report
from aoti.bench.run import measure
from aoti.bench.settings import Settings
from aoti.testing import FakeModel

x = np.ones((3, 10), np.float32)

with aoti.load(Path("m.pt2"), num_runners=2, sha256="00" * 32, validate=False) as model:
    assert_type(model, aoti.AOTIModel)
    assert_type(model(x, mask=None), Any)
    assert_type(model.run([x]), list[Any])
    assert_type(model.boxed_run([x]), list[Any])
    assert_type(model.submit(x), Future[Any])
    assert_type(model.plan(x), list[aoti.InputPlan])
    assert_type(model.plan(x)[0].reason, str)
    assert_type(model.bind(x, out=x), Callable[[], Any])
    assert_type(aoti.Tensor.from_dlpack(x).shape, tuple[int, ...])
    result = model.infer([x])
    assert_type(result, aoti.InferenceResult)
    assert_type(result.latency_ms, float)
    assert_type(result.memory_bytes, int | None)
    assert_type(model.device, aoti.Device)
    assert_type(model.signature, aoti.Signature)
    assert_type(model.closed, bool)
    runner: aoti.ModelRunner = model

batching = aoti.Batching(max_size=32, max_delay=0.002)
assert_type(aoti.load("m.pt2", batching=batching).info().max_rows, int)

runner = FakeModel(lambda x: x)
assert_type(runner.run([x]), list[Any])
assert_type(FakeModel(package="m.pt2").inputs, tuple[aoti.TensorSpec, ...] | None)

for spec in model.inputs or ():
    assert_type(spec, aoti.TensorSpec)
    for size in spec.shape or ():
        if isinstance(size, aoti.Dim):
            assert_type(size.max, int | None)
        else:
            assert_type(size, int)
for argument in model.signature.arguments or ():
    if isinstance(argument, aoti.ConstantSpec):
        assert_type(argument.name, str)

with aoti.Package(b"", limits=aoti.Limits(files=100)) as package, Path("m.pt2").open("rb") as file:
    assert_type(package.models, tuple[str, ...])
    assert_type(package.metadata(), dict[str, str])
    assert_type(package.signature("model"), aoti.Signature)
    assert_type(package.digest, str)
    assert_type(aoti.load(file).path, str)

report = measure("m.pt2", engines=["stock"], settings=Settings(threads=1))
assert_type(report, Report)
assert_type(report.measurements[0].latency_ms.median, float)
assert_type(markdown(report), str)

assert_type(aoti.devices(), tuple[aoti.DeviceInfo, ...])
assert_type(aoti.build_info(), dict[str, Any])
assert_type(aoti.load_metadata_from_package("m.pt2"), dict[str, str])

try:
    aoti.load("m.pt2", device="cuda:0", device_index=0)
except aoti.PackageNotFoundError as error:
    assert_type(error.filename, Any)
except (aoti.PackageError, aoti.IncompatiblePackageError) as error:
    assert_type(str(error), str)


async def call(model: aoti.AOTIModel) -> Any:
    """Calls without blocking an event loop."""
    model.timeout = 1.5
    return await model.run_async(x)
