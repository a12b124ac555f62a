"""The interface of models, so that another object can take their place; and its data classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from aoti.signature.spec import TensorSpec


class InferenceResult(NamedTuple):
    """The result of `AOTIModel.infer` and `AOTIModel.infer_async`.

    Attributes
    ----------
    outputs : list of arrays
        The outputs, flat, in the order of the output treespec.
    latency_ms : float
        Wall time of the call in milliseconds, including the time it waited for a runner.
    memory_bytes : int or None
        Peak memory of the run on the device, in addition to the memory in use before; None on the
        CPU and from `AOTIModel.infer_async`. Runs at the same time are included.
    version : int
        The version of the weights that it ran with: see `AOTIModel.version`.
    """

    outputs: list[Any]
    latency_ms: float
    memory_bytes: int | None
    version: int = 1


class ModelInfo(NamedTuple):
    """Facts about a loaded model, from `AOTIModel.info`.

    Attributes
    ----------
    engine : str
        What runs the model: ``native`` or ``libtorch``.
    device : str
        Where it runs: ``cpu`` or ``cuda:0``.
    sha256 : str
        The digest of the package, in hex: see `Package.digest`. For a directory that `aoti.unpack`
        wrote: the digest of the package that it was made from.
    entry : Path
        The directory with the extracted package: an entry of the cache, or a private directory.
    code : Path
        What is loaded of `entry`: a directory, or an archive for a libtorch that does not read
        directories.
    weights_file : Path or None
        The file that the weights are mapped from; None if they are in the code, were copied to
        memory or are on a GPU.
    weights_bytes : int
        How many bytes of it are mapped.
    weights_version : int
        See `ModelWeights.version`.
    num_runners : int
        How many calls may run at the same time.
    containers : int
        How many containers the runners share: one for all, or one for each, which runs
        without locks.
    intra_op_threads : int or None
        How many threads a run may use; None if OpenMP decides.
    running, waiting : int
        How many calls of `AOTIModel.submit` and `AOTIModel.run_async` run and wait now.
    calls, runs : int
        How many of these calls have run, and in how many runs: fewer if calls are joined.
    run_seconds : float
        How long these runs took in all.
    run_sizes : mapping of int to int
        How many of these runs had how many calls: ``{1: 7, 4: 2}`` for 15 calls in 9 runs.
    max_rows : int
        The maximum number of rows of a joined run: see `Batching`. 1 if calls are not joined.
    """

    engine: str
    device: str
    sha256: str
    entry: Path
    code: Path
    weights_file: Path | None
    weights_bytes: int
    weights_version: int
    num_runners: int
    containers: int
    intra_op_threads: int | None
    running: int
    waiting: int
    calls: int
    runs: int
    run_seconds: float
    run_sizes: Mapping[int, int]
    max_rows: int


@runtime_checkable
class ModelRunner(Protocol):
    """The calling methods of `aoti.AOTIModel`, and of objects that take its place.

    Write ``def serve(model: aoti.ModelRunner)``, and tests can pass an `aoti.testing.FakeModel`.
    The methods are described at `aoti.AOTIModel`.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | None:
        """The inputs of the model, in flat order; None if they are not known."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """The outputs of the model, in flat order; None if they are not known."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as the exported module was called."""

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Run on a flat sequence of arrays."""

    def boxed_run(self, inputs: list[Any]) -> list[Any]:
        """Run on a flat list of arrays and empty it."""

    def infer(self, inputs: Sequence[Any]) -> InferenceResult:
        """Run on a flat sequence of arrays and measure it."""

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the model in the background."""

    async def run_async(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the model without blocking the event loop."""

    def close(self) -> None:
        """Free the model."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
