"""Past sessions on the dashboard, of a real history."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from support import past_sessions
from support.browser import Aside, aside
from support.dashboard import MINUS, head, hello, score, shown, shown_loosely
from tamulag.streamer.storage.history import History
from tamulag.streamer.storage.history_db import HistoryDb
from tamulag.streamer.webserver import dashboard
from tamulag.streamer.webserver.server import WebSocketPublisher


def test_a_past_session_is_opened_from_its_messages(browser: Browser, running: Aside) -> None:
    """It is said to be past, and live goes on behind it."""
    with shown(browser, running) as page:
        past = [hello("old"), *(score(i, sentiment=-2.0, session="old") for i in range(5))]
        opening = "async (messages) => (await import('/app.js')).openSession(messages)"
        page.evaluate(opening, past)
        expect(page.locator("#banner")).to_contain_text("Past session old")
        expect(page.locator("#score")).to_have_text(f"{MINUS}2.00")
        expect(page.locator("#about")).to_contain_text("past session old")
        expect(page.locator("#link")).to_have_text("live goes on")
        running.publish(**score(0, sentiment=1.0))
        page.get_by_role("button", name="Back to live").click()
        expect(page.locator("#score")).to_have_text("+1.00")
        expect(page.locator("#about")).to_contain_text("session s")
        expect(page.locator("#link")).to_have_text("live")


def test_without_a_history_the_page_says_so(browser: Browser, running: Aside) -> None:
    """The button is there all the same."""
    with shown_loosely(browser, running) as page:
        page.get_by_role("button", name="Past sessions").click()
        expect(page.get_by_role("dialog")).to_contain_text("start the agent with --history")


def test_without_an_agent_the_page_says_so(browser: Browser, running: Aside) -> None:
    """In our words, not the browser's."""
    with shown_loosely(browser, running) as page:
        running.stop()
        page.get_by_role("button", name="Past sessions").click()
        expect(page.get_by_role("dialog")).to_contain_text("The agent does not answer.")


def test_past_sessions_have_their_names(browser: Browser, tmp_path: Path) -> None:
    """The one that is live is told from one that was killed and one that ended."""
    path = tmp_path / "history.sqlite"
    with HistoryDb(path, create=True) as store:
        for name in ("killed", "ended", "s"):
            key = store.begin(json.dumps(hello(name)))
            last = {**head(1, "session_end"), "session": name, "at": 9.0, "reason": "end"}
            if name == "ended":
                store.append(key, [json.dumps(last)])
    with aside(partial(keeping, path)) as running, shown(browser, running) as page:
        page.get_by_role("button", name="Past sessions").click()
        entries = page.locator("#sessions li")
        ends = ["^s: .*still running$", "^ended: .*no score$", "^killed: .*no end$"]
        expect(entries).to_have_text([re.compile(end) for end in ends])


def keeping(path: Path) -> WebSocketPublisher:
    """Return a server of session "s" that shows a history too."""
    kept = History(path, hello=str, report=print, max_age=1e9, max_bytes=10**9)
    routes = {**dashboard.routes(), **kept.routes()}
    return WebSocketPublisher(None, 0, hello=lambda: json.dumps(hello()), missed=str, routes=routes)


@contextmanager
def opened_past(browser: Browser, path: Path, session: str) -> Iterator[Page]:
    """Open a session of a history by its button, and wait until it is shown."""
    with aside(partial(keeping, path)) as running, shown(browser, running) as page:
        page.get_by_role("button", name="Past sessions").click()
        page.get_by_role("button", name=re.compile(f"^{session}: ")).click()
        expect(page.locator("#banner")).to_contain_text(f"Past session {session}", timeout=60_000)
        yield page


def test_a_long_session_has_its_beginning_and_its_end(browser: Browser, tmp_path: Path) -> None:
    """Four hours, 28,800 scores, are 58 pages of the history; the first and the last are shown."""
    path, last = tmp_path / "history.sqlite", 28_800
    values = {1: -2.5, last: 2.5}
    with HistoryDb(path, create=True) as store:
        key = store.begin(past_sessions.hello("long"))
        store.append(
            key,
            [
                past_sessions.score(i, values.get(i, 0.5), session="long")
                for i in range(1, last + 1)
            ],
        )
        store.append(key, [past_sessions.end(last + 1, session="long")])
    with opened_past(browser, path, "long") as page:
        expect(page.locator("#banner")).to_contain_text("0:00 to 4:00:00 of 4:00:00.")
        expect(page.locator("#retained")).to_contain_text("28800 of at most 28800 scores")
        expect(page.locator("#score")).to_have_text("+2.50")
        page.get_by_role("slider", name="Moment").press("Home")
        expect(page.locator("#moment")).to_have_text("at 0:00")
        expect(page.locator("#score")).to_have_text(f"{MINUS}2.50")


def test_a_longer_one_is_thinned_and_says_so(browser: Browser, running: Aside) -> None:
    """Ten hours: one score of four is kept, evenly, the last one too."""
    with shown(browser, running) as page:
        page.evaluate(
            """async (first) => {
                const { openSession } = await import("/app.js");
                const at = (end) => ({ ...first, window: { start: end - 5, end } });
                openSession(Array.from({ length: 72_000 }, (_, i) => at((i + 1) / 2)));
            }""",
            score(0, session="day"),
        )
        expect(page.locator("#banner")).to_contain_text(
            "0:00 to 10:00:00 of 10:00:00, one score of 4"
        )
        expect(page.locator("#retained")).to_contain_text("18001 of at most 28800 scores")
        expect(page.locator("#retained")).to_contain_text("one of 4 of its 72000")
        page.get_by_label("all").check(force=True)
        expect(page.locator("#moment")).to_have_text("last, 10:00:00")


def test_what_a_session_lost_is_that_of_the_moment(browser: Browser, running: Aside) -> None:
    """Latency, losses and state are of the moment that is looked at, not of the end."""
    with shown(browser, running) as page:
        first, second = score(0, session="old"), score(1, session="old")
        first["latency"]["total"], first["dropped"] = 0.42, {"vision": 1}
        status = {"lost": {}, "pressure": [], "notice": ""}
        said = [
            {**head(seq, "status"), "session": "old", **status, "state": state}
            for seq, state in ((1, "degraded"), (2, "online"))
        ]
        opening = "async (messages) => (await import('/app.js')).openSession(messages)"
        page.evaluate(opening, [said[0], first, said[1], second])
        expect(page.locator("#health")).to_contain_text("0.24 s of sound")
        page.get_by_role("slider", name="Moment").press("ArrowLeft")
        expect(page.locator("#health")).to_contain_text("0.42 s")
        expect(page.locator("#health")).to_contain_text("1 picture")
        expect(page.locator("#state")).to_have_text("degraded")
