"""Loading weights from a file into a module: safetensors, or a state dict that torch saved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aoti._text import listing
from aoti.errors import ExportError


def load_checkpoint(module: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Load the weights of a file into a module; the names must be exactly those of the module.

    Parameters
    ----------
    module : torch.nn.Module
        The module, whose weights are overwritten.
    path : str or os.PathLike
        A ``.safetensors`` file, or a state dict that ``torch.save`` wrote. Only tensors and plain
        containers are unpickled.

    Raises
    ------
    ExportError
        The file cannot be read, or its names or shapes differ from those of the module.
    """
    weights = _read(Path(path))
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in weights]
    unexpected = [name for name in weights if name not in wanted]
    if missing or unexpected:
        parts = [
            f"{what} {listing(names)}"
            for what, names in (("lacks", missing), ("has unknown", unexpected))
            if names
        ]
        raise ExportError(
            f"checkpoint {path} does not fit {type(module).__name__}: it {'; it '.join(parts)}\n"
            "load another checkpoint, or rename or leave out what differs before the export"
        )
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise ExportError(
                f"checkpoint {path} does not fit {type(module).__name__}: {name} is "
                f"{tuple(tensor.shape)} there, but {tuple(wanted[name].shape)} in the module\n"
                "build the module with the sizes that the checkpoint was trained with"
            )
    module.load_state_dict(weights)


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"{path}: reading this file needs safetensors: pip install safetensors"
        ) from error
    except Exception as error:  # a damaged file raises errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(f"cannot read checkpoint {path}: {reason}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]  # training frameworks wrap it like this
    if not isinstance(loaded, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise ExportError(f"checkpoint {path} is not a state dict: a dict of tensors by name")
    return loaded
