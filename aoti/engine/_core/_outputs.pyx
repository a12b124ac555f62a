# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Outputs of a run become arrays of the caller's library, and own their memory."""

cimport numpy as cnp
from cpython.exc cimport PyErr_Occurred
from cpython.pycapsule cimport (
    PyCapsule_GetContext,
    PyCapsule_GetPointer,
    PyCapsule_New,
    PyCapsule_SetContext,
    PyCapsule_SetDestructor,
)
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cython.operator cimport dereference as deref
from libc.stdint cimport int64_t
from libcpp.vector cimport vector

from aoti.engine._core._device cimport device_name
from aoti.engine._core._inputs cimport look
from aoti.engine._core._library cimport (
    ArrayLibrary,
    await_array,
    let_library_wait,
    raise_pending,
)
from aoti.engine._core._status cimport raise_status
from aoti.engine._core._tensor cimport LARGE, Tensor, array_over_view, release_object, wrap
from aoti.engine.cxx.array_view cimport ArrayView, contains, kMaxRank, own_strides
from aoti.engine.cxx.call cimport OutputList
from aoti.engine.cxx.check cimport MismatchKind
from aoti.engine.cxx.core_dlpack cimport to_dlpack
from aoti.engine.cxx.device cimport is_cpu, kCpu, same
from aoti.engine.cxx.devices cimport clone_on_device, move_to
from aoti.engine.cxx.dlpack cimport DLDevice, DLManagedTensorVersioned, DLTensor
from aoti.engine.cxx.dtype cimport dl_type_of, dtype_of, itemsize_of
from aoti.engine.cxx.engine cimport AotiEngine, AotiTensor
from aoti.engine.cxx.program cimport Run
from aoti.engine.cxx.registry cimport engine_failure
from aoti.engine.cxx.status cimport Status
from aoti.engine.cxx.tensor cimport Release, bounds_overlap, count_elements
from aoti.engine.cxx.tensor cimport Tensor as CxxTensor

from aoti.errors import InputError, InputTypeError

cnp.import_array()

cdef const char* _OUTPUT = "aoti_output"


cdef void _free(object capsule) noexcept:
    (<Release>PyCapsule_GetContext(capsule))(PyCapsule_GetPointer(capsule, _OUTPUT))


cdef void _free_large(object capsule) noexcept:
    # Freeing a large block may unmap it: let others run meanwhile. For a small one, giving up the
    # GIL would cost every call more than it gains.
    cdef Release release = <Release>PyCapsule_GetContext(capsule)
    cdef void* handle = PyCapsule_GetPointer(capsule, _OUTPUT)
    with nogil:
        release(handle)


cdef object _to_numpy(OutputList& made, size_t i, tuple leaves):
    """A numpy array over an output.

    Its owner is a capsule, which takes half the time that a Tensor takes to make and to free. To
    copy what is small would not be faster: numpy's own memory costs as much as the capsule.
    """
    cdef const AotiTensor* tensor = &made[i]
    cdef CxxTensor copy
    cdef Status status
    cdef cnp.ndarray array
    cdef int64_t nbytes
    if not is_cpu(tensor.view.device):
        status = made.take(i, copy)
        if not status.ok():
            raise_status(status)
        with nogil:
            status = move_to(copy, kCpu, copy)
        if not status.ok():
            raise_status(status)
        return wrap(copy, False).numpy()
    if tensor.borrowed:
        return _settled(made, i, leaves).numpy()
    array = array_over_view(tensor.view, False)
    if tensor.view.data != NULL:
        nbytes = count_elements(tensor.view) * itemsize_of(dtype_of(tensor.view.dtype))
        owner = PyCapsule_New(tensor.handle, _OUTPUT, NULL)
        PyCapsule_SetContext(owner, <void*>made.engine().release_tensor)
        PyCapsule_SetDestructor(owner, _free_large if nbytes > LARGE else _free)
        made.release(i)
        cnp.set_array_base(array, owner)
    return array


cdef Tensor _settled(OutputList& made, size_t i, tuple leaves):
    """An output as a Tensor that owns its memory, or keeps the input alive that does."""
    cdef CxxTensor tensor
    cdef DLTensor view
    cdef ArrayView array
    cdef Status status
    if not made[i].borrowed:
        status = made.take(i, tensor)
        if not status.ok():
            raise_status(status)
        return wrap(tensor, False)
    view = made[i].view
    for leaf in leaves:
        if look(leaf, array) == MismatchKind.kNone and contains(array, view.data):
            Py_INCREF(leaf)
            try:
                tensor = CxxTensor.over(view, <void*>leaf, release_object)
            except BaseException:
                Py_DECREF(leaf)
                raise
            return wrap(tensor, not array.writable)
    # The memory of a weight, which goes with the model.
    status = made.take(i, tensor)
    if status.ok():
        status = clone_on_device(tensor, tensor)
    if not status.ok():
        raise_status(status)
    return wrap(tensor, False)


cdef object _new_reference(void* made):
    """The object of a reference that a C function gave us."""
    made_object = <object><PyObject*>made
    Py_DECREF(made_object)
    return made_object


cdef object _to_torch(OutputList& made, size_t i):
    """A torch tensor by torch's own way: DLPack would build two more tensors on the way."""
    cdef const AotiEngine* engine = made.engine()
    cdef void* object_ = engine.make_torch_tensor(made.release(i))
    cdef Status status
    if object_ == NULL:
        if PyErr_Occurred() != NULL:
            raise_pending()
        status = engine_failure(deref(engine), 1)
        raise_status(status)
    return _new_reference(object_)


