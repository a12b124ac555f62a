"""The module itself: in eager mode, and compiled when it is first called."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from aoti.bench.engines.base import Engine
from aoti.bench.engines.tensors import arrays, tensors
from aoti.bench.process.job import Inputs, Job
from aoti.errors import ConfigError
from aoti.exporting.capture.module_source import Source

if TYPE_CHECKING:
    from aoti.bench.process.timing import Call


class Eager(Engine):
    """The module, called by torch tensors."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        source = Source.find(job.source)
        self._module: Any = source.module
        examples: Any = source.args, source.kwargs
        if isinstance(source.module, torch.export.ExportedProgram):
            self._module = source.module.module(check_guards=False)
            examples = source.module.example_inputs
        self._leaves, self._structure = pytree.tree_flatten(examples)

    @property
    def versions(self) -> dict[str, str]:
        """Of torch."""
        return {"torch": torch.__version__}

    def call(self, inputs: Inputs) -> Call:
        """A call of the module; arguments that are not tensors are those of the examples."""
        given = tensors(inputs.arrays)
        places = [n for n, leaf in enumerate(self._leaves) if isinstance(leaf, torch.Tensor)]
        if len(places) != len(given):
            raise ConfigError(
                f"{self.job.source} takes {len(places)} tensors, but the package {len(given)}: "
                "pass the source that the package was exported from"
            )
        leaves = list(self._leaves)
        for place, value in zip(places, given, strict=True):
            leaves[place] = value
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        return partial(self._module, *args, **kwargs)

    def answer(self, inputs: Inputs) -> list[Any]:
        """A call."""
        with self.context():
            return arrays(self.call(inputs)())

    def context(self) -> AbstractContextManager[Any]:
        """Without gradients."""
        return torch.inference_mode()


class Compiled(Eager):
    """The module, compiled by torch.compile."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._module = torch.compile(self._module)
