"""Models that many people have, beside ONNX Runtime and OpenVINO.

usage: python tests/benchmarks/popular.py [--models resnet50,gpt2] [--threads 1,2] [--duration 2]
       python tests/benchmarks/popular.py --page

The weights are random. It needs the packages of tests/zoo/requirements.txt, and ``onnxruntime
openvino onnx onnxscript``. Packages are exported into build/popular, unless they are there already,
and the figures are kept there; ``--page`` writes docs/popular.md from them. A ratio above 1 says
that the peer takes longer.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "zoo")]

import catalogue  # noqa: E402
import engines  # noqa: E402

from aoti.bench.environment import this_machine  # noqa: E402
from aoti.bench.report.markdown import table  # noqa: E402
from aoti.bench.report.tables import Grid  # noqa: E402
from aoti.bench.report.units import duration  # noqa: E402
from aoti.bench.run import measure  # noqa: E402
from aoti.bench.settings import Settings  # noqa: E402

catalogue.declare_torchvision()
DIRECTORY, PAGE = engines.ROOT / "build/popular", engines.ROOT / "docs/popular.md"
ROWS_FILE = DIRECTORY / "rows.jsonl"
INTRODUCTION = """\
# Models that many people have

`python tests/benchmarks/popular.py` exports these models with random weights, and measures the
packages on the native engine beside ONNX Runtime and OpenVINO, which read the same modules as ONNX
files. The columns of the peers are their times over ours: above 1, the peer takes longer; `-`, the
peer does not run the model. Networks for images, `bert_base`, Whisper-tiny and `wav2vec2` have
their published sizes, with images of 320x320 for YOLOv8n; the others are small. The second column
has the sizes that vary: how many inputs, then tokens; for `gat` edges and nodes.
"""
ONNX_ENGINES = ("onnxruntime", "openvino")
BATCH = {0: "batch=1..64"}


class Sample(NamedTuple):
    """A module, how it is called, and which sizes vary: as for ``aoti export FILE:FUNCTION``."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: Any


def of_images(module: nn.Module, name: str = "x", size: int = 224) -> Sample:
    """A module for images, with a dynamic batch."""
    return Sample(module.eval(), (), {name: torch.randn(2, 3, size, size)}, {name: BATCH})


def of_timm(name: str) -> Sample:
    """A network of timm."""
    import timm

    return of_images(timm.create_model(name))


class First(nn.Module):
    """The first result of a model of transformers, which is called without a cache."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, return_dict=False)[0]


def of_tokens(module: nn.Module, vocabulary: int, most: int = 512) -> Sample:
    """A module for token ids, with a dynamic batch and length."""
    shapes = ({0: "batch=1..64", 1: f"length=2..{most}"},)
    return Sample(module.eval(), (torch.randint(1, vocabulary, (2, 32)),), {}, shapes)


def of_zoo(name: str) -> Sample:
    """An entry of the zoo."""
    sample, calls = catalogue.made(catalogue.entries()[name])
    return Sample(sample.module, (), calls[0], sample.shapes)


def resnet50() -> Sample:
    from transformers import ResNetConfig, ResNetForImageClassification

    module = ResNetForImageClassification(ResNetConfig(return_dict=False, num_labels=1000))
    return of_images(module, "pixel_values")


def mobilenet_v3() -> Sample:
    return of_timm("mobilenetv3_large_100")


def efficientnet_b0() -> Sample:
    return of_timm("efficientnet_b0")


def vit_small() -> Sample:
    return of_timm("vit_small_patch16_224")


def unet() -> Sample:
    """A U-Net on a ResNet-18, for images of 256x256."""
    import segmentation_models_pytorch

    module = segmentation_models_pytorch.Unet("resnet18", encoder_weights=None)
    return of_images(module, size=256)


def yolov8n() -> Sample:
    from yolo import YoloV8

    return of_images(YoloV8(), size=320)


def bert_base() -> Sample:
    from transformers import BertConfig, BertModel

    config = BertConfig(attn_implementation="sdpa")
    return of_tokens(First(BertModel(config, add_pooling_layer=False)), config.vocab_size)


def distilbert() -> Sample:
    """A classifier of two layers."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(dim=128, hidden_dim=512, n_heads=4, n_layers=2, vocab_size=1000)
    return of_tokens(First(DistilBertForSequenceClassification(config)), config.vocab_size)


def gpt2() -> Sample:
    """The logits of a prompt."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=4, n_embd=256, n_head=4, vocab_size=5000, use_cache=False)
    return of_tokens(First(GPT2LMHeadModel(config)), config.vocab_size)


def whisper_encoder() -> Sample:
    """Whisper-tiny's encoder: 30 s of sound."""
    from transformers import WhisperConfig, WhisperModel

    module = First(WhisperModel(WhisperConfig()).encoder)
    return Sample(module.eval(), (torch.randn(1, 80, 3000),), {}, None)


