"""A report as a plot, by matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from aoti.bench.engines.registry import OURS
from aoti.bench.report import tables
from aoti.bench.report.report import Report
from aoti.bench.report.units import duration
from aoti.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS, _OTHERS = "#d9480f", "#7c8794"
_BAR_CASES = 3  # for more cases, lines are easier to read
_HEIGHT = 0.38  # inches of a bar


def require_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("a picture needs matplotlib: pip install 'aoti-runtime[bench]'")


def save_picture(report: Report, file: str | IO[bytes], kind: str = "png") -> None:
    """Draw a report: latencies with the range of the rounds, and times to the first answer.

    Parameters
    ----------
    report : Report
        The report.
    file : str or binary file
        The file to write.
    kind : {'png', 'svg'}
        The format.

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    """
    lines = len(report.cases) > _BAR_CASES
    panels = 2 if lines else len(report.cases) + 1
    caption = f"{report.machine.cpu}; {tables.method(report)}; {report.date}"
    figure, axes = figure_of(panels, len(report.engines), caption)
    if lines:
        _lines(axes[0], report)
    else:
        for number in range(len(report.cases)):
            _latencies(axes[number], report, number)
    answers = [engine.start.answer_ms for engine in report.engines]
    names = [engine.label for engine in report.engines]
    bars(axes[-1], "from process start to first answer", names, answers)
    save(figure, file, kind)


def figure_of(panels: int, most_bars: int, caption: str) -> tuple[Figure, Sequence[Axes]]:
    """A figure with so many panels side by side, with room for so many bars.

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    height = max(2.2, 1.1 + _HEIGHT * most_bars) + 0.5
    figure = Figure(figsize=(3.6 * panels, height), layout="constrained")
    figure.suptitle(caption, fontsize=7)
    axes: Sequence[Axes] = figure.subplots(1, panels, squeeze=False)[0]
    return figure, axes


def bars(
    axes: Axes,
    title: str,
    labels: Sequence[str],
    values: Sequence[float],
    ranges: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """Bars of milliseconds, with error bars: the distances below and above each value."""
    colours = [_OURS if label.startswith(OURS) else _OTHERS for label in labels]
    places = list(range(len(labels)))
    axes.barh(places, values, xerr=ranges, color=colours, height=0.6, ecolor="#343a40", capsize=2)
    ends = [value + (ranges[1][n] if ranges else 0) for n, value in enumerate(values)]
    for place, value, end in zip(places, values, ends, strict=True):
        axes.text(end + max(ends) * 0.02, place, duration(value), va="center", fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.set_yticks(places, labels, fontsize=8)
    axes.set_xlim(0, max(ends) * 1.25)
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def save(figure: Figure, file: str | IO[bytes], kind: str) -> None:
    """Write a figure as png or svg. Text stays text, and the same figure gives the same file."""
    import matplotlib as mpl

    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": OURS}):
        figure.savefig(file, format=kind, dpi=150, metadata=metadata)


def _latencies(axes: Axes, report: Report, number: int) -> None:
    found = report.of_case(number)
    medians = [measured.latency_ms.median for measured in found]
    below = [max(0, m.latency_ms.median - m.low_ms) for m in found]
    above = [max(0, m.high_ms - m.latency_ms.median) for m in found]
    title = f"time of a call, {report.cases[number]}".rstrip(", ")
    bars(axes, title, [measured.engine for measured in found], medians, (below, above))


def _lines(axes: Axes, report: Report) -> None:
    places = range(len(report.cases))
    for engine in report.engines:
        found = [m for m in report.measurements if m.engine == engine.label]
        (line,) = axes.plot(
            places, [m.latency_ms.median for m in found], marker="o", label=engine.label
        )
        low, high = [m.low_ms for m in found], [m.high_ms for m in found]
        axes.fill_between(places, low, high, alpha=0.15, color=line.get_color())
    axes.set_xticks(list(places), [str(case) for case in report.cases], rotation=30, fontsize=7)
    axes.set_yscale("log")
    axes.set_ylabel("ms a call")
    axes.legend(frameon=False, fontsize=7)
