from collections.abc import Sequence
from typing import Any


class Caller:
    def __call__(self, *args: Any, **kwargs) -> Any: ...
    def run(self, inputs: Sequence[Any], *, outputs=None, out=None, stream=None) -> list[Any]: ...
