# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The tensor class, and DLPack in and out."""

cimport numpy as cnp
from cpython.buffer cimport PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint64_t
from libcpp.utility cimport move
from libcpp.vector cimport vector

from aoti.engine._core._capsules cimport (
    EXCHANGE_API,
    exchange_api,
    legacy_capsule,
    versioned_capsule,
)
from aoti.engine._core._device cimport (
    current_stream,
    device_name,
    device_named,
    stream_number,
    wait_stream,
)
from aoti.engine._core._dtypes cimport dtype_name, numpy_type
from aoti.engine._core._status cimport raise_status
from aoti.engine.cxx cimport devices
from aoti.engine.cxx cimport tensor as cxx
from aoti.engine.cxx.array_view cimport kMaxRank
from aoti.engine.cxx.dlpack cimport (
    DLPACK_FLAG_BITMASK_IS_COPIED,
    DLPACK_FLAG_BITMASK_READ_ONLY,
    DLDevice,
    DLDeviceType,
    DLTensor,
)
from aoti.engine.cxx.dtype cimport dtype_of, itemsize_of
from aoti.engine.cxx.status cimport Status

from collections.abc import Sequence
from typing import Any

import numpy as np
from aoti.errors import ExecutionError

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(
        type subtype,
        cnp.dtype descr,
        int rank,
        const cnp.npy_intp* dims,
        const cnp.npy_intp* strides,
        void* data,
        int flags,
        object array)

cdef extern from "Python.h":
    bint Py_IsInitialized() noexcept nogil

LARGE = 1 << 20


cdef void release_object(void* owner) noexcept nogil:
    """Give back the reference that a tensor holds on the object whose memory it lies in.

    Called from whichever thread drops the last user of the tensor, with the GIL or without. Once
    the interpreter is being finalised, nobody may take the GIL any more: the process ends, and the
    reference with it.
    """
    if Py_IsInitialized():
        with gil:
            Py_DECREF(<object><PyObject*>owner)


cdef Tensor wrap(cxx.Tensor& tensor, bint readonly):
    """A Tensor object for a C++ tensor, which it takes."""
    cdef Tensor wrapped = Tensor.__new__(Tensor)
    wrapped.tensor = move(tensor)
    wrapped.readonly = readonly
    wrapped.large = wrapped.tensor.nbytes() > LARGE
    wrapped.note_stream()
    return wrapped


