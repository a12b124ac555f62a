# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The compiled core: owns libtorch's package loader and passes arrays to it and back.

Mechanism only. Names, defaults, checks of files and the wording of input errors are the business
of the modules above (aoti.model first of all). Each function converts, runs one block without the
GIL, and converts; C++ exceptions end in csrc/aoti and become Python ones in `_raise` alone.
"""

from cpython.buffer cimport PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear
from cpython.pycapsule cimport (
    PyCapsule_GetPointer,
    PyCapsule_IsValid,
    PyCapsule_New,
    PyCapsule_SetDestructor,
    PyCapsule_SetName,
    PyCapsule_SetPointer,
)
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cython.operator cimport dereference as deref
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport make_unique, unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

cimport numpy as cnp
from aoti cimport _cxx
from aoti._cxx cimport (
    Borrowed,
    DLManagedTensor,
    DLManagedTensorVersioned,
    DLPackExchangeAPI,
    DLTensor,
    Failure,
    Fault,
    InputSpec,
    Mismatch,
    Range,
    ScalarType,
)

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from aoti import kinds
from aoti.errors import (
    ExecutionError,
    IncompatiblePackageError,
    InputError,
    InputTypeError,
    ModelClosedError,
)

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


# -- dtypes ------------------------------------------------------------------------------------

cdef int _UNKNOWN = -1

# The dtype names of torch, which are also those of numpy and ml_dtypes, by torch's own number.
_DTYPES: dict[str, int] = {
    "bool": <int>ScalarType.Bool,
    "uint8": <int>ScalarType.Byte,
    "int8": <int>ScalarType.Char,
    "int16": <int>ScalarType.Short,
    "int32": <int>ScalarType.Int,
    "int64": <int>ScalarType.Long,
    "uint16": <int>ScalarType.UInt16,
    "uint32": <int>ScalarType.UInt32,
    "uint64": <int>ScalarType.UInt64,
    "float16": <int>ScalarType.Half,
    "bfloat16": <int>ScalarType.BFloat16,
    "float32": <int>ScalarType.Float,
    "float64": <int>ScalarType.Double,
    "complex32": <int>ScalarType.ComplexHalf,
    "complex64": <int>ScalarType.ComplexFloat,
    "complex128": <int>ScalarType.ComplexDouble,
    "float8_e4m3fn": <int>ScalarType.Float8_e4m3fn,
    "float8_e4m3fnuz": <int>ScalarType.Float8_e4m3fnuz,
    "float8_e5m2": <int>ScalarType.Float8_e5m2,
    "float8_e5m2fnuz": <int>ScalarType.Float8_e5m2fnuz,
    "float8_e8m0fnu": <int>ScalarType.Float8_e8m0fnu,
}
_NAMES: dict[int, str] = {number: name for name, number in _DTYPES.items()}

# numpy's builtin type numbers end below 32, torch's below 64; -1 where one has no counterpart.
cdef int[32] _torch_dtype
cdef int[64] _numpy_dtype

cdef int _fill_dtype_tables() except -1:
    for i in range(32):
        _torch_dtype[i] = _UNKNOWN
    for i in range(64):
        _numpy_dtype[i] = _UNKNOWN
    for name, number in _DTYPES.items():
        if hasattr(np, name):
            dtype = np.dtype(name)
            _torch_dtype[dtype.num] = number
            _numpy_dtype[<int>number] = dtype.num
    # C's long and long long are both int64 here, but numpy counts them as two types.
    _torch_dtype[<int>cnp.NPY_LONGLONG] = <int>ScalarType.Long
    _torch_dtype[<int>cnp.NPY_ULONGLONG] = <int>ScalarType.UInt64
    return 0

_fill_dtype_tables()


cdef int _dtype_number(cnp.ndarray array) except -2:
    """Torch's number for an array's dtype, -1 if there is none."""
    cdef int number = cnp.PyArray_TYPE(array)
    if 0 <= number < 32:
        return _torch_dtype[number]
    # Types registered by ml_dtypes: bfloat16, float8. Its other types have other names.
    return _DTYPES.get(array.dtype.name, _UNKNOWN)


cdef str _dtype_name(int dtype):
    return _NAMES.get(dtype, f"dtype number {dtype}")


cdef cnp.dtype _numpy_type(int dtype):
    """The numpy dtype for one of torch's."""
    cdef int number = _numpy_dtype[dtype] if 0 <= dtype < 64 else _UNKNOWN
    if number != _UNKNOWN:
        return cnp.PyArray_DescrFromType(number)
    try:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _dtype_name(dtype)))
    except (ImportError, AttributeError) as error:
        raise ExecutionError(
            f"numpy has no type for {_dtype_name(dtype)}; install ml_dtypes (pip install "
            "ml_dtypes), or load the model with outputs='dlpack'"
        ) from error


# -- failures ----------------------------------------------------------------------------------

cdef int _raise(const Failure& failure) except -1:
    """Raise what csrc/aoti caught. The one place where C++ exceptions become Python ones."""
    if failure.fault == Fault.kClosed:
        raise ModelClosedError("the model was closed")
    if failure.fault == Fault.kRunLost:
        raise ExecutionError(
            "this process was forked while a model ran in another thread, whose locks nobody lets "
            "go of here: no model can run in it; start processes by spawn or forkserver, or fork "
            "when nothing runs")
    if failure.fault == Fault.kThreadsLost:
        raise ExecutionError(
            "this process was forked after a model had run, and this OpenMP cannot start its "
            "threads anew: start processes by spawn or forkserver, or run the model in a thread "
            "that is started after the fork")
    if failure.fault == Fault.kMemory:
        raise MemoryError("out of memory in libtorch")
    message = failure.message.decode("utf-8", "replace").strip()
    detail = failure.detail.decode("utf-8", "replace").strip()
    first, _, rest = message.partition("\n")
    error = ExecutionError(first or "the model failed without saying why")
    for note in (rest.strip(), detail):
        if note and note != message:
            error.add_note(note)
    raise error


# -- tensors -----------------------------------------------------------------------------------

cdef int64_t _LARGE = 1 << 20  # bytes

# Names of capsules, which stay with them: C's own strings.
cdef const char* _VERSIONED = "dltensor_versioned"
cdef const char* _VERSIONED_USED = "used_dltensor_versioned"
cdef const char* _LEGACY = "dltensor"
cdef const char* _LEGACY_USED = "used_dltensor"
cdef const char* _OUTPUT = "aoti_output"
cdef const char* _EXCHANGE = "dlpack_exchange_api"

