cdef class Kind:
    """How the arrays of one type come in and go out. The kinds: `aoti.arrays.libraries`.

    Parameters
    ----------
    name : str
        What messages and ``outputs=`` call it.
    wrap : callable or None
        Makes an array of this kind from a `Tensor`. None: the tensor itself.
    immutable : bool
        Whether its memory must not be written to, although it does not say so.
    lazy : bool
        Whether it may carry conjugations and negations that DLPack does not tell of; it then has
        torch's methods for them.
    exchange : object
        The type's ``__dlpack_c_exchange_api__``, or None.
    """

    cdef readonly str name
    cdef object wrap
    cdef bint immutable
    cdef bint lazy
    cdef bint of_torch
    cdef object exchange
    cdef const DLPackExchangeAPI* api  # lives as long as the process
    cdef _cxx.TorchWrap torch_wrap

    def __init__(
        self,
        str name,
        wrap: Callable[[Any], Any] | None,
        bint immutable,
        bint lazy,
        exchange: Any,
    ) -> None:
        self.name, self.wrap, self.immutable, self.lazy = name, wrap, immutable, lazy
        self.exchange = exchange
        self.of_torch = name == "torch"
        cdef const DLPackExchangeAPI* api
        if exchange is not None:
            api = <const DLPackExchangeAPI*>PyCapsule_GetPointer(exchange, _EXCHANGE)
            while api != NULL and api.header.version.major != _cxx.DLPACK_MAJOR_VERSION:
                api = <const DLPackExchangeAPI*>api.header.prev_api
            if api != NULL and api.dltensor_from_py_object_no_sync != NULL:
                self.api = api
        if self.of_torch and self.api != NULL:
            version = json.loads(_cxx.build_info().decode())["torch"].split(".")[:2]
            if sys.modules["torch"].__version__.split(".")[:2] == version:
                self.torch_wrap = _cxx.find_torch_wrap()


cdef dict _kinds = {}  # by type; False for what is no array by DLPack
# The one that was asked for last: a call asks several times, and the next call for the same.
cdef object _last_type = None
cdef Kind _last_kind = None

cdef Kind _kind(array_type):
    """The kind of a type, None if its arrays have no `__dlpack__`."""
    global _last_type, _last_kind
    if array_type is _last_type:
        return _last_kind
    cached = _kinds.get(array_type)
    if cached is None:
        found = libraries.find(array_type)
        cached = False if found is None else Kind(*found)
        if len(_kinds) < 100:  # types that a program makes as it runs shall not live forever
            _kinds[array_type] = cached
    kind = None if cached is False else <Kind>cached
    if array_type in _kinds:
        _last_type = None  # what is let go of here may run code that asks for another one
        _last_kind = kind
        _last_type = array_type
    return kind


cdef Kind _kind_of(tuple leaves):
    """The kind of the first that is no numpy array and no scalar; None if all are."""
    cdef Kind kind
    for leaf in leaves:
        if type(leaf) is not cnp.ndarray:
            kind = _kind(type(leaf))
            if kind is not None:
                return kind
    return None


def kind_named(str name) -> Kind | None:
    """The kind of outputs that a name asks for; None is numpy.

    Raises
    ------
    ConfigError
        There is no such kind, or its library was not imported.
    """
    found = libraries.named(name)
    return None if found is None else Kind(*found)


cdef int _raise_pending() except -1:
    """Raise the exception that a C function set."""
    return -1
