"""Plots as PNG files: curves and bars, with intervals. matplotlib is loaded only when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.protocol.errors import HyperGPUError

INCHES = (6.4, 4.2)
"""Of one panel."""
COLUMNS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """A panel of lines by name; points are (x, y), or (x, y, low, high) with a band."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, ...]]]
    log: Literal["", "x", "y", "xy"] = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """A panel of horizontal bars by name: (value,) or (value, low, high); `goal` is a line across them."""

    title: str
    x: str
    bars: Mapping[str, tuple[float, ...]]
    goal: float | None = None
    log: Literal["", "x"] = ""


Panel = Curves | Bars


def save_png(panels: Sequence[Panel], path: Path, *, title: str = "") -> None:
    """All panels in one file. Raises HyperGPUError `plot.no_matplotlib`, `plot.not_written`."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise HyperGPUError(
            "plot.no_matplotlib", "Plots need matplotlib: pip install 'hypergpu[simulation]', or leave the plot out."
        ) from error
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(INCHES[0] * columns, INCHES[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels):
        draw = draw_curves if isinstance(panel, Curves) else draw_bars
        draw(figure.add_subplot(rows, columns, place + 1), panel)
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise HyperGPUError("plot.not_written", f"The plot cannot be written to {path}: {error.strerror}.") from error


def draw_curves(axes: Any, panel: Any) -> None:
    for name, points in panel.lines.items():
        columns = list(zip(*points, strict=True))
        [line] = axes.plot(columns[0], columns[1], label=name, linewidth=1.5)
        if len(columns) == 4:
            axes.fill_between(columns[0], columns[2], columns[3], color=line.get_color(), alpha=0.15, linewidth=0)
    if "x" in panel.log:
        axes.set_xscale("log")
    if "y" in panel.log:
        axes.set_yscale("log")
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def draw_bars(axes: Any, panel: Any) -> None:
    for place, (value, *spread) in enumerate(panel.bars.values()):
        axes.barh(place, value, color="#4878a8")
        if spread:
            axes.plot(spread, [place, place], color="black", linewidth=1.2)
    axes.set_yticks(range(len(panel.bars)), list(panel.bars))
    axes.invert_yaxis()
    if panel.goal is not None:
        axes.axvline(panel.goal, color="#b04040", linestyle="--", linewidth=1, label="goal")
        axes.legend(fontsize="small")
    if panel.log:
        axes.set_xscale("log")
    axes.set(title=panel.title, xlabel=panel.x)
    axes.grid(alpha=0.3, axis="x")
