"""The verbs of the history as commands, on a real session of the demo's voice."""

import io
import json
import os
import shutil
import signal
import subprocess
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
from support.command_line import call
from support.demo_sessions import WORDS, kept_once
from support.fork_server import Command
from tamulag.streamer.bench.rig.processes import free_port, wait_for
from tamulag.streamer.cli.sessions import row, transcript
from tamulag.streamer.storage.history_db import PastSession

pytestmark = pytest.mark.timeout(300)

SCORE = b'"type":"sentiment"'
WORD = WORDS[0]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the state of a session of the demo, and its messages as JSON lines had them."""
    session = kept_once(tmp_path_factory, strict=False)
    return session.state, session.lines.read_text()


def sessions(state: Path, *arguments: str) -> str:
    done = call("tamulag", "sessions", *arguments, XDG_STATE_HOME=state)
    assert done.returncode == 0, done.stderr
    return done.stdout


def only(state: Path) -> dict[str, Any]:
    (found,) = json.loads(sessions(state, "list", "--json"))["sessions"]
    assert isinstance(found, dict)
    return found


def test_a_session_is_listed_and_shown(kept: tuple[Path, str]) -> None:
    """By its name, with the words as they were told."""
    state, _ = kept
    name = only(state)["id"]
    assert name in sessions(state, "list")
    assert WORD in sessions(state, "show", name)


def test_json_lines_are_what_was_sent(kept: tuple[Path, str]) -> None:
    """The history misses no message and changes no byte."""
    state, sent = kept
    assert sessions(state, "export", only(state)["id"], "--format", "jsonl") == sent


def test_tables_have_a_row_for_each_score(kept: tuple[Path, str], tmp_path: Path) -> None:
    """CSV to the next program, Parquet into a file; a file that is there is not overwritten."""
    state, sent = kept
    name = only(state)["id"]
    count = sum(json.loads(line)["type"] == "sentiment" for line in sent.splitlines())
    assert (
        pyarrow.csv.read_csv(io.BytesIO(sessions(state, "export", name).encode())).num_rows == count
    )
    out = tmp_path / "scores.parquet"
    arguments = ("sessions", "export", name, "--format", "parquet", "--out", str(out))
    assert call("tamulag", *arguments, XDG_STATE_HOME=state).returncode == 0
    assert pyarrow.parquet.read_table(out).num_rows == count
    again = call("tamulag", *arguments, XDG_STATE_HOME=state)
    assert again.returncode == 2
    assert "name a new file" in again.stderr


def test_privacy_strict_keeps_no_word(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Scores are kept; the word is in none of the history's files. And a session can be deleted."""
    strict = kept_once(tmp_path_factory, strict=True)
    shutil.copytree(strict.state, tmp_path, dirs_exist_ok=True)
    name = only(tmp_path)["id"]
    files = b"".join(f.read_bytes() for f in (tmp_path / "tamulag").iterdir())
    assert SCORE in files
    assert WORD.encode() not in files.lower()
    assert sessions(tmp_path, "delete", name) == f"{name} is deleted\n"
    assert sessions(tmp_path, "list") == "no session yet\n"


@pytest.mark.parametrize("verb", ["show", "export", "delete"])
def test_a_session_that_is_not_there_is_one_line(kept: tuple[Path, str], verb: str) -> None:
    """Without a traceback, exit code 1."""
    done = call("tamulag", "sessions", verb, "x9", XDG_STATE_HOME=kept[0])
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_without_a_history_the_error_names_the_option(tmp_path: Path) -> None:
    """And nothing is made."""
    done = call("tamulag", "sessions", "list", XDG_STATE_HOME=tmp_path)
    assert done.returncode == 1
    assert "tamulag-stream --history" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Run the demo with a history and give the state's folder and the server's address."""
    port = free_port()
    command = [
        "tamulag-stream",
        "--demo",
        "--history",
        "--websocket",
        f"127.0.0.1:{port}",
    ]
    quiet = subprocess.DEVNULL
    state = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    process = Command(command, stdout=quiet, stderr=quiet, env=state)
    history = tmp_path / "tamulag" / "history.sqlite"
    try:
        wait_for(lambda: history.is_file() and SCORE in _all(history), 240.0, "scores")
        yield tmp_path, f"127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.close()


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
    assert sessions(state, "list") == "no session yet\n"


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
