"""`tamulag bench scales` on the shipped checkpoint and texts of a training file."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tamulag.streamer.cli.main import app

CONFIG = """
[tune]
train = ["{0}"]
valid = ["{0}"]
data = "a few sentences"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a training file whose validation rows are 48 sentences of as many videos."""
    rows = [
        (f"v{k}", f"the {thing} was {word}", label)
        for k, (thing, (word, label)) in enumerate(
            (thing, word)
            for thing in ["film", "story", "music", "acting", "ending", "hero"]
            for word in (("great", 2), ("good", 1.5), ("nice", 1), ("odd", -0.5)) * 2
        )
    ]
    table = "".join(f"{video},{text},{label},valid\n" for video, text, label in rows)
    path = tmp_path / "texts.csv"
    path.write_text(f"video_id,text,label,mode\n{table}")
    settings = tmp_path / "mine.toml"
    settings.write_text(CONFIG.format(path))
    return settings


def test_each_head_of_the_file_has_both_widths(config: Path) -> None:
    """Words alone have no pair; the figures are numbers, the half widths of the right size."""
    command = ["bench", "scales", "--config", str(config)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1], parse_constant=pytest.fail)
    assert [(row["head"], row["width"], row["n"]) for row in found["rows"]] == [
        ("text", "level", 24),
        ("text", "scale", 24),
    ]
    assert found["pairs"] == []
    for row in found["rows"]:
        assert -3 < row["laplace"] < 3
        assert 0.1 < row["half"] < 3
        assert 0.5 < row["covered"] <= 1
    again = CliRunner().invoke(app, [*command, "--json"])
    assert again.stdout == done.stdout
