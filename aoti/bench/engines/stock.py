"""PyTorch's own loader of packages."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch._inductor.package import load_package  # type: ignore[attr-defined]

from aoti.bench.engines.base import Engine
from aoti.bench.engines.tensors import arrays, tensors
from aoti.bench.process.job import Inputs, Job

if TYPE_CHECKING:
    from aoti.bench.process.timing import Call


class Stock(Engine):
    """A package, called by torch tensors."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._model = load_package(job.package, job.model_name, num_runners=job.runners)

    @property
    def versions(self) -> dict[str, str]:
        """Of torch."""
        return {"torch": torch.__version__}

    def call(self, inputs: Inputs) -> Call:
        """A call of the model; a flat run if the structure of calls is not known."""
        if inputs.args is None:
            return partial(self._model.loader.run, tensors(inputs.arrays))
        args, kwargs = tensors((inputs.args, inputs.kwargs))
        return partial(self._model, *args, **kwargs)

    def answer(self, inputs: Inputs) -> list[Any]:
        """A flat run."""
        return arrays(self._model.loader.run(tensors(inputs.arrays)))

    def context(self) -> AbstractContextManager[Any]:
        """Without gradients."""
        return torch.inference_mode()
