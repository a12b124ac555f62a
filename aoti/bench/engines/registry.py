"""Engines that models are compared on: which there are, and what each needs.

Nothing of them is imported here: each engine is in a module of its own, for a process of its own.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine that there is.

    Attributes
    ----------
    target : str
        ``package.module:Class`` of its `Engine`.
    needs : dict of str to str
        The modules that it imports, and what to install for each.
    reads : {'package', 'source', 'onnx'}
        What it makes its model from.
    binds : bool
        Whether inputs can be fixed before the calls.
    """

    target: str
    needs: dict[str, str]
    reads: str = "package"
    binds: bool = False

    def obstacle(self, mode: str, source: str | None) -> str | None:
        """Why it cannot run here, in a line; None if nothing is in the way so far."""
        for module, distribution in self.needs.items():
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed: pip install {distribution}"
        if self.reads != "package" and source is None:
            return "it needs the module that was exported: --source file.py:callable"
        if mode == "bound" and not self.binds:
            return "it has no calls with bound inputs"
        return None


_TORCH = {"torch": "'aoti-runtime[export]'"}
_ONNX = {**_TORCH, "onnx": "onnx", "onnxscript": "onnxscript"}
_HERE = "aoti.bench.engines"

OURS = "aoti"
ENGINES = {
    OURS: Kind(f"{_HERE}.runtime:Runtime", {}, binds=True),
    "stock": Kind(f"{_HERE}.stock:Stock", _TORCH),
    "eager": Kind(f"{_HERE}.eager:Eager", _TORCH, "source"),
    "compile": Kind(f"{_HERE}.eager:Compiled", _TORCH, "source"),
    "onnxruntime": Kind(
        f"{_HERE}.onnxruntime:OnnxRuntime", {"onnxruntime": "onnxruntime", **_ONNX}, "onnx", True
    ),
    "openvino": Kind(f"{_HERE}.openvino:OpenVino", {"openvino": "openvino", **_ONNX}, "onnx", True),
}
PEERS = tuple(name for name in ENGINES if name != OURS)
