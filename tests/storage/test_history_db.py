"""The file of past sessions: whole after a kill, shared, bounded, and empty of what was removed."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from support.past_sessions import EPOCH, end, hello, score
from tamulag.streamer.storage.history_db import (
    KILLED_AFTER,
    HistoryDb,
    HistoryError,
    HistoryFull,
    default_path,
)

DAY = 86400.0
WRITER = """
import sys
from pathlib import Path
from support.past_sessions import hello, score
from tamulag.streamer.storage.history_db import HistoryDb
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with HistoryDb(path, create=True) as store:
    key = store.begin(hello(name))
    for seq in range(1, count + 1):
        store.append(key, [score(seq, session=name)])
        print(seq, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "history.sqlite"


def writer(path: Path, name: str, count: int) -> "subprocess.Popen[str]":
    """Start a program that keeps a session of `count` scores and prints each that is kept."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        )
    }
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def keep(store: HistoryDb, name: str, epoch: float, count: int = 40, *, ends: bool = True) -> int:
    """Keep a whole session and return its key."""
    key = store.begin(hello(name, epoch))
    lines = [score(n, session=name, epoch=epoch) for n in range(1, count + 1)]
    store.append(key, [*lines, *([end(count + 1, session=name, epoch=epoch)] if ends else [])])
    return key


def names(store: HistoryDb) -> list[str]:
    return [past.id for past in store.sessions()]


def test_messages_come_back_as_they_were_sent(path: Path) -> None:
    """To the byte and in order; also some of them alone."""
    lines = [score(n) for n in range(1, 8)]
    with HistoryDb(path, create=True) as store:
        key = store.begin(hello())
        store.append(key, lines[:3])
        store.append(key, lines[3:])
        assert list(store.messages("k7")) == lines
        assert list(store.messages("k7", after=2, limit=3)) == lines[2:5]


def test_a_session_is_summed_up(path: Path) -> None:
    """Start, end, length, mean of the scores that are numbers, and why it ended."""
    with HistoryDb(path, create=True) as store:
        key = store.begin(hello())
        store.append(key, [score(1, 1.0), score(2, None), score(3, -0.5)])
        store.append(key, [end(8)])
        past = store.session("k7")
    assert (past.started, past.ended, past.seconds) == (EPOCH, EPOCH + 4, 4.0)
    assert past.mean_sentiment == 0.25
    assert past.reason == "stopped"
    assert past.hello["checkpoint"] == "tiny"


def test_sessions_are_listed_newest_first(path: Path) -> None:
    """And no more than were asked for."""
    with HistoryDb(path, create=True) as store:
        for n in range(3):
            keep(store, f"s{n}", EPOCH + n, 1)
        assert [past.id for past in store.sessions(2)] == ["s2", "s1"]


def test_only_its_owner_can_read_it(path: Path) -> None:
    """Words of people are in it, and in the files beside it."""
    with HistoryDb(path, create=True) as store:
        keep(store, "k7", EPOCH)
        assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}
        assert path.parent.stat().st_mode & 0o077 == 0


def test_a_killed_writer_loses_nothing_that_was_stored(path: Path) -> None:
    """After SIGKILL the file is whole and has every message that was said to be kept."""
    process = writer(path, "k7", 100_000)
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in range(50)]
    process.kill()
    process.wait(10)
    printed += process.stdout.readlines()
    process.stdout.close()
    last = max(int(line) for line in printed if line.endswith("\n"))
    with HistoryDb(path) as store:
        kept = list(store.messages("k7"))
        assert store._open.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store.session("k7").reason is None
    assert kept[:last] == [score(n) for n in range(1, last + 1)]


def test_two_programs_begin_and_write_at_once(path: Path) -> None:
    """Neither waits for the other to end, and nothing is lost; also when the file is new."""
    processes = [writer(path, name, 150) for name in ("s1", "s2")]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0]
    with HistoryDb(path) as store:
        for name in ("s1", "s2"):
            assert len(list(store.messages(name))) == 150


def test_what_is_deleted_is_gone_from_the_disk(path: Path) -> None:
    """The word is in the file before, and in none of its files after."""
    with HistoryDb(path, create=True) as store:
        key = store.begin(hello())
        store.append(key, [score(n, word="rumpelstiltskin") for n in range(1, 100)])
        assert b"rumpelstiltskin" in b"".join(f.read_bytes() for f in path.parent.iterdir())
        store.delete("k7")
        assert names(store) == []
        assert b"rumpelstiltskin" not in b"".join(f.read_bytes() for f in path.parent.iterdir())
    assert path.stat().st_size < 50_000


def test_sessions_are_deleted_all_or_none(path: Path) -> None:
    """A name that is not there is found before anything is gone."""
    with HistoryDb(path, create=True) as store:
        keep(store, "a", EPOCH)
        keep(store, "b", EPOCH + 1000)
        with pytest.raises(HistoryError, match="no session 'x'"):
            store.delete("a", "x")
        assert names(store) == ["b", "a"]
        assert store.delete("a", "b")
        assert names(store) == []


def test_old_sessions_are_removed(path: Path) -> None:
    """Those whose end is longer ago than allowed, and no other."""
    with HistoryDb(path, create=True) as store:
        keep(store, "old", EPOCH - 3 * DAY)
        keep(store, "new", EPOCH - DAY)
        own = keep(store, "own", EPOCH, ends=False)
        removed = store.prune({own}, now=EPOCH, max_age=2 * DAY, max_bytes=10**9)
        assert removed == (1, 0)
        assert names(store) == ["own", "new"]
        assert list(store.messages("old")) == []


def test_the_oldest_make_room(path: Path) -> None:
    """As many as it takes; the file is smaller than allowed afterwards."""
    with HistoryDb(path, create=True) as store:
        for n in range(5):
            keep(store, f"s{n}", EPOCH + 1000 * n, 200)
        limit = store.size // 2
        removed = store.prune((), now=EPOCH + 9000, max_age=DAY, max_bytes=limit)
        assert removed == (0, 3)
        assert names(store) == ["s4", "s3"]
    assert path.stat().st_size <= limit


def test_a_session_that_runs_is_never_removed(path: Path) -> None:
    """Of another agent neither, until it was silent for a minute: then it was killed."""
    with HistoryDb(path, create=True) as store:
        keep(store, "other", EPOCH, 200, ends=False)
        own = keep(store, "own", EPOCH, 1, ends=False)
        small = {"max_age": 1.0, "max_bytes": 60_000}
        with pytest.raises(HistoryFull, match=r"raise history\.max_size"):
            store.prune({own}, now=EPOCH + 101, **small)  # type: ignore[arg-type]
        assert store.prune({own}, now=EPOCH + 101 + KILLED_AFTER, **small) == (1, 0)  # type: ignore[arg-type]
        assert names(store) == ["own"]


def test_a_session_that_was_removed_is_not_written_on(path: Path) -> None:
    """Deleting a running session is allowed."""
    with HistoryDb(path, create=True) as store:
        key = store.begin(hello())
        store.delete("k7")
        with pytest.raises(HistoryError, match="was removed"):
            store.append(key, [score(1)])


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    """It is neither read wrongly nor written to."""
    HistoryDb(path, create=True).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="tables of version 2, this program knows 1"):
        HistoryDb(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    """A wrong path must not add tables to somebody's database."""
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    with pytest.raises(HistoryError, match="of another program"):
        HistoryDb(path, create=True)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"\0" * 5000])
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    """In one sentence that names it."""
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=r"history\.sqlite"):
        HistoryDb(path, create=True)
    assert path.read_bytes() == content


def test_without_a_file_the_error_names_the_option(path: Path) -> None:
    """Reading makes no file."""
    with pytest.raises(HistoryError, match="tamulag-stream --history"):
        HistoryDb(path)
    assert not path.exists()


def test_a_session_that_is_not_there_is_named(path: Path) -> None:
    """With the verb that lists those that are."""
    with (
        HistoryDb(path, create=True) as store,
        pytest.raises(HistoryError, match=r"'x9'.*sessions list"),
    ):
        store.session("x9")


def test_the_usual_place_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the variable that Linux has for it."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "tamulag" / "history.sqlite"


def test_a_session_that_was_handed_over_continues_its_entry(path: Path) -> None:
    """Its numbers go on; a new session of the same name gets an entry of its own."""
    with HistoryDb(path, create=True) as store:
        first = store.begin(hello("seat-7"))
        store.append(first, [score(1, session="seat-7"), score(2, session="seat-7")])
        again = hello("seat-7").replace('"seq":0', '"seq":3')
        assert store.begin(again) == first
        other = store.begin(hello("seat-7"))
        assert other != first
        store.append(other, [score(1, session="seat-7")])
        assert {past.id for past in store.sessions()} == {"seat-7", "seat-7-2"}
