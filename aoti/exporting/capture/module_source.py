"""Finding the module to export and its example arguments, by name, tuple or object."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils import _pytree as pytree

from aoti.errors import ConfigError, ExportError
from aoti.exporting.error_messages import cause, explain


@dataclass
class Source:
    """A module with example arguments, or a program that was already traced.

    Attributes
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        The module or program to compile.
    args, kwargs : tuple, dict
        Example arguments.
    dynamic_shapes : optional
        Which sizes may change: as for ``torch.export.export``, or with names for sizes.
    """

    module: torch.nn.Module | torch.export.ExportedProgram
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    dynamic_shapes: Any = None

    @classmethod
    def find(cls, spec: Any) -> Source:
        """Find the source that a name, a tuple or a module describes.

        Parameters
        ----------
        spec : str, tuple, module or program
            ``pkg.mod:callable`` or ``file.py:callable``, which returns one of the others;
            ``program.pt2``, which ``torch.export.save`` wrote; or
            ``(module, args, kwargs, dynamic_shapes)``, of which the last items may be left out.

        Raises
        ------
        ConfigError
            The name has another form, or does not exist.
        ExportError
            The callable fails, or returns something else.
        """
        where = ""
        if isinstance(spec, str):
            where = f"{spec} gave "
            spec = _call(spec) if ":" in spec else _load_program(spec)
        if isinstance(spec, torch.nn.Module | torch.export.ExportedProgram):
            spec = (spec,)
        if isinstance(spec, list | tuple) and 1 <= len(spec) <= 4:
            module, args, kwargs, shapes = [*spec, None, None, None][:4]
            if isinstance(args, torch.Tensor):
                args = (args,)
            if (
                isinstance(module, torch.nn.Module | torch.export.ExportedProgram)
                and isinstance(args, list | tuple | None)
                and isinstance(kwargs, Mapping | None)
            ):
                return cls(module, tuple(args or ()), dict(kwargs or {}), shapes or None)
        raise ExportError(
            f"{where}{type(spec).__name__}, which cannot be exported\n"
            "pass a module or (module, args, kwargs, dynamic_shapes): args a tuple, kwargs a dict"
        )

    def on(self, device: str | None) -> Source:
        """The same source on a device: a copy, if it has to move.

        Raises
        ------
        ExportError
            The device is not available, or an exported program is on another one.
        """
        if device is None:
            self._check_one_device()
            return self
        wanted = _device(device)
        tensors = self._tensors()
        if all(tensor.device.type == wanted.type for tensor in tensors):
            return self
        if isinstance(self.module, torch.export.ExportedProgram):
            from torch.export.passes import move_to_device_pass

            return Source(move_to_device_pass(self.module, str(wanted)))
        import copy

        args, kwargs = pytree.tree_map_only(
            torch.Tensor, lambda tensor: tensor.to(wanted), (self.args, self.kwargs)
        )
        module = copy.deepcopy(self.module).to(wanted)
        return Source(module, args, kwargs, self.dynamic_shapes)

    @property
    def device(self) -> str:
        """The type of its device; cpu if it has no tensors at all."""
        tensors = self._tensors()
        return tensors[0].device.type if tensors else "cpu"

    def _tensors(self) -> list[torch.Tensor]:
        if isinstance(self.module, torch.export.ExportedProgram):
            held = [*self.module.state_dict.values(), *self.module.example_inputs]
            given: Any = self.module.example_inputs
        else:
            held = [*self.module.parameters(), *self.module.buffers()]
            given = (self.args, self.kwargs)
        leaves = [*held, *pytree.tree_leaves(given)]
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def _check_one_device(self) -> None:
        if isinstance(self.module, torch.export.ExportedProgram):
            return
        weights = {t.device.type for t in (*self.module.parameters(), *self.module.buffers())}
        given = {
            leaf.device.type
            for leaf in pytree.tree_leaves((self.args, self.kwargs))
            if isinstance(leaf, torch.Tensor)
        }
        if len(weights) == 1 and given and given != weights:
            raise ExportError(
                f"the module is on {', '.join(weights)}, the example arguments are on "
                f"{', '.join(sorted(given))}\nmove one to the other, or name the device to export "
                f"for: device={min(weights | given)!r}"
            )


def uncompiled(module: Any) -> Any:
    """The module that `torch.compile` wraps; the same if it is none of its modules."""
    return getattr(module, "_orig_mod", module)


def architecture(source: Source) -> str:
    """The architecture of the GPU that a source is on: ``sm_90`` or ``gfx942``."""
    (device, *_) = {tensor.device for tensor in source._tensors()}
    properties = torch.cuda.get_device_properties(device)
    name = str(getattr(properties, "gcnArchName", "")).partition(":")[0]
    return name if name.startswith("gfx") else f"sm_{properties.major}{properties.minor}"


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        # The only test that works for every backend: create a tensor.
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"device {name!r} cannot be used here: {reason}\n"
            "export on a machine that has it, with a torch that was built for it"
        ) from error
    return device


def _call(spec: str) -> Any:
    name, _, attribute = spec.rpartition(":")
    module = _import(name)
    try:
        made: Any = module
        for part in attribute.split("."):
            made = getattr(made, part)
    except AttributeError:
        raise ConfigError(f"{name} has no attribute {attribute!r}") from None
    if not callable(made) or isinstance(made, torch.nn.Module):
        return made
    try:
        return made()
    except Exception as error:  # the user's own
        raise explain(error, f"call {spec}") from cause(error)


def _import(name: str) -> ModuleType:
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"the file {name} does not exist")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)  # dataclasses and pickle look their module up
        sys.path.insert(0, str(path.parent.absolute()))  # modules beside it
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the user's own
            raise explain(error, f"import {name}") from cause(error)
        return module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"no module named {name!r}") from None
        raise explain(error, f"import {name}") from cause(error)
    except Exception as error:  # the user's own
        raise explain(error, f"import {name}") from cause(error)


def _load_program(path: str) -> torch.export.ExportedProgram:
    if not Path(path).is_file():
        raise ConfigError(
            f"{path!r} is neither MODULE:CALLABLE, FILE.py:CALLABLE nor a saved program (.pt2)"
        )
    try:
        return torch.export.load(path)
    except Exception as error:  # a damaged or foreign file raises errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(f"{path} was not written by torch.export.save: {reason}") from error
