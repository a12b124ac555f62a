"""Exporting PyTorch modules to packages: the wing of aoti that needs torch."""

from aoti.exporting.export import export
from aoti.exporting.presets import PRESETS, Preset
from aoti.exporting.report import Exported, ExportedModel

__all__ = ["PRESETS", "Exported", "ExportedModel", "Preset", "export"]
