"""Compiling an exported program into the files of a package, in a child process."""

from __future__ import annotations

import contextlib
import json
import logging
import traceback
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from aoti._logging import debugging
from aoti._processes import Channel, ChildError
from aoti.errors import ExportError
from aoti.exporting.build.children import run_child
from aoti.exporting.build.packing import check_space
from aoti.exporting.error_messages import MachineError, explain_text
from aoti.exporting.passes import experts, recurrence  # noqa: F401 (register their operators)
from aoti.exporting.passes.decompositions import corrected
from aoti.exporting.passes.operators import NAMESPACE
from aoti.package.layout import SOURCE
from aoti.package.wrapper_cpp import read_inputs
from aoti.signature.signature import Signature
from aoti.signature.spec import Dim

# Operators of other namespaces come from libraries that the child has not loaded.
_OWN_NAMESPACES = {
    *("aten", "prims", "prim", "quantized", "quantized_decomposed", "higher_order"),
    NAMESPACE,
}
_PROGRAM, _JOB, _STARTED = "program.pt2", "job.json", "started"


@dataclass(frozen=True)
class Job:
    """What the child compiles with.

    Attributes
    ----------
    options : mapping
        Inductor's options.
    namedtuples : mapping of str to list of str
        Field names of the namedtuples in the program's structure, by their names in treespecs.
    corrected : bool
        Whether operators that Inductor compiles to wrong values are decomposed.
    """

    options: Mapping[str, Any]
    namedtuples: Mapping[str, Sequence[str]]
    corrected: bool = True


def compile_program(
    program: torch.export.ExportedProgram,
    job: Job,
    directory: Path,
    *,
    name: str,
    in_process: bool,
    say: Callable[[str], None],
) -> list[str]:
    """Compile a program.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program to compile.
    job : Job
        The options.
    directory : Path
        An empty directory for the files, in a `scratch_directory`.
    name : str
        The name of the model in messages.
    in_process : bool
        Whether to compile in this process.
    say : callable
        Called with a line of text at each step.

    Returns
    -------
    list of str
        The files of the package.

    Raises
    ------
    ExportError
        The compilation failed, with the reason in two lines. The child has ended.
    """
    say(f"compiling {name}")
    saved = _saved(program, directory / _PROGRAM)
    if in_process or not (saved and is_portable(program)):
        if not in_process:
            say(f"compiling {name} in this process: a new one would not have its operators")
        if saved:  # Inductor may fix sizes of the program that it compiles, for good
            program = _loaded(directory / _PROGRAM)
        try:
            return compile_here(program, job.options, directory, corrects=job.corrected)
        except Exception as error:  # Inductor wraps errors of many types
            raise explain_text(f"{type(error).__name__}: {error}", f"compile {name}", "") from error
    (directory / _JOB).write_text(json.dumps(asdict(job)))
    try:
        result = run_child(
            "aoti.exporting.build.compiling:compile_in_child",
            directory,
            partial(_stage, directory),
            lambda stage: say(f"compiling {name}: {stage}"),
        )
    except ChildError as error:
        raise _died(error, name) from None
    if "error" in result:
        refusal = explain_text(result["error"], f"compile {name}", "")
        if result["trace"]:
            refusal.add_note(result["trace"])
        raise refusal
    files: list[str] = result["files"]
    return files


def compile_here(
    program: torch.export.ExportedProgram,
    options: Mapping[str, Any],
    directory: Path,
    *,
    corrects: bool = True,
) -> list[str]:
    """Compile a program in this process and return the files."""
    from torch._inductor import aot_compile

    import aoti.exporting.passes.depthwise_template
    import aoti.exporting.passes.experts_template
    import aoti.exporting.passes.kernel_templates
    import aoti.exporting.passes.recurrence_template
    import aoti.exporting.passes.winograd_template  # noqa: F401 (all register with Inductor)
    from aoti.exporting.passes import attention_template, fusions, size_ranges

    size_ranges.give_examples(program)
    args, kwargs = program.example_inputs
    # Inductor takes the path for a directory only if that exists already.
    target = directory / "model"
    target.mkdir()
    settings = {
        **options,
        "aot_inductor.package": True,
        "aot_inductor.output_path": str(target),
    }
    # Inductor ignores `freezing` while gradients are on.
    one_thread = _one_thread("cpp.threads" in options)
    with (
        torch.no_grad(),
        one_thread,
        corrected(wanted=corrects),
        attention_template.mended(),
        fusions.mended(),
        size_ranges.mended(),
    ):
        module: Any = program.module(check_guards=False)
        files: Any = aot_compile(module, args, kwargs, options=settings)
    return [file for file in files if isinstance(file, str)]


