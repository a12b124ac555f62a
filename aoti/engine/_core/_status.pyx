# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""C++ failures become Python exceptions here and nowhere else."""

from aoti.engine.cxx.status cimport Status, StatusCode

from aoti.errors import ExecutionError, ModelClosedError


cdef int raise_status(const Status& status) except -1:
    """Raise the exception for a status that is not kOk."""
    if status.code == StatusCode.kClosed:
        raise ModelClosedError("the model was closed")
    if status.code == StatusCode.kRunLost:
        raise ExecutionError(
            "this process was forked while a model ran in another thread, and the locks of that "
            "thread are never released here: no model can run in this process; start processes by "
            "spawn or forkserver, or fork when nothing runs")
    if status.code == StatusCode.kThreadsLost:
        raise ExecutionError(
            "this process was forked after a model had run, and this OpenMP cannot start its "
            "threads anew: start processes by spawn or forkserver, or run the model in a thread "
            "that is started after the fork")
    if status.code == StatusCode.kNoMemory:
        raise MemoryError("out of memory")
    message = status.message.decode("utf-8", "replace").strip()
    detail = status.detail.decode("utf-8", "replace").strip()
    first, _, rest = message.partition("\n")
    error = ExecutionError(first or "the model failed without saying why")
    for note in (rest.strip(), detail):
        if note and note != message:
            error.add_note(note)
    raise error


cdef str first_line(const Status& status):
    return status.message.decode("utf-8", "replace").partition("\n")[0]
