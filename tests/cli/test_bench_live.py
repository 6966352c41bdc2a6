"""`tamulag bench live` on CSVs of texts and of media files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.sound_files import two_sentences
from tamulag.streamer.cli.main import app

KEYS = {
    "n",
    "alone_MAE",
    "alone_Corr",
    "turn_MAE",
    "turn_Corr",
    "opposite_sign_0s",
    "opposite_sign_1s",
}


def measured(*options: str) -> dict[str, float]:
    done = CliRunner().invoke(app, ["bench", "live", "--json", *options])
    assert done.exit_code == 0, done.output
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_sentence_is_scored_as_if_it_were_alone(tmp_path: Path) -> None:
    """Also right behind an opposite one; the rows stand in the order of their clips."""
    path = tmp_path / "texts.csv"
    path.write_text(
        "video_id,clip_id,text,label\n"
        "v,2,this is the worst film i have ever seen,-2.5\n"
        "v,1,i loved it and it was wonderful,2.5\n"
        "w,1,what a beautiful and great movie,2.5\n"
    )
    found = measured("--data", str(path))
    assert found.keys() >= KEYS
    assert (found["n"], found["opposite"]) == (3, 1)
    assert found["turn_MAE"] == pytest.approx(found["alone_MAE"], abs=0.2)
    assert (found["opposite_sign_0s"], found["opposite_sign_1s"]) == (1.0, 1.0)


def test_neutral_clips_of_a_speaker_are_one_stream(tmp_path: Path) -> None:
    """With labels of 0 throughout, what moves is measured."""
    two_sentences(tmp_path)
    path = tmp_path / "media.csv"
    path.write_text("file,speaker,label\na.wav,one,0\nb.wav,one,0\n")
    found = measured("--data", str(path), "--head", "audio")
    assert found.keys() >= {*KEYS, "neutral_deviation", "neutral_label_changes"}
    assert found["n"] == 2
    assert found["neutral_deviation"] > 0
