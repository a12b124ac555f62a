cdef void _free(object capsule) noexcept:
    cdef _cxx.Tensor tensor = _cxx.reclaim(PyCapsule_GetPointer(capsule, _OUTPUT))
    # Freeing a large block may unmap it: let others run meanwhile. For a small one, giving up the
    # GIL would cost every call more than it gains.
    if _cxx.bytes_of(tensor) > _LARGE:
        with nogil:
            tensor.reset()


cdef cnp.ndarray _to_numpy(_cxx.Tensor& tensor, tuple leaves):
    """An array over what a model returned, and its owner: a capsule, which takes half the time
    that a Tensor takes to make and to free. To copy what is small would not be faster: numpy's own
    memory costs as much as the capsule.
    """
    cdef _cxx.View view
    cdef bint readonly
    if not tensor.is_cpu():
        _download(tensor)
    _settle(tensor, leaves, &readonly)
    _cxx.view(tensor, view)
    cdef cnp.ndarray array = _array(view, readonly)
    if view.data != NULL:
        owner = PyCapsule_New(<void*>_OUTPUT, _OUTPUT, NULL)
        PyCapsule_SetPointer(owner, _cxx.release(tensor))
        PyCapsule_SetDestructor(owner, _free)
        cnp.set_array_base(array, owner)
    return array


cdef int _download(_cxx.Tensor& tensor) except -1:
    """Replace a tensor that the current stream computes by a copy on the host; wait for that."""
    cdef Failure failure
    cdef _cxx.Tensor copy
    with nogil:
        failure = _cxx.move_to(tensor, _cxx.Place(), copy)
    if failure.fault != Fault.kNone:
        _raise(failure)
    tensor = move(copy)
    return 0


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
            _hold(tensor, leaf)
            return 0
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
    owner.note_stream()
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
    if not tensor.is_cpu():
        _let_wait(kind, _cxx.place_of(tensor))
    # Takes `managed`, whether it succeeds or not.
    if kind.api.managed_tensor_to_py_object_no_sync(managed, &made) != 0:
        _raise_pending()
    return _new_reference(made)


cdef object _output(_cxx.Tensor& tensor, tuple leaves, Kind kind):
    """An array of a kind, None being numpy, over what a model returned."""
    return _to_numpy(tensor, leaves) if kind is None else _to_kind(tensor, leaves, kind)


cdef list _outputs(vector[_cxx.Tensor]& tensors, tuple leaves, Kind kind):
    cdef size_t i
    return [_output(tensors[i], leaves, kind) for i in range(tensors.size())]


cdef int _targets(out, vector[_cxx.Tensor]& targets, _cxx.Place& place) except -1:
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
        if not (borrowed.place.is_cpu() or borrowed.place == place):
            raise InputError(
                f"out[{i}]: the array lies on {_place_name(borrowed.place)}, and the model runs on "
                f"{_place_name(place)}")
        if not borrowed.place.is_cpu():
            _await(array, borrowed.place)
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


cdef int _refuse_targets(_cxx.Run& run, out) except -1:
    """Say why the outputs do not fit into the arrays of `out`."""
    if deref(run.targets).size() != run.outputs.size():
        raise InputError(f"the model gives {run.outputs.size()} outputs, and out has {len(out)}")
    cdef _cxx.Tensor target = deref(run.targets)[run.wrong]
    made, given = _owner(run.outputs[run.wrong], ()), _owner(target, tuple(out))
    raise InputError(
        f"out[{run.wrong}]: the model gives {made.dtype} {made.shape}, and the array is "
        f"{given.dtype} {given.shape}; nothing was written")
