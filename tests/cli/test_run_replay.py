"""One run of `tamulag replay` inside the process: exit codes, and what is printed where."""

import json
from pathlib import Path

import pytest

from support.recordings import inputs, record
from tamulag.models import TamUlag
from tamulag.streamer.cli.run_replay import run_replay

QUIET: dict[str, object] = {"source.speed": "max", "websocket.enabled": False}


def test_a_replay_writes_the_lines_of_the_session(
    tmp_path: Path, model: TamUlag, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--jsonl -` has nothing but messages on standard output."""
    sent = record(tmp_path, model)
    assert run_replay(tmp_path / "records", None, None, QUIET | {"jsonl.path": "-"}) == 0
    out, err = capfd.readouterr()
    kept = [json.loads(line) for line in sent.all]
    again = [json.loads(line) for line in out.splitlines()]
    for message in (*kept, *again):
        for key in ("session", "time", "latency"):
            message.pop(key, None)
    assert again == kept
    assert err == ""


def test_a_person_is_informed_which_session_it_was(
    tmp_path: Path, model: TamUlag, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without JSON lines there is a line per score."""
    record(tmp_path, model, inputs(1.0))
    assert run_replay(tmp_path / "records", None, None, QUIET) == 0
    out = capfd.readouterr().out
    assert "replay of session" in out
    assert "session ended" in out


def test_a_cut_is_reported(
    tmp_path: Path, model: TamUlag, capfd: pytest.CaptureFixture[str]
) -> None:
    """A recording that was killed can be replayed, and says so."""
    record(tmp_path, model, inputs(1.0))
    (file,) = (tmp_path / "records").rglob("*.arrows")
    file.write_bytes(file.read_bytes()[:-20])
    assert run_replay(tmp_path / "records", None, None, QUIET) == 0
    assert "the recording is cut" in capfd.readouterr().err


def test_what_a_person_can_mend_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No traceback; exit code 1, or 2 for a wrong option."""
    assert run_replay(tmp_path / "none", None, None, QUIET) == 1
    assert run_replay(tmp_path, None, None, QUIET | {"mqtt.url": "http://x"}) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"tamulag: recording {tmp_path}/none not found: name the folder")


def test_damage_in_the_middle_is_one_line(
    tmp_path: Path, model: TamUlag, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was sent before is closed in order."""
    record(tmp_path, model, inputs(1.0))
    (file,) = (tmp_path / "records").rglob("*.arrows")
    file.write_bytes(file.read_bytes().replace(b'"type":"sentiment"', b'"type":"sediment_"'))
    assert run_replay(tmp_path / "records", None, None, QUIET) == 1
    assert "tamulag: recording holds a damaged message" in capfd.readouterr().err
