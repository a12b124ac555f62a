# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Arguments to leaves and outputs to results, for calls exactly as the module was exported.

What is not, whether wrong or merely unusual, is left to aoti.signature.pytree, which words errors.
"""

cimport cython
cimport numpy as cnp
from cpython.dict cimport PyDict_GetItemWithError
from cpython.ref cimport PyObject

from aoti.engine._core._library cimport library_of
from aoti.engine._core._tensor cimport Tensor

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from aoti.errors import ExecutionError
from aoti.signature.pytree import CONTAINERS

cnp.import_array()

cdef dict _NODE_KINDS = {
    "object": NodeKind.LEAF,
    "dict": NodeKind.DICT,
    "list": NodeKind.LIST,
    "tuple": NodeKind.TUPLE,
    "namedtuple": NodeKind.NAMEDTUPLE,
}
cdef slice _ALL = slice(None)

cdef bint all_arrays(tuple values) except *:
    """Whether all are of types whose values are arrays."""
    for value in values:
        if type(value) is not cnp.ndarray and type(value) is not Tensor and (
                library_of(type(value)) is None):
            return False
    return True


@cython.final
cdef class Node:
    """One place of a call's structure, a leaf or a container, from `CallPlan.structure`."""

    def __init__(
        self, kind: str, keys: Sequence[Any], make: Any, children: Sequence[tuple[Any, ...]]
    ) -> None:
        self.kind = _NODE_KINDS.get(kind, NodeKind.OTHER)
        self.keys, self.make = tuple(keys), make
        self.children = tuple([Node(*child) for child in children])
        self.count = len(self.children)
        self.leaves = 1 if self.kind == NodeKind.LEAF else sum(
            [(<Node>child).leaves for child in self.children])

    cdef bint take(self, value, list leaves) except -1:
        """Append the leaves of a value. False if it is not exactly what it should be."""
        cdef Py_ssize_t i
        cdef PyObject* item
        kind = type(value)
        if self.kind == NodeKind.LEAF:
            if kind in CONTAINERS:
                return False
            leaves.append(value)
            return True
        if self.kind == NodeKind.DICT:
            if (kind is not dict and kind is not OrderedDict) or len(<dict>value) != self.count:
                return False
            for i in range(self.count):
                item = PyDict_GetItemWithError(value, self.keys[i])
                if item == NULL or not (<Node>self.children[i]).take(<object>item, leaves):
                    return False
            return True
        if self.kind == NodeKind.LIST:
            if kind is not list:
                return False
        elif self.kind == NodeKind.TUPLE:
            if kind is not tuple:
                return False
        elif self.kind == NodeKind.NAMEDTUPLE and issubclass(kind, tuple):
            if getattr(kind, "_fields", None) != self.keys:
                return False
            value = tuple.__getitem__(value, _ALL)  # whatever a subclass says of itself
        else:
            return False
        if len(value) != self.count:
            return False
        for i in range(self.count):
            if not (<Node>self.children[i]).take(value[i], leaves):
                return False
        return True

    cdef object build(self, list leaves, Py_ssize_t* next):
        """The value of the leaves from `next` on."""
        cdef Py_ssize_t i
        if self.kind == NodeKind.LEAF:
            next[0] += 1
            return leaves[next[0] - 1]
        values = [(<Node>self.children[i]).build(leaves, next) for i in range(self.count)]
        if self.kind == NodeKind.LIST:
            return values
        if self.kind == NodeKind.TUPLE:
            return tuple(values)
        if self.make is None:
            return {self.keys[i]: values[i] for i in range(self.count)}
        return self.make(values)


@cython.final
cdef class Structure:
    """The structure of a model's calls."""

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: tuple[Any, ...],
        result: tuple[Any, ...],
        *,
        bint arrays_only,
    ) -> None:
        self.args, self.kwargs, self.result = Node(*args), Node(*kwargs), Node(*result)
        self.arrays_only = arrays_only
        self.flat = self.kwargs.count == 0 and all(
            [(<Node>child).kind == NodeKind.LEAF for child in self.args.children])

    cdef tuple take(self, tuple args, dict kwargs):
        """The leaves of a call's arguments. None if these are not exactly what they should be."""
        cdef list leaves
        if not self.arrays_only:
            return None
        if self.flat and not kwargs and len(args) == self.args.count and all_arrays(args):
            return args
        leaves = []
        if self.args.take(args, leaves) and self.kwargs.take(kwargs, leaves):
            return tuple(leaves)
        return None

    cdef int check_count(self, size_t count) except -1:
        """Refuse outputs that are more or fewer than the package describes."""
        if count != <size_t>self.result.leaves:
            raise ExecutionError(
                f"the model returned {count} outputs, and its package describes "
                f"{self.result.leaves}; export it again")
        return 0

    cdef object build(self, list leaves):
        """The result of these outputs."""
        cdef Py_ssize_t next = 0
        return self.result.build(leaves, &next)
