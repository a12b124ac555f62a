from collections.abc import Callable
from typing import Any, Final

from aoti.engine._core._tensor import Tensor


class ArrayLibrary:
    name: Final[str]

    def __init__(self, name: str, wrap: Callable[[Any], Any] | None, immutable: bool, lazy: bool, exchange: Any) -> None: ...

def register(find: Callable[[type], Any], named: Callable[[str], Any]) -> None: ...
def library_named(name: str) -> ArrayLibrary | None: ...
def import_array(value: Any) -> Tensor: ...