cdef DLPackExchangeAPI _api  # filled below


cdef void _release_object(void* reference) noexcept nogil:
    """Give back the reference that a tensor holds on the object whose memory it lies in.

    Called from whichever thread drops the last user of the tensor, with the GIL or without. Once
    the interpreter is being finalised, nobody may take the GIL any more: the process ends, and the
    reference with it.
    """
    if Py_IsInitialized():
        with gil:
            Py_DECREF(<object><PyObject*>reference)


cdef class Tensor:
    """A tensor on the CPU that owns its memory: readable after the model is closed.

    What models return if they are asked for it (``outputs="dlpack"``), or if they were given such
    or an array that only has ``__dlpack__``. `Tensor.from_dlpack` makes one of another library's
    tensor, without a copy.

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
        Always ``cpu``.
    readonly : bool
        Whether the memory is that of somebody who does not want it to be written to.

    Notes
    -----
    It speaks DLPack (``__dlpack__`` and ``__dlpack_c_exchange_api__``), the buffer protocol and
    ``__array__``; all of them share its memory.
    """

    cdef _cxx.Tensor tensor
    cdef bint large
    cdef readonly bint readonly
    __dlpack_c_exchange_api__ = PyCapsule_New(&_api, _EXCHANGE, NULL)

    def __init__(self) -> None:
        raise TypeError("models make tensors, and aoti.Tensor.from_dlpack does")

    def __dealloc__(self):
        # Freeing a large block may unmap it: let others run meanwhile. For a small one, giving up
        # the GIL would cost every call more than it gains.
        if self.large:
            with nogil:
                self.tensor.reset()

    cdef int _view(self, _cxx.View& view) except -1:
        if not self.tensor.defined():
            raise TypeError("a Tensor that was never filled")
        _cxx.view(self.tensor, view)
        return 0

    @property
    def dtype(self) -> str:
        cdef _cxx.View view
        self._view(view)
        return _dtype_name(view.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        cdef _cxx.View view
        self._view(view)
        return tuple([view.sizes[i] for i in range(view.rank)])

    @property
    def strides(self) -> tuple[int, ...]:
        cdef _cxx.View view
        cdef Borrowed array
        self._view(view)
        _cxx.describe(self.tensor, True, array)
        return tuple([array.strides[i] for i in range(view.rank)])

    @property
    def nbytes(self) -> int:
        cdef _cxx.View view
        self._view(view)
        return view.bytes

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def data_ptr(self) -> int:
        """The address of the first element."""
        cdef _cxx.View view
        self._view(view)
        return <size_t>view.data

    def numpy(self) -> Any:
        """A numpy array over the same memory, which lives as long as the array does.

        Raises
        ------
        ExecutionError
            numpy knows no such dtype, and ml_dtypes is not installed.
        """
        return _array_over(self)

    def copied(self, strides: Sequence[int]) -> Tensor:
        """A copy with these strides, in elements. Takes no GIL while it copies."""
        cdef vector[int64_t] steps = strides
        cdef Tensor copy = Tensor.__new__(Tensor)
        cdef Failure failure
        cdef _cxx.View view
        self._view(view)
        if <Py_ssize_t>steps.size() != view.rank:
            raise ValueError(f"{view.rank} strides are wanted, not {steps.size()}")
        with nogil:
            failure = _cxx.copy_strided(self.tensor, steps, copy.tensor)
        if failure.fault != Fault.kNone:
            _raise(failure)
        return copy

    @staticmethod
    def from_dlpack(value: Any, /) -> Tensor:
        """A tensor over the memory of another library's, which it keeps alive.

        Parameters
        ----------
        value : object
            With ``__dlpack__`` and ``__dlpack_device__``, on the CPU.

        Raises
        ------
        TypeError
            It has no ``__dlpack__``.
        BufferError
            It cannot be shared: another device, a dtype that torch does not have, negative strides.
        """
        if type(value) is Tensor:
            return value
        cdef Kind kind = _kind(type(value))
        if kind is None:
            raise TypeError(f"{type(value).__name__} has no __dlpack__")
        return _import(value, kind)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule over this memory: versioned if the caller knows version 1."""
        cdef _cxx.View view
        cdef _cxx.Tensor tensor = self.tensor
        cdef uint64_t flags = _cxx.DLPACK_FLAG_BITMASK_READ_ONLY if self.readonly else 0
        cdef Failure failure
        self._view(view)
        if stream not in (None, -1):
            raise BufferError(f"stream={stream!r}: a tensor on the CPU has no stream")
        if dl_device is not None and tuple(dl_device) != (_cxx.kDLCPU, 0):
            raise BufferError(f"dl_device={dl_device!r}: the tensor lies on the CPU, (1, 0)")
        if copy:
            with nogil:
                failure = _cxx.clone(tensor)
            if failure.fault != Fault.kNone:
                _raise(failure)
            flags = _cxx.DLPACK_FLAG_BITMASK_IS_COPIED
        if max_version is not None and max_version[0] >= 1:
            return _versioned_capsule(tensor, flags)
        if flags == _cxx.DLPACK_FLAG_BITMASK_READ_ONLY:
            raise BufferError(
                "the tensor is read-only, which DLPack can say since version 1: "
                "pass max_version=(1, 0)")
        return _legacy_capsule(tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_cxx.kDLCPU, 0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = _array_over(self)
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"{self.dtype} does not become {dtype} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        # numpy's description of the same memory; it is also who will be told of the release.
        array = _array_over(self)
        PyObject_GetBuffer(array, buffer, flags)

    def __len__(self) -> int:
        cdef _cxx.View view
        self._view(view)
        if view.rank == 0:
            raise TypeError("len() of a tensor without dimensions")
        return view.sizes[0]

    def __repr__(self) -> str:
        if not self.tensor.defined():
            return "<aoti.Tensor, never filled>"
        what = f"dtype={self.dtype}, shape={self.shape}" + (", readonly" if self.readonly else "")
        try:
            values = np.array2string(_array_over(self), prefix="aoti.Tensor(", threshold=100)
        except ExecutionError:  # numpy has no such dtype
            return f"aoti.Tensor({what})"
        return f"aoti.Tensor({values}, {what})"


cdef cnp.ndarray _array_over(Tensor owner):
    """An array over a tensor's memory, which lives as long as the array does."""
    cdef _cxx.View view
    owner._view(view)
    cdef cnp.ndarray array = _array(view, owner.readonly)
    if view.data != NULL:
        cnp.set_array_base(array, owner)
    return array


cdef cnp.ndarray _array(_cxx.View& view, bint readonly):
    """An array that does not own its memory yet."""
    cdef cnp.dtype descr = _numpy_type(view.dtype)
    cdef const cnp.npy_intp* strides = <const cnp.npy_intp*>view.strides
    if view.data == NULL:
        strides = NULL  # an empty tensor has no memory, and numpy brings its own
    Py_INCREF(descr)  # the reference that PyArray_NewFromDescr takes
    return PyArray_NewFromDescr(
        cnp.ndarray, descr, view.rank, <const cnp.npy_intp*>view.sizes, strides, view.data,
        0 if readonly or view.data == NULL else cnp.NPY_ARRAY_WRITEABLE, None)


cdef void _free(object capsule) noexcept:
    cdef _cxx.Tensor tensor = _cxx.reclaim(PyCapsule_GetPointer(capsule, _OUTPUT))
    # Freeing a large block may unmap it: let others run meanwhile. For a small one, giving up the
    # GIL would cost every call more than it gains.
    if _cxx.bytes_of(tensor) > _LARGE:
        with nogil:
            tensor.reset()


cdef cnp.ndarray _to_numpy(_cxx.Tensor& tensor, tuple leaves):
    """An array over what a model returned, and its owner: a capsule, which takes half the time
    that a Tensor takes to make and to free.
    """
    cdef _cxx.View view
    cdef bint readonly
    _settle(tensor, leaves, &readonly)
    _cxx.view(tensor, view)
    cdef cnp.ndarray array = _array(view, readonly)
    if view.data != NULL:
        owner = PyCapsule_New(<void*>_OUTPUT, _OUTPUT, NULL)
        PyCapsule_SetPointer(owner, _cxx.release(tensor))
        PyCapsule_SetDestructor(owner, _free)
        cnp.set_array_base(array, owner)
    return array


# -- DLPack ------------------------------------------------------------------------------------

cdef class Kind:
    """How the arrays of one type come in and go out. `aoti.kinds` says which kinds there are.

    Parameters
    ----------
    name : str
        What messages and ``outputs=`` call it.
    wrap : callable or None
        Makes an array of this kind from a `Tensor`. None: the tensor itself.
    immutable : bool
        Whether its memory must not be written to, although it does not say so.
    lazy : bool
        Whether it may carry conjugations and negations that DLPack does not tell of; it then has
        torch's methods for them.
    exchange : object
        The type's ``__dlpack_c_exchange_api__``, or None.
    """

    cdef readonly str name
    cdef object wrap
    cdef bint immutable
    cdef bint lazy
    cdef object exchange
    cdef const DLPackExchangeAPI* api  # lives as long as the process
    cdef _cxx.TorchWrap torch_wrap

    def __init__(
        self,
        str name,
        wrap: Callable[[Any], Any] | None,
        bint immutable,
        bint lazy,
        exchange: Any,
    ) -> None:
        self.name, self.wrap, self.immutable, self.lazy = name, wrap, immutable, lazy
        self.exchange = exchange
        cdef const DLPackExchangeAPI* api
        if exchange is not None:
            api = <const DLPackExchangeAPI*>PyCapsule_GetPointer(exchange, _EXCHANGE)
            while api != NULL and api.header.version.major != _cxx.DLPACK_MAJOR_VERSION:
                api = <const DLPackExchangeAPI*>api.header.prev_api
            if api != NULL and api.dltensor_from_py_object_no_sync != NULL:
                self.api = api
        if name == "torch" and self.api != NULL:
            version = json.loads(_cxx.build_info().decode())["torch"].split(".")[:2]
            if sys.modules["torch"].__version__.split(".")[:2] == version:
                self.torch_wrap = _cxx.find_torch_wrap()


cdef dict _kinds = {}  # by type; False for what is no array by DLPack

cdef Kind _kind(array_type):
    """The kind of a type, None if its arrays have no `__dlpack__`."""
    cached = _kinds.get(array_type)
    if cached is not None:
        return None if cached is False else <Kind>cached
    found = kinds.find(array_type)
    kind = None if found is None else Kind(*found)
    if len(_kinds) < 100:  # types that a program makes as it runs shall not live forever
        _kinds[array_type] = False if kind is None else kind
    return kind


cdef Kind _kind_of(tuple leaves):
    """The kind of the first that is no numpy array and no scalar; None if all are."""
    cdef Kind kind
    for leaf in leaves:
        if type(leaf) is not cnp.ndarray:
            kind = _kind(type(leaf))
            if kind is not None:
                return kind
    return None


def kind_named(str name) -> Kind | None:
    """The kind of outputs that a name asks for; None is numpy.

    Raises
    ------
    ConfigError
        There is no such kind, or its library was not imported.
    """
    found = kinds.named(name)
    return None if found is None else Kind(*found)


cdef int _raise_pending() except -1:
    """Raise the exception that a C function set."""
    return -1


cdef Tensor _import(value, Kind kind):
    """A tensor over another library's memory: by its C functions, else by a capsule."""
    cdef DLManagedTensorVersioned* managed = NULL
    cdef Tensor tensor
    if kind.api == NULL:
        if not _cxx.on_host(value.__dlpack_device__()[0]):
            raise BufferError("it does not lie on the CPU")
        try:
            capsule = value.__dlpack__(max_version=(
                _cxx.DLPACK_MAJOR_VERSION, _cxx.DLPACK_MINOR_VERSION))
        except TypeError:  # of before version 1
            capsule = value.__dlpack__()
        tensor = _from_capsule(capsule)
        tensor.readonly |= kind.immutable
        return tensor
    resolved = value.resolve_conj().resolve_neg() if kind.lazy else value
    if kind.api.managed_tensor_from_py_object_no_sync(<void*>resolved, &managed) != 0:
        _raise_pending()
    try:
        tensor = _from_versioned(managed)
    except BaseException:
        _cxx.discard(managed)
        raise
    if resolved is not value or kind.immutable:
        tensor.readonly = True  # a copy: nobody would see what is written into it
    return tensor


cdef Tensor _from_capsule(capsule):
    """Consume a capsule; it stays as it was if it cannot be used."""
    cdef Tensor tensor
    cdef Failure failure
    if PyCapsule_IsValid(capsule, _VERSIONED):
        tensor = _from_versioned(
            <DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, _VERSIONED))
        PyCapsule_SetName(capsule, _VERSIONED_USED)
        return tensor
    if not PyCapsule_IsValid(capsule, _LEGACY):
        raise BufferError(f"no DLPack capsule, or one that was used before: {capsule!r}")
    tensor = Tensor.__new__(Tensor)
    failure = _cxx.adopt(
        <DLManagedTensor*>PyCapsule_GetPointer(capsule, _LEGACY), tensor.tensor)
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    PyCapsule_SetName(capsule, _LEGACY_USED)
    return tensor


