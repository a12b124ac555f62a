"""Settings from a file and from the environment: which model to load, and how.

The file is TOML, with the names of the options of `aoti.load`::

    model = "minilm.pt2"    # a path, from this file's directory, or a registered name
    num_runners = 4
    intra_op_threads = 1

    [batching]
    max_size = 32

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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aoti.errors import ConfigError
from aoti.options import DEFAULTS, SETTINGS, gathered

LEVELS = ("debug", "info", "warning", "error")

_MOST = 1 << 20  # bytes of a TOML file
_KEYS: dict[str, type] = {
    "model": str,
    **{key: kind for key, kind in SETTINGS.items() if key != "cache"},
    "cache.enabled": SETTINGS["cache"],
    "cache.dir": str,
    "cache.size": str,
    "logging.level": str,
}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_TRUTH = {"1": True, "true": True, "yes": True, "on": True,
          "0": False, "false": False, "no": False, "off": False}  # fmt: skip


@dataclass(frozen=True, slots=True, init=False)
class Config:
    """What to load, and with which options: ``aoti.load(config)`` does it.

    Parameters
    ----------
    model, cache_dir, cache_size, logging_level
        As the attributes.
    **options
        Options of `aoti.load`. Those that are not given, or None, keep their defaults.

    Attributes
    ----------
    model : str or None
        The package: a path, or the name of a registered model (see `aoti.models`).
    cache_dir, cache_size : str or None
        Where extracted packages are kept in this process, and how much of them.
    logging_level : str or None
        ``debug``, ``info``, ``warning`` or ``error``: which messages of the logger ``aoti`` are
        shown. They go to standard error unless the application configured logging.
    options : dict of str to object
        The options of `aoti.load` that are set. Each is also an attribute: `config.num_runners` is
        None if that option is not set.

    Raises
    ------
    ConfigError
        An option does not exist, or `logging_level` is not a level.
    """

    model: str | None
    cache_dir: str | None
    cache_size: str | None
    logging_level: str | None
    options: dict[str, Any]

    def __init__(
        self,
        model: str | None = None,
        *,
        cache_dir: str | None = None,
        cache_size: str | None = None,
        logging_level: str | None = None,
        **options: Any,
    ) -> None:
        for name in options:
            if name not in DEFAULTS:
                raise ConfigError(f"unknown option {name!r:.80}; {_suggestion(name, DEFAULTS)}")
        if logging_level is not None and logging_level not in LEVELS:
            raise ConfigError(
                f"logging.level must be one of {', '.join(LEVELS)}, not {logging_level!r:.60}"
            )
        given = {name: value for name, value in options.items() if value is not None}
        for name, value in zip(
            self.__slots__, (model, cache_dir, cache_size, logging_level, given), strict=True
        ):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in DEFAULTS:
            return self.options.get(name)
        raise AttributeError(f"Config has no attribute {name!r}")

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None
    ) -> Config:
        """Read a file, and the environment over it.

        Parameters
        ----------
        path : str or os.PathLike
            A TOML file. Relative paths in it start at its directory.
        environ : mapping of str to str, optional
            Used instead of the environment of the process.

        Raises
        ------
        ConfigError
            The file cannot be read, or contains an unknown key or a value of a wrong type.
        """
        settings = read_settings(read_toml(path), _KEYS, str(path))
        directory = Path(path).parent
        if "model" in settings:
            model = settings["model"]
            # What cannot be a path is a name, unless there is a package of that name.
            if looks_like_a_path(model) or (directory / model).exists():
                settings["model"] = str(directory / model)
        for key in {"cache.dir", "weights"} & settings.keys():
            settings[key] = str(directory / settings[key])
        return cls._of({**settings, **_from_environment(environ)})

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Read the environment: ``AOTI_MODEL``, ``AOTI_DEVICE``, ``AOTI_NUM_RUNNERS``, ...

        Raises
        ------
        ConfigError
            A variable has a value of a wrong type.
        """
        return cls._of(_from_environment(environ))

    @classmethod
    def _of(cls, settings: Mapping[str, Any]) -> Config:
        named = {key.replace(".", "_"): value for key, value in gathered(settings).items()}
        if "cache_enabled" in named:
            named["cache"] = named.pop("cache_enabled")
        return cls(**named)

    def override(self, **settings: Any) -> Config:
        """The same configuration with other settings.

        Parameters
        ----------
        **settings
            Parameters of `Config`. Those that are None change nothing.

        Raises
        ------
        ConfigError
            As `Config`.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        return Config(**{**self._settings(), **given})

    def updated(self, document: Mapping[str, Any]) -> Config:
        """The same configuration with the settings of a document over it.

        Parameters
        ----------
        document : mapping
            Settings as a file has them: ``{"num_runners": 4, "batching": {"max_size": 32}}``.

        Raises
        ------
        ConfigError
            The document contains an unknown key or a value of a wrong type.
        """
        given = self._of(read_settings(document, _KEYS, "the settings"))
        return self.override(**given._settings())

    def _settings(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__slots__ if name != "options"}
        return {**own, **self.options}


def looks_like_a_path(text: str) -> bool:
    """Whether a text can only be a path, and not the name of a registered model."""
    return os.sep in text or text.endswith(".pt2") or text in ("", ".", "..")


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a TOML file.

    Raises
    ------
    ConfigError
        The file cannot be read, or is not TOML.
    """
    import tomllib

    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST + 1)
        if len(content) > _MOST:
            raise ValueError(f"it has more than {_MOST} bytes")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def read_settings(
    document: Mapping[str, Any], known: Mapping[str, type], where: str
) -> dict[str, Any]:
    """Settings of a document by their dotted keys.

    Parameters
    ----------
    document : mapping
        The content of a TOML file, with nested tables.
    known : mapping of str to type
        The valid dotted keys, and their types.
    where : str
        The name of the document in messages.

    Raises
    ------
    ConfigError
        A key is unknown (the message suggests a similar one), or a value has a wrong type.
    """
    settings = {}
    for key, value in _flat(document, known):
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r:.80}; {_suggestion(key, known)}")
        kind = known[key]
        if type(value) is not kind and (kind, type(value)) != (float, int):
            raise ConfigError(f"{where}: {key} must be {_WORDS[kind]}, not {value!r:.80}")
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


def _suggestion(key: str, known: Iterable[str]) -> str:
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
                    f"the variable {variable} must be {_WORDS[kind]}, not {text!r:.80}"
                ) from None
    return settings
