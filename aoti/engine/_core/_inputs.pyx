# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""What the inputs of a model must be: arrays become checked views, and are converted if need be."""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_Clear
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t
from libcpp.algorithm cimport equal

from aoti.engine._core._dtypes cimport dtype_name, dtype_named, dtype_of_array
from aoti.engine._core._library cimport (
    ArrayLibrary,
    await_array,
    import_or_leave,
    library_of,
)
from aoti.engine._core._status cimport raise_status
from aoti.engine._core._tensor cimport Tensor, release_object
from aoti.engine.cxx.array_view cimport (
    ArrayView,
    kMaxRank,
    kMaxSymbols,
    own_strides,
)
from aoti.engine.cxx.call cimport InputList
from aoti.engine.cxx.check cimport (
    InputSpec,
    Mismatch,
    MismatchKind,
    Range,
    evaluate,
    kUnbound,
    placed,
)
from aoti.engine.cxx.check cimport Size as CxxSize
from aoti.engine.cxx.check cimport check as cxx_check
from aoti.engine.cxx.core_dlpack cimport describe_foreign
from aoti.engine.cxx.device cimport is_cpu, kCpu
from aoti.engine.cxx.devices cimport upload as cxx_upload
from aoti.engine.cxx.dlpack cimport DLDevice, DLTensor
from aoti.engine.cxx.dtype cimport DType, kNoDType
from aoti.engine.cxx.program cimport find_out_of_range
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport describe

from collections.abc import Callable, Sequence
from typing import Any

from aoti.errors import IncompatiblePackageError, InputError

cnp.import_array()

cdef enum:
    DL_COMPLEX = 5  # kDLComplex

# What aoti.arrays.validation calls the kinds of mismatch.
cdef dict _KINDS = {
    <int>MismatchKind.kUnreadable: "unreadable",
    <int>MismatchKind.kDevice: "device",
    <int>MismatchKind.kDType: "dtype",
    <int>MismatchKind.kRank: "rank",
    <int>MismatchKind.kSize: "size",
    <int>MismatchKind.kConflict: "conflict",
    <int>MismatchKind.kRange: "range",
    <int>MismatchKind.kNull: "null",
    <int>MismatchKind.kAlignment: "alignment",
    <int>MismatchKind.kByteOrder: "byte order",
    <int>MismatchKind.kStrides: "strides",
    <int>MismatchKind.kReadOnly: "read-only",
}


cdef inline void _view_of_numpy(cnp.ndarray array, DType dtype, ArrayView& out) noexcept:
    out.data = cnp.PyArray_DATA(array)
    out.dtype = dtype
    out.rank = cnp.PyArray_NDIM(array)
    out.itemsize = cnp.PyArray_ITEMSIZE(array)
    out.unit = 1
    out.sizes = <const int64_t*>cnp.PyArray_DIMS(array)
    out.strides = <const int64_t*>cnp.PyArray_STRIDES(array)
    out.writable = cnp.PyArray_ISWRITEABLE(array)
    out.device = kCpu
    out.anywhere = True


cdef MismatchKind look(leaf, ArrayView& out) except *:
    """Describe a leaf. Not kNone if the core cannot look at it."""
    cdef DLTensor described
    cdef ArrayLibrary library
    cdef MismatchKind kind
    # Exactly these types: a subclass may mean something else by its data, as masks do.
    if type(leaf) is cnp.ndarray:
        _view_of_numpy(<cnp.ndarray>leaf, dtype_of_array(<cnp.ndarray>leaf), out)
        return MismatchKind.kDType if out.dtype == kNoDType else MismatchKind.kNone
    if type(leaf) is Tensor:
        if not (<Tensor>leaf).tensor.defined():
            return MismatchKind.kNull
        describe((<Tensor>leaf).tensor, not (<Tensor>leaf).readonly, out)
        return MismatchKind.kNone
    library = library_of(type(leaf))
    if library is None or library.api == NULL:
        return MismatchKind.kUnreadable
    if library.api.dltensor_from_py_object_no_sync(<void*>leaf, &described) != 0:
        PyErr_Clear()  # it says why when it is asked again
        return MismatchKind.kUnreadable
    kind = describe_foreign(described, not library.immutable, out)
    if kind == MismatchKind.kNone and library.lazy:
        # torch's C functions describe neither a pending conjugation nor a pending negation, which
        # the imaginary part of a conjugated tensor has.
        if described.dtype.code == DL_COMPLEX and leaf.is_conj() or library.negated(leaf):
            return MismatchKind.kUnreadable
    return kind


