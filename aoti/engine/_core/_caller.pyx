# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""The base of a model's class through which Python enters a call."""

cimport cython

from aoti.engine._core._program cimport Program

from collections.abc import Sequence
from typing import Any


@cython.auto_pickle(False)  # that is the class's own business
cdef class Caller:
    """Calls that enter the core without a Python frame: a third of a microsecond less
    (tests/benchmarks/calls.py).

    It takes the calls whose arguments are exactly as exported, and runs without options. The others
    go to the methods `_call` and `_run` of the class that derives from it.
    """

    cdef public Program _program

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as the exported module was called.

        Parameters
        ----------
        *args, **kwargs
            The arguments of the export, in the same structure, with arrays for tensors: of numpy,
            torch, jax, cupy, or anything with ``__dlpack__``, ``__array_interface__`` or the
            buffer protocol.
        out : optional
            Arrays for the outputs, in the structure of the result, with None for outputs that must
            be new: numpy arrays, torch tensors or `aoti.Tensor`. What the model computes is copied
            there; nothing is written unless all fit.
        outputs : str, optional
            The array library of the outputs of this call: see `load`.
        stream : optional
            The stream that this call runs on, of a model on a GPU: see `load`.

            If the module itself has an argument of one of these names, the name means that
            argument; `run` takes the option then.

        Returns
        -------
        object
            What the module returned, in the same structure, with arrays for tensors, of the library
            that the inputs are of.

        Raises
        ------
        InputError, InputTypeError
            The arguments are not what the model takes. Nothing has run.
        ExecutionError
            The model failed.
        ModelClosedError
            The model was closed.
        PackageError
            The exported structure holds a type that only the exporting program has. `run` works.
        """
        cdef tuple leaves = None
        if self._program is not None and self._program.structure is not None:
            leaves = self._program.structure.take(args, kwargs)
        if leaves is None:
            return self._call(args, kwargs)
        return self._program.call(leaves)

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def run(self, inputs: Sequence[Any], *, outputs=None, out=None, stream=None) -> list[Any]:
        """Run on a flat sequence of arrays.

        Parameters
        ----------
        inputs : sequence of arrays
            One per tensor, in the order of the input treespec.
        outputs : str, optional
            The array library of the outputs of this run: see `load`.
        out : sequence of arrays or None, optional
            Where to write the outputs, one per output, None for a new array.
        stream : optional
            The stream that this run goes to, of a model on a GPU: see `load`.

        Returns
        -------
        list of arrays
            One per tensor, in the order of the output treespec, of the library that the inputs are
            of.

        Raises
        ------
        InputError, InputTypeError, ExecutionError, ModelClosedError
            As for a call.
        """
        if outputs is None and out is None and stream is None and (
                type(inputs) is list or type(inputs) is tuple) and self._program is not None:
            return self._program.run_all(tuple(inputs))
        return self._run(inputs, outputs, out, stream)
