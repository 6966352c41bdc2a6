"""Draw the results of `bench stream` and `bench serve`.

Knows rows of results and matplotlib. Measures nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tamulag.models.bench.step_cost import HopCost

from .cpu_profile import Share
from .server_capacity import Batched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (6.4, 3.4)
"""Inches."""


def draw(rows: Sequence[HopCost], parts: Sequence[Share], folder: Path) -> list[Path]:
    """Write `performance-stream.png` and, if parts were measured, `performance-session.png`.

    For several sessions per step the name ends in their number, `performance-stream-64.png`.

    Args:
        rows: Results by length of the window.
        parts: Shares of a live session.
        folder: Created if it is missing.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    many = f"-{rows[0].sessions}" if rows[0].sessions > 1 else ""
    figures = {f"performance-stream{many}": _costs(rows)}
    if parts:
        figures["performance-session"] = _session(parts)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=120)
    return paths


def draw_steps(steps: Sequence[Batched], folder: Path) -> Path:
    """Write `performance-serve.png`: what a session costs in a step of many, and alone."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = _empty()
    axes = figure.subplots()
    sizes = [step.sessions for step in steps]
    axes.plot(sizes, [step.one_by_one_us for step in steps], "o-", label="one by one")
    axes.plot(sizes, [step.together_us for step in steps], "o-", label="in one step")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("sessions")
    axes.set_ylabel("µs per session and hop")
    axes.grid(alpha=0.3)
    axes.legend()
    path = folder / "performance-serve.png"
    figure.savefig(path, dpi=120)
    return path


def _costs(rows: Sequence[HopCost]) -> "Figure":
    figure = _empty()
    axes = figure.subplots()
    windows = [row.window for row in rows]
    for label, values in {
        "the window recomputed": [row.recompute_ms for row in rows],
        "from the state": [row.incremental_ms for row in rows],
        "the machine's limit": [row.limit_ms for row in rows],
    }.items():
        axes.plot(windows, values, "o-", label=label)
    axes.set_yscale("log")
    axes.set_xticks(windows)
    axes.set_xlabel("window, s")
    axes.set_ylabel(f"ms per hop of {rows[0].hop:g} s and session")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _session(parts: Sequence[Share]) -> "Figure":
    figure = _empty()
    axes = figure.subplots()
    bars = axes.barh([part.part for part in parts], [part.cores for part in parts])
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("of a core")
    return figure


def _empty() -> "Figure":
    # A figure without pyplot needs no display and is not stored in a global list.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
