# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Calls with fixed inputs, for the tightest loops."""

cimport numpy as cnp
from cython.operator cimport dereference as deref
from libc.stdint cimport int64_t
from libcpp.vector cimport vector

from aoti.engine._core._device cimport engine_of, stream_number
from aoti.engine._core._inputs cimport look
from aoti.engine._core._library cimport ArrayLibrary
from aoti.engine._core._outputs cimport output, read_targets
from aoti.engine._core._program cimport Program
from aoti.engine._core._status cimport raise_status
from aoti.engine._core._tensor cimport Tensor
from aoti.engine.cxx.array_view cimport ArrayView, kMaxSymbols
from aoti.engine.cxx.call cimport InputList
from aoti.engine.cxx.check cimport MismatchKind
from aoti.engine.cxx.devices cimport StreamScope
from aoti.engine.cxx.engine cimport AotiBinding, AotiEngine
from aoti.engine.cxx.program cimport Run
from aoti.engine.cxx.status cimport Status, StatusCode
from aoti.engine.cxx.tensor cimport Tensor as CxxTensor

from collections.abc import Sequence
from typing import Any

from aoti.engine._core._library import library_named
from aoti.errors import InputError

cnp.import_array()


def bind(
    Program program not None,
    inputs: Sequence[Any],
    out: Sequence[Any] | None,
    outputs: str | None = None,
    owner: object = None,
    stream: int | None = None,
) -> Bound:
    """A callable that runs a program on these arrays, as they are at each call; see `Bound`.

    It keeps `owner` alive.
    """
    cdef StreamScope scope
    program.enter(stream, scope)
    cdef Bound bound = Bound(program, tuple(inputs), None if out is None else tuple(out))
    bound.owner = owner
    bound.streamed, bound.stream = program.streamed or stream is not None, program.stream
    if stream is not None:
        bound.stream = stream_number(program.device, stream)
    if outputs is not None:
        bound.library = library_named(outputs)
    return bound


def time_runs(Bound bound not None, size_t repeats) -> float:
    """Seconds that `repeats` runs take in a C++ loop: what no Python call can beat."""
    cdef Program program = bound.program
    cdef Status status
    cdef double seconds = 0
    status.code = StatusCode.kBusy
    if program.wanted.bounded:
        program.wanted.check_values(bound.list_, bound.symbols, bound.inputs)
    while program.goes_on(status):
        with nogil:
            status = deref(program.held).time_runs(bound.binding, repeats, seconds)
    return seconds


cdef class Bound:
    """A model with its inputs, and perhaps its outputs, fixed. Made by `AOTIModel.bind`.

    Each call runs the model on what the arrays then hold. Their memory and shapes were checked
    once; values that index tables are checked at each call.
    """

    cdef Program program
    cdef tuple inputs  # what was given
    cdef tuple leaves  # what the tensors lie on
    cdef tuple out
    cdef object result  # what a call gives if all outputs are fixed
    cdef object owner
    cdef ArrayLibrary library
    cdef InputList list_
    cdef AotiBinding* binding
    cdef const AotiEngine* engine
    cdef vector[CxxTensor] targets
    cdef vector[void*] moving  # where arrays lay that their library can move
    cdef bint complete
    cdef bint streamed
    cdef int64_t stream
    cdef int64_t[kMaxSymbols] symbols

    def __init__(self, Program program, tuple inputs, out: tuple[Any, ...] | None) -> None:
        cdef ArrayView view
        cdef Status status
        if self.program is not None:
            raise RuntimeError("a Bound is initialised once")
        program.check_loaded()
        self.inputs = inputs
        self.library = program.library_for(inputs)
        self.leaves = program.wanted.borrow(inputs, self.list_, self.symbols, False)
        for leaf in self.leaves:
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                look(leaf, view)
                self.moving.push_back(view.data)
        self.out = out
        if out is not None:
            read_targets(out, self.targets, program.device)
            for array in out:
                if array is not None and type(array) is not cnp.ndarray and (
                        type(array) is not Tensor):
                    look(array, view)
                    self.moving.push_back(view.data)
            self.complete = all(array is not None for array in out)
            self.result = program.rebuilt(list(out)) if self.complete else None
        self.program, self.engine = program, engine_of(program.engine)
        program.wanted.upload(self.list_)
        status = deref(program.held).bind(self.list_, self.binding)
        if not status.ok():
            raise_status(status)

    def __dealloc__(self):
        # Not through `program`, which the garbage collector may have cleared.
        if self.binding != NULL:
            with nogil:
                self.engine.unbind(self.binding)

    def __call__(self) -> Any:
        """Run; give new outputs, or the arrays that the outputs were written into."""
        cdef Run run
        cdef Program program = self.program
        cdef StreamScope scope
        if self.streamed:
            program.enter_number(self.stream, scope)
        if not self.moving.empty():
            self._check_places()
        if program.wanted.bounded:
            program.wanted.check_values(self.list_, self.symbols, self.inputs)
        run.binding = self.binding
        if self.out is not None:
            run.targets = &self.targets
        program.execute(run, self.out)
        if self.out is None:
            return program.result(run.outputs, self.leaves, self.library)
        if self.complete:
            return self.result
        return program.rebuilt([
            output(run.outputs, i, self.leaves, self.library) if array is None else array
            for i, array in enumerate(self.out)])

    cdef int _check_places(self) except -1:
        """torch's resize_ and set_ give a tensor other memory, whoever else holds it."""
        cdef ArrayView view
        cdef size_t n = 0
        for array in (*self.leaves, *(self.out or ())):
            if array is not None and type(array) is not cnp.ndarray and type(array) is not Tensor:
                if look(array, view) != MismatchKind.kNone or view.data != self.moving[n]:
                    raise InputError("a bound tensor was given other memory; bind again")
                n += 1
        return 0
