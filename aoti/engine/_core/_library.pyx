# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Array libraries: which one an array is of, by what C functions it is read, what it becomes."""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uintptr_t

from aoti.engine._core._capsules cimport EXCHANGE_API, take_capsule, take_versioned
from aoti.engine._core._device cimport (
    current_stream,
    dl_stream,
    resolve_device,
    stream_number,
    wait_stream,
)
from aoti.engine._core._tensor cimport Tensor
from aoti.engine._core._tensor cimport wrap as wrap_tensor
from aoti.engine.cxx.core_dlpack cimport discard
from aoti.engine.cxx.device cimport is_cpu
from aoti.engine.cxx.dlpack cimport (
    DLPACK_MAJOR_VERSION,
    DLPACK_MINOR_VERSION,
    DLDevice,
    DLManagedTensorVersioned,
    DLPackExchangeAPI,
)
from aoti.engine.cxx.tensor cimport Tensor as CxxTensor

from collections.abc import Callable
from typing import Any

from aoti.engine._core import _exchange  # no-cython-lint - fills in Tensor

cnp.import_array()


cdef class ArrayLibrary:
    """How the arrays of one type come in and go out. `aoti.arrays.libraries` has the list.

    Parameters
    ----------
    name : str
        What messages and ``outputs=`` call it.
    wrap : callable or None
        Makes an array of this library from a `Tensor`. None: the tensor itself.
    immutable : bool
        Whether the memory must not be written to, although the array does not say so.
    lazy : bool
        Whether it may carry conjugations and negations that DLPack does not describe; it then has
        torch's methods for them.
    exchange : object
        The type's ``__dlpack_c_exchange_api__``, or None.
    """

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
        self.is_torch = name == "torch"
        cdef const DLPackExchangeAPI* api
        if exchange is not None:
            api = <const DLPackExchangeAPI*>PyCapsule_GetPointer(exchange, EXCHANGE_API)
            while api != NULL and api.header.version.major != DLPACK_MAJOR_VERSION:
                api = <const DLPackExchangeAPI*>api.header.prev_api
            if api != NULL and api.dltensor_from_py_object_no_sync != NULL:
                self.api = api

    cdef bint negated(self, leaf) except -1:
        """Whether a tensor has a pending negation. Every call asks this of every tensor."""
        if self.is_neg == NULL:
            method = leaf.is_neg
            if type(method) is not type(len) or PyCFunction_GetFlags(method) != METH_NOARGS:
                return method()
            self.is_neg = PyCFunction_GetFunction(method)
        return self.is_neg(leaf, NULL)


# Set by aoti.arrays.libraries: from a type, and from a name, to the parameters of an ArrayLibrary.
cdef object _find = None
cdef object _named = None

cdef dict _libraries = {}  # by type; False for what is not an array by DLPack
# The one that was asked for last: a call asks several times, and the next call for the same.
cdef object _last_type = None
cdef ArrayLibrary _last_library = None


def register(find: Callable[[type], Any], named: Callable[[str], Any]) -> None:
    """Say how libraries are found: by an array's type, and by a name. None is numpy."""
    global _find, _named
    _find, _named = find, named


cdef ArrayLibrary library_of(array_type):
    """The library of a type, None if its arrays have no `__dlpack__` or are numpy's."""
    global _last_type, _last_library
    if array_type is _last_type:
        return _last_library
    cached = _libraries.get(array_type)
    if cached is None:
        found = ("dlpack", None, False, False, None) if array_type is Tensor else _find(array_type)
        cached = False if found is None else ArrayLibrary(*found)
        if len(_libraries) < 100:  # types that a program makes as it runs must not live forever
            _libraries[array_type] = cached
    library = None if cached is False else <ArrayLibrary>cached
    if array_type in _libraries:
        _last_type = None  # what is let go of here may run code that asks for another one
        _last_library = library
        _last_type = array_type
    return library


cdef ArrayLibrary library_of_first(tuple leaves):
    """The library of the first leaf that is neither a numpy array nor a scalar; None if all are."""
    cdef ArrayLibrary library
    for leaf in leaves:
        if type(leaf) is not cnp.ndarray:
            library = library_of(type(leaf))
            if library is not None:
                return library
    return None


