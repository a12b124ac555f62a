"""Registered models: finding models by name instead of by path.

Models are found in three kinds of places, without running or importing anything:

- the directory ``AOTI_MODELS_DIR``;
- installed wheels with an entry point in the group ``aoti.models``: its name is that of the model,
  its value the Python package (``acme_minilm``, ``acme.models.minilm``) that contains the files;
- the directory ``models`` next to a frozen application (PyInstaller, cx_Freeze).

In a directory of models, a ``.pt2`` file is a model with the name of the file. A subdirectory with
a ``model.toml`` is a model with a description::

    name = "minilm"             # default: the directory's name, or the entry point's
    version = "2.1"             # numbers, separated by dots
    package = "minilm.pt2"      # in this directory; default: the one .pt2 in it
    description = "Sentence embeddings"
    sha256 = "..."              # refuse another package
    default = true              # the name "default" means this model

    [load]                      # options of aoti.load; those of its caller win
    num_runners = 2
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aoti.config import looks_like_a_path, read_settings, read_toml
from aoti.errors import AmbiguousModelError, AotiError, ConfigError, PackageNotFoundError
from aoti.options import SETTINGS, gathered

GROUP = "aoti.models"
DESCRIPTION = "model.toml"
DEFAULT = "default"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9})*")
_KEYS: dict[str, type] = {
    "name": str,
    "version": str,
    "package": str,
    "description": str,
    "sha256": str,
    "default": bool,
    # The digest is a separate key; whether to use the cache is not up to a model.
    **{f"load.{name}": kind for name, kind in SETTINGS.items() if name not in ("sha256", "cache")},
}


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model that was found by name.

    Attributes
    ----------
    name : str
        Its name for `aoti.load`.
    version : str or None
        Its version, if it has one.
    path : Path
        The file or directory of its package.
    place : str
        Where it was found: a directory of models, or a wheel.
    description : str
        The description by its publisher.
    default : bool
        Whether the name ``default`` means this model.
    options : dict of str to object
        Options of `aoti.load`; those of its caller win.
    problem : str or None
        Why it cannot be loaded.
    """

    name: str
    version: str | None
    path: Path
    place: str
    description: str = ""
    default: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


def models() -> tuple[RegisteredModel, ...]:
    """The registered models, sorted by name and version.

    Raises
    ------
    ConfigError
        ``AOTI_MODELS_DIR`` is not a directory that can be read.
    """
    found = [*_in_directories(), *models_in_wheels()]
    return tuple(sorted(found, key=lambda model: (model.name, _numbers(model), model.place)))


def find(name: str) -> RegisteredModel:
    """Find a model by name: ``minilm`` for its highest version, ``minilm@2.1`` for that version.

    The name ``default`` means the model that is described as the default, or the only model.

    Raises
    ------
    PackageNotFoundError
        No model has this name.
    AmbiguousModelError
        Several models have this name: from different places, or with the same version.
    ConfigError
        Its description or ``AOTI_MODELS_DIR`` cannot be used.
    """
    wanted, _, version = name.partition("@")
    known = models()
    found = [model for model in known if model.name == wanted]
    if wanted == DEFAULT and not found:
        found = [model for model in known if model.default]
        if not found and len({model.name for model in known}) == 1:
            found = list(known)
    if version:
        found = [model for model in found if model.version == version]
    if not found:
        listed = ", ".join(sorted({str(model) for model in known})) or "none"
        raise PackageNotFoundError(
            f"no package at {name:.200}, and no model of that name; known by name: {listed:.500}"
        )
    best = max(found, key=_numbers)
    # Of several versions in one place, the highest is meant. All other choices are ambiguous.
    rivals = [
        model
        for model in found
        if (model.name, model.place) != (best.name, best.place) or _numbers(model) == _numbers(best)
    ]
    if len(rivals) > 1:
        listed = "; ".join(f"{model} in {model.place}" for model in rivals)
        raise AmbiguousModelError(
            f"the name {name!r} matches several models: {listed}; pass the path, add @VERSION, "
            "or remove one"
        )
    if best.problem is not None:
        raise ConfigError(best.problem)
    return best


def resolve(source: Any) -> RegisteredModel | None:
    """The registered model that a source of `aoti.load` names; None if it is not a name.

    Raises
    ------
    PackageNotFoundError, AmbiguousModelError, ConfigError
        As for `find`; or it is the name of both a model and a file.
    """
    if not isinstance(source, str) or looks_like_a_path(source):
        return None
    if not os.path.lexists(source):
        return find(source)
    if any(model.name == source.partition("@")[0] for model in models()):
        raise AmbiguousModelError(
            f"{source!r} is a registered model and also a file: write ./{source} for the file, or "
            "work in another directory"
        )
    return None


