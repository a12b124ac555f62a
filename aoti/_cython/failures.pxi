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
