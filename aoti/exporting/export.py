"""From a module to a package: trace, compile, put in place."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch._inductor import aoti_compile_and_package
from torch.utils._pytree import tree_map_only

from aoti.exporting.describe import describe_program, names_of_symbols
from aoti.signature import METADATA_KEY

# Inductor's defaults compile for the very machine and thread count of the export. These make a
# package run on every x86-64 machine of the last ten years, on as many threads as it is given.
# 256-bit vectors are what x86-64-v3 has.
_PORTABLE: dict[str, Any] = {"cpp.dynamic_threads": True}
if os.uname().machine == "x86_64":
    _PORTABLE |= {"cpp.march": "x86-64-v3", "cpp.simdlen": 256}


def export(
    module: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    path: str | os.PathLike[str],
    dynamic_shapes: dict[str, Any] | tuple[Any, ...] | list[Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Compile a module ahead of time into a package that `aoti.load` runs.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        What to compile. A module is put into inference mode by the caller (``module.eval()``);
        its training mode is traced as it is. It must be on the device that shall run it.
    args, kwargs : tuple, mapping
        Example arguments. The package is called with the same structure. An exported program has
        its own, and its own dynamic shapes.
    path : str or os.PathLike
        The file to write, ending in ``.pt2``. It is replaced only once the package is whole.
    dynamic_shapes : optional
        Which sizes may change, as `torch.export.export` takes them. All others are fixed.
        Examples of dynamic sizes must be at least 2: torch specialises on 0 and 1.
    metadata : mapping of str to str, optional
        Kept in the package, and in the loaded model's `metadata`.
    options : mapping, optional
        Inductor options, over those that make the package portable.

    Returns
    -------
    Path
        The package.

    Raises
    ------
    torch.export errors
        The module cannot be traced.
    torch._inductor.exc.InductorError
        It cannot be compiled; a C++ compiler is needed.

    Warns
    -----
    UserWarning
        The module changes its buffers, which a package does not keep from call to call; or an
        input indexes tables in a way that calls cannot be checked for.
    """
    target = Path(path)
    if target.suffix != ".pt2":
        raise ValueError(f"a package's name ends in .pt2, and {str(target)!r} does not")
    if not all(isinstance(text, str) for item in (metadata or {}).items() for text in item):
        raise TypeError("metadata holds strings only")
    if METADATA_KEY in (metadata or {}):
        raise ValueError(f"the metadata key {METADATA_KEY!r} is the exporter's own")
    if isinstance(module, torch.export.ExportedProgram):
        if args or kwargs or dynamic_shapes:
            raise ValueError("an exported program has its arguments and dynamic shapes already")
        program, names = module, {}
    else:
        args, kwargs = _distinct((args, dict(kwargs or {})))
        program = torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes)
        names = names_of_symbols(program, (args, kwargs), dynamic_shapes)
    if changed := program.graph_signature.buffers_to_mutate.values():
        warnings.warn(
            f"the module changes its buffers ({', '.join(changed)}); in a package every call "
            "starts from their exported values",
            stacklevel=2,
        )
    signature = describe_program(program, names)
    if signature.unchecked_indices:
        warnings.warn(
            f"{', '.join(signature.unchecked_indices)}: indexes tables in a way whose range cannot "
            "be told; an index out of range will end the process, unless you export with "
            "options={'cpp.dynamic_threads': False, 'cpp.threads': 1}",
            stacklevel=2,
        )
    configs = {
        **_PORTABLE,
        "aot_inductor.metadata": {**(metadata or {}), METADATA_KEY: signature.to_json()},
        **(options or {}),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".aoti-export-", dir=target.parent) as scratch:
        # The stem is the prefix of every name in the archive, so it has to be the final one.
        partial = Path(scratch) / target.name
        # Inductor ignores `freezing` while gradients are on.
        with torch.no_grad():
            aoti_compile_and_package(program, package_path=str(partial), inductor_configs=configs)
        partial.replace(target)
    return target


def _distinct(arguments: Any) -> Any:
    """Replace each further appearance of a tensor among the examples by an object of its own.

    The tracer takes one tensor at two places for one input, and the compiled model would then read
    the second place for both.
    """
    seen: set[int] = set()

    def another_if_seen(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            return tensor
        if 0 in tensor.stride():  # broadcast: there is no memory that a copy could be written to
            return tensor.detach()
        # Not clone(), which gives a strided tensor another layout.
        copy = torch.empty_strided(
            tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
        return copy.copy_(tensor.detach())

    return tree_map_only(torch.Tensor, another_if_seen, arguments)
