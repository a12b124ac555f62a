# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The compiled core: owns libtorch's package loader and passes arrays to it and back.

Mechanism only. Names, defaults, checks of files and the wording of input errors are the business
of the modules above (aoti.model first of all). Each function converts, runs one block without the
GIL, and converts; C++ exceptions end in csrc/aoti and become Python ones in `_raise` alone.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_INCREF
from cython.operator cimport dereference as deref
from libc.stdint cimport int64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport make_unique, unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

cimport numpy as cnp
from aoti cimport _cxx
from aoti._cxx cimport Borrowed, Failure, Fault, InputSpec, Mismatch, Range, ScalarType

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from aoti.errors import (
    ExecutionError,
    IncompatiblePackageError,
    InputError,
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
}

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


cdef object _numpy_type(int dtype):
    """The numpy dtype for one of torch's that numpy itself does not have."""
    for name, number in _DTYPES.items():
        if number == dtype:
            break
    else:
        name = f"dtype number {dtype}"
    try:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError) as error:
        raise ExecutionError(
            f"the model returns {name}, which numpy has no type for; "
            "install ml_dtypes (pip install ml_dtypes)"
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

cdef class Tensor:
    """The owner of an output's memory: the base of the array that is handed out."""

    cdef _cxx.Tensor tensor
    cdef object keep_alive  # the input whose memory the output shares, if it does
    cdef bint large

    def __dealloc__(self):
        # Freeing a large block may unmap it: let others run meanwhile. For a small one, giving up
        # the GIL would cost every call more than it gains.
        if self.large:
            with nogil:
                self.tensor.reset()


cdef inline void _borrowed(cnp.ndarray array, int dtype, Borrowed& out) noexcept:
    out.data = cnp.PyArray_DATA(array)
    out.dtype = dtype
    out.rank = cnp.PyArray_NDIM(array)
    out.itemsize = cnp.PyArray_ITEMSIZE(array)
    out.sizes = <const int64_t*>cnp.PyArray_DIMS(array)
    out.strides = <const int64_t*>cnp.PyArray_STRIDES(array)
    out.writable = cnp.PyArray_ISWRITEABLE(array)


cdef cnp.ndarray _to_numpy(_cxx.Tensor& tensor, tuple inputs):
    """An array over a tensor's memory, which lives as long as the array does."""
    cdef _cxx.View view
    cdef Failure failure = _cxx.view(tensor, view)
    if failure.fault != Fault.kNone:
        _raise(failure)
    cdef Tensor owner = Tensor.__new__(Tensor)
    owner.tensor = move(tensor)
    owner.large = view.bytes > _LARGE

    cdef Borrowed borrowed
    cdef int flags = cnp.NPY_ARRAY_WRITEABLE
    cdef cnp.ndarray source
    for candidate in inputs:
        source = <cnp.ndarray>candidate
        _borrowed(source, 0, borrowed)
        if _cxx.contains(borrowed, view.data):
            owner.keep_alive = source
            if not cnp.PyArray_ISWRITEABLE(source):
                flags = 0
            break

    cdef int number = _numpy_dtype[view.dtype] if 0 <= view.dtype < 64 else _UNKNOWN
    cdef cnp.dtype descr = (
        cnp.PyArray_DescrFromType(number) if number != _UNKNOWN else _numpy_type(view.dtype)
    )
    cdef const cnp.npy_intp* strides = <const cnp.npy_intp*>view.strides
    if view.data == NULL:
        # An empty tensor has no memory, and numpy brings its own.
        strides = NULL
        flags = 0
    Py_INCREF(descr)  # the reference that PyArray_NewFromDescr takes
    cdef cnp.ndarray array = PyArray_NewFromDescr(
        cnp.ndarray, descr, view.rank, <const cnp.npy_intp*>view.sizes, strides, view.data,
        flags, None)
    if view.data != NULL:
        cnp.set_array_base(array, owner)
    return array


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
    ) -> None:
        if self.permits:
            raise RuntimeError("a Loader is initialised once")
        cdef string path_ = path.encode()
        cdef string name_ = model_name.encode()
        cdef Failure failure
        self.repair, self.refuse_values = repair, refuse_values
        self.validate, self.ranges_hold, self.threads = validate, ranges_hold, threads
        self.known = inputs is not None
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

    cdef tuple _borrow(self, tuple inputs, vector[_cxx.Tensor]& tensors, int64_t* symbols):
        """Check `inputs`, fill `tensors` and bind `symbols`. Returns the arrays that the tensors
        lie on.
        """
        cdef Py_ssize_t count = len(inputs)
        cdef int64_t[64] strides
        cdef Borrowed borrowed
        cdef Failure failure
        cdef cnp.ndarray array
        cdef Py_ssize_t i
        cdef list repaired = None
        if self.known and count != <Py_ssize_t>self.specs.size():
            raise InputError(
                f"the model takes {self.specs.size()} input{'s' if self.specs.size() != 1 else ''}"
                f", got {count}")
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = _cxx.kAny
        tensors.reserve(count)
        for i in range(count):
            leaf = inputs[i]
            if self._check(i, leaf, borrowed, symbols, strides) != Mismatch.kNone:
                array = self._repaired(i, inputs, borrowed, symbols, strides)
                if repaired is None:
                    repaired = list(inputs)
                repaired[i] = array
            failure = _cxx.borrow(borrowed, strides, tensors)
            if failure.fault != Fault.kNone:
                _raise(failure)
        return inputs if repaired is None else tuple(repaired)

    cdef Mismatch _check(
        self, Py_ssize_t i, leaf, Borrowed& borrowed, int64_t* symbols, int64_t* strides
    ) except *:
        """The first thing wrong with an input, kLayout if it is not even an array to look at."""
        # Exactly ndarray: a subclass may mean something else by its data, as masks do.
        if type(leaf) is not cnp.ndarray:
            return Mismatch.kLayout
        _borrowed(<cnp.ndarray>leaf, _dtype_number(<cnp.ndarray>leaf), borrowed)
        if borrowed.dtype == _UNKNOWN:
            return Mismatch.kLayout
        if not self.validate:
            _cxx.own_strides(borrowed, strides)
            return Mismatch.kNone
        if not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>leaf):
            return Mismatch.kLayout
        return _cxx.check(
            self.specs[i] if self.known else self.unknown,
            borrowed, self.ranges.data(), symbols, strides)

    cdef cnp.ndarray _repaired(
        self,
        Py_ssize_t i,
        tuple inputs,
        Borrowed& borrowed,
        int64_t* symbols,
        int64_t* strides,
    ):
        """An array to pass in place of an input that does not pass the checks."""
        array = self.repair(i, inputs)
        cdef Mismatch mismatch = self._check(i, array, borrowed, symbols, strides)
        if mismatch == Mismatch.kRange and not self.ranges_hold:
            self.ranges.assign(self.ranges.size(), Range())
            mismatch = self._check(i, array, borrowed, symbols, strides)
        if mismatch != Mismatch.kNone:
            raise InputError(f"input {i} cannot be passed to the model")
        return array

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the model on a flat sequence of arrays and return its outputs as a flat list.

        The GIL is released while waiting for a runner and while the model runs. Outputs own their
        memory; one that shares memory with an input keeps that input alive.
        """
        cdef tuple leaves = tuple(inputs)
        cdef vector[_cxx.Tensor] tensors
        cdef vector[_cxx.Tensor] outputs
        cdef Failure failure
        cdef size_t i
        leaves = self._prepare(leaves, tensors)
        failure.fault = Fault.kBusy
        while failure.fault == Fault.kBusy:
            with nogil:
                failure = _cxx.run(
                    self.loader, deref(self.permits), self.threads, tensors, outputs)
            if failure.fault == Fault.kBusy:
                PyErr_CheckSignals()
        if failure.fault != Fault.kNone:
            _raise(failure)
        return [_to_numpy(outputs[i], leaves) for i in range(outputs.size())]

    def time_runs(self, inputs: Sequence[Any], size_t repeats) -> float:
        """Seconds that `repeats` runs take in a C++ loop: what no Python call can beat."""
        cdef vector[_cxx.Tensor] tensors
        cdef Failure failure
        cdef double seconds = 0
        cdef tuple leaves = self._prepare(tuple(inputs), tensors)
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

    cdef tuple _prepare(self, tuple inputs, vector[_cxx.Tensor]& tensors):
        """Check everything and fill `tensors`. Returns the arrays that they lie on."""
        cdef int64_t[64] symbols
        cdef int64_t wrong = -1
        cdef Failure failure
        if not self.permits:
            raise ModelClosedError("the model was never loaded")
        inputs = self._borrow(inputs, tensors, symbols)
        if self.bounded and self.validate:
            with nogil:
                failure = _cxx.find_out_of_range(self.specs, tensors, symbols, wrong)
            if failure.fault != Fault.kNone:
                _raise(failure)
            if wrong >= 0:
                self.refuse_values(wrong, inputs)
                raise InputError(f"input {wrong} has values that the model does not take")
        return inputs

    def close(self) -> None:
        """Wait for the runs that are under way, then free the model. Harmless the second time."""
        if self.permits:
            with nogil:
                _cxx.close(self.loader, deref(self.permits))


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
