"""The engines that models are compared on, and what each needs.

This module does not import them: each engine has its own module, and runs in its own process.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A known engine.

    Attributes
    ----------
    target : str
        ``package.module:Class`` of its `Engine`.
    needs : dict of str to str
        The modules that it imports, and the distribution to install for each.
    reads : {'package', 'source', 'onnx'}
        The form in which it reads the model.
    binds : bool
        Whether it can fix inputs before the calls.
    """

    target: str
    needs: dict[str, str]
    reads: str = "package"
    binds: bool = False

    def obstacle(self, mode: str, source: str | None) -> str | None:
        """Why it cannot run here, in one line; None if nothing is known."""
        for module, distribution in self.needs.items():
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed: pip install {distribution}"
        if self.reads != "package" and source is None:
            return "it needs the module that was exported: --source file.py:callable"
        if mode == "bound" and not self.binds:
            return "it does not support bound inputs"
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