def library_named(str name) -> ArrayLibrary | None:
    """The library that a name asks for; None is numpy.

    Raises
    ------
    ConfigError
        There is no such library, or it was not imported.
    """
    found = _named(name)
    return None if found is None else ArrayLibrary(*found)


def import_array(value: Any) -> Tensor:
    """A tensor over the memory of an array with ``__dlpack__``.

    Raises
    ------
    TypeError, BufferError
        As `Tensor.from_dlpack`.
    """
    if type(value) is Tensor:
        return value
    cdef ArrayLibrary library = library_of(type(value))
    if library is None:
        raise TypeError(f"{type(value).__name__} has no __dlpack__")
    return _import(value, library)


cdef Tensor _import(value, ArrayLibrary library):
    """A tensor over another library's memory: by its C functions, else by a capsule."""
    cdef DLManagedTensorVersioned* managed = NULL
    cdef CxxTensor taken
    cdef Tensor tensor
    cdef DLDevice device
    cdef bint readonly
    if library.api == NULL:
        device_type, number = value.__dlpack_device__()
        if not resolve_device(device_type, number, &device):
            raise BufferError("it does not lie on the CPU")
        # Its library lets our stream wait for its own.
        options = {} if is_cpu(device) else {"stream": dl_stream(device)}
        try:
            capsule = value.__dlpack__(
                **options, max_version=(DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION))
        except TypeError:  # of before version 1
            capsule = value.__dlpack__(**options)
        readonly = take_capsule(capsule, taken)
        return wrap_tensor(taken, readonly or library.immutable)
    resolved = value.resolve_conj().resolve_neg() if library.lazy else value
    if library.api.managed_tensor_from_py_object_no_sync(<void*>resolved, &managed) != 0:
        raise_pending()
    try:
        readonly = take_versioned(managed, taken)
    except BaseException:
        discard(managed)
        raise
    # A copy is read-only, too: nobody would see what is written into it.
    tensor = wrap_tensor(taken, readonly or library.immutable or resolved is not value)
    if not tensor.tensor.is_cpu():
        await_array(value, tensor.tensor.device())
    return tensor


cdef object import_or_leave(leaf, bint always):
    """A Tensor over the memory of another library's array, or the leaf itself.

    The leaf itself if it cannot be imported; the caller of the model then learns why. Without
    `always`, arrays whose library has C functions to look at them are left alone.
    """
    if type(leaf) is cnp.ndarray or type(leaf) is Tensor:
        return leaf
    cdef ArrayLibrary library = library_of(type(leaf))
    if library is None or (library.api != NULL and not always):
        return leaf
    try:
        return _import(leaf, library)
    except Exception:
        return leaf


# -- streams ---------------------------------------------------------------------------------------

cdef int await_array(array, DLDevice device) except -1:
    """Let the current stream wait for what computes an array that lies on a device.

    torch computes it on this same stream. For a library without C functions, `__dlpack__` did it.
    """
    cdef ArrayLibrary library
    cdef int64_t number = 0
    if type(array) is Tensor:
        return (<Tensor>array).meet()
    library = library_of(type(array))
    if library is not None and library.api != NULL and not library.is_torch:
        current_stream(device, &number)
        wait_stream(device, number, _stream_of(library, device))
    return 0


cdef int let_library_wait(ArrayLibrary library, DLDevice device) except -1:
    """Let the stream of an array's library wait for what the current one was given."""
    cdef int64_t number = 0
    if not library.is_torch:
        current_stream(device, &number)
        wait_stream(device, _stream_of(library, device), number)
    return 0


cdef int64_t _stream_of(ArrayLibrary library, DLDevice device) except? -1:
    cdef void* handle = NULL
    if library.api.current_work_stream == NULL:
        return 0
    if library.api.current_work_stream(device.device_type, device.device_id, &handle) != 0:
        raise_pending()
    return stream_number(device, <uintptr_t>handle)


cdef int raise_pending() except -1:
    """Raise the exception that a C function set."""
    return -1
