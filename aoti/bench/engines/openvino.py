"""OpenVINO, on the CPU and in float32."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import openvino

from aoti.bench.engines.base import Engine
from aoti.bench.process.job import Inputs, Job

if TYPE_CHECKING:
    from aoti.bench.process.timing import Call


class OpenVino(Engine):
    """A compiled model with a request for each runner, called by numpy arrays."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        hints = {
            "INFERENCE_NUM_THREADS": job.threads * job.runners,
            "NUM_STREAMS": job.runners,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._model = openvino.Core().compile_model(job.onnx, "CPU", hints)

    @property
    def versions(self) -> dict[str, str]:
        """Of the library."""
        return {"openvino": openvino.__version__.partition("-")[0]}

    def call(self, inputs: Inputs) -> Call:
        """A separate request that shares the memory of inputs and outputs."""
        request = self._model.create_infer_request()
        return partial(request.infer, inputs.arrays, share_inputs=True, share_outputs=True)

    def answer(self, inputs: Inputs) -> list[Any]:
        """The outputs of a request."""
        results = self.call(inputs)()
        return [results[number].copy() for number in range(len(results))]

    def bound(self, inputs: Inputs) -> Call:
        """A request whose inputs are set in advance."""
        request = self._model.create_infer_request()
        request.set_input_tensors(
            [openvino.Tensor(array, shared_memory=True) for array in inputs.arrays]
        )
        return partial(request.infer, None, share_inputs=True, share_outputs=True)
