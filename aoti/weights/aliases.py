"""Methods of `AOTIModel` that are those of its weights, under the names of other loaders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aoti.options import WeightSource
from aoti.package.constants import Constant
from aoti.weights.model_weights import ModelWeights


class WeightCalls:
    """The methods of `ModelWeights` under the names of the C++ loader and of aoti-rs."""

    weights: ModelWeights

    def load_constants(
        self, weights: Mapping[str, Any], *, full: bool = True, share: bool = False
    ) -> None:
        """`ModelWeights.load`, under the name of the C++ loader's method."""
        self.weights.load(weights, full=full, share=share)

    def update_weights(
        self,
        weights: WeightSource,
        *,
        full: bool = True,
        share: bool = False,
        map_source: bool = False,
        keep: bool = True,
    ) -> int:
        """`ModelWeights.update`, under the name of aoti-rs."""
        return self.weights.update(
            weights, full=full, share=share, map_source=map_source, keep=keep
        )

    def rollback(self) -> int:
        """`ModelWeights.rollback`."""
        return self.weights.rollback()

    def extract_constants(self) -> dict[str, Any]:
        """`ModelWeights.extract`, under the name of the C++ loader's method."""
        return self.weights.extract()

    @property
    def constants(self) -> tuple[Constant, ...]:
        """`ModelWeights.constants`."""
        return self.weights.constants

    @property
    def version(self) -> int:
        """`ModelWeights.version`."""
        return self.weights.version
