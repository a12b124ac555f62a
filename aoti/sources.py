"""What `aoti.load` takes for a source, besides a package: a registered name, or a `Config`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from aoti import cache, logs
from aoti.config import Config
from aoti.errors import ConfigError
from aoti.package import Source
from aoti.registry import resolve

Load = TypeVar("Load", bound=Callable[..., Any])


def by_name(load: Load) -> Load:
    """Let a function that loads a package take names of models and configurations too.

    What is decorated gets a package, and never those. Options of the call go over those of a
    configuration, and these over those that a registered model brings.
    """

    @functools.wraps(load)
    def load_source(path: Source | Config, **options: Any) -> Any:
        if logs.debugging():
            logs.show("debug")
        if isinstance(path, Config):
            if path.model is None:
                raise ConfigError("the configuration names no model: set model, or AOTI_MODEL")
            cache.configure(directory=path.cache_dir, size=path.cache_size)
            if path.logging_level is not None:
                logs.show(path.logging_level)
            options = {**path.options, **options}
            path = path.model
        if (model := resolve(path)) is not None:
            logs.logger.info("%s is %s, from %s", path, model.path, model.place)
            options = {**model.options, **options}
            path = model.path
        start = time.perf_counter()
        model = load(path, **options)
        duration = time.perf_counter() - start
        logs.logger.info("loaded %s on %s in %.0f ms", model.path, model.device, duration * 1e3)
        return model

    return cast("Load", load_source)
