"""What a model lets its users do with its weights: look, load, update, go back, read back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from aoti.package.constants import Constant
from aoti.weights.model_weights import Weights


class WeightsOfAModel:
    """The part of `aoti.AOTIModel` that is about its weights.

    Notes
    -----
    All methods may be called while the model runs in other threads, and give up the GIL while they
    copy. Changes take turns. Runs that are under way end with the weights that they began with,
    later ones use the new; no run waits, and none sees a mixture. Weights that a change fails on
    leave the old ones serving.
    """

    _weights: Weights

    @property
    def constants(self) -> tuple[Constant, ...]:
        """The constants of the model, in the order of its code; empty if the package hides them."""
        return self._weights.listed()

    @property
    def version(self) -> int:
        """Which set of weights new runs use: 1 at first, a new number with every change.

        A number stands for the same weights forever: `rollback` brings the old one back. 0 as long
        as the model has no weights.
        """
        return self._weights.version

    def load_constants(
        self, weights: Mapping[str, Any], *, full: bool = True, share: bool = False
    ) -> None:
        """Replace the weights, or give a model some that came without.

        Parameters
        ----------
        weights : mapping of str to array
            Arrays of any kind by their fully qualified names, as in ``state_dict()``.
        full : bool, default True
            Whether all parameters must be given. Without, those that are not given stay as they
            are; a model without weights refuses to run until it has all. Buffers and other
            constants may always be left out where they have values.
        share : bool, default False
            Read the arrays where they are, instead of copying them. They are kept alive, and must
            lie in the layout of `constants`. Whoever writes to them changes what runs compute.

        Raises
        ------
        ConstantError
            A name is unknown or missing, an array is of another dtype, shape or device, or the
            weights cannot be replaced. Nothing has changed.
        ModelClosedError
            The model was closed.

        Notes
        -----
        The weights that are replaced are freed as soon as no run uses them. See `update_weights`
        for a way back.
        """
        self._weights.change(weights, full=full, share=share, keep=False)

    def update_weights(
        self,
        weights: Mapping[str, Any] | str | os.PathLike[str],
        *,
        full: bool = True,
        share: bool = False,
        map_source: bool = False,
        keep: bool = True,
    ) -> int:
        """Replace the weights while the model runs, and keep the old ones for `rollback`.

        Parameters
        ----------
        weights : mapping of str to array, or path
            Arrays by their fully qualified names, or a ``.safetensors`` file with them.
        full, share
            As for `load_constants`.
        map_source : bool, default False
            Map the file instead of copying its content. If somebody cuts it short or changes it,
            the process ends or computes something else: replace such files, never write to them.
        keep : bool, default True
            Keep the weights that are replaced, in memory, until the next change.

        Returns
        -------
        int
            The new `version`.

        Raises
        ------
        ConstantError, ModelClosedError
            As for `load_constants`.
        FileNotFoundError
            There is no such file.
        """
        self._weights.change(weights, full=full, share=share, keep=keep, map_source=map_source)
        return self._weights.version

    def rollback(self) -> int:
        """Go back to the weights before the last `update_weights`.

        Returns
        -------
        int
            Their `version`.

        Raises
        ------
        ConstantError
            None were kept, or this was done already.
        """
        self._weights.go_back()
        return self._weights.version

    def extract_constants(self) -> dict[str, Any]:
        """Copies of the weights by their fully qualified names.

        Returns
        -------
        dict of str to numpy.ndarray
            An `aoti.Tensor` where numpy has no such dtype and ml_dtypes is not installed.

        Raises
        ------
        ConstantError
            The model has no weights yet.
        ModelClosedError
            The model was closed.
        """
        return self._weights.read_back()
