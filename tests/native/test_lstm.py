"""Layers of an LSTM."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import Operand

SIGNATURE = "tttttttbviiibbbb"


def layer(compare, steps, batch, inputs, hidden):
    """The tensors of a layer, in C order: libtorch reads them as if they were.

    Weights of this size keep the gates where they are not all 0 or 1.
    """
    generator = np.random.default_rng(compare.integer(0, 1 << 30))
    scale = np.float32(2 / np.sqrt(inputs + hidden))

    def draw(*sizes, factor=1):
        return Operand.of(factor * generator.standard_normal(sizes, np.float32))

    return [
        draw(steps, batch, inputs),
        draw(4 * hidden, inputs, factor=scale),
        draw(4 * hidden, hidden, factor=scale),
        draw(4 * hidden),
        draw(4 * hidden),
        draw(1, batch, hidden),
        draw(1, batch, hidden),
    ]


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("biased", [0, 1])
def test_layers(compare, reverse, biased):
    for _ in compare.count(60):
        steps, batch = compare.integer(1, 40), compare.integer(1, 6)
        inputs, hidden = compare.integer(1, 40), compare.integer(1, 70)
        tensors = layer(compare, steps, batch, inputs, hidden)
        numbers = (reverse, [], 2, hidden, 1, biased, 0, 0, 0)
        call = ("cpu_mkldnn_rnn_layer", SIGNATURE, 4, *tensors, *numbers)
        compare.check(*call, only=3, tolerance=64, atol=3e-6)  # the last is oneDNN's own memory
