"""Deleted words leave the disk, or the command says that they did not."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import Done, call
from support.past_sessions import end, hello, score
from tamulag.streamer.storage import history_db
from tamulag.streamer.storage.history_db import HistoryDb

WORD = "rumpelstiltskin"
READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN")
print(db.execute("SELECT count(*) FROM messages").fetchone()[0], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a history of one session whose words are in it."""
    monkeypatch.setattr(history_db, "BUSY_TIMEOUT", 0.2)
    found = tmp_path / "history.sqlite"
    with HistoryDb(found, create=True) as store:
        key = store.begin(hello())
        lines = [score(number, word=WORD) for number in range(1, 40)]
        store.append(key, [*lines, end(40)])
    return found


def words_in(path: Path) -> int:
    files = path.parent.glob(f"{path.name}*")
    return sum(file.read_bytes().count(WORD.encode()) for file in files)


def delete(path: Path) -> Done:
    return call("tamulag", "sessions", "delete", "k7", "--history", path)


def test_a_reader_keeps_words_and_that_is_said(path: Path) -> None:
    """One line, exit code 1; the session is gone, and the next open overwrites its words."""
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM messages").fetchone() == (40,)
    done = delete(path)
    assert (done.returncode, done.stdout) == (1, "k7 is deleted\n")
    assert "on the disk still" in done.stderr
    assert "tamulag sessions list" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert words_in(path) > 0
    with HistoryDb(path) as store:
        assert store.sessions() == []
    assert words_in(path) > 0  # it reads still
    reader.execute("COMMIT")
    assert words_in(path) > 0
    listed = call("tamulag", "sessions", "list", "--history", path)
    assert (listed.returncode, listed.stdout) == (0, "no session yet\n")
    assert words_in(path) == 0  # though `reader` is open
    reader.close()


def test_a_reader_that_was_killed_keeps_nothing(path: Path) -> None:
    """It is another program, which cannot tidy up any more."""
    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"40\n"
        assert delete(path).returncode == 1
        reader.kill()
    assert words_in(path) > 0
    HistoryDb(path).close()
    assert words_in(path) == 0


def test_without_a_reader_nothing_is_left(path: Path) -> None:
    """Exit code 0, though a server has the file open."""
    with HistoryDb(path):
        done = delete(path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "k7 is deleted\n", "")
        assert words_in(path) == 0
