"""`tamulag bench validity` on a folder of CSVs."""

import json
from pathlib import Path

from typer.testing import CliRunner

from support.sound_files import sound_file
from support.speech import packaged, read
from tamulag.streamer.cli.main import app


def test_each_csv_is_a_group(tmp_path: Path) -> None:
    """Words and voices, each by its heads and fused; a lone modality is what its head says."""
    speech = read(packaged("moonshine_voice", "assets/beckett.wav"))
    sound_file(tmp_path / "a.wav", speech[:48000])
    (tmp_path / "neutral.csv").write_text("file,speaker,label\na.wav,one,0\n")
    (tmp_path / "words.csv").write_text("text,label\nwhat a great day,2\nhow awful,-2\n")
    command = ["bench", "validity", "--data", str(tmp_path), "--workers", "1", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [(row["group"], row["head"], row["n"]) for row in rows] == [
        ("neutral", "audio", 1),
        ("neutral", "all", 1),
        ("words", "text", 2),
        ("words", "all", 2),
    ]
    for lone, fused in (rows[:2], rows[2:]):
        assert lone["figures"] == fused["figures"]
    assert rows[2]["figures"]["sign"] == 1.0
    assert rows[0]["figures"]["covered"] in (0.0, 1.0)


def test_a_folder_without_a_csv_is_named(tmp_path: Path) -> None:
    """With what it should hold."""
    done = CliRunner().invoke(app, ["bench", "validity", "--data", str(tmp_path)])
    assert done.exit_code != 0
    assert "holds no CSV" in f"{done.output}{done.exception}"
