"""New weights for a model: read, checked, and put into memory that stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aoti._text import listing
from aoti.arrays.convert import as_array, type_name
from aoti.engine._core._weights import Memory, view_of
from aoti.errors import ConstantError, InputError
from aoti.options import WeightSource
from aoti.package.constants import Constant, is_frozen
from aoti.signature.spec import TensorSpec

if TYPE_CHECKING:
    from aoti.engine._core._tensor import Tensor
    from aoti.weights.safetensors import Stored


class MappedFile(NamedTuple):
    """A file that weights are mapped from."""

    path: Path
    nbytes: int
    memory: Memory


class Staging(NamedTuple):
    """Turns what a user gives into tensors that a model can run with.

    Attributes
    ----------
    package : str
        The name of the package in messages.
    device : str
        Where the model runs: ``cpu`` or ``cuda:0``.
    constants : tuple of Constant
        The constants of the model; empty if they are not known.
    fqns : tuple of str
        The fully qualified names of all constants, as the code lists them.
    written : bool
        Whether the model may write to its constants.
    """

    package: str
    device: str
    constants: tuple[Constant, ...]
    fqns: tuple[str, ...]
    written: bool

    def read(
        self, source: WeightSource, *, share: bool, map_source: bool
    ) -> tuple[dict[str, Tensor], MappedFile | None]:
        """Check new weights and put them into memory.

        Returns
        -------
        tensors : dict of str to Tensor
            By the names that the code has for the constants.
        file : MappedFile or None
            Where they are mapped from, if they are.

        Raises
        ------
        ConstantError
            A weight does not fit.
        FileNotFoundError
            The file does not exist.
        """
        if isinstance(source, Mapping):
            by_fqn = self._known(source)
            return {c.name: self._take(c, source[fqn], share) for fqn, c in by_fqn.items()}, None
        path = Path(source)
        if path.suffix != ".safetensors":
            raise ConstantError(
                f"weights must be a mapping of names to arrays, or a .safetensors file, not {path}"
            )
        from aoti.weights.safetensors import read_header  # few models need it

        with path.open("rb") as file:
            stored = read_header(file.fileno(), str(path))
            by_fqn = self._known(stored)
            for fqn, constant in by_fqn.items():
                self._compare(constant, stored[fqn].dtype, stored[fqn].shape)
            places = {constant: stored[fqn] for fqn, constant in by_fqn.items()}
            mapped = None
            if map_source:
                end = max((at.offset + c.nbytes for c, at in places.items()), default=0)
                memory = Memory.map(file.fileno(), 0, end, self.written)
                mapped = MappedFile(path, end, memory)
            return self._load(file.fileno(), places, mapped), mapped

    def where(self, constant: Constant) -> str:
        """The device that a constant must be on."""
        return "cpu" if constant.device == "cpu" else self.device

    def _load(
        self, file: int, stored: Mapping[Constant, Stored], mapped: MappedFile | None
    ) -> dict[str, Tensor]:
        found = {}
        for constant, at in stored.items():
            if mapped is not None:
                memory, offset = mapped.memory, at.offset
            else:
                memory, offset = Memory.read(file, at.offset, constant.nbytes), 0
            tensor = memory.tensor(offset, constant.dtype, at.shape, at.strides)
            if offset % constant.itemsize or not _same_steps(tensor, constant):
                tensor = tensor.copied(constant.strides)
            found[constant.name] = tensor
        return found

    def _known(self, given: Mapping[str, object]) -> dict[str, Constant]:
        """The given constants by their names."""
        if is_frozen(self.fqns):
            raise ConstantError(
                f"{self.package} was frozen at the export: its weights were merged into others, "
                "and cannot be replaced; export it without freezing"
            )
        if not self.constants:
            raise ConstantError(
                f"{self.package}: the model has no constants that could be replaced"
                + ("" if not self.fqns else " safely: the package does not describe their shapes")
            )
        by_fqn = {constant.fqn: constant for constant in self.constants}
        if unknown := [str(fqn) for fqn in given if fqn not in by_fqn]:
            raise ConstantError(
                f"{self.package}: the model has no constants of these names: {listing(unknown)}; "
                "see model.constants. Constants in the generated code, such as tensors of a few "
                "elements, cannot be replaced: export with "
                "options={'always_keep_tensor_constants': True}"
            )
        return {fqn: by_fqn[fqn] for fqn in given}

    def _take(self, constant: Constant, value: object, share: bool) -> Tensor:
        """An array as a tensor that lives as long as the weights: a copy, unless it is shared."""
        view = self._view(constant, value, share)
        self._compare(constant, view.dtype, view.shape)
        if not share:
            return view.copied(constant.strides)
        who = f"{constant.fqn}: a shared array is read where it is"
        if view.device != (where := self.where(constant)):
            raise ConstantError(f"{who}, so it must be on {where}, not on {view.device}")
        if not _same_steps(view, constant):
            raise ConstantError(
                f"{who}, so its strides must be {constant.strides}, not {view.strides}; pass it in "
                "that layout, or with share=False"
            )
        if view.data_ptr % min(constant.itemsize, 8):
            raise ConstantError(f"{who}, but it is not aligned to its elements; pass share=False")
        if view.readonly and self.written:
            raise ConstantError(
                f"{who}, but it is read-only, and the model may write to its buffers; pass a "
                "writeable array, or share=False"
            )
        return view

    def _view(self, constant: Constant, value: object, share: bool) -> Tensor:
        spec = TensorSpec(constant.fqn, constant.dtype, constant.shape, device="cpu")
        view: Tensor
        try:
            view = view_of(value)
        except Exception as first:  # of the library of the array, whichever that is
            reason = str(first).partition("\n")[0]
            try:
                array = as_array(value, spec, constant.fqn)
                if not share:
                    # In native byte order and aligned, which the core may have missed.
                    view = view_of(array.astype(array.dtype.newbyteorder("="), "C"))
                    return view
            except InputError as error:
                raise ConstantError(str(error).partition("\n")[0]) from error
            except (TypeError, ValueError) as error:
                raise ConstantError(f"{constant.fqn}: {error}") from error
            raise ConstantError(f"{constant.fqn}: the array cannot be shared: {reason}") from first
        if view.device not in ("cpu", self.device):
            where = self.device.replace("cpu", "the cpu")
            raise ConstantError(
                f"{constant.fqn}: the model runs on {where}, but this {type_name(value)} is on "
                f"{view.device}; move it to {where} first"
            )
        return view

    def _compare(self, constant: Constant, dtype: str, shape: tuple[int, ...]) -> None:
        if (dtype, shape) != (constant.dtype, constant.shape):
            raise ConstantError(
                f"{constant.fqn} is {constant}, but {dtype} {shape} was given; "
                + ("convert it" if dtype != constant.dtype else "pass it in that shape")
            )


def _same_steps(tensor: Tensor, constant: Constant) -> bool:
    """Whether a tensor has the strides of a constant, except for dimensions of size 1."""
    steps = zip(tensor.strides, constant.strides, constant.shape, strict=True)
    return 0 in constant.shape or all(has == wants for has, wants, size in steps if size != 1)
