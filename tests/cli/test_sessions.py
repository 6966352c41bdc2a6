"""The verbs of the history as commands, on a real session of the demo's voice."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest
from websockets.sync.client import connect

from support import past_sessions
from tamulag.streamer.bench.rig.processes import end, free_port, wait_for
from tamulag.streamer.cli.sessions import row, transcript
from tamulag.streamer.storage.history_db import PastSession

BIN = Path(sys.executable).parent
LIMIT = 240.0
SCORE = b'"type":"sentiment"'
WORD = "wisdom"
"""The recogniser gets it right."""


def call(program: str, *arguments: str, state: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [BIN / program, *arguments],
        capture_output=True,
        timeout=LIMIT,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(state)},
    )


def streamed(state: Path, *options: str) -> bytes:
    """Keep a session of the demo and return its messages as JSON lines had them."""
    demo = ("--demo", "--speed", "max", "--duration", "12", "--websocket", "none", "--history")
    done = call("tamulag-stream", *demo, "--jsonl", "-", *options, state=state)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    state = tmp_path_factory.mktemp("state")
    return state, streamed(state)


def sessions(state: Path, *arguments: str) -> bytes:
    done = call("tamulag", "sessions", *arguments, state=state)
    assert done.returncode == 0, done.stderr
    return done.stdout


def only(state: Path) -> dict[str, Any]:
    (found,) = json.loads(sessions(state, "list", "--json"))["sessions"]
    assert isinstance(found, dict)
    return found


def test_a_session_is_listed_and_shown(kept: tuple[Path, bytes]) -> None:
    """By its name, with the words as they were told."""
    state, _ = kept
    name = only(state)["id"]
    assert name.encode() in sessions(state, "list")
    assert WORD.encode() in sessions(state, "show", name)


def test_json_lines_are_what_was_sent(kept: tuple[Path, bytes]) -> None:
    """The history misses no message and changes no byte."""
    state, sent = kept
    assert sessions(state, "export", only(state)["id"], "--format", "jsonl") == sent


def test_tables_have_a_row_for_each_score(kept: tuple[Path, bytes], tmp_path: Path) -> None:
    """CSV to the next program, Parquet into a file; a file that is there is not overwritten."""
    state, sent = kept
    name = only(state)["id"]
    count = sum(json.loads(line)["type"] == "sentiment" for line in sent.splitlines())
    assert pyarrow.csv.read_csv(io.BytesIO(sessions(state, "export", name))).num_rows == count
    out = tmp_path / "scores.parquet"
    arguments = ("sessions", "export", name, "--format", "parquet", "--out", str(out))
    assert call("tamulag", *arguments, state=state).returncode == 0
    assert pyarrow.parquet.read_table(out).num_rows == count
    again = call("tamulag", *arguments, state=state)
    assert again.returncode == 2
    assert b"name a new file" in again.stderr


def test_privacy_strict_keeps_no_word(tmp_path: Path) -> None:
    """Scores are kept; the word is in none of the history's files. And a session can be deleted."""
    streamed(tmp_path, "--privacy", "strict")
    name = only(tmp_path)["id"]
    files = b"".join(f.read_bytes() for f in (tmp_path / "tamulag").iterdir())
    assert SCORE in files
    assert WORD.encode() not in files.lower()
    assert sessions(tmp_path, "delete", name) == f"{name} is deleted\n".encode()
    assert sessions(tmp_path, "list") == b"no session yet\n"


@pytest.mark.parametrize("verb", ["show", "export", "delete"])
def test_a_session_that_is_not_there_is_one_line(kept: tuple[Path, bytes], verb: str) -> None:
    """Without a traceback, exit code 1."""
    done = call("tamulag", "sessions", verb, "x9", state=kept[0])
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_without_a_history_the_error_names_the_option(tmp_path: Path) -> None:
    """And nothing is made."""
    done = call("tamulag", "sessions", "list", state=tmp_path)
    assert done.returncode == 1
    assert b"tamulag-stream --history" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Run the demo with a history and give the state's folder and the server's address."""
    port = free_port()
    command = [
        str(BIN / "tamulag-stream"),
        "--demo",
        "--history",
        "--websocket",
        f"127.0.0.1:{port}",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
    )
    history = tmp_path / "tamulag" / "history.sqlite"
    try:
        wait_for(lambda: history.is_file() and SCORE in _all(history), LIMIT, "scores")
        yield tmp_path, f"127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        end(process)


def _all(history: Path) -> bytes:
    return b"".join(file.read_bytes() for file in history.parent.glob("history.sqlite*"))


def test_a_running_session_is_on_the_pages_and_can_be_deleted(running: tuple[Path, str]) -> None:
    """The list and the messages over HTTP; after `delete` an event says that it is not kept."""
    state, address = running
    with urllib.request.urlopen(f"http://{address}/sessions", timeout=30) as answer:
        (listed,) = json.load(answer)
    with urllib.request.urlopen(
        f"http://{address}/sessions/{listed['id']}?after=1", timeout=30
    ) as answer:
        shown = json.load(answer)
    assert shown["messages"][0]["seq"] == 2
    with connect(f"ws://{address}/") as websocket:
        sessions(state, "delete", listed["id"])
        told = next(m for m in map(json.loads, websocket) if m["type"] == "event")
    assert (told["event"], told["reason"]) == ("publisher_lost", "removed")
    assert sessions(state, "list") == b"no session yet\n"


PAST = PastSession(
    id="k7",
    started=past_sessions.EPOCH,
    ended=past_sessions.EPOCH + 83.0,
    seconds=83.004,
    mean_sentiment=-0.25,
    reason=None,
    hello=json.loads(past_sessions.hello()),
)


def test_a_row_is_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local time, minutes, and a session without an end says so."""
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    try:
        cells = row(PAST)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert cells == ("k7", "2026-11-24 07:00:00", "1:23", "-0.25", "customer", "no end")


def test_a_transcript_has_the_lines_of_the_terminal() -> None:
    """A header first, then a line per score and the end."""
    lines = list(transcript(PAST, [past_sessions.score(3), past_sessions.end(4)]))
    assert lines[0] == "session k7, 2026-11-24T06:00:00.000Z: script"
    assert "+1.00 positive" in lines[2]
    assert "session ended (stopped)" in lines[3]
