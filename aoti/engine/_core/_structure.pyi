from collections.abc import Sequence
from typing import Any

from typing_extensions import TypeAlias

NodeKind: TypeAlias = int

class Node:
    def __init__(self, kind: str, keys: Sequence[Any], make: Any, children: Sequence[tuple[Any, ...]]) -> None: ...

class Structure:
    def __init__(self, args: tuple[Any, ...], kwargs: tuple[Any, ...], result: tuple[Any, ...], *, arrays_only: bool) -> None: ...
