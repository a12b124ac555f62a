"""Settings from a file and from the environment: what to load, and how.

A file is TOML, with the names of `aoti.load`'s options::

    model = "minilm.pt2"    # a path, from this file's directory, or a registered name
    num_runners = 4
    intra_op_threads = 1

    [cache]
    dir = "/var/cache/aoti"
    size = "10G"

    [logging]
    level = "info"

The environment wins over the file: ``AOTI_NUM_RUNNERS`` over ``num_runners``, ``AOTI_CACHE_DIR``
over ``dir`` in ``[cache]``, and so on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from aoti.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")

# Options of `aoti.load` that a file may set, by their names there, and of what type they are.
LOAD_OPTIONS: dict[str, type] = {
    "model_name": str,
    "device": str,
    "device_index": int,
    "num_runners": int,
    "single_threaded": bool,
    "sha256": str,
    "validate": bool,
    "outputs": str,
    "intra_op_threads": int,
    "queue_size": int,
    "timeout": float,
    "self_test": bool,
    "weights": str,
    "map_source": bool,
    "warmup": bool,
}
_KEYS: dict[str, type] = {
    "model": str,
    **LOAD_OPTIONS,
    "cache.enabled": bool,
    "cache.dir": str,
    "cache.size": str,
    "logging.level": str,
}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_TRUTH = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What to load and how. ``aoti.load(config)`` does it. None: not set, so the default holds.

    Attributes
    ----------
    model : str or None
        The package: a path, or the name of a registered model (see `aoti.models`).
    model_name, device, device_index, num_runners, single_threaded, sha256, validate, outputs, \
    intra_op_threads, queue_size, timeout, self_test, weights, map_source, warmup
        The options of `aoti.load`.
    cache_enabled : bool or None
        Its option `cache`.
    cache_dir, cache_size : str or None
        Where extracted packages are kept in this process, and how much of them.
    logging_level : str or None
        ``debug``, ``info``, ``warning`` or ``error``: what the logger ``aoti`` says, on standard
        error if nobody gave it another place.
    """

    model: str | None = None
    model_name: str | None = None
    device: str | None = None
    device_index: int | None = None
    num_runners: int | None = None
    single_threaded: bool | None = None
    sha256: str | None = None
    validate: bool | None = None
    outputs: str | None = None
    intra_op_threads: int | None = None
    queue_size: int | None = None
    timeout: float | None = None
    self_test: bool | None = None
    weights: str | None = None
    map_source: bool | None = None
    warmup: bool | None = None
    cache_enabled: bool | None = None
    cache_dir: str | None = None
    cache_size: str | None = None
    logging_level: str | None = None

    def __post_init__(self) -> None:
        if self.logging_level is not None and self.logging_level not in LEVELS:
            raise ConfigError(
                f"logging.level is one of {', '.join(LEVELS)}, and not {self.logging_level!r:.60}"
            )

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None
    ) -> Config:
        """Read a file, and the environment over it.

        Parameters
        ----------
        path : str or os.PathLike
            A TOML file. Paths in it are taken from its directory.
        environ : mapping of str to str, optional
            In place of the process's environment.

        Raises
        ------
        ConfigError
            The file cannot be read, or holds a key that is not known or a value that does not fit.
        """
        settings = read_settings(read_toml(path), _KEYS, str(path))
        directory = Path(path).parent
        if "model" in settings:
            model = settings["model"]
            # A name is what could not be meant for a path, unless a package stands there.
            if looks_like_a_path(model) or (directory / model).exists():
                settings["model"] = str(directory / model)
        for key in {"cache.dir", "weights"} & settings.keys():
            settings[key] = str(directory / settings[key])
        return cls._of({**settings, **_from_environment(environ)})

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Config:
        """What the environment sets: ``AOTI_MODEL``, ``AOTI_DEVICE``, ``AOTI_NUM_RUNNERS``, ...

        Raises
        ------
        ConfigError
            A variable holds what does not fit.
        """
        return cls._of(_from_environment(environ))

    @classmethod
    def _of(cls, settings: Mapping[str, Any]) -> Config:
        return cls(**{key.replace(".", "_"): value for key, value in settings.items()})

    def override(self, **settings: Any) -> Config:
        """The same with other settings, but for those that are None: flags over this."""
        return replace(self, **{k: v for k, v in settings.items() if v is not None})

    @property
    def options(self) -> dict[str, Any]:
        """What is set of the options of `aoti.load`."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.name in LOAD_OPTIONS}
        chosen["cache"] = self.cache_enabled
        return {name: value for name, value in chosen.items() if value is not None}


def looks_like_a_path(text: str) -> bool:
    """Whether a text can only be meant for a path, and not for a registered model's name."""
    return os.sep in text or text.endswith(".pt2") or text in ("", ".", "..")


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a TOML file.

    Raises
    ------
    ConfigError
        It cannot be read, or is no TOML.
    """
    import tomllib

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error


def read_settings(
    document: Mapping[str, Any], known: Mapping[str, type], where: str
) -> dict[str, Any]:
    """Settings by their dotted keys.

    Parameters
    ----------
    document : mapping
        As TOML gives it, with tables in it.
    known : mapping of str to type
        The dotted keys that there are, and their types.
    where : str
        What messages call it.

    Raises
    ------
    ConfigError
        A key is not known, and the message says which one may be meant; or a value is of another
        type.
    """
    settings = {}
    for key, value in _flat(document, known):
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r:.80}; {_suggestion(key, known)}")
        kind = known[key]
        if type(value) is not kind and (kind, type(value)) != (float, int):
            raise ConfigError(f"{where}: {key} is {_WORDS[kind]}, and not {value!r:.80}")
        settings[key] = kind(value)
    return settings


def _flat(
    document: Mapping[str, Any], known: Mapping[str, type], prefix: str = ""
) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in document.items():
        key = prefix + name
        is_table = any(other.startswith(f"{key}.") for other in known)
        if isinstance(value, dict) and is_table:
            found += _flat(value, known, f"{key}.")
        else:
            found.append((key, value))
    return found


def _suggestion(key: str, known: Mapping[str, type]) -> str:
    import difflib

    by_last = {name.rpartition(".")[2]: name for name in known}
    candidates = {**by_last, **{name: name for name in known}}
    for text in (key, key.rpartition(".")[2]):
        if close := difflib.get_close_matches(text, candidates, 1, 0.55):
            return f"did you mean {candidates[close[0]]!r}?"
    return f"known are {', '.join(known)}"


def _from_environment(environ: Mapping[str, str] | None) -> dict[str, Any]:
    environ = os.environ if environ is None else environ
    settings: dict[str, Any] = {}
    for key, kind in _KEYS.items():
        variable = "AOTI_" + key.replace(".", "_").upper()
        if text := environ.get(variable):
            try:
                settings[key] = _TRUTH[text.lower()] if kind is bool else kind(text)
            except (KeyError, ValueError):
                raise ConfigError(
                    f"the variable {variable} is {_WORDS[kind]}, and not {text!r:.80}"
                ) from None
    return settings
