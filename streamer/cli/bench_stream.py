"""The verb that measures one live session and its model: `tamulag bench stream`.

Knows its options and what it prints. Parts are imported only when it runs.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from .bench import table
from .data import Json, quiet_threads

Figures = dict[str, object]
"""A row by the names of its columns."""


def register(bench_app: typer.Typer) -> None:
    """Add the verb of this file to `tamulag bench`."""
    bench_app.command("stream")(bench_stream)


def bench_stream(
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    repeats: Annotated[int, typer.Option(min=10, help="Hops timed per window and way.")] = 200,
    sessions: Annotated[
        int, typer.Option(min=1, help="Stepped together; the figures are for one of them.")
    ] = 1,
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="Of the live session that is watched.")
    ] = 30.0,
    source: Annotated[
        Path | None, typer.Option(help="Clip for the live session. Default: those of --demo.")
    ] = None,
    model_only: Annotated[
        bool, typer.Option("--model-only", help="No processes: the first table alone.")
    ] = False,
    onnx: Annotated[
        Path | None, typer.Option(help="File of `tamulag export`: its hops beside torch's.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
    as_json: Json = False,
) -> None:
    """Measure what a hop costs by the window's length, and what a live session takes. Linux only.

    First the model on one thread: from its state, against the whole window. Then each part of
    a session; then fresh processes: the command line, a start, a session that is watched.

    Example: tamulag bench stream --plot pictures
    """
    if sys.platform != "linux" and not model_only:
        raise typer.BadParameter("time and memory are read from Linux's /proc: add --model-only")
    quiet_threads()
    from tamulag.models.bench.step_cost import costs, exported_cost, machine

    best = machine()
    rows = costs(best, checkpoint, sessions=sessions, repeats=repeats)
    report: dict[str, Figures | list[Figures]] = {"machine": best._asdict()}
    report["rows"] = [row._asdict() for row in rows]
    if onnx is not None:
        row = exported_cost(onnx, checkpoint, sessions=sessions, repeats=repeats)
        report["exported"] = row._asdict()
    parts = []
    if not model_only:
        from ..bench import process_footprint
        from ..bench.cpu_profile import shares

        print("each part of a session", file=sys.stderr)
        parts = shares(checkpoint=checkpoint)
        report["parts"] = [part._asdict() for part in parts]
        print("fresh processes", file=sys.stderr)
        report["start"] = process_footprint.start()._asdict()
        chosen = ["--demo"] if source is None else ["--source", str(source)]
        live = process_footprint.session([*chosen, "--loop", "--checkpoint", checkpoint], seconds)
        report["session"] = live._asdict()
    if plot is not None:
        from ..bench.charts import draw

        print("drawn:", *draw(rows, parts, plot), file=sys.stderr)
    if as_json:
        print(json.dumps(report))
    else:
        _show(report)


def _show(report: Mapping[str, Figures | list[Figures]]) -> None:
    for name, value in report.items():
        print(f"{name}:\n")
        table(value if isinstance(value, list) else [value])
        print()