cdef Tensor _from_versioned(DLManagedTensorVersioned* managed):
    """A tensor that owns `managed`, which on an error is still the caller's."""
    cdef Tensor tensor = Tensor.__new__(Tensor)
    cdef Failure failure
    if managed.version.major != _cxx.DLPACK_MAJOR_VERSION:
        raise BufferError(f"DLPack {managed.version.major} is not known")
    failure = _cxx.adopt(managed, tensor.tensor)
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    tensor.readonly = (managed.flags & _cxx.DLPACK_FLAG_BITMASK_READ_ONLY) != 0
    return tensor


cdef void _drop_versioned(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, _VERSIONED):
        _cxx.discard(
            <DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, _VERSIONED))


cdef void _drop_legacy(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, _LEGACY):
        _cxx.discard(<DLManagedTensor*>PyCapsule_GetPointer(capsule, _LEGACY))


cdef object _versioned_capsule(_cxx.Tensor& tensor, uint64_t flags):
    cdef DLManagedTensorVersioned* managed = NULL
    cdef Failure failure = _cxx.produce(tensor, flags, managed)
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    try:
        return PyCapsule_New(managed, _VERSIONED, _drop_versioned)
    except BaseException:
        _cxx.discard(managed)
        raise


cdef object _legacy_capsule(_cxx.Tensor& tensor):
    cdef DLManagedTensor* managed = NULL
    cdef Failure failure = _cxx.produce(tensor, 0, managed)
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    try:
        return PyCapsule_New(managed, _LEGACY, _drop_legacy)
    except BaseException:
        _cxx.discard(managed)
        raise


