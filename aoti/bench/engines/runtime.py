"""The engine aoti."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import aoti
from aoti.bench.engines.base import Engine
from aoti.bench.process.job import Inputs, Job
from aoti.engine import native
from aoti.engine.select import asked
from aoti.errors import ConfigError

if TYPE_CHECKING:
    from aoti.bench.process.timing import Call

# Loaded now: other engines load libtorch when they import torch.
if asked() == "libtorch":
    from aoti.engine import libtorch

    libtorch.engine()
else:
    native.engine()


class Runtime(Engine):
    """A package, called by numpy arrays."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._model = aoti.load(
            job.package, model_name=job.model_name, num_runners=job.runners, outputs="numpy"
        )

    @property
    def versions(self) -> dict[str, str]:
        """The version of aoti, with its engine, and of the libtorch if that is used."""
        build = aoti.build_info()
        found = {"aoti": build["version"], "engine": self._model.engine}
        if self._model.engine == "libtorch":
            found["libtorch"] = build["libtorch"]["version"]
        return found

    def call(self, inputs: Inputs) -> Call:
        """A call of the model; a flat run if the structure of calls is not known."""
        if inputs.args is None:
            return partial(self._model.run, inputs.arrays)
        return partial(self._model, *inputs.args, **inputs.kwargs)

    def answer(self, inputs: Inputs) -> list[Any]:
        """A flat run."""
        return self._model.run(inputs.arrays)

    def bound(self, inputs: Inputs) -> Call:
        """`aoti.AOTIModel.bind`, including the outputs."""
        if inputs.args is None:
            raise ConfigError(
                "its calls cannot be bound: their structure has types that only the exporting "
                "program has; use --mode sync"
            )
        out = self.call(inputs)()
        return self._model.bind(*inputs.args, out=out, **inputs.kwargs)

    def submitter(self, inputs: Inputs) -> Callable[[], Future[Any]]:
        """`aoti.AOTIModel.submit`."""
        if inputs.args is None:
            return super().submitter(inputs)
        return partial(self._model.submit, *inputs.args, **inputs.kwargs)