def _numbers(model: RegisteredModel) -> tuple[int, ...]:
    """A version as numbers to compare. A missing version is less than all others."""
    numbers = [int(number) for number in (model.version or "").split(".") if number]
    while numbers and numbers[-1] == 0:  # 1.0 is 1
        del numbers[-1]
    return (model.version is not None, *numbers)


def _in_directories() -> Iterator[RegisteredModel]:
    if chosen := os.environ.get("AOTI_MODELS_DIR"):
        try:
            yield from _in_directory(Path(chosen).absolute())
        except OSError as error:
            raise ConfigError(
                f"AOTI_MODELS_DIR={chosen}: {error.strerror or error}; set it to a directory of "
                "packages"
            ) from error
    for directory in _beside_a_frozen_application():
        if directory.is_dir():
            yield from _in_directory(directory)


def _beside_a_frozen_application() -> list[Path]:
    if not getattr(sys, "frozen", False):
        return []
    roots = [Path(sys.executable).parent, getattr(sys, "_MEIPASS", None)]
    places = [Path(root, "models").resolve() for root in roots if root is not None]
    return list(dict.fromkeys(places))


def _in_directory(directory: Path) -> Iterator[RegisteredModel]:
    for path in sorted(directory.iterdir()):
        if path.suffix == ".pt2":
            yield RegisteredModel(path.stem, None, path, str(directory))
        elif (path / DESCRIPTION).is_file():
            yield _described(path, path.name, str(directory))


def models_in_wheels() -> Iterator[RegisteredModel]:
    """The models that installed distributions bring."""
    from importlib import metadata  # takes 20 ms

    for entry in metadata.entry_points(group=GROUP):
        place = f"wheel {entry.dist.name} {entry.dist.version}" if entry.dist else "a wheel"
        directory = _directory_of(entry.value)
        if directory is None:
            problem = (
                f"{place}: the entry point {entry.name} = {entry.value!r:.80} does not name a "
                "Python package with files in a directory"
            )
            yield RegisteredModel(entry.name, None, Path(), place, problem=problem)
        else:
            yield _described(directory, entry.name, place)


def _directory_of(module: str) -> Path | None:
    """The directory of a Python package. Imports nothing, so that no code of a parent runs."""
    parent, *below = module.split(".")
    try:
        spec = find_spec(parent)
    except ValueError:  # a module made at run time
        return None
    for name in below:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    places = (spec and spec.submodule_search_locations) or ()
    return next((Path(place) for place in places if Path(place).is_dir()), None)


def _described(directory: Path, name: str, place: str) -> RegisteredModel:
    """The model in a directory, with its model.toml if there is one."""
    description = directory / DESCRIPTION
    try:
        settings = {}
        if description.exists():
            settings = read_settings(read_toml(description), _KEYS, str(description))
        given, version = settings.get("name", name), settings.get("version")
        if not _NAME.fullmatch(given):
            raise ConfigError(
                f"{description}: {given!r:.80} is not a valid name: use letters, digits and ._-"
            )
        if version is not None and not _VERSION.fullmatch(version):
            raise ConfigError(
                f"{description}: a version must be numbers as in 2.1, not {version!r:.80}"
            )
        options = gathered({k.removeprefix("load."): v for k, v in settings.items() if "." in k})
        if "sha256" in settings:
            options["sha256"] = settings["sha256"]
        if "weights" in options:
            options["weights"] = str(_in(directory, options["weights"]))
        return RegisteredModel(
            name=given,
            version=version,
            path=_package(directory, settings.get("package")),
            place=place,
            description=settings.get("description", ""),
            default=settings.get("default", False),
            options=options,
        )
    except (AotiError, OSError) as error:
        return RegisteredModel(name, None, directory, place, problem=str(error))


def _package(directory: Path, name: str | None) -> Path:
    if name is not None:
        return _in(directory, name)
    packages = sorted(directory.glob("*.pt2"))
    if len(packages) != 1:
        raise ConfigError(
            f"{directory} contains {len(packages)} packages; name one in {DESCRIPTION}: "
            'package = "....pt2"'
        )
    return packages[0]


def _in(directory: Path, name: str) -> Path:
    """A file that a description names. Links lead where whoever made the directory wants."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"{directory / DESCRIPTION} names a file outside of its directory: {name!r:.200}; "
            "move the file there, or make a link to it"
        )
    return directory / path