# The C functions of our own tensors, for libraries that exchange tensors by those.

cdef int _api_allocate(
    DLTensor* prototype,
    DLManagedTensorVersioned** out,
    void* context,
    void (*set_error)(void*, const char*, const char*) noexcept nogil,
) noexcept nogil:
    cdef _cxx.Tensor tensor
    cdef Failure failure = _cxx.allocate_like(deref(prototype), tensor)
    if failure.fault == Fault.kNone:
        failure = _cxx.produce(tensor, 0, out[0])
    if failure.fault == Fault.kNone:
        return 0
    set_error(context, b"RuntimeError", failure.message.c_str())
    return -1


cdef int _api_share(void* value, DLManagedTensorVersioned** out) except -1:
    cdef Tensor tensor = <Tensor?><object><PyObject*>value
    cdef _cxx.View view
    tensor._view(view)
    cdef Failure failure = _cxx.produce(
        tensor.tensor, _cxx.DLPACK_FLAG_BITMASK_READ_ONLY if tensor.readonly else 0, out[0])
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    return 0


cdef int _api_take(DLManagedTensorVersioned* managed, void** out) except -1:
    cdef Tensor tensor = _from_versioned(managed)
    Py_INCREF(tensor)  # the caller's reference
    out[0] = <void*>tensor
    return 0


cdef int _api_describe(void* value, DLTensor* out) except -1:
    cdef Tensor tensor = <Tensor?><object><PyObject*>value
    cdef _cxx.View view
    tensor._view(view)
    if tensor.readonly:
        raise BufferError("the tensor is read-only, which a DLTensor cannot say")
    cdef Failure failure = _cxx.describe_to(tensor.tensor, deref(out))
    if failure.fault != Fault.kNone:
        raise BufferError(failure.message.decode())
    return 0


cdef int _api_stream(
    _cxx.DLDeviceType device_type, int32_t device_id, void** stream
) except -1:
    stream[0] = NULL  # the CPU has none
    return 0


_api.header.version.major = _cxx.DLPACK_MAJOR_VERSION
_api.header.version.minor = _cxx.DLPACK_MINOR_VERSION
_api.header.prev_api = NULL
_api.managed_tensor_allocator = _api_allocate
_api.managed_tensor_from_py_object_no_sync = <_cxx.DLPackManagedTensorFromPyObjectNoSync>_api_share
_api.managed_tensor_to_py_object_no_sync = <_cxx.DLPackManagedTensorToPyObjectNoSync>_api_take
_api.dltensor_from_py_object_no_sync = <_cxx.DLPackDLTensorFromPyObjectNoSync>_api_describe
_api.current_work_stream = <_cxx.DLPackCurrentWorkStream>_api_stream


# -- inputs and outputs ------------------------------------------------------------------------

cdef inline void _borrowed(cnp.ndarray array, int dtype, Borrowed& out) noexcept:
    out.data = cnp.PyArray_DATA(array)
    out.dtype = dtype
    out.rank = cnp.PyArray_NDIM(array)
    out.itemsize = cnp.PyArray_ITEMSIZE(array)
    out.unit = 1
    out.sizes = <const int64_t*>cnp.PyArray_DIMS(array)
    out.strides = <const int64_t*>cnp.PyArray_STRIDES(array)
    out.writable = cnp.PyArray_ISWRITEABLE(array)


cdef int _look(leaf, Borrowed& out) except -1:
    """What a leaf says of itself. Not kNone if the core cannot look at it."""
    cdef DLTensor described
    cdef Kind kind
    cdef int mismatch
    # Exactly these types: a subclass may mean something else by its data, as masks do.
    if type(leaf) is cnp.ndarray:
        _borrowed(<cnp.ndarray>leaf, _dtype_number(<cnp.ndarray>leaf), out)
        if out.dtype == _UNKNOWN:
            return <int>Mismatch.kDtype
        return <int>Mismatch.kNone
    if type(leaf) is Tensor:
        if not (<Tensor>leaf).tensor.defined():
            return <int>Mismatch.kNull
        _cxx.describe((<Tensor>leaf).tensor, not (<Tensor>leaf).readonly, out)
        return <int>Mismatch.kNone
    kind = _kind(type(leaf))
    if kind is None or kind.api == NULL:
        return <int>Mismatch.kLayout
    if kind.api.dltensor_from_py_object_no_sync(<void*>leaf, &described) != 0:
        PyErr_Clear()  # it says why when it is asked again
        return <int>Mismatch.kLayout
    mismatch = <int>_cxx.describe_foreign(described, not kind.immutable, out)
    if mismatch == <int>Mismatch.kNone and kind.lazy:
        # torch's C functions do not tell of a pending conjugation, nor of a pending negation,
        # which the imaginary part of a conjugated tensor has. Such a part is strided.
        if out.dtype in (<int>ScalarType.ComplexFloat, <int>ScalarType.ComplexDouble,
                         <int>ScalarType.ComplexHalf):
            if leaf.is_conj() or leaf.is_neg():
                return <int>Mismatch.kLayout
        elif not _cxx.has_unit_stride(out) and leaf.is_neg():
            return <int>Mismatch.kLayout
    return mismatch


