"""How fast is a model here, and beside other engines?

>>> from aoti import bench
>>> report = bench.measure("minilm.pt2", engines=["stock"], dims={"sequence": [16, 128]})
>>> report.measurements[0].latency_ms.median
5.1

``aoti bench`` is the same on the command line. Names are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from aoti.bench.engines import ENGINES, PEERS
    from aoti.bench.machine import Machine, this_machine
    from aoti.bench.measuring import measure
    from aoti.bench.page import markdown
    from aoti.bench.picture import save_picture
    from aoti.bench.report import Report
    from aoti.bench.settings import Settings

__all__ = [
    "ENGINES",
    "PEERS",
    "Machine",
    "Report",
    "Settings",
    "markdown",
    "measure",
    "save_picture",
    "this_machine",
]

_HOMES = {
    "ENGINES": "engines",
    "PEERS": "engines",
    "Machine": "machine",
    "Report": "report",
    "Settings": "settings",
    "markdown": "page",
    "measure": "measuring",
    "save_picture": "picture",
    "this_machine": "machine",
}


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aoti.bench' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f"aoti.bench.{_HOMES[name]}"), name)
    return value
