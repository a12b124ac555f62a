"""Generate tokens with a causal language model and its cache, without importing torch.

usage: python docs/examples/generate.py model.pt2 COUNT TOKEN...

The model takes token ids and a cache, and returns logits and the cache with the new tokens, as the
models of transformers do. docs/exporting.md shows how to export one.
"""

from __future__ import annotations

import sys

import numpy as np

import aoti


def generate(model: aoti.AOTIModel, tokens: list[int], count: int) -> list[int]:
    """The tokens and `count` more, each of which is the most likely one."""
    _, *specs = model.inputs  # of a cache: (batch, heads, length, width)
    cache = [np.zeros((1, spec.shape[1], 0, spec.shape[3]), spec.dtype) for spec in specs]
    new = tokens
    for _ in range(count):
        logits, *cache = model.run([np.array([new]), *cache])
        new = [int(logits[0, -1].argmax())]
        tokens = tokens + new
    return tokens


def main() -> None:
    """Print the tokens."""
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    path, count, *tokens = sys.argv[1:]
    with aoti.load(path) as model:
        print(*generate(model, [int(token) for token in tokens], int(count)))


if __name__ == "__main__":
    main()