cdef int _settle(_cxx.Tensor& tensor, tuple leaves, bint* readonly) except -1:
    """See to it that an output owns its memory, or keeps alive the input that does."""
    cdef void* memory = NULL
    cdef Borrowed borrowed
    cdef Failure failure = _cxx.finish(tensor, memory)
    readonly[0] = False
    if failure.fault != Fault.kNone:
        _raise(failure)
    if memory == NULL:
        return 0
    for leaf in leaves:
        if _look(leaf, borrowed) == <int>Mismatch.kNone and _cxx.contains(borrowed, memory):
            readonly[0] = not borrowed.writable
            Py_INCREF(leaf)
            failure = _cxx.anchor(tensor, <void*>leaf, _release_object)
            if failure.fault != Fault.kNone:
                Py_DECREF(leaf)
            break
    else:
        failure = _cxx.clone(tensor)  # a weight's, which goes with the model
    if failure.fault != Fault.kNone:
        _raise(failure)
    return 0


cdef Tensor _owner(_cxx.Tensor& tensor, tuple leaves):
    """A tensor that a model returned, as the owner of its memory."""
    cdef Tensor owner = Tensor.__new__(Tensor)
    cdef bint readonly
    _settle(tensor, leaves, &readonly)
    owner.tensor = move(tensor)
    owner.readonly = readonly
    owner.large = _cxx.bytes_of(owner.tensor) > _LARGE
    return owner


cdef object _new_reference(void* made):
    """An object that came with a reference of its own."""
    made_object = <object><PyObject*>made
    Py_DECREF(made_object)
    return made_object


cdef object _to_kind(_cxx.Tensor& tensor, tuple leaves, Kind kind):
    """An array of a kind over what a model returned."""
    cdef DLManagedTensorVersioned* managed = NULL
    cdef void* made = NULL
    cdef bint readonly
    cdef Failure failure
    cdef Tensor owner
    if kind.api == NULL:
        owner = _owner(tensor, leaves)
        if kind.immutable:  # never writes, and jax knows no flag that says that one must not
            owner.readonly = False
        return owner if kind.wrap is None else kind.wrap(owner)
    _settle(tensor, leaves, &readonly)
    if readonly:  # torch has no read-only tensors, and would write there
        failure = _cxx.clone(tensor)
        if failure.fault != Fault.kNone:
            _raise(failure)
    if kind.torch_wrap != NULL:
        failure = _cxx.wrap_for_torch(kind.torch_wrap, tensor, made)
        if failure.fault != Fault.kNone:
            _raise(failure)
        if made == NULL:
            _raise_pending()
        return _new_reference(made)
    failure = _cxx.produce(tensor, 0, managed)
    if failure.fault != Fault.kNone:
        _raise(failure)
    # Takes `managed`, whether it succeeds or not.
    if kind.api.managed_tensor_to_py_object_no_sync(managed, &made) != 0:
        _raise_pending()
    return _new_reference(made)


cdef list _outputs(vector[_cxx.Tensor]& tensors, tuple leaves, Kind kind):
    cdef size_t i
    if kind is None:
        return [_to_numpy(tensors[i], leaves) for i in range(tensors.size())]
    return [_to_kind(tensors[i], leaves, kind) for i in range(tensors.size())]


# -- the loader --------------------------------------------------------------------------------