cdef class Tensor:
    """A tensor that owns its memory: readable after the model is closed.

    What models return if they are asked for it (``outputs="dlpack"``), or if their inputs were
    such tensors or arrays that only have ``__dlpack__``. `Tensor.from_dlpack` makes one of another
    library's tensor, without a copy.

    Attributes
    ----------
    dtype : str
        As torch and ml_dtypes name it: ``float32``, ``bfloat16``.
    shape : tuple of int
        The sizes.
    strides : tuple of int
        The steps, in elements.
    nbytes : int
        The size of the elements, in bytes.
    device : str
        ``cpu`` or ``cuda:0``.
    readonly : bool
        Whether the owner of the memory does not want it to be written to.

    Notes
    -----
    It speaks DLPack (``__dlpack__`` and ``__dlpack_c_exchange_api__``), and on the CPU the buffer
    protocol and ``__array__``; all of them share its memory. On a GPU, whatever takes the tensor
    over is made to wait, on the device, for the work that computes it.
    """

    # The functions in it take this class: _exchange fills them in.
    __dlpack_c_exchange_api__ = PyCapsule_New(exchange_api(), EXCHANGE_API, NULL)

    def __init__(self) -> None:
        raise TypeError("models make tensors, and aoti.Tensor.from_dlpack does")

    def __dealloc__(self):
        # Freeing a large block may unmap it: let others run meanwhile. For a small one, giving up
        # the GIL would cost every call more than it gains.
        if self.large:
            with nogil:
                self.tensor.reset()
        else:
            self.tensor.reset()  # here and not after this, where Cython keeps no pending exception

    cdef int check(self) except -1:
        if not self.tensor.defined():
            raise TypeError("a Tensor that was never filled")
        return 0

    @property
    def dtype(self) -> str:
        self.check()
        return dtype_name(self.tensor.dtype())

    @property
    def shape(self) -> tuple[int, ...]:
        self.check()
        return tuple([self.tensor.sizes()[i] for i in range(self.tensor.rank())])

    @property
    def strides(self) -> tuple[int, ...]:
        self.check()
        return tuple([self.tensor.strides()[i] for i in range(self.tensor.rank())])

    @property
    def nbytes(self) -> int:
        self.check()
        return self.tensor.nbytes()

    cdef int note_stream(self) except -1:
        """Remember that the current stream computes it."""
        if not self.tensor.is_cpu():
            current_stream(self.tensor.device(), &self.stream)
        return 0

    cdef int meet(self) except -1:
        """Let the current stream wait for what computes it."""
        cdef int64_t current = 0
        if not self.tensor.is_cpu():
            current_stream(self.tensor.device(), &current)
            self.hand_to(current)
        return 0

    cdef int hand_to(self, int64_t stream) except -1:
        """Let a stream wait for what computes it, and its memory for what that stream does."""
        cdef Status status
        if stream != self.stream:
            wait_stream(self.tensor.device(), stream, self.stream)
            status = devices.record_stream(self.tensor, stream)
            if not status.ok():
                raise_status(status)
        return 0

    @property
    def device(self) -> str:
        self.check()
        return device_name(self.tensor.device())

    @property
    def data_ptr(self) -> int:
        """The address of the first element."""
        self.check()
        return <size_t>self.tensor.data()

    def numpy(self) -> Any:
        """A numpy array over the same memory, which lives as long as the array does.

        For a tensor on a GPU this is a copy, and the method waits until it is made.

        Raises
        ------
        ExecutionError
            numpy does not have this dtype, and ml_dtypes is not installed.
        """
        self.check()
        return _array_over(self if self.tensor.is_cpu() else self.moved("cpu"))

    def moved(self, str device) -> Tensor:
        """A copy on another device, made when this returns. Takes no GIL meanwhile."""
        cdef DLDevice device_ = device_named(device)
        cdef cxx.Tensor copy
        cdef Status status
        self.check()
        self.meet()
        with nogil:
            status = devices.move_to(self.tensor, device_, copy)
        if not status.ok():
            raise_status(status)
        return wrap(copy, False)

    def copied(self, strides: Sequence[int]) -> Tensor:
        """A copy with these strides, in elements. Takes no GIL while it copies."""
        cdef vector[int64_t] steps = strides
        cdef cxx.Tensor copy
        cdef Status status
        self.check()
        if <Py_ssize_t>steps.size() != self.tensor.rank():
            raise ValueError(f"{self.tensor.rank()} strides are wanted, not {steps.size()}")
        self.meet()
        with nogil:
            status = devices.copy_strided_on_device(self.tensor, steps, copy)
        if not status.ok():
            raise_status(status)
        return wrap(copy, False)

    @staticmethod
    def from_dlpack(value: Any, /) -> Tensor:
        """A tensor over the memory of another library's, which it keeps alive.

        Parameters
        ----------
        value : object
            With ``__dlpack__`` and ``__dlpack_device__``.

        Raises
        ------
        TypeError
            It has no ``__dlpack__``.
        BufferError
            It cannot be shared: another device, a dtype that torch does not have, negative strides.
        """
        if type(value) is Tensor:
            return value
        # The module of array libraries builds on this one.
        from aoti.engine._core._library import import_array

        return import_array(value)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule over this memory: versioned if the caller knows version 1.

        `stream` is that of the caller, which is made to wait for what computes the tensor: a
        handle, None for the default stream, -1 not to wait.
        """
        cdef cxx.Tensor tensor = self.tensor
        cdef uint64_t flags = DLPACK_FLAG_BITMASK_READ_ONLY if self.readonly else 0
        cdef Status status
        self.check()
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            if tuple(dl_device) == (<int>DLDeviceType.kDLCPU, 0) and copy is not False:
                return self.moved("cpu").__dlpack__(max_version=max_version)
            raise BufferError(
                f"dl_device={dl_device!r}: the tensor lies on the {self.device}, "
                f"{self.__dlpack_device__()}")
        if not self.tensor.is_cpu():
            if stream != -1:
                self.hand_to(stream_number(self.tensor.device(), stream or 0))
        elif stream not in (None, -1):
            raise BufferError(f"stream={stream!r}: a tensor on the CPU has no stream")
        if copy:
            self.meet()
            with nogil:
                status = devices.clone_on_device(self.tensor, tensor)
            if not status.ok():
                raise_status(status)
            flags = DLPACK_FLAG_BITMASK_IS_COPIED
        if max_version is not None and max_version[0] >= 1:
            return versioned_capsule(tensor, flags)
        if flags == DLPACK_FLAG_BITMASK_READ_ONLY:
            raise BufferError(
                "the tensor is read-only, which DLPack can say since version 1: "
                "pass max_version=(1, 0)")
        return legacy_capsule(tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        self.check()
        cdef DLDevice device = self.tensor.device()
        return (<int>device.device_type, device.device_id)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = _array_over(self)
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"{self.dtype} does not become {dtype} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        # numpy's description of the same memory; the buffer is released to numpy.
        array = _array_over(self)
        PyObject_GetBuffer(array, buffer, flags)

    def __len__(self) -> int:
        self.check()
        if self.tensor.rank() == 0:
            raise TypeError("len() of a tensor without dimensions")
        return self.tensor.sizes()[0]

    def __repr__(self) -> str:
        if not self.tensor.defined():
            return "<aoti.Tensor, never filled>"
        what = f"dtype={self.dtype}, shape={self.shape}" + (", readonly" if self.readonly else "")
        if not self.tensor.is_cpu():
            return f"aoti.Tensor({what}, device={self.device!r})"
        try:
            values = np.array2string(_array_over(self), prefix="aoti.Tensor(", threshold=100)
        except ExecutionError:  # numpy has no such dtype
            return f"aoti.Tensor({what})"
        return f"aoti.Tensor({values}, {what})"


cdef cnp.ndarray _array_over(Tensor owner):
    """An array over a tensor's memory, which lives as long as the array does."""
    owner.check()
    if not owner.tensor.is_cpu():
        raise TypeError(
            f"the tensor lies on {owner.device}, which the CPU cannot read: call its numpy(), "
            "which copies it")
    cdef cnp.ndarray array = array_over_view(owner.tensor.view(), owner.readonly)
    if owner.tensor.data() != NULL:
        cnp.set_array_base(array, owner)
    return array


cdef cnp.ndarray array_over_view(const DLTensor& view, bint readonly):
    """An array over memory on the CPU that it does not own yet."""
    cdef cnp.dtype descr = numpy_type(dtype_of(view.dtype))
    cdef cnp.npy_intp[kMaxRank] steps
    cdef const cnp.npy_intp* strides = NULL  # an empty tensor has no memory: numpy brings its own
    cdef int64_t itemsize = itemsize_of(dtype_of(view.dtype))
    cdef int i
    if view.data != NULL:
        for i in range(view.ndim):
            steps[i] = view.strides[i] * itemsize
        strides = steps
    Py_INCREF(descr)  # the reference that PyArray_NewFromDescr takes
    return PyArray_NewFromDescr(
        cnp.ndarray,
        descr,
        view.ndim,
        <const cnp.npy_intp*>view.shape,
        strides,
        view.data,
        0 if readonly or view.data == NULL else cnp.NPY_ARRAY_WRITEABLE,
        None)
