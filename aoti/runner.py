"""What an application needs of a model, so that something else can stand in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import TracebackType

    from aoti.result import InferenceResult
    from aoti.spec import TensorSpec


@runtime_checkable
class ModelRunner(Protocol):
    """The calling methods of a model: `aoti.AOTIModel`, and what is put in its place.

    Write ``def serve(model: aoti.ModelRunner)``, and tests can pass an `aoti.testing.FakeModel`.
    The methods are described at `aoti.AOTIModel`.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | None:
        """What the model takes, in flat order; None if nobody tells."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...] | None:
        """What the model gives, in flat order; None if nobody tells."""

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
    ) -> None: ...
