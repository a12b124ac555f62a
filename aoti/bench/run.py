"""Measuring engines in turns, each in its own process, so that drifts of the machine affect all."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from aoti._processes import Child, ChildError
from aoti.bench.cases import Takes
from aoti.bench.engines.registry import ENGINES, OURS, Kind
from aoti.bench.environment import this_machine
from aoti.bench.process.job import Finish, Finished, Inputs, Job, Prepare, Prepared, Started, Turn
from aoti.bench.process.timing import Round
from aoti.bench.report import statistics
from aoti.bench.report.report import Case, EngineRun, Measurement, Memory, Report, Skipped, Start
from aoti.bench.settings import Settings
from aoti.errors import AotiError, ConfigError, ExecutionError
from aoti.package.package import Package
from aoti.registry import resolve

Progress = Callable[[str, float], None]

_BUSY = 0.75  # share of the processors
_UNSTABLE = 0.1  # a larger spread of the rounds is worth a note


@dataclass
class _Contestant:
    """An engine with its results so far."""

    label: str
    kind: Kind
    engine: str
    job: Job
    child: Child | None = None
    starts: list[tuple[int, Started]] = field(default_factory=list)
    outputs: list[list[Any]] = field(default_factory=list)
    rounds: list[list[Round]] = field(default_factory=list)
    prepared: int = 0
    finished: Finished | None = None

    def ask(self, message: object = None) -> Any:
        assert self.child is not None
        return self.child.ask(message)


def measure(
    package: str | os.PathLike[str],
    *,
    engines: Sequence[str] = (),
    against: Sequence[str | os.PathLike[str]] = (),
    source: str | None = None,
    model_name: str | None = None,
    inputs: Sequence[Any] | None = None,
    dims: Mapping[str, Sequence[int]] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a package, alone or beside other engines and other packages.

    Parameters
    ----------
    package : str or os.PathLike
        The package, or the name of a registered model.
    engines : sequence of str
        Engines to compare with: ``stock``, ``eager``, ``compile``, ``onnxruntime``, ``openvino``.
    against : sequence of str or os.PathLike
        Other packages with the same inputs.
    source : str, optional
        The module that was exported, which engines other than ``stock`` need: as for
        ``aoti export``.
    model_name : str, optional
        Which model of the packages.
    inputs : sequence of arrays, optional
        For a flat call. Default: random ones.
    dims : mapping of str to sequence of int, optional
        The values of dynamic sizes, by their names; several sizes give all combinations. Default:
        the smallest size that the model accepts, but not 0.
    shapes : mapping of str to sequence of int, optional
        The shapes of inputs by their names, in place of dynamic sizes.
    settings : Settings, optional
        How to measure.
    progress : callable, optional
        Called with a line of text and the completed part of the rounds, from 0 to 1.

    Returns
    -------
    Report

    Raises
    ------
    ConfigError
        An engine, name or size does not exist; or `inputs` are combined with sizes.
    PackageNotFoundError, PackageError, ModelNotFoundError
        As for `aoti.load`, for any of the packages.
    InputError, ExecutionError
        `aoti` refuses the inputs, or fails. Other engines that fail are in `Report.skipped`.

    Notes
    -----
    No model runs in this process. The processes of the engines end with it, and their files are
    removed, even if it is interrupted or killed.
    """
    settings = settings or Settings()
    settings = replace(settings, threads=settings.threads_used)
    say = progress or (lambda _what, _part: None)
    for name in engines:
        if name not in ENGINES:
            raise ConfigError(f"unknown engine {name!r:.60}; known are {', '.join(ENGINES)}")
    if inputs is not None and (dims or shapes):
        raise ConfigError("inputs already have sizes: pass inputs, or sizes to make inputs with")
    paths = [_located(path) for path in (package, *against)]
    with Package(paths[0]) as opened:
        model_name = opened.select(model_name)
        takes = Takes.of(opened, model_name)
        compiled_for = opened.threads(model_name)
    for path in paths[1:]:
        with Package(path) as opened:
            opened.select(model_name)
    if inputs is not None:
        cases = [takes.given(list(inputs))]
    else:
        cases = takes.made(dims or {}, shapes or {}, settings.seed)
    date, machine = datetime.now(UTC), this_machine()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="aoti-bench-"))
        bench = _Bench(settings, source, scratch, say)
        stack.callback(bench.end)
        bench.choose(paths, model_name, engines)
        bench.start(cases[0][1])
        bench.prepare([made for _, made in cases])
        bench.take_turns(len(cases))
    notes = []
    if machine.load > _BUSY * machine.usable:
        notes.append(
            f"the machine was busy at the start (load {machine.load:.1f} on {machine.usable} "
            "processors): times will differ in another run; ratios are more reliable"
        )
    if compiled_for not in (None, settings.threads):
        notes.append(
            f"the package's kernels were compiled for {compiled_for} "
            f"thread{'s' if compiled_for != 1 else ''}; --threads does not change that"
        )
    if inputs is None and cases[0][0].sizes and not (dims or shapes):
        notes.append(f"dynamic sizes are the smallest that the model accepts: {cases[0][0]}")
    return bench.report(
        [case for case, _ in cases],
        notes,
        date=f"{date:%Y-%m-%d %H:%M}",
        package=str(package),
        model_name=model_name,
        machine=machine,
    )


