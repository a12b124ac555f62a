"""Models on a Ray cluster: batches of Ray Data, and deployments of Ray Serve.

This module does not import Ray, so that the workers of Ray Data do not load Ray Serve.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aoti.config import Config
from aoti.errors import ConfigError, InputError
from aoti.loading import load
from aoti.package.package import Source
from aoti.serving.named_calls import NamedCalls

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from ray.serve import Application


class Predictor:
    """A model for `ray.data.Dataset.map_batches`, which makes one object of it in each worker.

    Parameters
    ----------
    source : path, bytes or Config
        As for `aoti.load`. A path must exist on each node, where it is extracted once.
    keep : sequence of str, optional
        Columns of the batch that the result has, too.
    **options
        Options of `aoti.load`.

    Raises
    ------
    AotiError
        As `aoti.load`.
    ConfigError
        The package does not describe its inputs and outputs, or an output has the name of a column
        of `keep`.

    Notes
    -----
    A worker has as many threads as Ray reserves CPUs for it: one, or `num_cpus` of `map_batches`.
    Workers of a node share the memory of the weights if those are mapped: see `aoti.load`.
    """

    def __init__(
        self, source: Source | Config, *, keep: Sequence[str] = (), **options: Any
    ) -> None:
        self.model = load(source, **{**options, "outputs": "numpy"})
        self._calls = NamedCalls(self.model)
        self._keep = tuple(keep)
        outputs = [spec.name for spec in self._calls.outputs]
        if both := [name for name in self._keep if name in outputs]:
            raise ConfigError(
                f"keep: the model has an output {both[0]!r}; rename that column of the dataset"
            )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model on a batch.

        Parameters
        ----------
        batch : mapping of str to numpy.ndarray
            A column for each input, by name. The arrays are not copied where their memory can be
            shared: see `AOTIModel.plan`. Columns of lists, which are arrays of objects, are copied.
            Further columns are ignored.

        Returns
        -------
        dict of str to numpy.ndarray
            The outputs by name, and the columns of `keep`.

        Raises
        ------
        InputError, InputTypeError
            A column is missing, is not what the model takes, or has lists of different lengths.
        ConfigError
            An output does not have one row for each row of the batch.
        """
        inputs = {spec.name for spec in self._calls.inputs}
        given = {n: _stacked(n, column) if n in inputs else column for n, column in batch.items()}
        args, kwargs = self._calls.arguments(given, "the batch")
        if missing := [name for name in self._keep if name not in batch]:
            raise InputError(f"keep: the batch has no {missing[0]!r}: it has {', '.join(batch)}")
        found = self._calls.named(self.model(*args, **kwargs))
        rows = len(next(iter(batch.values())))
        for name, array in found.items():
            if array.shape[:1] != (rows,):
                raise ConfigError(
                    f"the output {name!r} has the shape {list(array.shape)}, and the batch has "
                    f"{rows} rows: each output must have as many"
                )
        return {**found, **{name: batch[name] for name in self._keep}}


def _stacked(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """A column as one array."""
    import numpy as np

    if column.dtype != object:
        return column
    try:
        return np.stack(list(column))
    except ValueError:
        raise InputError(f"{name}: the rows have different sizes; pad them") from None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a deployment answers to a call of its handle.

    Attributes
    ----------
    result : object
        What the model returns, with numpy arrays.
    model_version, weights_version : str
        The package and the weights that computed all of the result: the first 12 digits of the
        SHA-256 of their files. They are equal if the weights are those of the package.
    """

    result: Any
    model_version: str
    weights_version: str


def deployment(model: str | os.PathLike[str] | Config, **options: Any) -> Application:
    """A model as an application of Ray Serve: ``serve.run(deployment("minilm.pt2"))``.

    Parameters
    ----------
    model : path, name of a registered model, or Config
        As for `aoti.load`, on each node. A Config can also set options of `aoti.load`.
    **options
        Options of `ray.serve.deployment`: `num_replicas`, `autoscaling_config`, ... These differ:

        name : str
            The default is the name of the package. It is also the model's name for requests.
        user_config : dict
            Settings over those of `model`, with the names of a settings file (see `aoti.Config`):
            ``{"weights": "step-2000.safetensors"}``. When Ray changes it in running replicas, they
            load the model anew, and answer with the old one until then.

    Returns
    -------
    ray.serve.Application
        Its handle has the method ``infer``: it takes the arguments of the model and returns an
        `Answer`, or raises what `AOTIModel.run_async` raises. By HTTP it speaks version 2 of the
        Open Inference Protocol, with tensors in JSON.

    Raises
    ------
    ConfigError
        The Config does not name a model, or `user_config` has a setting that cannot be used.
    """
    from ray import serve

    from aoti.serving.ray_replica import Replica

    config = model if isinstance(model, Config) else Config(os.fspath(model))
    user_config = options.get("user_config") or {}
    source = config.updated(user_config).model
    if source is None:
        raise ConfigError("the configuration names no model: set model")
    options = {"name": Path(source.removesuffix(".pt2")).name, **options}
    return serve.deployment(Replica, **{**options, "user_config": user_config}).bind(config)


def application(arguments: Mapping[str, Any]) -> Application:
    """`deployment`, for configuration files of Ray Serve: ``aoti.serving.ray:application``.

    Parameters
    ----------
    arguments : mapping
        The parameters of `deployment` by name.
    """
    return deployment(**arguments)
