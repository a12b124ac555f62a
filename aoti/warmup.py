"""The first run of a model, made before anybody waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aoti import samples
from aoti.errors import ConfigError

if TYPE_CHECKING:
    from aoti.model import AOTIModel


def warm_up(model: AOTIModel, inputs: Sequence[Any] | None) -> None:
    """Read in mapped weights and run once: threads are started, symbols bound, pages there.

    Parameters
    ----------
    model : AOTIModel
        A model that nothing runs on yet.
    inputs : sequence of arrays, or None
        For a flat run. None: zeros, or the least value that an index may have, in the smallest
        sizes that the model takes.

    Raises
    ------
    ConfigError
        There are no inputs, and the package does not tell what the model takes.
    InputError, ExecutionError, ConstantError
        As for a run.
    """
    model._weights.populate()
    if inputs is None:
        try:
            inputs = samples.zeros(model.signature)
        except ConfigError as error:
            raise ConfigError(
                f"warmup=True: {model.path}: {error}; pass warmup= a list of arrays for a flat run"
            ) from error
    model.run(inputs)
