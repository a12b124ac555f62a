"""A fake model for the tests of applications, without libtorch and compiled code."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from aoti.arrays.validation import Checker, Flatten
from aoti.errors import InputError, InputTypeError, ModelClosedError, PackageError
from aoti.package.package import Package, Source
from aoti.protocol import InferenceResult
from aoti.signature.dtypes import numpy_dtype
from aoti.signature.spec import Dim, TensorSpec, evaluate

if TYPE_CHECKING:
    from types import TracebackType


class FakeModel:
    """A fake `aoti.AOTIModel`: an `aoti.ModelRunner` that runs a Python function.

    Parameters
    ----------
    function : callable, optional
        Called like the model, and returns what the model would return; it may raise. `run` passes
        the flat inputs. Default: zeros of the right dtypes and sizes, if a `package` describes
        them.
    package : path, bytes or binary file, optional
        The package to imitate. Arguments are then checked as for the real model, except for the
        values of indices; nothing of the package is run.
    model_name : str, optional
        The model in the package.

    Attributes
    ----------
    calls : list of tuple
        The arguments of every call as ``(args, kwargs)``; for `run` and its variants,
        ``(inputs, {})``.

    Raises
    ------
    ValueError
        Neither a function nor a package is given.
    PackageError, PackageNotFoundError, ModelNotFoundError
        As for `aoti.load`.

    Notes
    -----
    Everything runs in the caller's thread: a `Future` of `submit` is already done. The options
    `out` and `outputs` of a call are not supported.

    Examples
    --------
    >>> model = FakeModel(lambda x: x * 2)
    >>> model(3.0)
    6.0
    >>> model.calls
    [((3.0,), {})]
    """

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        package: Source | None = None,
        model_name: str | None = None,
    ) -> None:
        if function is None and package is None:
            raise ValueError("a fake model needs a function, or a package to imitate")
        self._function = function
        self._checker: Checker | None = None
        self._flatten: Flatten | None = None
        self._rebuild: Callable[[Sequence[object]], object] = list
        self._flatten_result: Callable[[Any], list[object]] = _leaves
        self._closed = False
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        if package is not None:
            with Package(package) as opened:
                signature = opened.signature(opened.select(model_name))
                self._checker = Checker(signature, opened.name)
                # A structure with types that only the exporting program has cannot be checked.
                with contextlib.suppress(PackageError):
                    if signature.call_spec is not None:
                        plan = signature.plan(signature.call_spec)
                        self._flatten = self._checker.plan_calls(plan)
                        self._rebuild, self._flatten_result = self._checker.plan_results(plan)

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | None:
        """The inputs that the package describes; None without a package."""
        return None if self._checker is None else self._checker.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """The outputs that the package describes; None without a package."""
        return None if self._checker is None else self._checker.signature.outputs

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments against the package, if there is one, and call the function."""
        self._note(args, kwargs)
        arrays: list[Any] = []
        if self._flatten is not None:
            arrays = self._check(self._flatten(args, kwargs))
        if self._function is not None:
            return self._function(*args, **kwargs)
        return self._rebuild(self._zeros(arrays))

    def run(self, inputs: Sequence[Any], *, stream: Any = None) -> list[Any]:  # noqa: ARG002
        """As a call, with flat inputs and a flat list of outputs. The stream is ignored."""
        if not isinstance(inputs, list | tuple):
            raise InputTypeError(f"run takes a list of arrays, got {type(inputs).__name__}")
        self._note(tuple(inputs), {})
        arrays = self._check(inputs)
        if self._function is None:
            return self._zeros(arrays)
        return self._flatten_result(self._function(*inputs))

    def boxed_run(self, inputs: list[Any], *, stream: Any = None) -> list[Any]:
        """As `run`, and empty the list."""
        taken = inputs.copy()
        inputs.clear()
        return self.run(taken, stream=stream)

    def infer(self, inputs: Sequence[Any], *, stream: Any = None) -> InferenceResult:
        """As `run`, with the time that the function took."""
        start = time.perf_counter_ns()
        outputs = self.run(inputs, stream=stream)
        return InferenceResult(outputs, (time.perf_counter_ns() - start) / 1e6, memory_bytes=None)

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the model; the returned future is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(self(*args, **kwargs))
        except (InputError, ModelClosedError):  # raised in the caller's thread, as by a model
            raise
        except Exception as error:
            future.set_exception(error)
        return future

    async def run_async(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self(*args, **kwargs)

    async def infer_async(self, inputs: Sequence[Any]) -> InferenceResult:
        """As `infer`."""
        return self.infer(inputs)

    def close(self) -> None:
        """Let later calls raise `ModelClosedError`."""
        self._closed = True

    def __enter__(self) -> FakeModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._closed:
            raise ModelClosedError("the model was closed")
        self.calls.append((args, kwargs))

    def _check(self, values: Sequence[Any]) -> list[Any]:
        if self._checker is None:
            return []
        return self._checker.fit(values)

    def _zeros(self, arrays: Sequence[Any]) -> list[Any]:
        import numpy as np

        assert self._checker is not None
        sizes = self._checker.sizes(arrays)
        outputs = self.outputs or ()
        zeros = [
            np.zeros([_size(size, sizes) for size in spec.shape], numpy_dtype(spec.dtype))
            for spec in outputs
            if spec.shape is not None and spec.dtype is not None
        ]
        if not zeros or len(zeros) < len(outputs):
            raise ValueError(
                "the package does not describe the outputs of the model: pass a function"
            )
        return zeros


def _size(size: int | Dim, sizes: Mapping[str, int]) -> int:
    try:
        return evaluate(size, sizes)
    except KeyError:
        raise ValueError(f"the package does not say how large {size} is: pass a function") from None


def _leaves(result: Any) -> list[Any]:
    if isinstance(result, Mapping):
        return [leaf for value in result.values() for leaf in _leaves(value)]
    if isinstance(result, list | tuple):
        return [leaf for value in result for leaf in _leaves(value)]
    return [result]