cdef class Loader:
    """One loaded model: libtorch's package loader, its permits and its input specifications.

    Parameters
    ----------
    path : str
        A directory (torch 2.13 or newer) or a zip file that `aoti.cache` wrote.
    model_name : str
        The model in it.
    single_threaded : bool
        Load without the container's own locking. Calls exclude each other all the same.
    num_runners : int
        How many runs may go on at once.
    device_index : int
        Which device of the package's kind; -1 is the CPU or the current device.
    threads : int
        How many OpenMP threads a run may use; 0 leaves that to OpenMP.
    inputs : sequence of tuple, or None
        Per input `(dtype, sizes, order, strides, mutated, values)`: dtype by name; per dimension
        its size, or `(n, scale, offset)` for `scale * symbol n + offset`; the dimensions from the
        innermost outwards; strides in elements; whether the model writes into it; the least and
        the largest value, as sizes are given. All but `mutated` may be None: not known. None
        altogether: nothing is known, any number of C-contiguous writeable arrays is passed on.
    ranges : sequence of tuple
        Per symbol its least and its largest size, each None if there is none.
    ranges_hold : bool
        Whether a size out of its range is refused. If not, `repair` is told of the first, and the
        ranges are forgotten.
    validate : bool
        Whether inputs are checked at all. If not, they are taken for what the model wants.
    repair : callable
        `repair(index, inputs)` is called for an input that cannot be passed as it is. It returns
        an array of the same value that can, or raises.
    refuse_values : callable
        `refuse_values(index, inputs)` is called for an input with values out of range, and raises.
    outputs : str, optional
        The kind of what comes out. None: of what goes in.

    Attributes
    ----------
    call_spec : list of str
        The input and the output treespec, as JSON.
    constant_fqns : list of str
        The fully qualified names of the model's constants.

    Notes
    -----
    All methods may be called from any thread. Construction, runs and `close` release the GIL.
    While a run waits for its turn, signals are handled.
    """

    cdef unique_ptr[_cxx.AOTIModelPackageLoader] loader
    cdef unique_ptr[_cxx.Permits] permits
    cdef vector[InputSpec] specs
    cdef InputSpec unknown  # of inputs that nothing is known of
    cdef vector[Range] ranges
    cdef bint known
    cdef bint ranges_hold
    cdef bint validate
    cdef bint bounded
    cdef int threads
    cdef object repair
    cdef object refuse_values
    cdef bint follow  # outputs are of the inputs' kind
    cdef Kind kind    # else of this one
    cdef readonly list call_spec
    cdef readonly list constant_fqns

    def __init__(
        self,
        str path,
        str model_name,
        *,
        bint single_threaded,
        size_t num_runners,
        int device_index,
        int threads,
        inputs: Sequence[tuple[Any, Any, Any, Any, bool, Any]] | None,
        ranges: Sequence[tuple[int | None, int | None]],
        bint ranges_hold,
        bint validate,
        repair: Callable[[int, Sequence[Any]], Any],
        refuse_values: Callable[[int, Sequence[Any]], None],
        outputs: str | None = None,
    ) -> None:
        if self.permits:
            raise RuntimeError("a Loader is initialised once")
        cdef string path_ = path.encode()
        cdef string name_ = model_name.encode()
        cdef Failure failure
        self.repair, self.refuse_values = repair, refuse_values
        self.validate, self.ranges_hold, self.threads = validate, ranges_hold, threads
        self.known = inputs is not None
        self.follow = outputs is None
        self.kind = None if outputs is None else kind_named(outputs)
        self.unknown.writable = True  # the model may write into it
        if len(ranges) > _cxx.kMaxSymbols:
            raise IncompatiblePackageError(
                f"the model takes more than {_cxx.kMaxSymbols} independent sizes")
        for least, most in ranges:
            self._add_range(least, most)
        for dtype, sizes, order, strides, mutated, values in inputs or ():
            self._add_spec(dtype, sizes, order, strides, mutated, values)
        self.permits = make_unique[_cxx.Permits](num_runners)
        cdef vector[string] call_spec
        cdef vector[string] fqns
        with nogil:
            failure = _cxx.open(
                self.loader, path_, name_, single_threaded, num_runners, device_index,
                call_spec, fqns)
        if failure.fault != Fault.kNone:
            _raise(failure)
        self.call_spec = [text.decode() for text in call_spec]
        self.constant_fqns = [text.decode() for text in fqns]

    def __dealloc__(self):
        if self.permits:
            with nogil:
                _cxx.close(self.loader, deref(self.permits))
                _cxx.abandon(self.loader)  # still there only after a fork in the middle of a run

    cdef int _add_range(self, least, most) except -1:
        cdef Range range
        if least is not None:
            range.least = least
        if most is not None:
            range.most = most
        self.ranges.push_back(range)
        return 0

    cdef _cxx.Size _size(self, size) except *:
        cdef _cxx.Size wanted
        if isinstance(size, int):
            wanted.scale, wanted.offset = 0, size
        else:
            wanted.symbol, wanted.scale, wanted.offset = size
            if not 0 <= wanted.symbol < <int64_t>self.ranges.size():
                raise ValueError(f"no range for symbol {wanted.symbol}")
        return wanted

    cdef int _add_spec(self, dtype, sizes, order, strides, bint mutated, values) except -1:
        cdef InputSpec spec
        spec.writable = mutated
        if dtype is not None:
            if dtype not in _DTYPES:
                raise IncompatiblePackageError(f"the model takes {dtype}, which aoti cannot pass")
            spec.dtype = _DTYPES[dtype]
        if sizes is not None:
            spec.rank = len(sizes)
            for size in sizes:
                spec.sizes.push_back(self._size(size))
            spec.order = order or ()
            spec.strides = strides or ()
        if values is not None:
            spec.bounded = self.bounded = True
            spec.low, spec.high = self._size(values[0]), self._size(values[1])
        self.specs.push_back(spec)
        return 0

    cdef tuple _borrow(
        self, tuple inputs, vector[_cxx.Tensor]& tensors, int64_t* symbols, bint release
    ):
        """Check `inputs`, fill `tensors` and bind `symbols`. Returns what the tensors lie on.

        With `release`, tensors keep writeable inputs alive themselves; None stands in their place.
        """
        cdef Py_ssize_t count = len(inputs)
        cdef int64_t[64] strides
        cdef Borrowed borrowed
        cdef Failure failure
        cdef Kind kind
        cdef Py_ssize_t i
        cdef list kept = None
        self._check_count(count)
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = _cxx.kAny
        tensors.reserve(count)
        for i in range(count):
            leaf = inputs[i]
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                kind = _kind(type(leaf))
                if kind is not None and kind.api == NULL:
                    leaf = _import_or_not(leaf, kind)
            if self._check(i, leaf, borrowed, symbols, strides) != 0:
                leaf = self._repaired(i, leaf, kept or list(inputs), borrowed, symbols, strides)
            failure = _cxx.borrow(borrowed, strides, tensors)
            # A read-only one stays, so that an output that lies in it is found to be read-only.
            if failure.fault == Fault.kNone and release and borrowed.writable:
                Py_INCREF(leaf)
                failure = _cxx.anchor(tensors.back(), <void*>leaf, _release_object)
                if failure.fault != Fault.kNone:
                    Py_DECREF(leaf)
                leaf = None
            if failure.fault != Fault.kNone:
                _raise(failure)
            if leaf is not inputs[i]:
                if kept is None:
                    kept = list(inputs)
                kept[i] = leaf
        return inputs if kept is None else tuple(kept)

    cdef int _check_count(self, Py_ssize_t count) except -1:
        if self.known and count != <Py_ssize_t>self.specs.size():
            raise InputError(
                f"the model takes {self.specs.size()} input{'s' if self.specs.size() != 1 else ''}"
                f", got {count}")
        return 0

    cdef int _check(
        self, Py_ssize_t i, leaf, Borrowed& borrowed, int64_t* symbols, int64_t* strides
    ) except -1:
        """The first thing wrong with an input, a Mismatch; zero is nothing."""
        cdef int mismatch = _look(leaf, borrowed)
        if mismatch != 0:
            return mismatch
        if not self.validate:
            _cxx.own_strides(borrowed, strides)
            return 0
        if type(leaf) is cnp.ndarray and not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>leaf):
            return <int>Mismatch.kLayout
        return <int>_cxx.check(
            self.specs[i] if self.known else self.unknown,
            borrowed, self.ranges.data(), symbols, strides)

    cdef object _repaired(
        self,
        Py_ssize_t i,
        leaf,
        list inputs,
        Borrowed& borrowed,
        int64_t* symbols,
        int64_t* strides,
    ):
        """An array or Tensor to pass in place of an input that does not pass the checks."""
        cdef Kind kind
        cdef int mismatch
        if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
            kind = _kind(type(leaf))
            if kind is not None:
                leaf = _import_or_not(leaf, kind)
        inputs[i] = leaf
        array = self.repair(i, inputs)
        mismatch = self._check(i, array, borrowed, symbols, strides)
        if mismatch == <int>Mismatch.kRange and not self.ranges_hold:
            self.ranges.assign(self.ranges.size(), Range())
            mismatch = self._check(i, array, borrowed, symbols, strides)
        if mismatch != 0:
            raise InputError(f"input {i} cannot be passed to the model")
        return array

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the model on a flat sequence of arrays and return its outputs as a flat list.

        The GIL is released while waiting for a runner and while the model runs. Outputs own their
        memory; one that shares memory with an input keeps that input alive.
        """
        cdef tuple leaves = tuple(inputs)
        cdef Kind kind = _kind_of(leaves) if self.follow else self.kind
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] outputs
        leaves = self._prepare(leaves, tensors, False)
        self._execute(tensors, outputs)
        return _outputs(outputs, leaves, kind)

    def run_boxed(self, list inputs) -> list[Any]:
        """The same, after emptying the list. An input that nobody else holds is given back as soon
        as the model is done with it, in the middle of the run.
        """
        # That takes the GIL while a permit is held, which cannot block: whoever waits for a permit
        # does so without the GIL.
        cdef tuple leaves = tuple(inputs)
        inputs.clear()
        cdef Kind kind = _kind_of(leaves) if self.follow else self.kind
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] outputs
        leaves = self._prepare(leaves, tensors, True)
        self._execute(tensors, outputs)
        return _outputs(outputs, leaves, kind)

    def run_to(
        self, inputs: Sequence[Any], outputs: str | None = None, out: Sequence[Any] | None = None
    ) -> list[Any]:
        """Run as `run` does, with outputs of this kind or in these arrays, None for a new one."""
        cdef tuple leaves = tuple(inputs)
        cdef Kind kind
        if outputs is not None:
            kind = kind_named(outputs)
        else:
            kind = _kind_of(leaves) if self.follow else self.kind
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] made
        cdef vector[_cxx.Tensor] targets
        if out is not None:
            _targets(out, targets)
        leaves = self._prepare(leaves, tensors, False)
        self._execute(tensors, made)
        if out is None:
            return _outputs(made, leaves, kind)
        _write(made, targets, out)
        return [
            _to_kind_or_numpy(made[i], leaves, kind) if array is None else array
            for i, array in enumerate(out)]

    cdef int _execute(self, vector[_cxx.Tensor]& tensors, vector[_cxx.Tensor]& outputs) except -1:
        cdef Failure failure
        failure.fault = Fault.kBusy
        while failure.fault == Fault.kBusy:
            with nogil:
                failure = _cxx.run(
                    self.loader, deref(self.permits), self.threads, tensors, outputs)
            if failure.fault == Fault.kBusy:
                PyErr_CheckSignals()
        if failure.fault != Fault.kNone:
            _raise(failure)
        return 0

    def time_runs(self, inputs: Sequence[Any], size_t repeats) -> float:
        """Seconds that `repeats` runs take in a C++ loop: what no Python call can beat."""
        cdef vector[_cxx.Tensor] tensors
        cdef Failure failure
        cdef double seconds = 0
        cdef tuple leaves = self._prepare(tuple(inputs), tensors, False)
        failure.fault = Fault.kBusy
        while failure.fault == Fault.kBusy:
            with nogil:
                failure = _cxx.time_runs(
                    self.loader, deref(self.permits), self.threads, tensors, repeats, seconds)
            if failure.fault == Fault.kBusy:
                PyErr_CheckSignals()
        if failure.fault != Fault.kNone:
            _raise(failure)
        del leaves
        return seconds

    def examine(self, inputs: Sequence[Any]) -> list[Any]:
        """What a run would do with each input, without running.

        Returns
        -------
        list of tuple
            Per input the core's view of it, itself or a Tensor over its memory; and what would be
            passed on: the same, something else, or the InputError that refuses it.
        """
        cdef vector[_cxx.Tensor] tensors
        cdef int64_t[64] symbols
        cdef int64_t[64] strides
        cdef Borrowed borrowed
        cdef Failure failure
        cdef Kind kind
        cdef Py_ssize_t i
        cdef int64_t wrong = -1
        cdef list leaves = list(inputs), found = []
        self._check_count(len(leaves))
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = _cxx.kAny
        for i in range(len(leaves)):
            leaf = leaves[i]
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                kind = _kind(type(leaf))
                if kind is not None:
                    leaf = _import_or_not(leaf, kind)
            view = leaf
            try:
                if self._check(i, leaf, borrowed, symbols, strides) != 0:
                    leaf = self._repaired(i, leaf, list(leaves), borrowed, symbols, strides)
                failure = _cxx.borrow(borrowed, strides, tensors)
                if failure.fault != Fault.kNone:
                    _raise(failure)
                found.append((view, leaf))
                leaves[i] = leaf
            except InputError as error:
                found.append((view, error))
        if tensors.size() == self.specs.size() and self.bounded and self.validate:
            failure = _cxx.find_out_of_range(self.specs, tensors, symbols, wrong)
            if failure.fault != Fault.kNone:
                _raise(failure)
            if wrong >= 0:
                try:
                    self.refuse_values(wrong, leaves)
                except InputError as error:
                    found[wrong] = (found[wrong][0], error)
        return found

    cdef tuple _prepare(self, tuple inputs, vector[_cxx.Tensor]& tensors, bint release):
        """Check everything and fill `tensors`. Returns the arrays that they lie on."""
        cdef int64_t[64] symbols
        if not self.permits:
            raise ModelClosedError("the model was never loaded")
        cdef tuple leaves = self._borrow(inputs, tensors, symbols, release)
        if self.bounded and self.validate:
            self._check_values(tensors, symbols, inputs)
        return leaves

    cdef int _check_values(
        self, vector[_cxx.Tensor]& tensors, int64_t* symbols, tuple inputs
    ) except -1:
        cdef int64_t wrong = -1
        cdef Failure failure
        with nogil:
            failure = _cxx.find_out_of_range(self.specs, tensors, symbols, wrong)
        if failure.fault != Fault.kNone:
            _raise(failure)
        if wrong >= 0:
            self.refuse_values(wrong, inputs)
            raise InputError(f"input {wrong} has values that the model does not take")
        return 0

    def bind(
        self,
        inputs: Sequence[Any],
        out: Sequence[Any] | None,
        rebuild: Callable[[list[Any]], Any],
        outputs: str | None = None,
        owner: object = None,
    ) -> Bound:
        """A callable that runs on these arrays, as they are at each call; see `Bound`.

        It keeps `owner` alive.
        """
        cdef Bound bound = Bound(self, tuple(inputs), None if out is None else tuple(out), rebuild)
        bound.owner = owner
        if outputs is not None:
            bound.kind = kind_named(outputs)
        return bound

    def close(self) -> None:
        """Wait for the runs that are under way, then free the model. Harmless the second time."""
        if self.permits:
            with nogil:
                _cxx.close(self.loader, deref(self.permits))


# -- fixed inputs and outputs ------------------------------------------------------------------

cdef object _import_or_not(leaf, Kind kind):
    """A Tensor over the leaf's memory, or the leaf itself: the repair then says what is wrong."""
    if type(leaf) is Tensor:
        return leaf
    try:
        return _import(leaf, kind)
    except Exception:
        return leaf


