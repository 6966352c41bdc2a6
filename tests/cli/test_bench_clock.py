"""`tamulag bench clock` places the sound of a few devices."""

import json

from typer.testing import CliRunner

from tamulag.streamer.cli.main import app


def test_nothing_of_complete_sound_is_lost() -> None:
    """The last line is one JSON object, and its devices lost nothing."""
    command = ["bench", "clock", "--devices", "3", "--seconds", "20", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    row = json.loads(done.stdout.splitlines()[-1])
    assert (row["devices"], row["gaps"], row["dropped_max"], row["invented_total"]) == (3, 0, 0, 0)
    assert row["worst_error"] < 0.02
