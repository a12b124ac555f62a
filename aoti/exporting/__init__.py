"""Exporting PyTorch modules to packages: the wing of aoti that needs torch."""

from aoti.exporting.export import export

__all__ = ["export"]
