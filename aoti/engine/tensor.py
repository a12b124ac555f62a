"""`aoti.Tensor`: the tensor class of whichever compiled core fits this machine's libtorch."""

from typing import TYPE_CHECKING

from aoti.engine import libtorch

if TYPE_CHECKING:
    from aoti._core import Tensor
else:
    Tensor = libtorch.core().Tensor

__all__ = ["Tensor"]
