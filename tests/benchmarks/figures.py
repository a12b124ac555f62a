"""What benchmarks print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping


def tell(figures: Mapping[str, float], *, as_json: bool) -> None:
    """Print figures with their names: for people, or for programs."""
    if as_json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return
    for name, figure in figures.items():
        print(f"  {name:<44} {figure:9.2f}")