cdef object _to_library(OutputList& made, size_t i, tuple leaves, ArrayLibrary library):
    """An array of a library over an output."""
    cdef DLManagedTensorVersioned* managed = NULL
    cdef void* object_ = NULL
    cdef Status status
    cdef Tensor owner
    if library.is_torch and library.api != NULL and not made[i].borrowed and (
            made.engine().can_make_torch_tensors != NULL
            and made.engine().can_make_torch_tensors()):
        return _to_torch(made, i)
    owner = _settled(made, i, leaves)
    if library.api == NULL:
        if library.immutable:  # never writes, and jax has no flag that says that one must not
            owner.readonly = False
        return owner if library.wrap is None else library.wrap(owner)
    if owner.readonly:  # torch has no read-only tensors, and would write there
        status = clone_on_device(owner.tensor, owner.tensor)
        if not status.ok():
            raise_status(status)
    if not owner.tensor.is_cpu():
        let_library_wait(library, owner.tensor.device())
    status = to_dlpack(owner.tensor, 0, managed)
    if not status.ok():
        raise_status(status)
    # Takes `managed`, whether it succeeds or not.
    if library.api.managed_tensor_to_py_object_no_sync(managed, &object_) != 0:
        raise_pending()
    return _new_reference(object_)


cdef object output(OutputList& made, size_t i, tuple leaves, ArrayLibrary library):
    """An array of a library, None being numpy, over an output."""
    return _to_numpy(made, i, leaves) if library is None else _to_library(
        made, i, leaves, library)


cdef list outputs(OutputList& made, tuple leaves, ArrayLibrary library):
    cdef size_t i
    return [output(made, i, leaves, library) for i in range(made.size())]


cdef int read_targets(out, vector[CxxTensor]& targets, DLDevice device) except -1:
    """Tensors over the arrays that outputs must be written to; an undefined one for a None."""
    cdef ArrayView view
    cdef MismatchKind kind
    cdef DLTensor described
    cdef int64_t[kMaxRank] strides
    cdef int d
    for i, array in enumerate(out):
        if array is None:
            targets.push_back(CxxTensor())
            continue
        kind = look(array, view)
        if kind == MismatchKind.kNull:
            raise InputError(
                f"out[{i}]: the array's data pointer is null; it has no memory to write to")
        if kind != MismatchKind.kNone or (
                type(array) is cnp.ndarray and not cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>array)):
            raise InputTypeError(
                f"out[{i}]: outputs are written into numpy arrays, torch tensors on the CPU and "
                f"aoti.Tensors, aligned and in native byte order; not this {type(array).__name__}")
        if not (is_cpu(view.device) or same(view.device, device)):
            raise InputError(
                f"out[{i}]: the array lies on {device_name(view.device)}, and the model runs on "
                f"{device_name(device)}")
        if not is_cpu(view.device):
            await_array(array, view.device)
        if not view.writable:
            raise InputError(f"out[{i}]: the array is read-only; pass one that can be written to")
        own_strides(view, strides)
        described.data, described.device, described.ndim = view.data, view.device, view.rank
        described.dtype, described.byte_offset = dl_type_of(view.dtype), 0
        described.shape, described.strides = <int64_t*>view.sizes, strides
        for d in range(view.rank):
            if view.sizes[d] > 1 and strides[d] <= 0 and count_elements(described) != 0:
                raise InputError(
                    f"out[{i}]: its strides are negative or zero; pass an array that is neither "
                    "reversed nor broadcast")
        targets.push_back(CxxTensor.over(described, NULL, NULL))
    return refuse_overlaps(targets)


cdef int refuse_overlaps(const vector[CxxTensor]& targets) except -1:
    """Refuse targets of which one would be written over another."""
    cdef size_t i, j
    for i in range(1, targets.size()):
        for j in range(i):
            if targets[i].defined() and targets[j].defined() and (
                    bounds_overlap(targets[j], targets[i])
                    and share_elements(targets[j], targets[i])):
                raise InputError(
                    f"out[{j}] and out[{i}] share memory, so one result would be written over the "
                    "other; pass arrays that do not overlap")
    return 0


cdef bint share_elements(CxxTensor one, CxxTensor other) except -1:
    """Whether two tensors have elements in common; columns of one array have none.

    They are taken to have some where numpy cannot tell, or would take long.
    """
    import numpy as np

    try:
        first, second = wrap(one, False).numpy(), wrap(other, False).numpy()
        return np.shares_memory(first, second, max_work=10_000)
    except (InputTypeError, ValueError, TypeError, np.exceptions.TooHardError):
        return True


cdef int refuse_targets(Run& run, out) except -1:
    """Say why the outputs do not fit into the arrays of `out`."""
    cdef CxxTensor target
    if deref(run.targets).size() != run.outputs.size():
        raise InputError(f"the model gives {run.outputs.size()} outputs, and out has {len(out)}")
    target = deref(run.targets)[run.wrong]
    made, given = _settled(run.outputs, run.wrong, ()), wrap(target, False)
    raise InputError(
        f"out[{run.wrong}]: the model gives {made.dtype} {made.shape}, and the array is "
        f"{given.dtype} {given.shape}; nothing was written")