class _Bench:
    """A run from the choice of engines to the report."""

    def __init__(self, settings: Settings, source: str | None, scratch: str, say: Progress) -> None:
        self.settings = settings
        self.source = source
        self.scratch = scratch
        self.say = say
        self.contestants: list[_Contestant] = []
        self.skipped: list[Skipped] = []

    def end(self) -> None:
        for one in self.contestants:
            if one.child is not None:
                one.child.end()

    def choose(self, paths: Sequence[str], model_name: str, engines: Sequence[str]) -> None:
        """Decide which engines run, and which cannot."""
        wanted = [(OURS, path) for path in paths]
        for name in dict.fromkeys(engines):
            obstacle = ENGINES[name].obstacle(self.settings.mode, self.source)
            if obstacle is not None:
                self.skipped.append(Skipped(name, obstacle))
            elif name != OURS:
                wanted.append((name, paths[0]))
        onnx = None
        if any(ENGINES[name].reads == "onnx" for name, _ in wanted):
            onnx = self._convert([name for name, _ in wanted if ENGINES[name].reads == "onnx"])
        labels = [OURS, *(f"{OURS} {Path(path).name}" for path in paths[1:])]
        for number, (name, path) in enumerate(wanted):
            kind = ENGINES[name]
            if kind.reads == "onnx" and onnx is None:
                continue
            job = Job(
                path,
                model_name,
                self.settings.mode,
                self.settings.runners,
                self.settings.threads or 1,
                self.source if kind.reads == "source" else None,
                onnx if kind.reads == "onnx" else None,
            )
            label = labels[number] if number < len(labels) else name
            self.contestants.append(_Contestant(label, kind, name, job))

    def _convert(self, names: Sequence[str]) -> str | None:
        self.say("exporting to ONNX", 0)
        path = str(Path(self.scratch) / "model.onnx")
        with self._child("aoti.bench.engines.onnx:convert", self.source, path) as child:
            try:
                return str(child.ask())
            except ChildError as error:
                reason = f"the module cannot be exported to ONNX: {error}"
                self.skipped += [Skipped(name, reason) for name in names]
                return None

    def _child(self, target: str, *arguments: Any) -> Child:
        inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or _inductor_cache()
        environment = {
            "OMP_NUM_THREADS": str(self.settings.threads),
            "MKL_NUM_THREADS": str(self.settings.threads),
            # Files of a killed process are removed with our directory; caches stay where they are.
            "TMPDIR": self.scratch,
            "TORCHINDUCTOR_CACHE_DIR": inductor,
            # No pool of compiling processes: they would leave our session.
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        path = (str(Path.cwd()),) if self.source is not None else ()
        return Child(target, *arguments, environment=environment, scratch=self.scratch, path=path)

    def start(self, inputs: Inputs) -> None:
        """Start all engines as often as requested; their last processes go on."""
        for _ in range(self.settings.starts):
            for one in self._each():
                self.say(f"starting {one.label}", 0)
                if one.child is not None:
                    one.child.end()
                target = one.kind.target
                one.child = self._child("aoti.bench.process.serve:serve", target, one.job, inputs)
                with self._may_drop(one):
                    one.starts.append((one.child.started_ns, one.ask()))

    def prepare(self, cases: Sequence[Inputs]) -> None:
        """Prepare and warm up all engines, and store what they compute."""
        for inputs in cases:
            for one in self._each():
                self.say(f"warming up {one.label}", 0)
                with self._may_drop(one):
                    ready: Prepared = one.ask(Prepare(inputs, self.settings.warmup))
                    one.outputs.append(ready.outputs)
                    one.prepared = ready.private
                    one.rounds.append([])

    def take_turns(self, cases: int) -> None:
        """The timed rounds. The order of the engines alternates from round to round."""
        rounds = self.settings.rounds
        seconds = self.settings.duration / rounds
        for number in range(rounds):
            for case in range(cases):
                part = (number * cases + case) / (rounds * cases)
                self.say(f"round {number + 1} of {rounds}", part)
                for one in self._each(backwards=number % 2 == 1):
                    with self._may_drop(one):
                        one.rounds[case].append(one.ask(Turn(case, seconds)))
        for one in self._each():
            with self._may_drop(one):
                one.finished = one.ask(Finish())
        self.say("done", 1)

    def _each(self, *, backwards: bool = False) -> list[_Contestant]:
        return self.contestants[::-1] if backwards else list(self.contestants)

    @contextlib.contextmanager
    def _may_drop(self, one: _Contestant) -> Any:
        """Drop an engine that fails, unless it is the first one."""
        try:
            yield
        except ChildError as error:
            if one is self.contestants[0]:
                if isinstance(error.__cause__, AotiError):
                    raise error.__cause__ from None
                raise ExecutionError(f"{one.job.package}: {error}") from None
            self.contestants.remove(one)
            self.skipped.append(Skipped(one.label, str(error)))
            assert one.child is not None
            one.child.end()

    def report(self, cases: Sequence[Case], notes: list[str], **about: Any) -> Report:
        """Compute the report."""
        measurements, edges = [], []
        for number, case in enumerate(cases):
            bins = statistics.bins([one.rounds[number] for one in self.contestants])
            edges.append(bins)
            for one in self.contestants:
                measurements.append(self._measurement(one, number, case, bins))
        shaky = max(measurements, key=lambda measured: measured.spread or 0)
        if (shaky.spread or 0) > _UNSTABLE:
            notes.append(
                f"unstable: rounds differ by up to ±{shaky.spread:.0%} "
                f"({' '.join(filter(None, (shaky.engine, str(cases[shaky.case]))))}); a quieter "
                "machine helps, or a longer --duration"
            )
        for measured in measurements:
            if measured.difference is not None and measured.difference.reason is not None:
                notes.append(
                    f"{measured.engine} gives other results than {measurements[0].engine}: "
                    f"{measured.difference.reason}"
                )
        return Report(
            settings=self.settings,
            cases=tuple(cases),
            engines=tuple(map(self._engine, self.contestants)),
            measurements=tuple(measurements),
            bins_ms=tuple(edges),
            skipped=tuple(self.skipped),
            notes=tuple(notes),
            **about,
        )

    def _measurement(
        self, one: _Contestant, number: int, case: Case, bins: tuple[float, ...]
    ) -> Measurement:
        first, rounds = self.contestants[0], one.rounds[number]
        medians = statistics.medians(rounds)
        low, high = statistics.middle(medians)
        per_second = median(r.calls / r.seconds for r in rounds)
        others = one is not first
        return Measurement(
            engine=one.label,
            case=number,
            calls=sum(r.calls for r in rounds),
            latency_ms=statistics.latency(rounds),
            rounds_ms=medians,
            low_ms=low,
            high_ms=high,
            spread=statistics.spread(medians),
            cpu_ms=median(r.cpu_seconds / r.calls for r in rounds) * 1e3,
            calls_per_second=per_second,
            rows_per_second=None if case.rows is None else per_second * case.rows,
            ratio=statistics.ratio(medians, statistics.medians(first.rounds[number]))
            if others
            else None,
            difference=(
                statistics.difference(one.outputs[number], first.outputs[number])
                if others
                else None
            ),
            histogram=statistics.histogram(rounds, bins),
        )

    def _engine(self, one: _Contestant) -> EngineRun:
        assert one.finished is not None
        last = one.starts[-1][1]

        def milliseconds(*spans: int) -> float:
            return median(spans) / 1e6

        return EngineRun(
            label=one.label,
            engine=one.engine,
            package=one.job.package if one.kind.reads == "package" else None,
            versions=last.versions,
            start=Start(
                answer_ms=milliseconds(*(s.answered_ns - begun for begun, s in one.starts)),
                import_ms=milliseconds(*(s.imported_ns - begun for begun, s in one.starts)),
                load_ms=milliseconds(*(s.loaded_ns - s.imported_ns for _, s in one.starts)),
                first_call_ms=milliseconds(*(s.answered_ns - s.loaded_ns for _, s in one.starts)),
            ),
            memory=Memory(
                library_private=last.private_before,
                model_private=last.private_after - last.private_before,
                growth_private=one.finished.private - one.prepared,
                resident=one.finished.resident,
                peak_resident=one.finished.peak_resident,
            ),
        )


def _located(path: str | os.PathLike[str]) -> str:
    model = resolve(path)
    return os.fspath(path) if model is None else str(model.path)


def _inductor_cache() -> str:
    """Where torch stores compiled code by default."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user's number has no name
        user = str(os.getuid())
    name = re.sub(r'[\\/:*?"<>|]', "_", user)
    return str(Path(tempfile.gettempdir()) / f"torchinductor_{name}")
