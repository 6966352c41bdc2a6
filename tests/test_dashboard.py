"""The dashboard in real Chromium, before the real agent and before a server that says what we want.

The figures of docs/dashboard.md come from page_bench.py; here only what must always hold.
"""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from chromium import Aside, aside, chromium, complaints, opened
from devices import end, free_port
from page_bench import arrived, axe, feed, hello, score, server
from tamulag.streamer import pages
from tamulag.streamer.access import Access, Token
from tamulag.streamer.history import History
from tamulag.streamer.store import Store
from tamulag.streamer.websocket import WebSocketPublisher

SECRET = "correct-horse-battery"
START = 120_000
"""Milliseconds that the agent may take to load its models on a busy machine."""
MINUS = "\N{MINUS SIGN}"
NUMBER = re.compile(f"^[{MINUS}+]\\d\\.\\d\\d$")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def running() -> Iterator[Aside]:
    with aside(server) as running:
        yield running


def at(running: Aside) -> str:
    return f"http://127.0.0.1:{running.server.port}/"


@contextmanager
def shown(browser: Browser, running: Aside) -> Iterator[Page]:
    """Open the dashboard and wait until it is connected; it must not complain."""
    with opened(browser, "about:blank") as page:
        found = complaints(page)
        page.goto(at(running))
        expect(page.locator("#link")).to_have_text("live")
        yield page
        assert found == []


def test_the_real_agent_with_a_real_face_and_voice(browser: Browser) -> None:
    """The demo's portrait and speech: scores, a line for each modality, latency; no complaint."""
    with real("--demo") as address, opened(browser, "about:blank") as page:
        found = complaints(page)
        page.goto(address)
        expect(page.locator("#score")).to_have_text(NUMBER, timeout=START)
        for name in ("audio", "vision"):
            row = page.locator(f"#parts .{name} .own")
            expect(row).to_have_text(NUMBER, timeout=START)
        expect(page.locator("#health")).to_contain_text("Latency")
        expect(page.locator("#capture")).to_be_hidden()
        assert found == []


def test_where_a_page_may_send_it_is_linked(browser: Browser) -> None:
    """The real agent's capture page opens beside the dashboard."""
    with real("--ingest", "--asr", "none") as address, opened(browser, address) as page:
        with page.expect_popup() as popup:
            page.get_by_role("link", name="Camera and microphone").click()
        expect(popup.value.locator("h1")).to_have_text("Camera and microphone")


@contextmanager
def real(*options: str) -> Iterator[str]:
    """Run the agent and give the address of its dashboard."""
    place = f"127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "tamulag.streamer", *options, "--websocket", place]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as agent:
        try:
            wait_for_port(port)
            yield f"http://{place}/"
        finally:
            end(agent)


def wait_for_port(port: int) -> None:
    limit = time.monotonic() + START / 1000
    while time.monotonic() < limit:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nothing listens on port {port} after {START / 1000} s")


def test_a_score_is_shown_in_all_its_parts(browser: Browser, running: Aside) -> None:
    """Fused score, interval, conflict, the three modalities, and why one of them is missing."""
    with shown(browser, running) as page:
        running.publish(**score(0, sentiment=-1.25, lost={"vision": "camera_lost"}))
        expect(page.locator("#score")).to_have_text(f"{MINUS}1.25")
        expect(page.locator("#label")).to_have_text("negative")
        expect(page.locator("#interval")).to_have_text(f"{MINUS}2.25 to {MINUS}0.25")
        expect(page.locator("#parts .vision")).to_contain_text("missing (camera lost)")
        expect(page.locator("#parts .text .own")).to_have_text(f"{MINUS}0.85")
        expect(page.locator("#conflict")).to_have_text("0.80")
        expect(page.locator("#health")).to_contain_text("audio 12")
        expect(page.locator("#scale")).to_have_attribute(
            "aria-label", f"{MINUS}1.25 negative, 90 % interval {MINUS}2.25 to {MINUS}0.25"
        )


def test_words_are_marked_by_attention(browser: Browser, running: Aside) -> None:
    """The heaviest word is marked most, and a sentence names it for who sees no colour."""
    with shown(browser, running) as page:
        words = [
            {"text": text, "start": 0.1 + i / 10, "end": 0.2 + i / 10, "confidence": None}
            for i, text in enumerate(["this", "is", "great"])
        ]
        running.publish(**head(1, "text"), utterance=1, words=words, tail="and", final=False)
        running.publish(**score(0, attended=[["great", 0.3, 0.6], ["is", 0.2, 0.2]]))
        expect(page.locator("#words .heavy")).to_have_text(["is", "great"])
        expect(page.locator("#words .tail")).to_have_text("and")
        expect(page.locator("#heaviest")).to_have_text("Weighed most: great 60 %, is 20 %")
        expect(page.locator("#words .heavy").last).to_have_attribute("style", "--weight: 1;")


