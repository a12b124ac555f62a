"""Results of types that only the exporting program has, such as a library's ModelOutput."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Record(dict[Any, Any]):
    """A dict whose values are also attributes: ``out["logits"]`` is ``out.logits``.

    The attributes are read-only. A key with the name of a method of dict is not an attribute.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the result has {', '.join(self)}, not {name!r}") from None

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self]
