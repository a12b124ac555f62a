"""One model of a package: its files, and its documents, each read and parsed at most once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from aoti.errors import PackageError
from aoti.package import layout, wrapper_cpp
from aoti.package.constants import ConstantTable
from aoti.signature.document import METADATA_KEY, read_signature
from aoti.signature.signature import Signature, on_one_thread

_T = TypeVar("_T")


class _Once(Generic[_T]):
    """A property that is computed when it is first read.

    ``functools.cached_property`` has a lock before Python 3.12, which all objects share: a child
    that is forked while another thread reads a property would wait for it for ever.
    """

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, owner: Any, kind: type) -> _T:
        found = owner.__dict__[self._name] = self._compute(owner)
        return found


class ModelFiles:
    """One model of a package, while that is open.

    Parameters
    ----------
    package : str
        The package's name, for messages.
    name : str
        The name of the model.
    files : mapping of str to int
        The model's files, by their names in the package, and their sizes in bytes.
    read : callable
        Returns the content of such a file, which is a text.

    Notes
    -----
    Every property raises PackageError if its document is damaged or too large.
    """

    def __init__(
        self, package: str, name: str, files: Mapping[str, int], read: Callable[[str], bytes]
    ) -> None:
        self.name = name
        self.files = files
        self._package = package
        self._read = read

    def find(self, *endings: str) -> str | None:
        """The first file whose name ends like this; earlier endings are preferred."""
        found = (name for ending in endings for name in self.files if name.endswith(ending))
        return next(found, None)

    @_Once
    def metadata(self) -> dict[str, str]:
        """What the exporter wrote about the model. Shared by all callers: not to be changed."""
        name = self.find(*layout.METADATA)
        if name is None:
            raise PackageError(f"{self._package}: model {self.name!r} has no metadata file")
        try:
            metadata = json.loads(self._read(name))
        except (ValueError, RecursionError) as error:
            raise PackageError(f"{self._package}: {name} is not valid JSON: {error}") from error
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise PackageError(f"{self._package}: {name} is not an object of strings")
        return metadata

    @_Once
    def signature(self) -> Signature:
        """What the model takes and gives: see `aoti.Package.signature`."""
        if (record := self.metadata.get(METADATA_KEY)) is not None:
            return read_signature(record, self._package)
        source = self.source or ""
        return Signature.of_wrapper(
            wrapper_cpp.read_inputs(source), wrapper_cpp.read_call_spec(source)
        )

    @_Once
    def source(self) -> str | None:
        """The generated C++ around the model's kernels; None where it was stripped."""
        name = self.find(layout.SOURCE)
        return None if name is None else self._text(name)

    @_Once
    def constants(self) -> ConstantTable | None:
        """The model's constants; None if the generated C++ does not describe them."""
        return wrapper_cpp.read_constants(self.source or "")

    @_Once
    def num_constants(self) -> int | None:
        """The number of the model's constants; None if the generated C++ does not say."""
        return wrapper_cpp.read_num_constants(self.source or "")

    @_Once
    def weight_bytes(self) -> int | None:
        """The size of the model's constants; None if the generated C++ does not say."""
        return wrapper_cpp.read_weight_bytes(self.source or "")

    @_Once
    def may_abort(self) -> bool:
        """Whether an index out of range can abort the process: see `aoti.Package.may_abort`."""
        if METADATA_KEY in self.metadata:
            signature = self.signature
            return bool(signature.unchecked_indices) and not on_one_thread(signature.options)
        return any(map(wrapper_cpp.may_abort, self._generated()))

    @_Once
    def threads(self) -> int | None:
        """The number of threads that was compiled in: see `aoti.Package.threads`."""
        found = map(wrapper_cpp.read_threads, self._generated())
        return max(filter(None, found), default=None)

    def _generated(self) -> Iterator[str]:
        """All generated C++ of the model, file by file."""
        for name in self.files:
            if name.endswith(layout.GENERATED):
                yield self._text(name)

    def _text(self, name: str) -> str:
        return self._read(name).decode("utf-8", "replace")