cdef object _to_kind_or_numpy(_cxx.Tensor& tensor, tuple leaves, Kind kind):
    if kind is None:
        return _to_numpy(tensor, leaves)
    return _to_kind(tensor, leaves, kind)


cdef int _targets(out, vector[_cxx.Tensor]& targets) except -1:
    """Tensors over the arrays that outputs shall be written to; an undefined one for a None."""
    cdef Borrowed borrowed
    cdef int64_t[64] strides
    cdef Failure failure
    cdef int d
    for i, array in enumerate(out):
        if array is None:
            targets.push_back(_cxx.Tensor())
            continue
        if _look(array, borrowed) != 0 or (
                type(array) is cnp.ndarray and not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>array)):
            raise InputTypeError(
                f"out[{i}]: outputs are written into numpy arrays, torch tensors on the CPU and "
                f"aoti.Tensors, aligned and in native byte order; not this {type(array).__name__}")
        if not borrowed.writable:
            raise InputError(f"out[{i}]: the array is read-only; pass one that can be written to")
        _cxx.own_strides(borrowed, strides)
        for d in range(borrowed.rank):
            if borrowed.sizes[d] > 1 and strides[d] <= 0:
                raise InputError(
                    f"out[{i}]: its strides are negative or zero; pass an array that is neither "
                    "reversed nor broadcast")
        failure = _cxx.borrow(borrowed, strides, targets)
        if failure.fault != Fault.kNone:
            _raise(failure)
    return 0


