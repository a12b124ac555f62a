"""`model.weights`: the constants of a loaded model, and how they are replaced while it runs.

Each version of the weights gets its own containers of the engine. The core calls them a `WeightSet`
and numbers it. New weights are checked, put into a new set, and only then replace the serving ones,
between two runs. An error before that leaves everything as it was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aoti._text import listing
from aoti.engine._core._weights import Memory
from aoti.errors import ConstantError, ModelClosedError, PackageError
from aoti.options import LoadOptions, WeightSource
from aoti.package.archive import Span, identity
from aoti.package.constants import Constant, ConstantTable, check_table
from aoti.weights.staging import MappedFile, Staging

if TYPE_CHECKING:
    from aoti.cache.extraction import Extraction
    from aoti.engine._core._program import Program
    from aoti.engine._core._tensor import Tensor
    from aoti.engine._core._weights import WeightSet

# Bytes of weights that every runner may have a copy of, to run without locks. Models with more
# mostly run for so long that locks do not matter.
_COPIED = 1 << 20


class ModelWeights:
    """The weights of a loaded model: `AOTIModel.weights`.

    Notes
    -----
    All methods may be called from any thread while the model runs, and release the GIL while they
    copy. Changes take turns. Runs that are under way finish with the weights that they started
    with, later ones use the new ones; no run waits, and no run sees a mixture. If a change fails,
    the old weights go on serving.
    """

    def __init__(
        self,
        program: Program,
        first: WeightSet,
        extraction: Extraction,
        table: ConstantTable | None,
        options: LoadOptions,
        package: str,
        device: str,
        apart: bool,
    ) -> None:
        self._program, self._package, self._device = program, package, device
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._changing: int | None = None  # the thread
        self._closed = False
        self._apart = apart
        self._last = 1
        self._file: MappedFile | None = None
        # Tensors that are not in the code, by the code's names for them.
        self._set: dict[str, Tensor] = {}
        self._serving: WeightSet | None = None
        self._previous: tuple[WeightSet, dict[str, Tensor], MappedFile | None] | None = None
        self._spare: WeightSet | None = first
        _, fqns, facts = first.describe()
        if table is not None:
            check_table(table, facts, package)
        present = first.weights(copy=False)
        table = table or _observed(facts, present, package)
        self._constants, self._folds = table.constants, table.folds
        self._staging = Staging(package, device, table.constants, tuple(fqns), table.written)
        self._in_code = all(constant.fqn in present for constant in self._constants) and (
            bool(self._constants) or not facts or bool(present)
        )
        if not self._in_code and extraction.weights:
            self._map(extraction.weights, table)
        if options.weights is not None:
            self.update(options.weights, map_source=options.map_source, keep=False)
        elif self._in_code:
            self._serve(first)
        elif self._set:
            self._fill(self._set, self._file, keep=False)
        else:
            program.unset = self._unset()

    @property
    def constants(self) -> tuple[Constant, ...]:
        """The constants, in the order of the code; empty if the package does not describe them."""
        all_set = self._serving is not None
        return tuple(c._replace(loaded=all_set or c.name in self._set) for c in self._constants)

    @property
    def version(self) -> int:
        """The version of the weights that new runs use: 1 at first, a new number for every change.

        A number always means the same weights: `rollback` brings the old number back. 0 as long as
        the model has no weights.
        """
        return 0 if self._serving is None else self._serving.number

    @property
    def file(self) -> MappedFile | None:
        """The file that the serving weights are mapped from; None if they are not mapped."""
        return self._file

    def load(self, weights: Mapping[str, Any], *, full: bool = True, share: bool = False) -> None:
        """Replace the weights, or provide the weights of a model that came without.

        Parameters
        ----------
        weights : mapping of str to array
            Arrays of any library by their fully qualified names, as in ``state_dict()``.
        full : bool, default True
            Whether all parameters must be given. If not, parameters that are not given stay as
            they are; a model without weights refuses to run until it has all. Buffers and other
            constants may always be left out if they have values.
        share : bool, default False
            Read the arrays where they are, instead of copying them. They are kept alive, and must
            have the layout of `constants`. Whoever writes to them changes what runs compute.

        Raises
        ------
        ConstantError
            A name is unknown or missing, an array has another dtype, shape or device, or the
            weights cannot be replaced. Nothing has changed.
        ModelClosedError
            The model was closed.

        Notes
        -----
        The replaced weights are freed as soon as no run uses them. `update` can keep them.
        """
        self._change(weights, full=full, share=share, keep=False)

    def update(
        self,
        weights: WeightSource,
        *,
        full: bool = True,
        share: bool = False,
        map_source: bool = False,
        keep: bool = True,
    ) -> int:
        """Replace the weights, and keep the old ones for `rollback`.

        Parameters
        ----------
        weights : mapping of str to array, or path
            Arrays by their fully qualified names, or a ``.safetensors`` file with them.
        full, share
            As for `load`.
        map_source : bool, default False
            Map the file instead of copying its content. If the file is truncated or changed, the
            process ends or computes something else: replace such files, never write to them.
        keep : bool, default True
            Keep the replaced weights in memory until the next change.

        Returns
        -------
        int
            The new `version`.

        Raises
        ------
        ConstantError, ModelClosedError
            As for `load`.
        FileNotFoundError
            The file does not exist.
        """
        self._change(weights, full=full, share=share, keep=keep, map_source=map_source)
        return self.version

    def rollback(self) -> int:
        """Go back to the weights before the last `update`.

        Returns
        -------
        int
            Their `version`.

        Raises
        ------
        ConstantError
            No weights were kept, or the model went back already.
        ModelClosedError
            The model was closed.
        """
        with self._turn():
            if self._previous is None:
                raise ConstantError(
                    f"{self._package}: there are no weights to go back to; update keeps the "
                    "weights that it replaces, for one rollback"
                )
            weights, tensors, file = self._previous
            self._serve(weights)
            self._set, self._file, self._previous = tensors, file, None
        return self.version

    def extract(self) -> dict[str, Any]:
        """Copies of the weights by their fully qualified names.

        Returns
        -------
        dict of str to numpy.ndarray
            An `aoti.Tensor` if numpy does not have the dtype and ml_dtypes is not installed.

        Raises
        ------
        ConstantError
            The model has no weights yet.
        ModelClosedError
            The model was closed.
        """
        with self._turn():
            if (serving := self._serving) is None:
                raise ConstantError(self._unset())
            copies = _plain(serving, copy=True)
        return {c.fqn: _as_numpy(copies[c.fqn]) for c in self._constants}

    def populate(self) -> None:
        """Read mapped weights into memory now, so that no run waits for the disk."""
        if (file := self._file) is not None:
            file.memory.populate()

    def release(self) -> None:
        """Give up all weights that no run uses. `AOTIModel.close` does it."""
        self._closed = True
        self._serving = self._previous = self._spare = self._file = None
        self._set = {}

    def _map(self, span: Span, table: ConstantTable) -> None:
        """Map the package's own weights, from the file of its extraction or from the package."""
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
        self._file = MappedFile(span.path, table.nbytes, memory)
        offsets = table.offsets()
        self._set = {
            c.name: memory.tensor(offsets[c.name], c.dtype, c.shape, c.strides)
            for c in table.constants
        }

    def _change(
        self, source: WeightSource, *, full: bool, share: bool, keep: bool, map_source: bool = False
    ) -> None:
        with self._turn():
            given, file = self._staging.read(source, share=share, map_source=map_source)
            if full:
                wanted = [c for c in self._constants if c.kind == "parameter"]
                if missing := [c.fqn for c in wanted if c.name not in given]:
                    raise ConstantError(
                        f"{self._package}: these weights are missing: {listing(missing)}; pass "
                        "them too, or full=False to keep the model's own"
                    )
            kept = self._others(given)
            if file is None and kept:
                file = self._file
            tensors = {**kept, **given}
            if any(c.name not in tensors for c in self._constants):
                if full:
                    raise ConstantError(self._unset(tensors))
                self._set, self._file = tensors, file  # no weights serve yet
                self._program.unset = self._unset()
                return
            self._fill(tensors, file, keep=keep)

    def _others(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The present weights, without those that are given."""
        if self._set or not self._in_code:
            return {name: tensor for name, tensor in self._set.items() if name not in given}
        # The containers own the weights that are in the code, so those are copied.
        holder = self._serving or self._spare
        assert holder is not None
        views = _plain(holder, copy=False)
        return {
            c.name: views[c.fqn].copied(c.strides) for c in self._constants if c.name not in given
        }

    def _fill(self, tensors: dict[str, Tensor], file: MappedFile | None, *, keep: bool) -> None:
        weights = self._spare or self._program.open(
            self._last + 1, container_per_runner=self._apart
        )
        self._spare = None
        if self._device != "cpu":
            tensors = {c.name: self._placed(c, tensors[c.name]) for c in self._constants}
            file = None  # the device has its own copy
        weights.set(tensors, self._folds)
        before = None if self._serving is None else (self._serving, self._set, self._file)
        self._serve(weights)
        self._last = weights.number
        self._set, self._file, self._previous = tensors, file, before if keep else None
        if self._closed:
            self.release()

    def _placed(self, constant: Constant, tensor: Tensor) -> Tensor:
        where = self._staging.where(constant)
        return tensor if tensor.device == where else tensor.moved(where)

    def _serve(self, weights: WeightSet) -> None:
        self._program.serve(weights)
        self._serving, self._spare = weights, None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One change at a time. A change that a fork interrupted goes on in the parent only."""
        if self._pid != os.getpid():
            self._lock, self._pid, self._changing = threading.Lock(), os.getpid(), None
        if self._changing == threading.get_ident():
            raise ConstantError(
                f"{self._package}: the weights are being changed already, by the call that this "
                "one is made from; make one change after the other"
            )
        with self._lock:
            self._changing = threading.get_ident()
            try:
                if self._closed:
                    raise ModelClosedError("the model was closed")
                yield
            finally:
                self._changing = None

    def _unset(self, tensors: Mapping[str, object] | None = None) -> str:
        has = self._set if tensors is None else tensors
        missing = [c.fqn for c in self._constants if c.name not in has] or [*self._staging.fqns]
        return (
            f"{self._package}: these weights were never loaded: {listing(missing)}; pass them to "
            "model.weights.load, or to aoti.load(..., weights=...)"
        )


def one_container_per_runner(
    table: ConstantTable | None, extraction: Extraction, *, device: str, single_threaded: bool
) -> bool:
    """Whether each runner gets its own container, which runs without locks.

    Every container folds for itself, and copies the weights that are in the code: they must be
    small, and the model must not write to them.
    """
    if single_threaded:
        return True
    # libtorch before 2.13 unpacks an archive for each container.
    if device != "cpu" or not extraction.path.is_dir():
        return False
    if table is None or table.folds or table.nbytes > _COPIED:
        return False
    return extraction.weights is not None or not table.written


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


def _plain(weights: WeightSet, *, copy: bool) -> dict[str, Tensor]:
    """The weights of a set that are plain tensors, by their fully qualified names."""
    found = weights.weights(copy=copy)
    return {fqn: tensor for fqn, tensor in found.items() if tensor is not None}


def _as_numpy(tensor: Tensor) -> Any:
    try:
        return tensor.numpy()
    except RuntimeError:  # numpy does not have the dtype
        return tensor
