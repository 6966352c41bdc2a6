"""The verb of the exported model: export.

Knows its options and its output. Imports its parts when it runs.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .data import Json, quiet_threads

if TYPE_CHECKING:
    from ..offline.verify_onnx import ExportReport


def register(app: typer.Typer) -> None:
    """Add the verb of this file to the command line."""
    app.command()(export)


def export(
    onnx: Annotated[Path, typer.Option(help="File to write, .onnx.")],
    checkpoint: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "default",
    window: Annotated[
        float, typer.Option(min=1, max=60, help="Seconds, as session.window of the runs.")
    ] = 5.0,
    clip: Annotated[
        Path | None, typer.Option(help="Media file to check with. Default: that of --demo.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the model's step function for onnxruntime; no file if it differs from torch by 1e-4.

    Example: tamulag export --onnx default.onnx
    """
    if onnx.suffix != ".onnx":
        raise typer.BadParameter(f"--onnx {onnx}: give an .onnx file")
    quiet_threads()
    import torch

    from ..offline.verify_onnx import export_checked

    torch.set_num_threads(1)
    report = export_checked(
        checkpoint,
        onnx,
        window=window,
        clip=clip,
        report_stage=lambda text: print(text, file=sys.stderr),
    )
    _show(report, as_json)
    if not report.is_kept:
        print(f"tamulag: {onnx} differs too much from torch and was not stored", file=sys.stderr)
        raise typer.Exit(1)


def _show(report: "ExportReport", as_json: bool) -> None:
    worst = max(report.differences.values())
    speeds = [speed._asdict() for speed in report.speeds]
    if as_json:
        rest = {"hops": report.hops, "differences": dict(report.differences), "speeds": speeds}
        print(json.dumps({"max_abs_diff": worst, **rest}))
        return
    for name, difference in report.differences.items():
        print(f"{name:20} {difference:.2g}")
    print(f"{'max_abs_diff':20} {worst:.2g}, clip of {report.hops} hops")
    for row in report.speeds:
        ours, theirs = 1000 * row.torch, 1000 * row.onnxruntime
        print(
            f"batch {row.batch:3}, {row.words:2} words: torch {ours:.2f} ms, "
            f"onnxruntime {theirs:.2f} ms, {ours / theirs:.2f} times as fast"
        )
