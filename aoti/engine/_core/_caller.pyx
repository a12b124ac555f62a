# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The base of a model's class through which Python enters a call."""

cimport cython

from aoti.engine._core._program cimport Program

from collections.abc import Sequence
from typing import Any


@cython.auto_pickle(False)  # that is the class's own business
cdef class Caller:
    """A base of models' classes through which Python enters a call without a frame: a third of a
    microsecond less (tests/benchmarks/calls.py).

    It takes the calls whose arguments are exactly as exported, and runs without options; the others
    go to the class that is next in order.
    """

    cdef public Program _program

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        cdef tuple leaves = None
        if self._program is not None and self._program.structure is not None:
            leaves = self._program.structure.take(args, kwargs)
        if leaves is None:
            return super().__call__(*args, **kwargs)
        return self._program.call(leaves)

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def run(self, inputs: Sequence[Any], *, outputs=None, out=None, stream=None) -> list[Any]:
        """Run on a flat sequence of arrays, one per tensor: see `aoti.AOTIModel.run`."""
        if outputs is None and out is None and stream is None and (
                type(inputs) is list or type(inputs) is tuple) and self._program is not None:
            return self._program.run_all(tuple(inputs))
        return super().run(inputs, outputs=outputs, out=out, stream=stream)