cdef int _write(vector[_cxx.Tensor]& outputs, vector[_cxx.Tensor]& targets, out) except -1:
    """Copy outputs into the targets, which lie on the arrays of `out`."""
    cdef int64_t wrong = -1
    cdef Failure failure
    if targets.size() != outputs.size():
        raise InputError(f"the model gives {outputs.size()} outputs, and out has {targets.size()}")
    with nogil:
        failure = _cxx.copy_outputs(outputs, targets, wrong)
    if failure.fault != Fault.kNone:
        _raise(failure)
    if wrong >= 0:
        made, given = _owner(outputs[wrong], ()), _owner(targets[wrong], tuple(out))
        raise InputError(
            f"out[{wrong}]: the model gives {made.dtype} {made.shape}, and the array is "
            f"{given.dtype} {given.shape}; nothing was written")
    return 0


cdef class Bound:
    """A model with its inputs, and perhaps its outputs, fixed. Made by `AOTIModel.bind`.

    Each call runs the model on what the arrays then hold. Their memory and shapes were checked
    once; values that index tables are checked at each call.
    """

    cdef Loader loader
    cdef tuple inputs  # what was given
    cdef tuple leaves  # what the tensors lie on
    cdef tuple out
    cdef object result  # what a call gives if all outputs are fixed
    cdef object rebuild
    cdef object owner
    cdef Kind kind
    cdef vector[_cxx.Tensor] tensors
    cdef vector[_cxx.Tensor] targets
    cdef vector[void*] moving  # where the inputs lay that their library can move
    cdef bint complete
    cdef int64_t[64] symbols

    def __init__(
        self,
        Loader loader,
        tuple inputs,
        out: tuple[Any, ...] | None,
        rebuild: Callable[[list[Any]], Any],
    ) -> None:
        if not loader.permits:
            raise ModelClosedError("the model was never loaded")
        self.loader, self.inputs, self.rebuild = loader, inputs, rebuild
        self.kind = _kind_of(inputs) if loader.follow else loader.kind
        self.tensors.clear()
        self.targets.clear()
        self.moving.clear()
        self.leaves = loader._borrow(inputs, self.tensors, self.symbols, False)
        cdef Borrowed borrowed
        for leaf in self.leaves:
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                _look(leaf, borrowed)
                self.moving.push_back(borrowed.data)
        self.out = out
        if out is not None:
            _targets(out, self.targets)
            self.complete = all(array is not None for array in out)
            self.result = rebuild(list(out)) if self.complete else None

    def __call__(self) -> Any:
        """Run; give new outputs, or the arrays that the outputs were written into."""
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] outputs
        cdef Loader loader = self.loader
        if not self.moving.empty():
            self._check_places()
        tensors = self.tensors
        if loader.bounded and loader.validate:
            loader._check_values(tensors, self.symbols, self.inputs)
        loader._execute(tensors, outputs)
        if self.out is None:
            return self.rebuild(_outputs(outputs, self.leaves, self.kind))
        _write(outputs, self.targets, self.out)
        if self.complete:
            return self.result
        return self.rebuild([
            _to_kind_or_numpy(outputs[i], self.leaves, self.kind) if array is None else array
            for i, array in enumerate(self.out)])

    cdef int _check_places(self) except -1:
        """torch's resize_ and set_ give a tensor other memory, whoever else holds it."""
        cdef Borrowed borrowed
        cdef size_t n = 0
        for leaf in self.leaves:
            if type(leaf) is not cnp.ndarray and type(leaf) is not Tensor:
                if _look(leaf, borrowed) != 0 or borrowed.data != self.moving[n]:
                    raise InputError("a bound tensor was given other memory; bind again")
                n += 1
        return 0


def add_ones(str device, int64_t count) -> float:
    """Allocate `count` float32 ones on a device and add them up there, without the GIL."""
    cdef string device_ = device.encode()
    cdef double sum = 0
    cdef Failure failure
    with nogil:
        failure = _cxx.add_ones(device_, count, sum)
    if failure.fault != Fault.kNone:
        _raise(failure)
    return sum


def has_operator(str name, str overload) -> bool:
    """Whether an operator such as ``aten::add`` is registered in this process."""
    cdef string name_ = name.encode()
    cdef string overload_ = overload.encode()
    cdef cbool found = False
    cdef Failure failure
    with nogil:
        failure = _cxx.has_operator(name_, overload_, found)
    if failure.fault != Fault.kNone:
        _raise(failure)
    return found


def build_info() -> str:
    """What this core was built from, as JSON. See `aoti.build_info`."""
    return _cxx.build_info().decode()
