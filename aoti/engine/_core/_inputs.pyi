from collections.abc import Callable, Sequence
from typing import Any


class Inputs:
    def __init__(self, inputs: Sequence[tuple[Any, Any, Any, Any, bool, Any]] | None, ranges: Sequence[tuple[int | None, int | None]], *, ranges_hold: bool, validate: bool, convert: Callable[[int, Sequence[Any], Any, tuple[Any, ...]], Any], check_sizes: Callable[[Sequence[int]], None] | None=None) -> None: ...
    def examine(self, inputs: Sequence[Any]) -> list[Any]: ...
