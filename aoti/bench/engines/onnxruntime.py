"""ONNX Runtime, on the CPU."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import onnxruntime

from aoti.bench.engines.base import Engine
from aoti.bench.process.job import Inputs, Job
from aoti.errors import ConfigError

if TYPE_CHECKING:
    from aoti.bench.process.timing import Call


class OnnxRuntime(Engine):
    """A session, called by numpy arrays."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            job.onnx, options, providers=["CPUExecutionProvider"]
        )
        self._names = [value.name for value in self._session.get_inputs()]

    @property
    def versions(self) -> dict[str, str]:
        """Of the library."""
        return {"onnxruntime": onnxruntime.__version__}

    def call(self, inputs: Inputs) -> Call:
        """A run of the session."""
        return partial(self._session.run, None, self._feed(inputs))

    def answer(self, inputs: Inputs) -> list[Any]:
        """A run of the session."""
        results: list[Any] = self._session.run(None, self._feed(inputs))
        return results

    def bound(self, inputs: Inputs) -> Call:
        """A run with an IO binding."""
        binding = self._session.io_binding()
        for name, array in self._feed(inputs).items():
            binding.bind_cpu_input(name, array)
        for output in self._session.get_outputs():
            binding.bind_output(output.name)
        return partial(self._session.run_with_iobinding, binding)

    def _feed(self, inputs: Inputs) -> dict[str, Any]:
        if len(self._names) != len(inputs.arrays):
            raise ConfigError(
                f"as ONNX it takes {len(self._names)} inputs, but the package {len(inputs.arrays)}"
            )
        return dict(zip(self._names, inputs.arrays, strict=True))
