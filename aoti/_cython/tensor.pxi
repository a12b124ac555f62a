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


cdef int _hold(_cxx.Tensor& tensor, owner) except -1:
    """Make a tensor in the memory of an object keep that object alive."""
    Py_INCREF(owner)
    cdef Failure failure = _cxx.anchor(tensor, <void*>owner, _release_object)
    if failure.fault != Fault.kNone:
        Py_DECREF(owner)
        _raise(failure)
    return 0


cdef class Tensor:
    """A tensor that owns its memory: readable after the model is closed.

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
        ``cpu`` or ``cuda:0``.
    readonly : bool
        Whether the memory is that of somebody who does not want it to be written to.

    Notes
    -----
    It speaks DLPack (``__dlpack__`` and ``__dlpack_c_exchange_api__``), and on the CPU the buffer
    protocol and ``__array__``; all of them share its memory. On a GPU, what takes it over is made
    to wait for what computes it, on the device.
    """

    cdef _cxx.Tensor tensor
    cdef int64_t stream  # on a device: what computes it was given to this one
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

    cdef int note_stream(self) except -1:
        """Remember that the current stream computes it."""
        if not self.tensor.is_cpu():
            _current_stream(_cxx.place_of(self.tensor), &self.stream)
        return 0

    cdef int meet(self) except -1:
        """Let the current stream wait for what computes it."""
        cdef int64_t current = 0
        if not self.tensor.is_cpu():
            _current_stream(_cxx.place_of(self.tensor), &current)
            self.hand_to(current)
        return 0

    cdef int hand_to(self, int64_t stream) except -1:
        """Let a stream wait for what computes it, and its memory for what that stream does."""
        cdef Failure failure
        if stream != self.stream:
            failure = _cxx.follow(_cxx.place_of(self.tensor), stream, self.stream)
            if failure.fault == Fault.kNone:
                failure = _cxx.used_on(self.tensor, stream)
            if failure.fault != Fault.kNone:
                _raise(failure)
        return 0

    @property
    def device(self) -> str:
        cdef _cxx.View view
        self._view(view)
        return _place_name(_cxx.place_of(self.tensor))

    @property
    def data_ptr(self) -> int:
        """The address of the first element."""
        cdef _cxx.View view
        self._view(view)
        return <size_t>view.data

    def numpy(self) -> Any:
        """A numpy array over the same memory, which lives as long as the array does.

        Of a tensor on a GPU it is a copy, and this waits until it is made.

        Raises
        ------
        ExecutionError
            numpy knows no such dtype, and ml_dtypes is not installed.
        """
        return _array_over(self if self.tensor.is_cpu() else self.moved("cpu"))

    def moved(self, str device) -> Tensor:
        """A copy on another device, made when this returns. Takes no GIL meanwhile."""
        cdef Tensor copy = Tensor.__new__(Tensor)
        cdef _cxx.Place place = _place_named(device)
        cdef Failure failure
        cdef _cxx.View view
        self._view(view)
        self.meet()
        with nogil:
            failure = _cxx.move_to(self.tensor, place, copy.tensor)
        if failure.fault != Fault.kNone:
            _raise(failure)
        copy.note_stream()
        return copy

    def copied(self, strides: Sequence[int]) -> Tensor:
        """A copy with these strides, in elements. Takes no GIL while it copies."""
        cdef vector[int64_t] steps = strides
        cdef Tensor copy = Tensor.__new__(Tensor)
        cdef Failure failure
        cdef _cxx.View view
        self._view(view)
        if <Py_ssize_t>steps.size() != view.rank:
            raise ValueError(f"{view.rank} strides are wanted, not {steps.size()}")
        self.meet()
        with nogil:
            failure = _cxx.copy_strided(self.tensor, steps, copy.tensor)
        if failure.fault != Fault.kNone:
            _raise(failure)
        copy.note_stream()
        return copy

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
        """A DLPack capsule over this memory: versioned if the caller knows version 1.

        `stream` is that of the caller, which is made to wait for what computes the tensor: a
        handle, None for the default stream, -1 not to wait.
        """
        cdef _cxx.View view
        cdef _cxx.Tensor tensor = self.tensor
        cdef uint64_t flags = _cxx.DLPACK_FLAG_BITMASK_READ_ONLY if self.readonly else 0
        cdef Failure failure
        self._view(view)
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            if tuple(dl_device) == (_cxx.kDLCPU, 0) and copy is not False:
                return self.moved("cpu").__dlpack__(max_version=max_version)
            raise BufferError(
                f"dl_device={dl_device!r}: the tensor lies on the {self.device}, "
                f"{self.__dlpack_device__()}")
        if not self.tensor.is_cpu():
            if stream != -1:
                self.hand_to(_stream_number(_cxx.place_of(self.tensor), stream or 0))
        elif stream not in (None, -1):
            raise BufferError(f"stream={stream!r}: a tensor on the CPU has no stream")
        if copy:
            self.meet()
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
        if self.tensor.is_cpu():
            return (_cxx.kDLCPU, 0)
        return (_cxx.kDLGpu, _cxx.place_of(self.tensor).index())

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
        if not self.tensor.is_cpu():
            return f"aoti.Tensor({what}, device={self.device!r})"
        try:
            values = np.array2string(_array_over(self), prefix="aoti.Tensor(", threshold=100)
        except ExecutionError:  # numpy has no such dtype
            return f"aoti.Tensor({what})"
        return f"aoti.Tensor({values}, {what})"


cdef cnp.ndarray _array_over(Tensor owner):
    """An array over a tensor's memory, which lives as long as the array does."""
    cdef _cxx.View view
    owner._view(view)
    if not owner.tensor.is_cpu():
        raise TypeError(
            f"the tensor lies on {owner.device}, which the CPU cannot read: call its numpy(), "
            "which copies it")
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