def test_events_and_the_state_are_told(browser: Browser, running: Aside) -> None:
    """A lost camera: in the list of events, in the state, and what was given up."""
    with shown(browser, running) as page:
        running.publish(
            **head(1, "event"),
            event="source_lost",
            modality="vision",
            reason="camera_lost",
            detail="",
            at=0.4,
        )
        running.publish(
            **head(2, "status"),
            state="degraded",
            lost={"vision": "camera_lost"},
            pressure=["vision_rate"],
            notice="You are being scored.",
        )
        expect(page.locator("#events li")).to_contain_text("vision: source lost, camera lost")
        expect(page.locator("#state")).to_have_text("degraded")
        expect(page.locator("#health")).to_contain_text("vision: camera lost")
        expect(page.locator("#health")).to_contain_text("vision rate")
        expect(page.locator("#notice")).to_have_text("You are being scored.")


def test_pause_keeps_what_comes_and_resume_shows_it(browser: Browser, running: Aside) -> None:
    """Nothing is lost while somebody reads."""
    with shown(browser, running) as page:
        running.publish(**score(0, sentiment=0.5))
        expect(page.locator("#score")).to_have_text("+0.50")
        page.get_by_role("button", name="Pause").press("Enter")
        running.publish(**score(1, sentiment=2.0))
        expect(page.locator("#kept")).to_contain_text("2 of at most 7200")
        expect(page.locator("#score")).to_have_text("+0.50")
        page.get_by_role("button", name="Resume").press("Enter")
        expect(page.locator("#score")).to_have_text("+2.00")


def test_the_keyboard_goes_back_through_the_session(browser: Browser, running: Aside) -> None:
    """The slider is a moment; its value is told in words; `Back to live` returns."""
    with shown(browser, running) as page:
        for index, value in enumerate([-1.0, 0.0, 1.0]):
            running.publish(**score(index, sentiment=value))
        expect(page.locator("#score")).to_have_text("+1.00")
        scrub = page.get_by_role("slider", name="Moment")
        scrub.press("ArrowLeft")
        scrub.press("ArrowLeft")
        expect(page.locator("#score")).to_have_text(f"{MINUS}1.00")
        expect(scrub).to_have_attribute(
            "aria-valuetext", f"0:00: {MINUS}1.00 negative, 90 % interval {MINUS}2.00 to +0.00"
        )
        running.publish(**score(3, sentiment=2.0))
        expect(page.locator("#moment")).to_have_text("at 0:00")
        page.get_by_role("button", name="Back to live").click()
        expect(page.locator("#score")).to_have_text("+2.00")


def test_an_agent_that_comes_back_is_found(browser: Browser) -> None:
    """The page says that it waits, and shows the new session without a click."""
    with aside(server) as first:
        port = first.server.port
        with shown_loosely(browser, first) as page:
            first.publish(**score(0))
            expect(page.locator("#kept")).to_contain_text("1 of")
            first.stop()
            expect(page.locator("#link")).to_contain_text("reconnecting")
            expect(page.locator("#moment")).to_have_text("last, 0:00")
            expect(page.locator("main")).to_have_class("still")
            expect(page.locator("#state")).to_have_text("unknown")
            with aside(partial(server, port=port, session="next")) as second:
                expect(page.locator("#link")).to_have_text("live", timeout=20_000)
                expect(page.locator("#about")).to_contain_text("session next")
                expect(page.locator("#kept")).to_contain_text("0 of")
                second.publish(**score(0, sentiment=1.5, session="next"))
                expect(page.locator("#score")).to_have_text("+1.50")
                expect(page.locator("#moment")).to_have_text("live")
                expect(page.locator("main")).not_to_have_class("still")


def test_a_session_that_ended_is_not_called_lost(browser: Browser, running: Aside) -> None:
    """Also when its server is gone; its last score is called the last, and is dim."""
    with shown_loosely(browser, running) as page:
        running.publish(**score(0))
        expect(page.locator("#moment")).to_have_text("live")
        bright = page.locator("#score").evaluate("it => getComputedStyle(it).color")
        running.publish(**head(2, "session_end"), at=0.5, reason="end")
        expect(page.locator("#link")).to_have_text("session ended")
        expect(page.locator("#moment")).to_have_text("last, 0:00")
        expect(page.locator("#score")).not_to_have_css("color", bright)
        with page.expect_event("console", lambda line: "ERR_CONNECTION_REFUSED" in line.text):
            running.stop()
        expect(page.locator("#link")).to_have_text("session ended")


