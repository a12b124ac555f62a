"""The options of `aoti.load`: each is declared here once, with its default and its checks."""

from __future__ import annotations

import inspect
import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Concatenate, ParamSpec, TypeVar

from aoti.errors import ConfigError
from aoti.machine.device import Device
from aoti.package.archive import Limits

WeightSource = Mapping[str, Any] | str | os.PathLike[str]

_Source = TypeVar("_Source")
_Model = TypeVar("_Model")
_Options = ParamSpec("_Options")

# How a settings file or an environment variable writes an option; without it, they cannot set it.
_TEXT, _WHOLE, _NUMBER, _TRUTH = ({"setting": kind} for kind in (str, int, float, bool))

ENGINES = ("auto", "native", "libtorch")

# Each runner has buffers and perhaps a copy of small weights; each thread has a stack.
_MOST = {"num_runners": 1024, "intra_op_threads": 4096, "queue_size": 1 << 30}


@dataclass(frozen=True, slots=True)
class Batching:
    """How calls of `AOTIModel.submit` and `AOTIModel.run_async` are joined into one run.

    Attributes
    ----------
    max_size : int or None
        The maximum number of rows of a joined run. None: as many as the model accepts, up to 32.
    max_delay : float
        The maximum number of seconds that a call waits for others while a runner is free. Calls
        that wait for a runner are joined without a further delay; 0 joins only those.
    dim : str or None
        The name of the dimension that holds the rows, in `Signature`. None: the one that is the
        first dimension of all outputs, and of all inputs that have it.

    Raises
    ------
    ConfigError
        A value cannot be used.

    Notes
    -----
    These calls are joined with each other: those whose arrays have the same library, dtypes and
    sizes apart from the number of rows, and whose inputs without rows have the same content.
    """

    max_size: int | None = field(default=None, metadata=_WHOLE)
    max_delay: float = field(default=0.002, metadata=_NUMBER)
    dim: str | None = field(default=None, metadata=_TEXT)

    def __post_init__(self) -> None:
        if self.max_size is not None:
            object.__setattr__(self, "max_size", operator.index(self.max_size))
            if not 2 <= self.max_size <= 1 << 30:
                raise ConfigError(
                    "max_size must be a number of rows from 2 to 1073741824, not "
                    f"{_shown(self.max_size)}"
                )
        if not 0 <= self.max_delay <= 3600:
            raise ConfigError(
                "max_delay must be a number of seconds from 0 to 3600, not "
                f"{_shown(self.max_delay)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How to load a model. `aoti.load` describes each option.

    Raises
    ------
    ConfigError
        An option has a value that cannot be used, or contradicts another one.
    """

    model_name: str | None = field(default=None, metadata=_TEXT)
    device: str | Device | None = field(default=None, metadata=_TEXT)
    device_index: int = field(default=-1, metadata=_WHOLE)
    engine: str | None = field(default=None, metadata=_TEXT)
    num_runners: int = field(default=1, metadata=_WHOLE)
    single_threaded: bool = field(default=False, metadata=_TRUTH)
    sha256: str | None = field(default=None, metadata=_TEXT)
    validate: bool = field(default=True, metadata=_TRUTH)
    cache: bool = field(default=True, metadata=_TRUTH)
    limits: Limits | None = None
    outputs: str | None = field(default=None, metadata=_TEXT)
    intra_op_threads: int | None = field(default=None, metadata=_WHOLE)
    queue_size: int = field(default=1024, metadata=_WHOLE)
    batching: Batching | None = None
    timeout: float | None = field(default=None, metadata=_NUMBER)
    self_test: bool = field(default=False, metadata=_TRUTH)
    weights: WeightSource | None = field(default=None, metadata=_TEXT)
    map_source: bool = field(default=False, metadata=_TRUTH)
    warmup: bool | Sequence[Any] = field(default=False, metadata=_TRUTH)
    stream: Any = None

    def __post_init__(self) -> None:
        for name in ("device_index", "num_runners", "intra_op_threads", "queue_size"):
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, operator.index(number))
        for name, most in _MOST.items():
            number = getattr(self, name)
            if number is not None and not 1 <= number <= most:
                bounds = "at least 1" if number < 1 else f"at most {most}"
                raise ConfigError(f"{name} must be {bounds}, not {_shown(number)}")
        if self.device_index.bit_length() > 31:
            raise ConfigError(
                f"device_index must be at most 2147483647, not {_shown(self.device_index)}"
            )
        if self.engine is not None:
            check_engine(self.engine, "engine")
        if self.single_threaded and self.num_runners > 1:
            raise ConfigError("a single-threaded model has one runner: leave num_runners at 1")
        if self.batching is not None and not isinstance(self.batching, Batching):
            raise ConfigError(f"batching must be an aoti.Batching, not {self.batching!r:.80}")
        if self.batching is not None and not self.validate:
            raise ConfigError(
                "batching needs the checks of calls, which keep joined calls apart: leave validate "
                "at True"
            )
        check_timeout(self.timeout)
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise ConfigError(f"sha256 must be 64 hexadecimal digits, not {self.sha256!r:.80}")

    def changed(self) -> dict[str, Any]:
        """The options that are not at their defaults: ``LoadOptions(**changed)`` is the same."""
        values = {name: getattr(self, name) for name in DEFAULTS}
        return {name: value for name, value in values.items() if value is not DEFAULTS[name]}


def check_engine(name: str, origin: str) -> None:
    """Check the name of an engine, which comes from `origin`.

    Raises
    ------
    ConfigError
        It is not one of `ENGINES`.
    """
    if name not in ENGINES:
        listed = ", ".join(map(repr, ENGINES))
        raise ConfigError(f"{origin} must be one of {listed}, not {name!r:.80}")


def check_timeout(seconds: float | None) -> None:
    """Check a time limit. None means that there is no limit.

    Raises
    ------
    ConfigError
        It is not above 0.
    """
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"timeout must be a number of seconds above 0, not {_shown(seconds)}")


def _shown(number: float) -> str:
    # Python refuses to print the longest integers.
    bits = number.bit_length() if isinstance(number, int) else 0
    return str(number) if bits <= 64 else f"a number of {bits} bits"


DEFAULTS: dict[str, Any] = {option.name: option.default for option in fields(LoadOptions)}

_BATCHING = "batching."

# The options that settings can hold, with the type that they have there.
SETTINGS: dict[str, type] = {
    prefix + option.name: option.metadata["setting"]
    for kind, prefix in ((LoadOptions, ""), (Batching, _BATCHING))
    for option in fields(kind)
    if "setting" in option.metadata
}


def gathered(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with one `Batching` in place of those about it.

    Raises
    ------
    ConfigError
        As `Batching`.
    """
    parts = {k.removeprefix(_BATCHING): v for k, v in settings.items() if k.startswith(_BATCHING)}
    rest = {k: v for k, v in settings.items() if not k.startswith(_BATCHING)}
    return {**rest, "batching": Batching(**parts)} if parts else rest


def takes(
    options: Callable[_Options, LoadOptions],
) -> Callable[
    [Callable[Concatenate[_Source, ...], _Model]],
    Callable[Concatenate[_Source, _Options], _Model],
]:
    """Give a function ``(source, **options)`` the signature that spells the options out.

    The function is returned as it is: type checkers, `help` and editors see the new signature.
    """

    def named(
        load: Callable[Concatenate[_Source, ...], _Model],
    ) -> Callable[Concatenate[_Source, _Options], _Model]:
        own = inspect.signature(load)
        (source,) = list(own.parameters.values())[:1]
        parameters = [source, *inspect.signature(options).parameters.values()]
        load.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return load

    return named


def merged(*layers: Mapping[str, Any]) -> LoadOptions:
    """Options from several places; later places win.

    Raises
    ------
    TypeError
        There is no option of that name.
    ConfigError
        As `LoadOptions`.
    """
    chosen = {name: value for layer in layers for name, value in layer.items()}
    for name in chosen:
        if name not in DEFAULTS:
            raise TypeError(f"load() got an unexpected keyword argument {name!r}")
    return LoadOptions(**chosen)
