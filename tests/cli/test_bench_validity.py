"""`tamulag bench validity` on a folder of CSVs."""

import json
from pathlib import Path

import pytest
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


def test_words_are_recognised_where_there_is_no_text(tmp_path: Path) -> None:
    """With a recogniser a sound has a row of the words too, and the fused one differs."""
    speech = read(packaged("moonshine_voice", "assets/beckett.wav"))
    sound_file(tmp_path / "a.wav", speech[:64000])
    (tmp_path / "read.csv").write_text("file,speaker,label\na.wav,one,0\n")
    command = ["bench", "validity", "--data", str(tmp_path), "--workers", "1", "--json"]
    done = CliRunner().invoke(app, [*command, "--asr", "moonshine"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout.splitlines()[-1], parse_constant=pytest.fail)["rows"]
    assert [row["head"] for row in rows] == ["text", "audio", "all"]
    assert rows[2]["figures"]["mean"] != rows[1]["figures"]["mean"]
    assert rows[0]["intervals"]["mean"] == [None, None]


def test_a_wrong_table_is_reported_before_anything_is_played(tmp_path: Path) -> None:
    """Also where it comes last: its name and the column, and no bar of the others."""
    sound_file(tmp_path / "a.wav", read(packaged("moonshine_voice", "assets/beckett.wav"))[:16000])
    (tmp_path / "a.csv").write_text("file,label\na.wav,0\n")
    (tmp_path / "z.csv").write_text("file,emotion\na.wav,happy\n")
    done = CliRunner().invoke(app, ["bench", "validity", "--data", str(tmp_path)])
    assert "z.csv: column label is missing" in str(done.exception)
    assert "extract" not in done.stderr


def test_a_group_with_nothing_to_score_is_named(tmp_path: Path) -> None:
    """The table has no row of it, and the others stand."""
    (tmp_path / "empty.csv").write_text("text,label\n,0\n,1\n")
    (tmp_path / "words.csv").write_text("text,label\nwhat a great day,2\nhow awful,-2\n")
    done = CliRunner().invoke(app, ["bench", "validity", "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "empty.csv: no head has anything to score in it" in done.stderr
    assert "| words | text | 2 |" in done.stdout
    assert "| empty" not in done.stdout