@contextmanager
def shown_loosely(browser: Browser, running: Aside) -> Iterator[Page]:
    """Open the dashboard; a refused connection stands in the console, whatever a page does."""
    with opened(browser, at(running)) as page:
        expect(page.locator("#link")).to_have_text("live")
        yield page


def test_a_token_is_asked_for_and_stays_out_of_the_address(browser: Browser) -> None:
    """A wrong one is told; the right one opens, and neither is in the address or stored."""
    locked = Access(token=Token(SECRET))
    with aside(partial(server, access=locked)) as running, opened(browser, at(running)) as page:
        field = page.get_by_label("Token", exact=True)
        field.fill("wrong-horse-battery-x")
        field.press("Enter")
        expect(page.locator("#door-why")).to_have_text("That token was not right.")
        field.fill(SECRET)
        field.press("Enter")
        expect(page.locator("#link")).to_have_text("live")
        running.publish(**score(0, sentiment=0.75))
        expect(page.locator("#score")).to_have_text("+0.75")
        kept = page.evaluate(
            "location.href + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"
        )
        assert SECRET not in kept


def test_an_hour_is_kept_and_no_more(browser: Browser, running: Aside) -> None:
    """Older scores are dropped, and the page says so."""
    with shown(browser, running) as page:
        for first in range(0, 7350, 150):
            arrived(page, running, range(first, first + 150))
        expect(page.locator("#kept")).to_contain_text("7050 of at most 7200")
        expect(page.locator("#kept")).to_contain_text("300 older ones were dropped")


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
    with Store(path, create=True) as store:
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
    kept = History(path, hello=str, tell=print, max_age=1e9, max_bytes=10**9)
    shelves = {**pages.shelves(), **kept.shelves()}
    return WebSocketPublisher(
        None, 0, hello=lambda: json.dumps(hello()), missed=str, shelves=shelves
    )


def test_the_whole_conflict_is_in_sight(browser: Browser, running: Aside) -> None:
    """From 0 to 6, with room for half a label at both ends."""
    with shown(browser, running) as page:
        running.publish(**score(0))
        expect(page.locator("#kept")).to_contain_text("1 of")
        low, high, height = page.evaluate(
            "async () => { const {Timeline} = await import('/chart.js'); chart.replaceChildren();"
            "const made = new Timeline(chart, () => {});"
            "made.set([{at: 1, lo: -1, hi: 1, score: 0, conflict: 2}], []);"
            "await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame);"
            "const y = (value) => made.series.conflict.priceToCoordinate(value);"
            "return [y(0), y(6), made.chart.panes()[1].getHeight()]; }"
        )
        assert 6 <= high < low <= height - 6


def test_the_screen_reader_is_not_flooded(browser: Browser, running: Aside) -> None:
    """Ten labels in a second are one message."""
    with shown(browser, running) as page:
        page.evaluate(
            "window.told = []; new MutationObserver(() => told.push(said.textContent))"
            ".observe(said, {childList: true})"
        )
        feed(running, range(10), lambda index: 2.0 if index % 2 else -2.0)
        expect(page.locator("#kept")).to_contain_text("10 of")
        assert page.evaluate("told.length") <= 1


LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_no_serious_fault(browser: Browser, running: Aside, look: str) -> None:
    """Contrast, names, landmarks and roles, with every panel filled; nothing wider than a phone."""
    script = axe()
    # The page's own policy would keep the checker out.
    with browser.new_context(bypass_csp=True, **LOOKS[look]) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(at(running))
        expect(page.locator("#link")).to_have_text("live")
        running.publish(**score(0, lost={"vision": "no_face"}, attended=[]))
        running.publish(
            **head(1, "event"),
            event="source_lost",
            modality="vision",
            reason="no_face",
            detail="",
            at=0.4,
        )
        expect(page.locator("#events li")).to_have_count(1)
        page.add_script_tag(path=script)
        found = page.evaluate("axe.run()")["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0


def head(seq: int, kind: str) -> dict[str, Any]:
    """Return what every message has."""
    return {
        **{key: score(0)[key] for key in ("v", "session", "time", "subject")},
        "seq": seq,
        "type": kind,
    }
