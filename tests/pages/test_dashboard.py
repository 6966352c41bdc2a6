"""The dashboard in real Chromium, before the real agent and before a server that says what we want.

The figures of docs/guide/dashboard.md come from tools/page_bench.py; here only what must always
hold. Past sessions have tests of their own.
"""

import re
from functools import partial

import pytest
from playwright.sync_api import Browser, expect

from support.axe import dark_faults, faults
from support.browser import Aside, aside, complaints, opened
from support.dashboard import (
    HOP,
    MINUS,
    START,
    at,
    clock,
    feed,
    head,
    real,
    score,
    server,
    shown,
    shown_loosely,
)
from tamulag.streamer.webserver.access_control import Access, Token
from tamulag.streamer.webserver.rights import parse_rights

pytestmark = pytest.mark.timeout(300)

SECRET = "correct-horse-battery"
NUMBER = re.compile(f"^[{MINUS}+]\\d\\.\\d\\d$")


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


def test_a_score_is_shown_in_all_its_parts(browser: Browser, running: Aside) -> None:
    """Fused score, interval, conflict, the three modalities, and why one of them is missing."""
    with shown(browser, running) as page:
        running.publish(**score(0, sentiment=-1.25, lost={"vision": "camera_lost"}))
        expect(page.locator("#score")).to_have_text(f"{MINUS}1.25")
        expect(page.locator("#label")).to_have_text("negative")
        expect(page.locator("#trend")).to_have_text(f"{MINUS}1.25")
        expect(page.locator("#interval")).to_have_text(f"{MINUS}2.25 to {MINUS}0.25")
        expect(page.locator("#parts .vision")).to_contain_text("missing (camera lost)")
        expect(page.locator("#parts .text .own")).to_have_text(f"{MINUS}0.85")
        expect(page.locator("#conflict")).to_have_text("0.80")
        expect(page.locator("#health")).to_contain_text("0.24 s of sound")
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


def test_a_word_is_found_under_another_dress(browser: Browser, running: Aside) -> None:
    """Case and punctuation change when a sentence is complete; of two alike the nearest counts."""
    with shown(browser, running) as page:
        words = [
            {"text": text, "start": at, "end": at + 0.1, "confidence": None}
            for text, at in (("Great,", 0.0), ("so", 0.1), ("great!", 0.3))
        ]
        running.publish(**head(1, "text"), utterance=1, words=words, tail="", final=True)
        running.publish(**score(0, attended=[["great", 0.31, 0.6], ['"So"', 0.1, 0.2]]))
        expect(page.locator("#words .heavy")).to_have_text(["so", "great!"])


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
        expect(page.locator("#retained")).to_contain_text("2 of at most 7200")
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


CHOSEN = """async ({bars, span, moment}) => {
    const { Timeline } = await import("/chart.js");
    chart.replaceChildren();
    const made = new Timeline(chart, () => {});
    made.set(Array.from({ length: bars }, (_, i) => ({ at: (i + 1) / 2, score: 0 })), [], 0.5);
    made.show(span, moment);
    made.choose(moment);
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    const scale = made.chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    const picture = made.chart.takeScreenshot();
    const ratio = picture.width / chart.clientWidth;
    const x = Math.round(scale.timeToCoordinate(moment) * ratio);
    const column = picture.getContext("2d").getImageData(x, 0, 1, picture.height).data;
    const ink = made.colours.ink.match(/\\d+/g).map(Number);
    let inked = 0;
    const isInk = (i) => ink.every((part, k) => part === column[i + k]);
    for (let i = 0; i < column.length; i += 4) inked += isInk(i);
    return { from: range.from, to: range.to, share: inked / picture.height };
}"""


def test_the_chosen_moment_has_a_mark_in_an_unchanged_view(
    browser: Browser, running: Aside
) -> None:
    """A line from top to foot; a young session keeps its width, an old one is centred."""
    with shown(browser, running) as page:
        young = page.evaluate(CHOSEN, {"bars": 54, "span": 300, "moment": 5.0})
        assert young["share"] > 0.8
        assert young["to"] - young["from"] == pytest.approx(61, abs=2)
        old = page.evaluate(CHOSEN, {"bars": 2000, "span": 300, "moment": 500.0})
        assert old["share"] > 0.8
        assert (old["from"] + old["to"]) / 2 == pytest.approx(1000, abs=3)


def test_an_agent_that_comes_back_is_found(browser: Browser) -> None:
    """The page says that it waits, and shows the new session without a click."""
    with aside(server) as first:
        port = first.server.port
        with shown_loosely(browser, first) as page:
            first.publish(**score(0))
            expect(page.locator("#retained")).to_contain_text("1 of")
            first.stop()
            expect(page.locator("#link")).to_contain_text("reconnecting")
            expect(page.locator("#moment")).to_have_text("last, 0:00")
            expect(page.locator("main")).to_have_class("still")
            expect(page.locator("#state")).to_have_text("unknown")
            with aside(partial(server, port=port, session="next")) as second:
                expect(page.locator("#link")).to_have_text("live", timeout=20_000)
                expect(page.locator("#about")).to_contain_text("session next")
                expect(page.locator("#retained")).to_contain_text("0 of")
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


def test_a_token_is_asked_for_and_stays_out_of_the_address(browser: Browser) -> None:
    """A wrong one is reported, one without the right too; no token is in the address or stored."""
    sender = "sender-horse-battery"
    locked = Access(tokens=(Token(SECRET), Token(sender, rights=parse_rights("send"))))
    with aside(partial(server, access=locked)) as running, opened(browser, at(running)) as page:
        field = page.get_by_label("Token", exact=True)
        field.fill("wrong-horse-battery-x")
        field.press("Enter")
        expect(page.locator("#token-why")).to_have_text("That token was not right.")
        field.fill(sender)
        field.press("Enter")
        expect(page.locator("#token-why")).to_have_text(
            "this token lacks the right: use one with listen."
        )
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
        for last in range(350, 7351, 350):
            feed(running, range(last - 350, last))
            expect(page.locator("#window")).to_contain_text(f"to {clock(last * HOP)}")
        expect(page.locator("#retained")).to_contain_text("7050 of at most 7200")
        expect(page.locator("#retained")).to_contain_text("300 older ones were dropped")


def test_the_whole_conflict_is_in_sight(browser: Browser, running: Aside) -> None:
    """From 0 to 6, with room for half a label at both ends."""
    with shown(browser, running) as page:
        running.publish(**score(0))
        expect(page.locator("#retained")).to_contain_text("1 of")
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
            "window.told = []; new MutationObserver(() => told.push(announcement.textContent))"
            ".observe(announcement, {childList: true})"
        )
        feed(running, range(10), lambda index: 2.0 if index % 2 else -2.0)
        expect(page.locator("#retained")).to_contain_text("10 of")
        assert page.evaluate("told.length") <= 1


def test_axe_finds_no_serious_fault(browser: Browser, running: Aside) -> None:
    """Contrast, names, landmarks and roles, with every panel filled; nothing wider than a phone."""
    with opened(browser, at(running)) as page:
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
        assert faults(page) == []
        wide = "document.documentElement.scrollWidth - innerWidth"
        assert page.evaluate(wide) <= 0
        page.set_viewport_size({"width": 390, "height": 844})
        assert faults(page) + dark_faults(page) == []
        assert page.evaluate(wide) <= 0
