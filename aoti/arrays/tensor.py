"""`aoti.Tensor`, the tensor class of the array core, once the core knows the array libraries."""

from aoti.arrays import libraries  # noqa: F401 - makes the libraries known
from aoti.engine._core._tensor import Tensor

__all__ = ["Tensor"]
