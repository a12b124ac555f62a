"""The weights of a loaded model: where they come from, what they must be, and which set serves.

Every set of weights has containers of libtorch's of its own, with a number: a `Generation` of the
core. New weights are checked, put into a new weight_set, and only then take the place of the
serving ones, between two runs. Whatever fails before that leaves everything as it was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aoti.arrays.convert import as_array, type_name
from aoti.engine._core._weights import Memory, view_of
from aoti.compat.finding import listing
from aoti.errors import ConstantError, InputError, ModelClosedError, PackageError
from aoti.package.archive import Span, identity
from aoti.package.constants import Constant, ConstantTable, check_table, is_frozen
from aoti.signature.spec import TensorSpec
from aoti.weights.safetensors import Stored, read_header

if TYPE_CHECKING:
    from aoti.engine._core._program import Program
    from aoti.engine._core._tensor import Tensor
    from aoti.engine._core._weights import WeightSet
    from aoti.cache.extraction import Extraction

Source = Mapping[str, Any] | str | os.PathLike[str]

# Bytes of weights that every runner may have a copy of, to run without locks. Models with more
# mostly run for so long that locks do not matter.
_COPIED = 1 << 20


class Weights:
    """The weights of one model. Its methods may be called from any thread; changes take turns.

    Parameters
    ----------
    program : Program
        The model in the core.
    extraction : Extraction
        Where its files are.
    table : ConstantTable or None
        What its generated C++ says of its constants.
    package : str
        What messages call it.
    device : str
        Where the model runs, and so where most of them lie: ``cpu`` or ``cuda:0``.
    single_threaded : bool
        Whether its one runner must do without the container's locks.

    Attributes
    ----------
    call_spec, fqns : list of str
        What the compiled code says of itself: treespecs, names of constants.
    constants : tuple of Constant
        The constants. Empty also where they are not known.
    """

    def __init__(
        self,
        program: Program,
        extraction: Extraction,
        table: ConstantTable | None,
        package: str,
        device: str = "cpu",
        single_threaded: bool = False,
    ) -> None:
        self._program, self._package = program, package
        self._device = device
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._closed = False
        self._file: Memory | None = None
        self._previous: tuple[WeightSet, dict[str, Tensor]] | None = None
        self._serving: WeightSet | None = None
        # libtorch before 2.13 unpacks an archive for each container.
        self._apart = single_threaded or (
            device == "cpu"
            and extraction.path.is_dir()
            and _can_be_copied(table, in_code=not extraction.weights)
        )
        self._spare: WeightSet | None = program.open(1, container_per_runner=self._apart)
        self._last = 1
        self.call_spec, self.fqns, facts = self._spare.describe()
        if table is not None:
            check_table(table, facts, package)
        present = self._spare.weights(copy=False)
        table = table or _observed(facts, present, package)
        self.constants, self._folds, self._written = table.constants, table.folds, table.written
        self._in_code = all(constant.fqn in present for constant in self.constants) and (
            bool(self.constants) or not facts or bool(present)
        )
        # What is not in the code, by the code's names.
        self._set: dict[str, Tensor] = {}
        if not self._in_code and extraction.weights:
            self._set = self._map(extraction.weights, table)

    def start(self, source: Source | None = None, *, map_source: bool = False) -> None:
        """Let the first weights serve: the package's own, or others in their place.

        Parameters and errors are those of `change`.
        """
        if source is not None:
            self.change(source, full=True, share=False, keep=False, map_source=map_source)
        elif self._in_code:
            assert self._spare is not None
            self._serve(self._spare)
        elif self._set:
            self._fill(self._set, keep=False)
        else:
            self._program.unset = self._unset()

    @property
    def version(self) -> int:
        """The number of the serving weights; 0 as long as there are none."""
        return 0 if self._serving is None else self._serving.number

    def listed(self) -> tuple[Constant, ...]:
        """The constants, with whether each has a value."""
        all_set = self._serving is not None
        return tuple(replace(c, loaded=all_set or c.name in self._set) for c in self.constants)

    def change(
        self, source: Source, *, full: bool, share: bool, keep: bool, map_source: bool = False
    ) -> None:
        """Check weights and let them serve.

        Parameters
        ----------
        source : mapping or path
            Arrays by their fully qualified names, or a ``.safetensors`` file.
        full : bool
            Whether all parameters must be given. What is not given stays as it is.
        share : bool
            Whether to read the arrays where they are, for as long as the weights are used.
        keep : bool
            Whether to keep the weights that serve now, for `go_back`.
        map_source : bool
            Whether to map the file instead of reading it.

        Raises
        ------
        ConstantError, ModelClosedError, ExecutionError
            Nothing has changed.
        """
        with self._turn():
            given = self._read(source, share=share, map_source=map_source)
            if full:
                wanted = [c for c in self.constants if c.kind == "parameter"]
                if missing := [c.fqn for c in wanted if c.name not in given]:
                    raise ConstantError(
                        f"{self._package}: these weights are missing: {listing(missing)}; pass "
                        "them too, or full=False to keep the model's own"
                    )
            tensors = {**self._others(given), **given}
            if any(c.name not in tensors for c in self.constants):
                if full:
                    raise ConstantError(self._unset(tensors))
                self._set = tensors  # nothing serves yet
                self._program.unset = self._unset()
                return
            self._fill(tensors, keep=keep)

    def go_back(self) -> None:
        """Let the weights serve that served before the last change that kept them."""
        with self._turn():
            if self._previous is None:
                raise ConstantError(
                    f"{self._package}: there are no weights to go back to: update_weights keeps "
                    "those that it replaces, once"
                )
            weight_set, tensors = self._previous
            self._serve(weight_set)
            self._set, self._previous = tensors, None

    def read_back(self) -> dict[str, Any]:
        """Copies of the serving weights, by their fully qualified names."""
        with self._turn():
            if (serving := self._serving) is None:
                raise ConstantError(self._unset())
            copies = _plain(serving, copy=True)
        return {c.fqn: _as_numpy(copies[c.fqn]) for c in self.constants}

    def populate(self) -> None:
        """Bring mapped weights into the process, so that no run waits for them."""
        if self._file is not None:
            self._file.populate()

    def close(self) -> None:
        """Give up all weights that nothing runs on."""
        self._closed = True
        self._serving = self._previous = self._spare = self._file = None
        self._set = {}

    # -- where weights come from -----------------------------------------------------------------

    def _map(self, span: Span, table: ConstantTable) -> dict[str, Tensor]:
        """The package's own weights, from the file that its extraction has, or from itself."""
        with span.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if span.identity not in (None, identity(status)):
                raise PackageError(f"{self._package} was changed while it was read; load it again")
            size = min(span.nbytes, status.st_size - span.offset)
            if size < table.nbytes:
                raise PackageError(
                    f"{self._package}: its weights have {size} bytes instead of {table.nbytes}; "
                    "get the package again"
                )
            memory = Memory.map(file.fileno(), span.offset, table.nbytes, table.written)
        self._file = memory
        offsets = table.offsets()
        return {
            c.name: memory.tensor(offsets[c.name], c.dtype, c.shape, c.strides)
            for c in table.constants
        }

    def _read(self, source: Source, *, share: bool, map_source: bool) -> dict[str, Tensor]:
        """Check what is given; tensors by the code's names for them, in memory to stay."""
        if isinstance(source, Mapping):
            by_fqn = self._known(source)
            return {c.name: self._take(c, source[fqn], share) for fqn, c in by_fqn.items()}
        path = Path(source)
        if path.suffix != ".safetensors":
            raise ConstantError(
                f"weights are a mapping of names to arrays, or a .safetensors file, and not {path}"
            )
        with path.open("rb") as file:
            stored = read_header(file.fileno(), str(path))
            by_fqn = self._known(stored)
            for fqn, constant in by_fqn.items():
                self._compare(constant, stored[fqn].dtype, stored[fqn].shape)
            return self._load(file.fileno(), {c: stored[fqn] for fqn, c in by_fqn.items()},
                              map_source=map_source)  # fmt: skip

    def _load(
        self, file: int, stored: Mapping[Constant, Stored], *, map_source: bool
    ) -> dict[str, Tensor]:
        found = {}
        end = max((at.offset + c.nbytes for c, at in stored.items()), default=0)
        whole = Memory.map(file, 0, end, self._written) if map_source else None
        for constant, at in stored.items():
            memory, offset = whole, at.offset
            if memory is None:
                memory, offset = Memory.read(file, at.offset, constant.nbytes), 0
            tensor = memory.tensor(offset, constant.dtype, at.shape, at.strides)
            if offset % constant.itemsize or not _same_steps(tensor, constant):
                tensor = tensor.copied(constant.strides)
            found[constant.name] = tensor
        return found

    def _known(self, given: Mapping[str, object]) -> dict[str, Constant]:
        """The constants that are given, by their names there."""
        if is_frozen(self.fqns):
            raise ConstantError(
                f"{self._package} was frozen at the export: its weights were merged into others, "
                "and cannot be replaced; export it without freezing"
            )
        if not self.constants:
            raise ConstantError(
                f"{self._package}: the model has no constants that could be replaced"
                + ("" if not self.fqns else " safely: the package does not tell their shapes")
            )
        by_fqn = {constant.fqn: constant for constant in self.constants}
        if unknown := [str(fqn) for fqn in given if fqn not in by_fqn]:
            raise ConstantError(
                f"{self._package}: the model has no constants of these names: {listing(unknown)}; "
                "see model.constants. What the compiler put into the code, "
                "such as tensors of a few elements, cannot be replaced: export it with "
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
        if view.device != (where := self._where(constant)):
            raise ConstantError(f"{who}, so it must lie on {where}, and not on {view.device}")
        if not _same_steps(view, constant):
            raise ConstantError(
                f"{who}, and the model takes strides {constant.strides}, not {view.strides}; pass "
                "it in that layout, or let it be copied"
            )
        if view.data_ptr % min(constant.itemsize, 8):
            raise ConstantError(f"{who}, and it is not aligned to its elements; let it be copied")
        if view.readonly and self._written:
            raise ConstantError(
                f"{who}, and this one is read-only, while the model may write to its buffers; pass "
                "one that can be written to, or let it be copied"
            )
        return view

    def _view(self, constant: Constant, value: object, share: bool) -> Tensor:
        spec = TensorSpec(constant.fqn, constant.dtype, constant.shape, device="cpu")
        view: Tensor
        try:
            view = view_of(value)
        except Exception as first:  # of whatever library the array is
            reason = str(first).partition("\n")[0]
            try:
                array = as_array(value, spec, constant.fqn)
                if not share:
                    # In native order and aligned, which is what the core may not have found.
                    view = view_of(array.astype(array.dtype.newbyteorder("="), "C"))
                    return view
            except InputError as error:
                raise ConstantError(str(error).partition("\n")[0]) from error
            except (TypeError, ValueError) as error:
                raise ConstantError(f"{constant.fqn}: {error}") from error
            raise ConstantError(f"{constant.fqn}: the array cannot be shared: {reason}") from first
        if view.device not in ("cpu", self._device):
            where = self._device.replace("cpu", "the cpu")
            raise ConstantError(
                f"{constant.fqn}: the model runs on {where}, and this {type_name(value)} lies on "
                f"{view.device}; move it to {where} first"
            )
        return view

    def _compare(self, constant: Constant, dtype: str, shape: tuple[int, ...]) -> None:
        if (dtype, shape) != (constant.dtype, constant.shape):
            raise ConstantError(
                f"{constant.fqn} is {constant}, and {dtype} {shape} was given; "
                + ("convert it" if dtype != constant.dtype else "it must have that shape")
            )

    def _others(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is kept of the present weights, apart from those that are given."""
        if self._set or not self._in_code:
            return {name: tensor for name, tensor in self._set.items() if name not in given}
        # The container goes with those that are in the code, so they are copied out of it.
        holder = self._serving or self._spare
        assert holder is not None
        views = _plain(holder, copy=False)
        return {
            c.name: views[c.fqn].copied(c.strides) for c in self.constants if c.name not in given
        }

    # -- which set serves ------------------------------------------------------------------------

    def _fill(self, tensors: dict[str, Tensor], *, keep: bool) -> None:
        weight_set = self._spare or self._program.open(self._last + 1, container_per_runner=self._apart)
        self._spare = None
        if self._device != "cpu":
            tensors = {c.name: self._placed(c, tensors[c.name]) for c in self.constants}
            self._file = None  # what was mapped is on the device now
        weight_set.set(tensors, self._folds)
        before = None if self._serving is None else (self._serving, self._set)
        self._serve(weight_set)
        self._last = weight_set.number
        self._set, self._previous = tensors, before if keep else None
        if self._closed:
            self.close()

    def _where(self, constant: Constant) -> str:
        return "cpu" if constant.device == "cpu" else self._device

    def _placed(self, constant: Constant, tensor: Tensor) -> Tensor:
        where = self._where(constant)
        return tensor if tensor.device == where else tensor.moved(where)

    def _serve(self, weight_set: WeightSet) -> None:
        self._program.serve(weight_set)
        self._serving, self._spare = weight_set, None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One change at a time. Where a fork interrupted one, it goes on in the parent alone."""
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            if self._closed:
                raise ModelClosedError("the model was closed")
            yield

    def _unset(self, tensors: Mapping[str, object] | None = None) -> str:
        has = self._set if tensors is None else tensors
        missing = [c.fqn for c in self.constants if c.name not in has] or self.fqns
        return (
            f"{self._package}: these weights were never loaded: {listing(missing)}; give them to "
            "load_constants, or to aoti.load(..., weights=...)"
        )


def _can_be_copied(table: ConstantTable | None, *, in_code: bool) -> bool:
    """Whether every runner may have a container of its own, which folds for itself and copies what
    stands in the code: that must be small, and nothing that the model may write to.
    """
    if table is None or table.folds or table.nbytes > _COPIED:
        return False
    return not (in_code and table.written)


def _observed(
    facts: list[tuple[str, str, str]], present: Mapping[str, Tensor | None], package: str
) -> ConstantTable:
    """The constants of a container that has its weights already, as they are there."""
    found = []
    for name, fqn, dtype in facts:
        if (tensor := present.get(fqn)) is not None:
            if tensor.dtype != dtype:
                raise PackageError(f"{package}: {fqn} is {tensor.dtype}, and its code says {dtype}")
            kind = "parameter" if not name.startswith("_tensor_constant") else "constant"
            device = tensor.device.partition(":")[0]
            found.append(
                Constant(name, fqn, dtype, tensor.shape, tensor.strides, kind, device=device)
            )
    return ConstantTable(tuple(found), folds=0 < len(present) < len(facts), written=True)


def _same_steps(tensor: Tensor, constant: Constant) -> bool:
    """Whether a tensor is laid out as wanted. A dimension of one element has no step."""
    steps = zip(tensor.strides, constant.strides, constant.shape, strict=True)
    return 0 in constant.shape or all(has == wants for has, wants, size in steps if size != 1)


def _plain(weight_set: WeightSet, *, copy: bool) -> dict[str, Tensor]:
    """The weights of a weight_set that are plain tensors, by their fully qualified names."""
    found = weight_set.weights(copy=copy)
    return {fqn: tensor for fqn, tensor in found.items() if tensor is not None}


def _as_numpy(tensor: Tensor) -> Any:
    try:
        return tensor.numpy()
    except RuntimeError:  # numpy has no such dtype
        return tensor
