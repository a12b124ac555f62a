"""Converting the module to ONNX, for engines that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aoti.exporting.capture.dynamic_shapes import named_shapes
from aoti.exporting.capture.module_source import Source

if TYPE_CHECKING:
    from aoti._processes import Channel


def convert(channel: Channel, source: str, path: str) -> None:
    """Write the module of a source to an ONNX file; the answer is its path."""
    found = Source.find(source)
    with torch.no_grad():
        if isinstance(found.module, torch.export.ExportedProgram):
            torch.onnx.export(found.module, (), path, dynamo=True, verbose=False)
        else:
            torch.onnx.export(
                found.module,
                found.args,
                path,
                kwargs=found.kwargs,
                dynamic_shapes=named_shapes(found.dynamic_shapes, {}),
                dynamo=True,
                verbose=False,
            )
    channel.answer(path)
