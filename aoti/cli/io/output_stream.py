"""Writing the results of many calls."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from aoti.cli.io.array_files import write_outputs
from aoti.cli.io.json_arrays import Array, to_json
from aoti.errors import InputError


class Lines:
    """JSON lines: ``{"line": 1, "outputs": {...}}``. Each line is written at once."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file
        self._text = isinstance(file, io.TextIOBase)

    def put(self, label: Mapping[str, Any], outputs: Mapping[str, Array]) -> None:
        """Write a result; `label` identifies the input."""
        line = json.dumps({**label, "outputs": to_json(outputs)}, allow_nan=False) + "\n"
        self._file.write(line if self._text else line.encode())
        if self._text:
            self._file.flush()

    def end(self) -> None:
        """Finish. All lines were written before."""


class Arrays:
    """One array for each output, joined along the first dimension: ``.npz``, ``.safetensors``."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._parts: dict[str, list[Array]] = {}

    def put(self, label: Mapping[str, Any], outputs: Mapping[str, Array]) -> None:
        """Store a result; `label` identifies the input.

        Raises
        ------
        InputError
            Its shape does not allow to join it with the others.
        """
        for name, array in outputs.items():
            parts = self._parts.setdefault(name, [])
            if array.ndim == 0 or (parts and parts[0].shape[1:] != array.shape[1:]):
                ((what, which),) = label.items()
                raise InputError(
                    f"{what} {which}: output {name} of shape {array.shape} cannot be joined with "
                    "the others: write .jsonl"
                )
            parts.append(array)

    def end(self) -> None:
        """Write the file."""
        joined = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        write_outputs(self._destination, joined)
