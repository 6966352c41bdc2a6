"""`tamulag bench stream`, as people type it."""

import json
from pathlib import Path

from typer.testing import CliRunner

from support.onnx_exports import Exported
from tamulag.streamer.cli.main import app

ASKED = ["bench", "stream", "--model-only", "--repeats", "10"]


def test_one_object_with_the_keys(tmp_path: Path) -> None:
    """Rows by window, the machine, and the picture."""
    done = CliRunner().invoke(app, [*ASKED, "--plot", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [row["window"] for row in report["rows"]] == [5.0, 10.0, 30.0, 60.0]
    wanted = {"window", "hop", "incremental_ms", "recompute_ms", "ratio"}
    assert all(wanted <= row.keys() for row in report["rows"])
    assert {"processor", "cores", "torch", "threads"} <= report["machine"].keys()
    assert [path.name for path in tmp_path.iterdir()] == ["performance-stream.png"]


def test_tables_for_people() -> None:
    """The machine first, then a line per window."""
    shown = CliRunner().invoke(app, ASKED).stdout
    assert shown.index("| processor |") < shown.index("| window | hop | sessions |")
    assert shown.count("\n| 30.000 | 0.500 | 1 |") == 1


def test_an_exported_file_has_its_row(exported: Exported) -> None:
    """Beside torch, of the checkpoint it was made from."""
    files = ["--checkpoint", exported.checkpoint, "--onnx", str(exported.file)]
    done = CliRunner().invoke(app, [*ASKED, *files, "--json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["exported"]
    assert row["window"] == 2.0
    assert row["onnxruntime_ms"] > 0
