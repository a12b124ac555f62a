# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Versions of a model's weights, and memory for them."""

cimport numpy as cnp
from cython.operator cimport dereference as deref
from libc.stdint cimport int64_t
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

from aoti.engine._core._dtypes cimport dtype_name, dtype_named
from aoti.engine._core._inputs cimport look
from aoti.engine._core._library cimport library_of
from aoti.engine._core._status cimport raise_status
from aoti.engine._core._tensor cimport Tensor, release_object, wrap
from aoti.engine.cxx.array_view cimport ArrayView, kMaxRank, own_strides
from aoti.engine.cxx.check cimport MismatchKind
from aoti.engine.cxx.devices cimport clone_preserving_on_device
from aoti.engine.cxx.dlpack cimport DLTensor
from aoti.engine.cxx.dtype cimport DType, dl_type_of, itemsize_of, kNoDType
from aoti.engine.cxx.memory cimport Memory as CxxMemory
from aoti.engine.cxx.memory cimport tensor_in
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Tensor as CxxTensor
from aoti.engine.cxx.weight_set cimport ConstantInfo
from cpython.ref cimport Py_DECREF, Py_INCREF

from collections.abc import Sequence
from typing import Any

from aoti.engine._core._library import import_array

cnp.import_array()


cdef class WeightSet:
    """A share of one version of the weights in the containers of an engine. From `Program.open`.

    Attributes
    ----------
    number : int
        What runs on it are known by.
    """

    def __init__(self) -> None:
        raise TypeError("Program.open makes weight sets")

    def __dealloc__(self):
        with nogil:
            self.held.reset()

    @property
    def number(self) -> int:
        return deref(self.held).number

    def describe(self) -> tuple[list[str], list[str], list[tuple[str, str, str]]]:
        """The treespecs of inputs and outputs; the FQNs of the constants; and of each constant,
        those that are folded at run time included, its name in the code, its FQN and its dtype.
        """
        cdef vector[string] call_spec
        cdef vector[string] fqns
        cdef vector[ConstantInfo] constants
        cdef Status status
        with nogil:
            status = deref(self.held).describe(call_spec, fqns, constants)
        if not status.ok():
            raise_status(status)
        return (
            [text.decode() for text in call_spec],
            [text.decode() for text in fqns],
            [
                (constants[i].name.decode(), constants[i].fqn.decode(),
                 dtype_name(constants[i].dtype))
                for i in range(constants.size())
            ],
        )

    def set(self, weights: dict[str, Tensor], bint fold) -> None:
        """Give all weights, by the names that the code has for them; nothing may run on it yet.

        They are not copied, and live as long as the containers. With `fold`, what is computed from
        them once is computed now; if each runner has a container, in its first run.
        """
        cdef vector[string] names
        cdef vector[CxxTensor] tensors
        cdef Status status
        for name, tensor in weights.items():
            names.push_back(name.encode())
            tensors.push_back((<Tensor?>tensor).tensor)
        with nogil:
            status = deref(self.held).set(names, move(tensors), fold)
        if not status.ok():
            raise_status(status)

    def weights(self, bint copy) -> dict[str, Tensor | None]:
        """The weights by their FQNs: copies, or only what they look like.

        What is not a copy must not be read after this share is given up, nor be kept longer. A
        weight that is packed for an operator is None.
        """
        cdef vector[string] fqns
        cdef vector[CxxTensor] tensors
        cdef CxxTensor clone
        cdef size_t i
        cdef Status status
        cdef dict found = {}
        with nogil:
            status = deref(self.held).list(fqns, tensors)
        if not status.ok():
            raise_status(status)
        for i in range(tensors.size()):
            if not tensors[i].defined():
                found[fqns[i].decode()] = None
                continue
            if copy:
                with nogil:
                    status = clone_preserving_on_device(tensors[i], clone)
                if not status.ok():
                    raise_status(status)
                tensors[i] = move(clone)
            found[fqns[i].decode()] = wrap(tensors[i], False)
        return found


cdef class Memory:
    """Memory for weights: a file that is mapped, or a part of one that was read.

    It is given back to the system with the last `Tensor` in it.
    """

    def __init__(self) -> None:
        raise TypeError("Memory.map and Memory.read make memory")

    def __dealloc__(self):
        with nogil:  # munmap of a large mapping takes a while
            self.held.reset()

    @staticmethod
    def map(int file, size_t offset, size_t nbytes, bint writable) -> Memory:
        """Map a part of an open file: read-only and shared, or to be written privately."""
        cdef Memory memory = Memory.__new__(Memory)
        cdef Status status
        with nogil:
            status = CxxMemory.map(file, offset, nbytes, writable, memory.held)
        if not status.ok():
            raise_status(status)
        return memory

    @staticmethod
    def read(int file, size_t offset, size_t nbytes) -> Memory:
        """Copy a part of an open file."""
        cdef Memory memory = Memory.__new__(Memory)
        cdef Status status
        with nogil:
            status = CxxMemory.read(file, offset, nbytes, memory.held)
        if not status.ok():
            raise_status(status)
        return memory

    def populate(self) -> None:
        """Bring all of it into the process now, where the system can."""
        with nogil:
            deref(self.held).populate()

    def tensor(
        self, size_t offset, str dtype, shape: Sequence[int], strides: Sequence[int]
    ) -> Tensor:
        """A tensor in this memory, from this byte on, with these strides in elements."""
        cdef CxxTensor tensor
        cdef vector[int64_t] sizes = shape
        cdef vector[int64_t] steps = strides
        cdef DType number = dtype_named(dtype)
        cdef Status status
        if number == kNoDType or len(shape) > kMaxRank:
            raise ValueError(f"{dtype} of {len(shape)} dimensions is not supported")
        last = 1
        for size, step in zip(shape, strides, strict=True):
            if size < 0 or step < 0:
                raise ValueError("sizes and strides are not negative")
            last = 0 if size == 0 else last and last + (size - 1) * step
        if offset + last * itemsize_of(number) > deref(self.held).bytes():
            raise ValueError("a tensor that does not lie in the memory")
        status = tensor_in(self.held, offset, number, sizes, steps, tensor)
        if not status.ok():
            raise_status(status)
        return wrap(tensor, True)


def view_of(value: Any) -> Tensor:
    """A tensor over the memory of an array of any library, which it keeps alive.

    Raises
    ------
    TypeError, BufferError, InputError
        It is not an array, or its memory cannot be shared.
    """
    cdef ArrayView view
    cdef DLTensor described
    cdef int64_t[kMaxRank] strides
    cdef CxxTensor tensor
    cdef int i
    if type(value) is Tensor:
        return value
    if type(value) is not cnp.ndarray and library_of(type(value)) is not None:
        return import_array(value)
    if look(value, view) != MismatchKind.kNone:
        raise TypeError("its dtype is not one of torch's")
    if not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>value):
        raise TypeError("it is not aligned, or not in native byte order")
    own_strides(view, strides)
    for i in range(view.rank):
        if strides[i] < 0:
            raise TypeError("its strides are negative")
    described.data, described.device, described.ndim = view.data, view.device, view.rank
    described.dtype, described.byte_offset = dl_type_of(view.dtype), 0
    described.shape, described.strides = <int64_t*>view.sizes, strides
    Py_INCREF(value)
    try:
        tensor = CxxTensor.over(described, <void*>value, release_object)
    except BaseException:
        Py_DECREF(value)
        raise
    return wrap(tensor, not view.writable)
