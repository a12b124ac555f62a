"""From a module to a package: find, trace, describe, rewrite, compile, pack, verify."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from aoti._logging import debugging
from aoti._warnings import warn
from aoti.errors import ConfigError, ExportError
from aoti.exporting.build.children import scratch_directory
from aoti.exporting.build.compiling import Job, compile_program, fixed_sizes, is_portable
from aoti.exporting.build.packing import missing_parents, replacing, write_package
from aoti.exporting.build.presets import Option, Preset, find_preset
from aoti.exporting.build.threads import thread_options
from aoti.exporting.capture.checkpoints import load_checkpoint
from aoti.exporting.capture.containers import simplify
from aoti.exporting.capture.dynamic_shapes import named_shapes, parse_size
from aoti.exporting.capture.module_source import Source, architecture
from aoti.exporting.capture.state import (
    Buffers,
    buffers_as_arguments,
    changed_buffers,
    check_state,
    with_buffers,
)
from aoti.exporting.capture.subclasses import with_plain_weights
from aoti.exporting.capture.trace import Traced, trace
from aoti.exporting.capture.unregistered import Register, registering
from aoti.exporting.describe.program_signature import describe_program
from aoti.exporting.describe.size_guards import size_guards
from aoti.exporting.error_messages import MachineError
from aoti.exporting.passes.experts import without_transformers
from aoti.exporting.passes.linears import vectors_as_rows
from aoti.exporting.passes.registry import check_names, rewrite
from aoti.exporting.passes.scans import scans_with_sizes
from aoti.exporting.report import Exported, ExportedModel
from aoti.exporting.verify.loading import check_load
from aoti.exporting.verify.speed import Speed
from aoti.exporting.verify.speed import measure as time_calls
from aoti.exporting.verify.verifying import Case, Eager, golden_values
from aoti.exporting.verify.verifying import verify as compare_with_eager
from aoti.package.layout import golden_values as golden_file
from aoti.signature.document import METADATA_KEY, write_signature

_log = logging.getLogger("aoti.exporting")


# A part of dots only would be another directory.
_MODEL_NAME = re.compile(r"(?!\.+(?:/|$))[\w.-]+(?:/(?!\.+(?:/|$))[\w.-]+)*", re.ASCII)


def export(
    module: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    path: str | os.PathLike[str],
    dynamic_shapes: Any = None,
    dims: Mapping[str, str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | None = None,
    preset: str | Preset = "portable",
    options: Mapping[str, Any] | None = None,
    passes: Sequence[str] | None = None,
    name: str = "model",
    metadata: Mapping[str, str] | None = None,
    buffers: Buffers = "refuse",
    or_static: bool = False,
    golden: bool = False,
    verify: bool = False,
    measure: bool = False,
    in_process: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Exported:
    """Compile a module ahead of time into a package that `aoti.load` runs.

    Parameters
    ----------
    module : torch.nn.Module, torch.export.ExportedProgram, str or mapping
        What to compile. Call ``module.eval()`` before: a module in training mode is traced in
        training mode. A string is ``pkg.mod:callable`` or ``file.py:callable``, which returns
        ``(module, args, kwargs, dynamic_shapes)`` (the last items may be left out); or the path of
        a program that ``torch.export.save`` wrote. A mapping gives one of these, or such a tuple,
        for the name of each model of the package.
    args, kwargs : sequence, mapping
        Example arguments. The package is called with the same structure. An exported program
        already contains its example arguments and dynamic shapes.
    path : str or os.PathLike
        The file to write, ending in ``.pt2``. It is replaced only once the package is complete.
    dynamic_shapes : optional
        Which sizes may change, as for `torch.export.export`, or by name:
        ``{"x": {0: "batch=1..64"}}``. A size may be computed from another one: ``"height=4*n"``.
        All other sizes are fixed. In the examples, dynamic sizes must be at least 2: torch
        specialises on 0 and 1.
    dims : mapping of str to str, optional
        Ranges of sizes that `dynamic_shapes` names, or how to compute them:
        ``{"batch": "1..64", "height": "4*n"}``.
    checkpoint : str or os.PathLike, optional
        Weights for the module: a ``.safetensors`` file, or a state dict that torch saved.
    device : str, optional
        The device to compile for: ``cpu``, ``cuda``. The default is the device of the module and
        the arguments; otherwise copies of them are moved. For a GPU, presets leave out the CPU
        tuning, and kernels are compiled for the generation of this GPU. The option
        ``aot_inductor.emit_multi_arch_kernel`` compiles them for newer generations, too (this
        needs CUDA's toolkit), and ``aot_inductor.embed_kernel_binary`` puts them into the code
        instead of into files.
    preset : {'portable', 'native', 'updatable'} or Preset, default 'portable'
        What to compile for: every machine of the platform, this CPU model, or replaceable weights.
    options : mapping, optional
        Inductor options, which win over those of the preset.
    passes : sequence of str, optional
        Which rewrites of the graph to apply, instead of those of the preset.
    name : str, default 'model'
        The model's name in the package, perhaps with slashes: ``text/encoder``. PyTorch's own
        loader looks for ``model``.
    metadata : mapping of str to str, optional
        Stored in the package; the loaded model has it in `metadata`.
    buffers : {'refuse', 'reset', 'arguments'}, default 'refuse'
        What to do with a module that reads and changes its buffers or other tensors that it keeps,
        since a package does not keep changes from call to call: raise an error, let every call
        start from their exported values, or let every call pass them. The last adds a keyword
        argument ``buffers`` to the package: a dict by their names, of arrays that the call writes
        into.
    or_static : bool, default False
        Fix all sizes, with a warning, if the module does not allow dynamic sizes.
    golden : bool, default False
        Store the example arguments and the module's results for them in the package, for
        ``aoti verify`` and ``aoti.load(..., self_test=True)``.
    verify : bool, default False
        Compare the package with the module before the file is written: on random inputs, at both
        ends of every range, at 0 and 1 if the range contains them, and in between.
    measure : bool, default False
        Time calls with the example arguments: of the package, of the module, and of a package that
        PyTorch's own exporter makes with its default options. This takes a second compilation.
    in_process : bool, default False
        Compile in this process. This saves some seconds per model, but the memory is not released
        afterwards.
    progress : callable, optional
        Called with a line of text at each step.

    Returns
    -------
    Exported
        What was done. It can be used as a path.

    Raises
    ------
    ExportError
        The module cannot be traced or compiled, the package cannot be written, or it differs from
        the module. The message has two lines and names the place in the module's code. No file is
        left behind.
    ConfigError
        An option has a value that cannot be used.

    Warns
    -----
    UserWarning
        The module is in training mode; its buffers are reset; its code assigns attributes; sizes
        were fixed; options were left out, because the model does not compile with them; or an
        input indexes tables in a way that cannot be checked at calls.

    Notes
    -----
    The package is compiled in a child process, unless the program uses operators that only this
    process knows. The child ends with this process.
    """
    target = Path(path)
    if target.suffix != ".pt2":
        raise ValueError(f"the name of a package must end in .pt2, not {str(target)!r}")
    if not all(isinstance(text, str) for item in (metadata or {}).items() for text in item):
        raise TypeError("metadata must contain strings only")
    if METADATA_KEY in (metadata or {}):
        raise ValueError(f"the metadata key {METADATA_KEY!r} is reserved for the exporter")
    if buffers not in get_args(Buffers):
        raise ConfigError(f"buffers must be 'refuse', 'reset' or 'arguments', not {buffers!r}")
    chosen = find_preset(preset).with_options(options or {})
    if passes is not None:
        check_names(passes)
        chosen = replace(chosen, passes=tuple(passes))
    named = {key: parse_size(f"{key}={text}") for key, text in (dims or {}).items()}
    models = module if isinstance(module, Mapping) else {name: module}
    if isinstance(module, Mapping) and (args or kwargs or dynamic_shapes or checkpoint):
        raise ValueError("for several models, pass (module, args, kwargs, dynamic_shapes) for each")
    for key in models:
        if not _MODEL_NAME.fullmatch(key):
            raise ConfigError(
                "a model's name consists of letters, digits, _ - and dots, with single slashes "
                f"between its parts, not {key!r}"
            )
    say = progress or (lambda _: None)
    missing_parents(target)  # to fail early
    with scratch_directory() as scratch, registering() as register:
        exports = {}
        for key, spec in models.items():
            source = Source.find(spec)
            if not isinstance(module, str | Mapping):
                source = replace(
                    source,
                    args=tuple(args),
                    kwargs=dict(kwargs or {}),
                    dynamic_shapes=dynamic_shapes,
                )
            register((source.args, source.kwargs))
            given = {*(options or {}), *(() if passes is None else ("passes",))}
            exports[key] = _Export(key, source, chosen, given, say)
            exports[key].prepare(
                register=register,
                checkpoint=checkpoint,
                device=device,
                dims=named,
                or_static=or_static,
                buffers=buffers,
            )
        extra: dict[str, str] = {}
        for number, (key, model) in enumerate(exports.items()):
            model.compile(scratch / f"model-{number}", metadata or {}, in_process=in_process)
            if golden:
                say(f"golden values of {key}")
                extra[golden_file(key)] = golden_values(model.eager())
        say("writing the package")
        with replacing(target) as written:
            write_package(written, {key: model.files for key, model in exports.items()}, extra)
            for number, model in enumerate(exports.values()):
                model.check_load(written, scratch)
                if verify:
                    model.verify(written)
                if measure:
                    model.measure(written, scratch / f"stock-{number}", in_process=in_process)
            size = written.stat().st_size
    return Exported(target, size, {key: model.report() for key, model in exports.items()})


class _Export:
    """One model on its way into a package."""

    def __init__(
        self,
        name: str,
        source: Source,
        preset: Preset,
        given: Collection[str],
        say: Callable[[str], None],
    ) -> None:
        self._name = name
        self._source = source
        self._preset = preset
        self._given = given  # names of options that the caller set, and "passes"
        self._say = say
        self._start = time.monotonic()
        self._seconds = 0.0
        self._notes: list[str] = []
        self._cases: list[Case] = []
        self._speed: Speed | None = None
        self._traced: Traced
        self.files: list[str] = []

    def prepare(
        self,
        *,
        register: Register,
        checkpoint: str | os.PathLike[str] | None,
        device: str | None,
        dims: Mapping[str, Any],
        or_static: bool,
        buffers: Buffers,
    ) -> None:
        """Trace, describe and rewrite: everything that can fail before anything is compiled."""
        source = self._source
        if checkpoint is not None:
            if not isinstance(source.module, torch.nn.Module):
                raise ConfigError(
                    "a checkpoint needs a module, not a program that was already traced"
                )
            load_checkpoint(source.module, checkpoint)
        source = source.on(device)
        if source.device != "cpu":
            self._preset = self._preset.on_gpu(self._given, passes="passes" in self._given)
        shapes = named_shapes(source.dynamic_shapes, dims)
        self._source = source = replace(source, dynamic_shapes=shapes)
        self._traced = traced = trace(source, or_static=or_static, say=self._say, register=register)
        self._say(f"describing {self._name}")
        guards = size_guards(traced.program)
        program = with_plain_weights(with_buffers(traced.program, source.module))
        structure = simplify(program)
        self._state = changed_buffers(structure)
        self._passes_state = buffers == "arguments"
        if self._state and self._passes_state:
            structure = simplify(buffers_as_arguments(program, self._state))
        check_state(structure.functional, traced.assigned, buffers)
        signature = describe_program(structure, traced.names, guards)
        self._plain = without_transformers(scans_with_sizes(vectors_as_rows(structure.program)))
        threads = thread_options(structure.program, self._notes) if source.device == "cpu" else {}
        if threads.keys().isdisjoint(self._given):
            self._preset = self._asked(self._preset, threads)
        self._rewrite(self._preset)
        if source.device == "cuda":
            self._notes.append(self._preset.kernels_for(architecture(source)))
        if traced.static:
            self._notes.append(
                "all sizes are fixed, because the module does not allow dynamic sizes"
            )
            warn(f"{self._notes[-1]}: {traced.attempts[0].error}")
        if signature.unchecked_indices and not self._preset.one_thread:
            warn(
                f"{', '.join(signature.unchecked_indices)}: indexes tables in a way that does not "
                "give a range to check; an index out of range ends the process, unless you export "
                "with options={'cpp.dynamic_threads': False, 'cpp.threads': 1}"
            )
        self.signature = signature

    def _rewrite(self, preset: Preset) -> None:
        """Apply a preset's passes to the program as it was traced."""
        if preset.passes:
            self._say(f"rewriting {self._name}")
        self._preset = preset
        self._program, self._rewrites = rewrite(self._plain, preset.passes, frozen=preset.frozen)

    def _asked(self, preset: Preset, options: Mapping[str, Option]) -> Preset:
        """A preset with further options, except those that the caller set."""
        return preset.with_options({k: v for k, v in options.items() if k not in self._given})

    def compile(self, directory: Path, metadata: Mapping[str, str], *, in_process: bool) -> None:
        """Compile into a new directory."""
        compile_once = partial(self._compile_once, directory, metadata, in_process=in_process)
        self._compile(compile_once)
        fixed = fixed_sizes(self.signature, self.files)
        if fixed and self._preset.frozen:
            # Inductor does this for an LSTM, silently: kernels then read out of bounds.
            self._note(f"not frozen, because Inductor would then fix {fixed}")
            self._rewrite(self._preset.with_options({"freezing": False}))
            self._compile(compile_once)
            fixed = fixed_sizes(self.signature, self.files)
        if fixed:
            raise ExportError(
                f"cannot compile {self._name}: Inductor fixes {fixed}, which should be dynamic\n"
                "give it a fixed size, or replace the operator that fixes it"
            )
        self._seconds = time.monotonic() - self._start

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._say(f"compiling {self._name} again, {text}")
        _log.info("compiling %s again, %s", self._name, text, exc_info=debugging())

    def _compile(self, compile_once: Callable[[], None]) -> None:
        """Compile the rewritten program. If that fails, leave out what may be the cause."""
        try:
            compile_once()
        except ExportError as error:
            weaker = self._preset.weaker(rewritten=self._program is not self._plain)
            if weaker is None or isinstance(error, MachineError):
                raise
            what, preset = weaker
            _, _, reason = str(error).splitlines()[0].partition(": ")
            self._note(f"{what}, because that does not compile: {reason}")
            asked = (self._preset.options.keys() - preset.options.keys()) & set(self._given)
            if asked:
                warn(f"the model does not compile with {', '.join(sorted(asked))}: {reason}")
            self._rewrite(preset)
            self._compile(compile_once)

    def _compile_once(
        self, directory: Path, metadata: Mapping[str, str], *, in_process: bool
    ) -> None:
        if directory.exists():
            shutil.rmtree(directory)  # an earlier attempt's
        directory.mkdir()
        preset = self._preset
        self.signature = replace(
            self.signature,
            preset=preset.name,
            options=preset.options,
            notes=(*preset.gives_up, *self._rewrites, *self._notes),
        )
        options = {
            **preset.options,
            "aot_inductor.metadata": {**metadata, METADATA_KEY: write_signature(self.signature)},
        }
        namedtuples = {key: list(fields) for key, fields in self.signature.fields.items()}
        job = Job(options, namedtuples)
        self.files = compile_program(
            self._program, job, directory, name=self._name, in_process=in_process, say=self._say
        )

    def eager(self) -> Eager:
        """The module to compare the package with."""
        module = self._source.module
        examples: Any = self._source.args, self._source.kwargs
        if isinstance(module, torch.export.ExportedProgram):
            examples = module.example_inputs
        return Eager(module, examples, self._state, passes_state=self._passes_state)

    def check_load(self, package: Path, scratch: Path) -> None:
        """Check that a process without PyTorch's Python side can load the package."""
        if is_portable(self._program):  # otherwise it needs libraries that only this process knows
            check_load(package, self._name, scratch, self._say)

    def verify(self, package: Path) -> None:
        """Compare a package with eager."""
        self._cases = compare_with_eager(
            self.eager(), self.signature, package, self._name, self._say
        )

    def measure(self, package: Path, directory: Path, *, in_process: bool) -> None:
        """Time a package against eager and against a stock one."""
        directory.mkdir()
        namedtuples = {key: list(fields) for key, fields in self.signature.fields.items()}
        files = compile_program(
            self._plain,
            Job({}, namedtuples, corrected=False),
            directory,
            name=f"{self._name} as PyTorch does",
            in_process=in_process,
            say=self._say,
        )
        stock = directory / "stock.pt2"
        write_package(stock, {"model": files}, {})
        self._say(f"measuring {self._name}")
        self._speed = time_calls(self.eager(), self.signature, self._name, package, stock)

    def report(self) -> ExportedModel:
        """What was done."""
        return ExportedModel(
            self.signature,
            self._preset,
            self._traced.attempts,
            tuple(self._rewrites),
            tuple(self._cases),
            self._speed,
            self._seconds,
        )