@cython.final
cdef class Inputs:
    """What the inputs of a model must be. It needs no engine.

    Parameters
    ----------
    inputs : sequence of tuple, or None
        Per input `(dtype, sizes, order, strides, mutated, values)`: dtype by name; per dimension
        its size, or `(n, scale, offset)` for `scale * symbol n + offset`; the dimensions from the
        innermost outwards; strides in elements; whether the model writes into it; the least and
        the largest value, as sizes are given. All but `mutated` may be None: not known. None
        altogether: nothing is known, any number of C-contiguous writeable arrays is passed on.
    ranges : sequence of tuple
        Per symbol its least and its largest size, each None if there is none.
    ranges_hold : bool
        Whether a size out of its range is refused. If not, `convert` is called for the first such
        size, and the ranges are forgotten.
    validate : bool
        Whether inputs are checked at all. If not, they are taken for what the model wants.
    convert : callable
        `convert(index, values, value, mismatch)` is called for an input that cannot be passed as it
        is, after all inputs before it were found to be right. `values` are all inputs, up to this
        one as they are passed on; `value` is this one. `mismatch` is `(kind, dim, expected, got)`:
        see `aoti.arrays.validation`. It returns an array of the same value that can be passed, or
        raises.
    check_sizes : callable, optional
        Called with the values of all symbols, unless they are those that it accepted last. Raises.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[Any, Any, Any, Any, bool, Any]] | None,
        ranges: Sequence[tuple[int | None, int | None]],
        *,
        bint ranges_hold,
        bint validate,
        convert: Callable[[int, Sequence[Any], Any, tuple[Any, ...]], Any],
        check_sizes: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        cdef Range range
        self.uploads = False
        self.convert = convert
        self.check_sizes = check_sizes if validate else None
        self.validate, self.ranges_hold = validate, ranges_hold
        self.known = inputs is not None
        self.unknown.writable = True  # the model may write into it
        if len(ranges) > kMaxSymbols:
            raise IncompatiblePackageError(
                f"the model takes more than {kMaxSymbols} independent sizes")
        for least, most in ranges:
            range = Range()
            if least is not None:
                range.least = least
            if most is not None:
                range.most = most
            self.ranges.push_back(range)
        for dtype, sizes, order, strides, mutated, values in inputs or ():
            self.add_spec(dtype, sizes, order, strides, mutated, values)

    cdef int lie_on(self, DLDevice device, hosts) except -1:
        """Say on which device inputs lie, except for those listed, which lie on the CPU."""
        cdef size_t i
        self.device = self.unknown.device = device
        self.uploads = not is_cpu(device)
        for i in range(self.specs.size()):
            if i not in hosts:
                self.specs[i].device = device
        return 0

    cdef CxxSize read_size(self, size) except *:
        cdef CxxSize wanted
        if isinstance(size, int):
            wanted.scale, wanted.offset = 0, size
        else:
            wanted.symbol, wanted.scale, wanted.offset = size
            if not 0 <= wanted.symbol < <int64_t>self.ranges.size():
                raise ValueError(f"no range for symbol {wanted.symbol}")
        return wanted

    cdef int add_spec(self, dtype, sizes, order, strides, bint mutated, values) except -1:
        cdef InputSpec spec
        spec.writable = mutated
        if dtype is not None:
            spec.dtype = dtype_named(dtype)
            if spec.dtype == kNoDType:
                raise IncompatiblePackageError(f"the model takes {dtype}, which aoti cannot pass")
        if sizes is not None:
            spec.rank = len(sizes)
            for size in sizes:
                spec.sizes.push_back(self.read_size(size))
            spec.order = order or ()
            spec.strides = strides or ()
        if values is not None and self.validate:
            spec.bounded = self.bounded = True
            spec.low, spec.high = self.read_size(values[0]), self.read_size(values[1])
        self.specs.push_back(spec)
        return 0

    cdef tuple borrow(self, tuple inputs, InputList& list_, int64_t* symbols, bint release):
        """Check `inputs`, fill `list_` and bind `symbols`. Returns what the inputs lie on.

        With `release`, writeable inputs are kept alive by the list itself, and the run gives them
        back as soon as it is done with them; None takes their place.
        """
        cdef Py_ssize_t count = len(inputs)
        cdef int64_t[kMaxRank] strides
        cdef ArrayView view
        cdef Mismatch mismatch, why
        cdef Status status
        cdef Py_ssize_t i
        cdef list kept = None
        self.check_count(count)
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = kUnbound
        list_.reserve(count)
        for i in range(count):
            leaf = import_or_leave(inputs[i], False)
            if self.check(i, leaf, view, symbols, strides, mismatch) != 0:
                leaf = self.converted(
                    i, leaf, kept or list(inputs), view, symbols, strides, mismatch, why)
            if not is_cpu(view.device):
                await_array(leaf, view.device)
            status = list_.add(view, strides)
            if not status.ok():
                raise_status(status)
            # A read-only one stays, so that an output that lies in it is found to be read-only.
            if release and view.writable:
                Py_INCREF(leaf)
                list_.set_owner(<void*>leaf, release_object)
                leaf = None
            if leaf is not inputs[i]:
                if kept is None:
                    kept = list(inputs)
                kept[i] = leaf
        self.check_guards(symbols)
        return inputs if kept is None else tuple(kept)

    cdef int check_guards(self, const int64_t* symbols) except -1:
        cdef size_t count = self.ranges.size()
        if self.check_sizes is None:
            return 0
        with cython.critical_section(self):
            if self.allowed.size() == count and equal(
                    self.allowed.begin(), self.allowed.end(), symbols):
                return 0
        self.check_sizes([symbols[i] for i in range(count)])
        with cython.critical_section(self):
            self.allowed.assign(symbols, symbols + count)
        return 0

    cdef int check_count(self, Py_ssize_t count) except -1:
        if self.known and count != <Py_ssize_t>self.specs.size():
            raise InputError(
                f"the model takes {self.specs.size()} input{'s' if self.specs.size() != 1 else ''}"
                f", got {count}")
        return 0

    cdef int check(
        self,
        Py_ssize_t i,
        leaf,
        ArrayView& view,
        int64_t* symbols,
        int64_t* strides,
        Mismatch& mismatch,
    ) except -1:
        """Look at an input and find the first thing that is wrong with it. Returns 0 if nothing."""
        mismatch.kind = look(leaf, view)
        if mismatch.kind != MismatchKind.kNone:
            mismatch.dim, mismatch.expected, mismatch.got = -1, 0, 0
            return 1
        cdef int d
        # By address: an expression of both would copy them.
        cdef const InputSpec* spec = &self.specs[i] if self.known else &self.unknown
        if not placed(spec[0], view):
            mismatch.kind = MismatchKind.kDevice
            return 1
        if self.known and spec.writable and is_cpu(view.device) and not is_cpu(spec.device):
            mismatch.kind = MismatchKind.kReadOnly  # the model would write into a copy
            return 1
        if not self.validate:
            own_strides(view, strides)
            for d in range(view.rank):
                if view.sizes[d] > 1 and strides[d] < 0:  # an engine does not take them
                    mismatch.kind = MismatchKind.kStrides
                    return 1
            return 0
        mismatch = cxx_check(spec[0], view, self.ranges.data(), symbols, strides)
        if type(leaf) is cnp.ndarray and not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>leaf) and (
                mismatch.kind == MismatchKind.kNone
                or mismatch.kind >= MismatchKind.kAlignment):
            mismatch.kind = MismatchKind.kByteOrder
        return 0 if mismatch.kind == MismatchKind.kNone else 1

    cdef object converted(
        self,
        Py_ssize_t i,
        leaf,
        list values,
        ArrayView& view,
        int64_t* symbols,
        int64_t* strides,
        Mismatch& mismatch,
        Mismatch& why,
    ):
        """An array or Tensor to pass in place of an input that does not pass the checks.

        `why` becomes the last reason for a conversion.
        """
        why = mismatch
        if mismatch.kind != MismatchKind.kDevice:
            # torch's pending conjugations and negations are computed here.
            imported = import_or_leave(leaf, True)
            if imported is not leaf:
                leaf = imported
                if self.check(i, leaf, view, symbols, strides, mismatch) == 0:
                    return leaf
        # One conversion makes it readable, one lays it out; between them a range may not hold.
        for _ in range(4):
            if mismatch.kind == MismatchKind.kRange and not self.ranges_hold:
                self.convert(i, values, leaf, _described(mismatch, view))
                self.ranges.assign(self.ranges.size(), Range())
            else:
                leaf = self.convert(i, values, leaf, _described(mismatch, view))
                why = mismatch
            if self.check(i, leaf, view, symbols, strides, mismatch) == 0:
                return leaf
        raise InputError(f"input {i} cannot be passed to the model")

    cdef tuple prepare(self, tuple inputs, InputList& list_, bint release):
        """Check everything and fill `list_`. Returns the arrays that the inputs lie on."""
        cdef int64_t[kMaxSymbols] symbols
        cdef tuple leaves = self.borrow(inputs, list_, symbols, release)
        if self.bounded:
            self.check_values(list_, symbols, inputs)
        self.upload(list_)
        return leaves

    cdef int upload(self, InputList& list_) except -1:
        """Take the inputs on the host to the device where they are wanted."""
        cdef size_t i
        cdef Status status
        if not self.uploads:
            return 0
        with nogil:
            for i in range(list_.size()):
                if is_cpu(list_.view(i).device) and not is_cpu(
                        self.specs[i].device if i < self.specs.size() else self.device):
                    status = cxx_upload(list_, i, self.device)
                    if not status.ok():
                        break
        if not status.ok():
            raise_status(status)
        return 0

    cdef int check_values(self, InputList& list_, int64_t* symbols, inputs) except -1:
        cdef int64_t wrong
        with nogil:
            wrong = find_out_of_range(self.specs, list_, symbols)
        if wrong >= 0:
            self.convert(wrong, inputs, inputs[wrong], (
                "values", -1,
                evaluate(self.specs[wrong].low, symbols),
                evaluate(self.specs[wrong].high, symbols)))
            raise InputError(f"input {wrong} has values that the model does not take")
        return 0

    def examine(self, inputs: Sequence[Any]) -> list[Any]:
        """What a run would do with each input, without running.

        Returns
        -------
        list of tuple
            Per input the core's view of it, itself or a Tensor over its memory; what would be
            passed on: the same, something else, or the InputError that refuses it; and the mismatch
            that is the reason if something else is passed.
        """
        cdef list leaves = list(inputs)
        cdef InputList list_
        cdef int64_t[kMaxSymbols] symbols
        cdef int64_t[kMaxRank] strides
        cdef ArrayView view
        cdef Mismatch mismatch, why
        cdef Status status
        cdef Py_ssize_t i
        cdef list found = []
        self.check_count(len(leaves))
        for i in range(<Py_ssize_t>self.ranges.size()):
            symbols[i] = kUnbound
        for i in range(len(leaves)):
            leaf = seen = import_or_leave(leaves[i], True)
            why = Mismatch()
            try:
                if self.check(i, leaf, view, symbols, strides, mismatch) != 0:
                    leaf = self.converted(
                        i, leaf, list(leaves), view, symbols, strides, mismatch, why)
                status = list_.add(view, strides)
                if not status.ok():
                    raise_status(status)
                found.append((seen, leaf, _described(why, view)))
                leaves[i] = leaf
            except InputError as error:
                found.append((seen, error, None))
        if list_.size() == self.specs.size():
            try:
                self.check_guards(symbols)
            except InputError as error:
                found[len(found) - 1] = (seen, error, None)  # by then all sizes are known
                return found
        if list_.size() == self.specs.size() and self.bounded:
            try:
                self.check_values(list_, symbols, leaves)
            except InputError as error:
                wrong = find_out_of_range(self.specs, list_, symbols)
                if wrong >= 0:  # another thread may have changed the values
                    found[wrong] = (found[wrong][0], error, None)
        return found


cdef tuple _described(Mismatch& mismatch, ArrayView& view):
    """A mismatch as Python words it: kind, dimension, expected, got. None if there is none."""
    if mismatch.kind == MismatchKind.kNone:
        return None
    if mismatch.kind == MismatchKind.kDType:
        got = dtype_name(view.dtype) if view.dtype != kNoDType else None
        expected = dtype_name(<DType>mismatch.expected) if mismatch.expected else None
        return ("dtype", -1, expected, got)
    return (_KINDS[<int>mismatch.kind], mismatch.dim, mismatch.expected, mismatch.got)
