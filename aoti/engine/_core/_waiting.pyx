# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Waiting for a condition in compiled code, where no signal handler runs between two steps."""

from _thread import allocate_lock
from threading import Condition


def wait(condition: Condition, timeout: float | None = None) -> bool:
    """What ``threading.Condition.wait`` does: a handler that raises finds the lock taken again."""
    waiter = allocate_lock()
    waiter.acquire()
    condition._waiters.append(waiter)
    state = condition._release_save()
    notified = False
    try:
        if timeout is None:
            notified = waiter.acquire()
        else:
            notified = waiter.acquire(True, timeout) if timeout > 0 else waiter.acquire(False)
    finally:
        condition._acquire_restore(state)
        if not notified and waiter in condition._waiters:
            condition._waiters.remove(waiter)
    return notified
