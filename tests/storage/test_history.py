"""A session is kept while it runs, and its pages show it; a full disk ends the history alone."""

import asyncio
import json
import resource
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from support.past_sessions import EPOCH, end, hello, score
from support.waiting import until
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.storage.history import PAGE_LIMIT, QUEUE, History, summary
from tamulag.streamer.storage.history_db import HistoryDb, PastSession
from tamulag.streamer.webserver.rights import ALL
from tamulag.streamer.webserver.routes import Page

YEARS = 1e10
"""Seconds, so that sessions of this file are never too old."""

Told = list[tuple[str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def history(path: Path, told: Told | None = None, max_bytes: int = 10**9) -> History:
    heard: Told = [] if told is None else told
    return History(
        path,
        hello=lambda session: hello() if session is None else hello(session),
        report=lambda reason, detail: heard.append((reason, detail)),
        max_age=YEARS,
        max_bytes=max_bytes,
    )


def run(kept: History, scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a scenario while the history is open, 20 seconds at most."""

    async def main() -> None:
        async with asyncio.timeout(20):
            await kept.open()
            task = asyncio.create_task(kept.run())
            try:
                await scenario()
            finally:
                task.cancel()
                await kept.close()

    asyncio.run(main())


def keep(kept: History, lines: list[str]) -> None:
    """Publish lines and close."""

    async def scenario() -> None:
        for line in lines:
            kept.publish(json.loads(line)["type"], line)

    run(kept, scenario)


def lines_of(path: Path) -> list[str]:
    with HistoryDb(path) as store:
        return list(store.messages("k7"))


def answer(page: Page) -> tuple[int, object]:
    """Return status and value of a page, made as the server makes it."""
    made = page if page.later is None else page.later(ALL)
    assert made.kind == "application/json"
    return made.status.value, json.loads(made.body)


def page(kept: History, rest: str) -> tuple[int, object]:
    below = kept.routes()["/sessions"].below
    assert below is not None
    return answer(below(rest))


def test_what_is_published_is_stored(path: Path) -> None:
    """All of it, in order, when the history is closed."""
    lines = [*(score(n) for n in range(1, 30)), end(30)]
    keep(history(path), lines)
    assert lines_of(path) == lines


def test_messages_are_in_the_file_while_the_session_runs(path: Path) -> None:
    """Half a second later, so that a kill loses no more."""
    kept = history(path)

    async def scenario() -> None:
        kept.publish("sentiment", score(1))
        await until(lambda: path.is_file() and "great" in "".join(lines_of(path)))

    run(kept, scenario)


def test_heartbeats_are_not_stored(path: Path) -> None:
    """They say nothing, and repeat the number of the message before."""
    kept = history(path)

    async def scenario() -> None:
        kept.publish("sentiment", score(1))
        kept.publish("heartbeat", "{}")

    run(kept, scenario)
    assert lines_of(path) == [score(1)]
    assert kept.dropped == 0


def test_what_does_not_fit_is_dropped_and_counted(path: Path) -> None:
    """The loop never waits for the disk: here another program holds the file all the time."""
    kept = history(path)
    HistoryDb(path, create=True).close()
    other = sqlite3.connect(path, isolation_level=None)

    async def scenario() -> None:
        lines = [score(n) for n in range(1, QUEUE + 11)]
        other.execute("BEGIN IMMEDIATE")
        for line in lines:
            kept.publish("sentiment", line)
        assert kept.dropped == 11  # the hello waits as well
        other.execute("COMMIT")
        await until(lambda: len(lines_of(path)) == QUEUE - 1)

    run(kept, scenario)
    other.close()


def test_a_full_disk_ends_the_history_and_is_reported(path: Path) -> None:
    """The session goes on; what comes later is counted. Here the system limits the file's size."""
    told: Told = []
    kept = history(path, told)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def scenario() -> None:
        kept.publish("sentiment", score(1))
        await until(lambda: len(lines_of(path)) == 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        for n in range(2, 302):
            kept.publish("sentiment", score(n))
        await until(lambda: bool(told))
        kept.publish("sentiment", score(302))

    try:
        run(kept, scenario)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [reason for reason, _ in told] == ["disk_error"]
    assert str(path) in told[0][1]
    assert kept.dropped == 301
    assert lines_of(path) == [score(1)]


def test_a_session_that_outgrows_the_history_ends_it(path: Path) -> None:
    """What is kept stays readable, and the remedy is told."""
    told: Told = []
    kept = history(path, told, max_bytes=100_000)

    async def scenario() -> None:
        for n in range(1, 200):
            kept.publish("sentiment", score(n))
        await until(lambda: bool(told))

    run(kept, scenario)
    assert told[0][0] == "full"
    assert "history.max_size" in told[0][1]
    assert lines_of(path)[0] == score(1)


def test_older_sessions_make_room_and_it_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning, because somebody may miss them."""
    with HistoryDb(path, create=True) as store:
        key = store.begin(hello("old", EPOCH - 9000))
        rows = [score(n, session="old", epoch=EPOCH - 9000) for n in range(1, 200)]
        store.append(key, [*rows, end(200, session="old", epoch=EPOCH - 9000)])
    keep(history(path, max_bytes=150_000), [score(1), end(2)])
    with HistoryDb(path) as store:
        assert [past.id for past in store.sessions()] == ["k7"]
    assert "1 oldest sessions are removed for room" in caplog.text


def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    """A requested history is opened or the error names why not."""
    (tmp_path / "file").write_text("")
    kept = history(tmp_path / "file" / "history.sqlite")
    with pytest.raises(PublisherError, match=r"history\.path"):
        asyncio.run(kept.open())


def test_the_list_shows_each_session(path: Path) -> None:
    """What a page needs to offer them."""
    kept = history(path)
    keep(kept, [score(1), score(2, -0.5), end(4)])
    assert answer(kept.routes()["/sessions"].make()) == (
        200,
        [
            {
                "id": "k7",
                "started": "2026-11-24T06:00:00.000Z",
                "ended": "2026-11-24T06:00:02.000Z",
                "seconds": 2.0,
                "mean_sentiment": 0.25,
                "subject": {"role": "customer", "id": None},
                "reason": "stopped",
                "checkpoint": "tiny",
            }
        ],
    )


def test_a_session_is_shown_piece_by_piece(path: Path) -> None:
    """`next` leads through all of it, and is null on the last page."""
    kept = history(path)
    lines = [score(n) for n in range(1, PAGE_LIMIT + 3)]
    keep(kept, lines)
    status, first = page(kept, "k7")
    assert status == 200
    assert isinstance(first, dict)
    assert first["session"]["id"] == "k7"
    assert first["next"] == PAGE_LIMIT
    _, second = page(kept, f"k7?after={first['next']}")
    assert isinstance(second, dict)
    assert second["next"] is None
    assert first["messages"] + second["messages"] == [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("rest", "status"),
    [("x9", 404), ("", 404), ("../k7", 404), ("k7?after=-1", 400), ("k7?after=1e3", 400)],
)
def test_what_is_not_there_or_wrong_is_answered(path: Path, rest: str, status: int) -> None:
    """As JSON, as everything here."""
    kept = history(path)
    keep(kept, [score(1)])
    assert page(kept, rest)[0] == status


def test_a_summary_is_plain_json() -> None:
    """Times are in UTC."""
    past = PastSession(
        id="k7",
        started=EPOCH,
        ended=EPOCH + 83.0,
        seconds=83.004,
        mean_sentiment=-0.25,
        reason=None,
        hello=json.loads(hello()),
    )
    shown = json.loads(json.dumps(summary(past)))
    assert shown["started"] == "2026-11-24T06:00:00.000Z"
    assert (shown["seconds"], shown["mean_sentiment"]) == (83.0, -0.25)


def test_sessions_of_a_server_are_kept_apart(path: Path) -> None:
    """Each with its own hello; the server's own messages are no session."""
    kept = History(
        path,
        hello=lambda session: None if session is None else hello(session),
        report=lambda reason, detail: None,
        max_age=YEARS,
        max_bytes=10**9,
    )

    async def scenario() -> None:
        for seq in range(1, 4):
            kept.publish("heartbeat", "{}")
            kept.publish("status", "{}")
            for name in ("a", "b"):
                kept.publish_of(name, "sentiment", score(seq, session=name))

    run(kept, scenario)
    with HistoryDb(path) as store:
        assert {past.id for past in store.sessions()} == {"a", "b"}
        assert [json.loads(line)["seq"] for line in store.messages("b")] == [1, 2, 3]