@contextlib.contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Let Inductor time kernels on one thread: on a busy machine, several wait for each other."""
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fixed_sizes(signature: Signature, files: Sequence[str]) -> str:
    """The dynamic sizes that the generated code has fixed, for people; empty if there are none."""
    (wrapper,) = (file for file in files if file.endswith(SOURCE))
    generated = read_inputs(Path(wrapper).read_text()) or ()
    names = {
        f"{size} at {there}": None
        for ours, theirs in zip(signature.inputs or (), generated, strict=False)
        for size, there in zip(ours.shape or (), theirs.shape or (), strict=False)
        if isinstance(size, Dim) and isinstance(there, int)
    }
    return ", ".join(names)


def is_portable(program: torch.export.ExportedProgram) -> bool:
    """Whether a new process with torch has all operators of a program."""
    for module in program.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        for node in module.graph.nodes:
            namespace = getattr(node.target, "namespace", "aten")
            if node.op == "call_function" and namespace not in _OWN_NAMESPACES:
                return False
    return not any(map(_is_foreign, program.constants.values()))


def _is_foreign(constant: Any) -> bool:
    return not isinstance(constant, torch.Tensor)


def _saved(program: torch.export.ExportedProgram, path: Path) -> bool:
    weights = (*program.state_dict.values(), *program.constants.values())
    held = (value.nbytes for value in weights if isinstance(value, torch.Tensor))
    check_space(path.parent, sum(held))
    try:
        torch.export.save(program, path)
    except OSError:
        raise
    except Exception:  # it cannot be serialized, for one of many reasons
        path.unlink(missing_ok=True)
        return False
    return True


def _loaded(path: Path) -> torch.export.ExportedProgram:
    # torch 2.13 passes wrong arguments to one of its warnings: logging prints thirty lines on it.
    log = logging.getLogger("torch._export.serde.serialize")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        return torch.export.load(path)
    finally:
        log.setLevel(before)


def _stage(directory: Path) -> str:
    if any((directory / "model").glob(f"*{SOURCE}")):
        return "C++ compiler"
    return "generating code" if (directory / _STARTED).exists() else "starting"


def _died(failure: ChildError, name: str) -> ExportError:
    if failure.killed:
        what = "the compiling process was killed, as happens when memory runs out"
        return MachineError(f"cannot compile {name}: {what}\nexport on a machine with more memory")
    return explain_text(f"{failure}\n{failure.log}", f"compile {name}", "")


# -- the child -------------------------------------------------------------------------------------


def compile_in_child(channel: Channel, directory: Path) -> None:
    """Compile the program in a directory, and answer with the files or the error."""
    job = json.loads((directory / _JOB).read_text())
    for known_as, fields in job["namedtuples"].items():
        stand_in = namedtuple("stand_in", fields)  # type: ignore[misc]
        pytree._register_namedtuple(stand_in, serialized_type_name=known_as)
    program = _loaded(directory / _PROGRAM)
    (directory / _PROGRAM).unlink()
    (directory / _STARTED).touch()
    try:
        options, corrects = job["options"], job["corrected"]
        files = compile_here(program, options, directory, corrects=corrects)
        channel.answer({"files": files})
    except Exception as error:  # the parent explains it
        trace = traceback.format_exc() if debugging() else ""
        channel.answer({"error": f"{type(error).__name__}: {error}", "trace": trace})