def whisper_step() -> Sample:
    """A step of Whisper-tiny's decoder: a token, and keys and values of all layers so far."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    config = WhisperConfig()
    heads, size = config.decoder_attention_heads, config.d_model // config.decoder_attention_heads

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = WhisperForConditionalGeneration(config)

        def forward(self, token: Tensor, past: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
            own, other = DynamicCache(), DynamicCache()
            for layer in range(config.decoder_layers):
                own.update(past[layer, 0], past[layer, 1], layer)
                other.update(sound[layer, 0], sound[layer, 1], layer)
            cache = EncoderDecoderCache(own, other)
            cache.is_updated = dict.fromkeys(range(config.decoder_layers), True)
            decoder = self.model.model.decoder
            position = torch.full((1, 1), past.shape[4])
            # Its values are not used: the keys and values of the sound are in the cache.
            heard = sound[0, 0, :, 0, :, :1].expand(-1, -1, config.d_model)
            hidden = decoder(
                token, encoder_hidden_states=heard, past_key_values=cache, position_ids=position,
                use_cache=True, return_dict=False,
            )[0]  # fmt: skip
            layers = [torch.stack([layer.keys, layer.values]) for layer in own.layers]
            return self.model.proj_out(hidden), torch.stack(layers)[..., -1:, :]

    layers = config.decoder_layers
    arguments = {
        "token": torch.zeros(1, 1, dtype=torch.long),
        "past": torch.randn(layers, 2, 1, heads, 20, size),
        "sound": torch.randn(layers, 2, 1, heads, 1500, size),
    }
    shapes = {"token": None, "past": {4: "length=1..447"}, "sound": None}
    return Sample(Step().eval(), (), arguments, shapes)


def wav2vec2() -> Sample:
    """Wav2vec 2.0 base: a second of sound."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    module = First(Wav2Vec2ForCTC(Wav2Vec2Config()))
    return Sample(module.eval(), (torch.randn(2, 16000),), {}, (BATCH,))


class Tagger(nn.Module):
    """A class for each token, by an LSTM in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5000, 100)
        self.layers = nn.LSTM(100, 128, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(tokens))[0])


def lstm_tagger() -> Sample:
    return of_tokens(Tagger(), 5000, 64)


def mlp() -> Sample:
    """A network for rows of a table."""
    hidden = nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
    module = nn.Sequential(*hidden, nn.Linear(64, 2))
    return Sample(module, (torch.randn(2, 32),), {}, ({0: "batch=1..1024"},))


def dlrm() -> Sample:
    return of_zoo("dlrm")


def ft_transformer() -> Sample:
    return of_zoo("ft_transformer")


def gat() -> Sample:
    return of_zoo("gat")


IMAGES = {"batch": [1, 4]}
ROWS = {"batch": [1, 64]}
CASES: dict[str, dict[str, list[int]]] = {
    "resnet50": IMAGES,
    "mobilenet_v3": IMAGES,
    "efficientnet_b0": IMAGES,
    "vit_small": IMAGES,
    "yolov8n": {"batch": [1]},
    "unet": {"batch": [1]},
    "bert_base": {"batch": [1, 8], "length": [32, 64]},
    "distilbert": {"batch": [1], "length": [16]},
    "gpt2": {"batch": [1], "length": [32]},
    "whisper_encoder": {},
    "whisper_step": {"length": [20]},
    "wav2vec2": {"batch": [1]},
    "lstm_tagger": {"batch": [1, 8], "length": [12]},
    "mlp": ROWS,
    "dlrm": ROWS,
    "ft_transformer": ROWS,
    "gat": {"nodes": [40], "edges": [200]},
}


def compare(name: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """The medians of a model's calls on all engines, in milliseconds: a row for each size."""
    engines.SOURCES[name] = source = f"{Path(__file__).resolve()}:{name}"
    package = engines.exported(DIRECTORY, name, "portable")
    report = measure(
        package, engines=ONNX_ENGINES, source=source, dims=CASES[name], settings=settings
    ).to_dict()
    for skipped in report["skipped"]:
        print(f"{name}: {skipped['label']}: {skipped['reason']}", file=sys.stderr)
    for number, case in enumerate(report["cases"]):
        times = {
            m["engine"]: m["latency_ms"]["median"]
            for m in report["measurements"]
            if m["case"] == number
        }
        sizes = "x".join(map(str, case["sizes"].values()))
        yield {"model": name, "sizes": sizes, "threads": settings.threads, **times}


def cells(row: dict[str, Any]) -> list[str]:
    """Our time, and the peers' times over it."""
    ratios = (f"{row[name] / row['aoti']:.2f}" if name in row else "-" for name in ONNX_ENGINES)
    return [duration(row["aoti"]), *ratios]


def write_page() -> None:
    """Write what was measured last of each model, size and number of threads."""
    last: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for text in ROWS_FILE.read_text().splitlines():
        row = json.loads(text)
        last.setdefault((row["model"], row["sizes"]), {})[row["threads"]] = row
    threads = sorted({count for rows in last.values() for count in rows})
    head = ["model", "sizes"]
    for count in threads:
        head += [f"{count} thread{'s' * (count > 1)}", "ONNX Runtime", "OpenVINO"]
    rows = [
        [*key, *(cell for count in threads for cell in cells(found[count]))]
        for key, found in sorted(last.items(), key=lambda item: list(CASES).index(item[0][0]))
        if len(found) == len(threads)
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *ONNX_ENGINES))
    facts = [f"{this_machine()}.", f"{versions}.", "Engines take turns; times are medians."]
    parts = [INTRODUCTION, table(Grid(head, rows)), "\n".join(f"- {fact}" for fact in facts)]
    PAGE.write_text("\n\n".join(part.strip() for part in parts) + "\n")


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--threads", default="1", help="numbers of threads, separated by commas")
    parser.add_argument("--duration", type=float, default=2.0)
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if arguments.page:
        write_page()
        return
    warnings.simplefilter("ignore")
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    print(f"{'model':16} {'sizes':>7} threads {'aoti':>9} {' '.join(ONNX_ENGINES)}")
    for name in arguments.models.split(","):
        for threads in map(int, arguments.threads.split(",")):
            for row in compare(name, Settings(threads=threads, duration=arguments.duration)):
                time, *ratios = cells(row)
                said = f"{name:16} {row['sizes']:>7} {threads:7} {time:>9}"
                print(said, *(f"{ratio:>11}" for ratio in ratios), flush=True)
                with ROWS_FILE.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
