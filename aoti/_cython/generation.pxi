cdef class Generation:
    """A hold on one set of weights in containers of libtorch's. Made by `Loader.open`.

    Attributes
    ----------
    number : int
        What runs on it are known by.
    """

    cdef _cxx.Generation* held
    cdef Loader loader  # whose permits count the holders

    def __init__(self) -> None:
        raise TypeError("Loader.open makes generations")

    def __dealloc__(self):
        if self.held != NULL:
            with nogil:
                deref(self.loader.permits).drop(self.held)

    @property
    def number(self) -> int:
        return self.held.number

    def describe(self) -> tuple[list[str], list[str], list[tuple[str, str, str]]]:
        """The input and the output treespec; the fully qualified names of the constants; and of
        each, those that are folded at run time included, its name, that name and its dtype.
        """
        cdef vector[string] call_spec
        cdef vector[string] fqns
        cdef vector[_cxx.ConstantFacts] constants
        cdef Failure failure
        with nogil:
            failure = _cxx.describe_generation(deref(self.held), call_spec, fqns, constants)
        if failure.fault != Fault.kNone:
            _raise(failure)
        return (
            [text.decode() for text in call_spec],
            [text.decode() for text in fqns],
            [
                (constants[i].name.decode(), constants[i].fqn.decode(),
                 _dtype_name(constants[i].dtype))
                for i in range(constants.size())
            ],
        )

    def fill(self, weights: dict[str, Tensor], bint fold) -> None:
        """Give all weights, by the names that the code has for them; nothing may run on it.

        They are not copied, and live as long as the containers. With `fold`, what is computed from
        them once is computed now; where runners have containers of their own, in the first run.
        """
        cdef vector[string] names
        cdef vector[_cxx.Tensor] tensors
        cdef Failure failure
        for name, tensor in weights.items():
            names.push_back(name.encode())
            tensors.push_back((<Tensor?>tensor).tensor)
        with nogil:
            failure = _cxx.fill(deref(self.held), names, tensors, fold)
        if failure.fault != Fault.kNone:
            _raise(failure)

    def weights(self, bint copy) -> dict[str, Tensor | None]:
        """The weights by their fully qualified names: copies, or only what they look like.

        What is no copy must not be read once this hold is given up, nor be held longer. None stands
        for one that is no plain tensor, but packed for an operator.
        """
        cdef vector[string] fqns
        cdef vector[_cxx.Tensor] tensors
        cdef Tensor tensor
        cdef size_t i
        cdef Failure failure
        cdef dict found = {}
        with nogil:
            failure = _cxx.weights(deref(self.held), fqns, tensors)
        if failure.fault != Fault.kNone:
            _raise(failure)
        for i in range(tensors.size()):
            if not tensors[i].defined():
                found[fqns[i].decode()] = None
                continue
            tensor = Tensor.__new__(Tensor)
            tensor.tensor = move(tensors[i])
            if copy:
                with nogil:
                    failure = _cxx.clone_preserving(tensor.tensor)
                if failure.fault != Fault.kNone:
                    _raise(failure)
            found[fqns[i].decode()] = tensor
        return found


cdef class Memory:
    """Memory for weights: a file that is mapped, or a part of one that was read.

    It is given back to the system with the last `Tensor` in it.
    """

    cdef _cxx.Memory* held

    def __init__(self) -> None:
        raise TypeError("Memory.map and Memory.read make memory")

    def __dealloc__(self):
        if self.held != NULL:
            with nogil:
                _cxx.Memory.release_memory(self.held)

    @staticmethod
    def map(int file, size_t offset, size_t nbytes, bint writable) -> Memory:
        """Map a part of an open file: read-only and shared, or to be written privately."""
        cdef Memory memory = Memory.__new__(Memory)
        cdef Failure failure
        with nogil:
            failure = _cxx.map_memory(memory.held, file, offset, nbytes, writable)
        if failure.fault != Fault.kNone:
            _raise(failure)
        return memory

    @staticmethod
    def read(int file, size_t offset, size_t nbytes) -> Memory:
        """Copy a part of an open file."""
        cdef Memory memory = Memory.__new__(Memory)
        cdef Failure failure
        with nogil:
            failure = _cxx.read_memory(memory.held, file, offset, nbytes)
        if failure.fault != Fault.kNone:
            _raise(failure)
        return memory

    def populate(self) -> None:
        """Bring all of it into the process now, where the system can."""
        with nogil:
            self.held.populate()

    def tensor(
        self, size_t offset, str dtype, shape: Sequence[int], strides: Sequence[int]
    ) -> Tensor:
        """A tensor in this memory, from this byte on, with these strides in elements."""
        cdef Tensor tensor = Tensor.__new__(Tensor)
        cdef vector[int64_t] sizes = shape
        cdef vector[int64_t] steps = strides
        cdef int number = _DTYPES[dtype]
        cdef Failure failure
        cdef Py_ssize_t last = 1
        for size, step in zip(shape, strides, strict=True):
            if size < 0 or step < 0:
                raise ValueError("sizes and strides are not negative")
            last = 0 if size == 0 else last and last + (size - 1) * step
        if offset + last * _cxx.itemsize(number) > self.held.bytes():
            raise ValueError("a tensor that does not lie in the memory")
        failure = _cxx.tensor_in(deref(self.held), offset, number, sizes, steps, tensor.tensor)
        if failure.fault != Fault.kNone:
            _raise(failure)
        tensor.readonly = True
        return tensor


def view_of(value: Any) -> Tensor:
    """A tensor over the memory of an array of any kind, which it keeps alive.

    Raises
    ------
    TypeError, BufferError, InputError
        It is no array, or its memory cannot be shared.
    """
    cdef Borrowed borrowed
    cdef int64_t[64] strides
    cdef vector[_cxx.Tensor] made
    cdef Failure failure
    cdef Tensor tensor
    cdef Kind kind
    cdef int i
    if type(value) is Tensor:
        return value
    if type(value) is not cnp.ndarray:
        kind = _kind(type(value))
        if kind is not None:
            return _import(value, kind)
    if _look(value, borrowed) != 0:
        raise TypeError("its dtype is not one of torch's")
    if not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>value):
        raise TypeError("it is not aligned, or not in native byte order")
    _cxx.own_strides(borrowed, strides)
    for i in range(borrowed.rank):
        if strides[i] < 0:
            raise TypeError("its strides are negative")
    failure = _cxx.borrow(borrowed, strides, made)
    if failure.fault != Fault.kNone:
        _raise(failure)
    _hold(made.back(), value)
    tensor = Tensor.__new__(Tensor)
    tensor.tensor = made.back()
    tensor.readonly = not borrowed.writable
    return tensor
