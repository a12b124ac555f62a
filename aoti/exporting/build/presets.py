"""Presets: named sets of Inductor options, and their limits.

Inductor's defaults compile for the machine and the number of threads of the export, and put the
weights into the code. The presets do not.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch._inductor import config

from aoti.errors import ConfigError
from aoti.signature.signature import on_one_thread

Option = bool | int | float | str | None

# Options that the exporter sets: without them there would be no package, or no description in it.
_RESERVED = {
    *("aot_inductor.package", "aot_inductor.output_path", "aot_inductor.metadata"),
    *("aot_inductor.package_cpp_only",),
}

_ON_DISK = "aot_inductor.package_constants_on_disk_format"

# Tables for profilers are 1.2 MB of every package, and a tenth of the compiler's time.
_LINE_TABLES = "aot_inductor.enable_line_tables"
# Weights in a file beside the code, so that they can be mapped.
_ALWAYS: dict[str, Option] = {
    "aot_inductor.package_constants_in_so": False,
    _ON_DISK: "binary_blob",
    **({_LINE_TABLES: False} if _LINE_TABLES in config.get_config_copy() else {}),
}
# Every x86-64 machine of the last ten years; x86-64-v3 has 256-bit vectors. On other platforms the
# compiler's own baseline is the most portable choice.
_BASELINE: dict[str, Option] = (
    {"cpp.march": "x86-64-v3", "cpp.simdlen": 256} if os.uname().machine == "x86_64" else {}
)


# Weights laid out for the kernels. oneDNN would lay them out once more, in a way that only libtorch
# knows, and takes some 50 us per call if a size is dynamic.
_TUNED: dict[str, Option] = {
    "freezing": True,
    "cpp.weight_prepack": False,
    "cpp.enable_concat_linear": True,
}
# Names in `aoti.exporting.passes.registry`; the second set only speeds up CPU kernels.
_REWRITES = ("batch-norms", "convolutions", "cells", "linears")
_REWRITES_FOR_CPUS = ("convolutions", "cells", "linears")

_MULTI_ARCH = "aot_inductor.emit_multi_arch_kernel"


@dataclass(frozen=True)
class Preset:
    """A named set of options.

    Attributes
    ----------
    name : str
        Its name for `aoti.export`.
    options : mapping of str to bool, int, float, str or None
        Inductor's options, by their names in ``torch._inductor.config``.
    passes : tuple of str
        Rewrites of the graph before it is compiled: names in `aoti.exporting.passes.registry`.
    """

    name: str
    options: Mapping[str, Option]
    passes: tuple[str, ...] = field(default=())

    def with_options(self, options: Mapping[str, Any]) -> Preset:
        """The same preset with further options, which win over its own.

        Raises
        ------
        ConfigError
            Inductor has no option of that name, the option is reserved for the exporter, or it asks
            for weights in pickles.
        """
        known = config.get_config_copy()
        for name in options:
            if name in _RESERVED:
                raise ConfigError(f"option {name!r} is reserved for the exporter")
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigError(f"Inductor has no option {name!r}{hint}")
        if options.get(_ON_DISK) == "pickle_weights":
            raise ConfigError(
                "weights must go into the code or into a binary_blob, not into pickles"
            )
        return replace(self, options={**self.options, **options})

    def on_gpu(self, given: Collection[str], *, passes: bool) -> Preset:
        """The same preset without the tuning for a CPU.

        Parameters
        ----------
        given : collection of str
            Names of options that the caller set; they stay.
        passes : bool
            Whether the caller set the passes; they then stay.
        """
        kept = {k: v for k, v in self.options.items() if k not in _TUNED or k in given}
        if passes:
            return replace(self, options=kept)
        rest = tuple(name for name in self.passes if name not in _REWRITES_FOR_CPUS)
        return replace(self, options=kept, passes=rest)

    def kernels_for(self, gpu: str) -> str:
        """On which GPUs the kernels run that are compiled on this one, for people."""
        if self.options.get(_MULTI_ARCH):
            return f"kernels for {gpu} and newer GPUs"
        return f"kernels for {gpu}: GPUs of another generation need {_MULTI_ARCH}=True"

    @property
    def frozen(self) -> bool:
        """Whether the weights lose their names, so that they cannot be replaced."""
        return bool(self.options.get("freezing"))

    @property
    def one_thread(self) -> bool:
        """Whether kernels run on the calling thread only, which can catch their exceptions."""
        return on_one_thread(self.options)

    def weaker(self, *, rewritten: bool) -> tuple[str, Preset] | None:
        """What to try next if a program does not compile: the first of these that is still there.

        Measured choices (``max_autotune``), the rewrites of the graph, and frozen weights.

        Parameters
        ----------
        rewritten : bool
            Whether the passes changed the program.

        Returns
        -------
        tuple of (str, Preset), or None
            What is left out, for people, and the rest. None if nothing is left that only makes a
            package faster.
        """
        measured = [name for name in self.options if "autotune" in name]
        if any(self.options[name] is True for name in measured):
            return f"without {measured[0]}", self._without(measured)
        if rewritten:
            return "not rewritten", replace(self, passes=())
        if self.frozen:
            return "not frozen", self._without(_TUNED)
        return None

    def _without(self, names: Collection[str]) -> Preset:
        return replace(self, options={k: v for k, v in self.options.items() if k not in names})

    @property
    def gives_up(self) -> tuple[str, ...]:
        """The limits of a package with these options, for people."""
        given_up = [
            "frozen: the weights are laid out for the kernels and cannot be replaced"
            if self.frozen
            else "not frozen: the weights can be replaced, and kernels use them as they are"
        ]
        if self.one_thread:
            given_up.append(
                "one thread: kernels run on the calling thread, however many a run may use"
            )
        if _BASELINE and not self.options.get("cpp.march"):
            given_up.append(
                "native: it runs only on CPUs with all instructions of the exporting CPU"
            )
        return tuple(given_up)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("portable", {**_ALWAYS, **_BASELINE, **_TUNED}, _REWRITES),
        Preset("native", {**_ALWAYS, **_TUNED}, _REWRITES),
        Preset(
            "updatable",
            # Weights of a few elements would otherwise be written into the code as numbers.
            {**_ALWAYS, **_BASELINE, "freezing": False, "always_keep_tensor_constants": True},
        ),
    )
}


def find_preset(name: str | Preset) -> Preset:
    """The preset of that name.

    Raises
    ------
    ConfigError
        There is no such preset.
    """
    if isinstance(name, Preset):
        return name
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]


def parse_option(text: str) -> tuple[str, Option]:
    """Parse an option of the command line: ``cpp.threads=1``. Values are JSON, or else text.

    Raises
    ------
    ConfigError
        The text has no ``=``.
    """
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"an option is written NAME=VALUE, not {text!r}")
    words = {"True": True, "False": False, "None": None}
    try:
        return name, words[value] if value in words else json.loads(value)
    except (ValueError, RecursionError):
        return name, value
