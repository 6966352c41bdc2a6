"""Measure the dashboard over two hours of session, compressed: `python -m support.page_bench`.

A real server sends scores, words and events as a session does, but as fast as the page takes them;
printed per quarter of an hour of session: scores kept, JavaScript heap after collection, how long
one more score keeps the main thread busy, and how long frames take while scores come at their real
pace; the whole hour is drawn.
"""

from statistics import quantiles

from playwright.sync_api import CDPSession, Page, expect

from support.browser import Aside, aside, chromium, opened
from support.dashboard import HOP, feed, head, server

BATCH = 150
QUARTER = 1800
SINGLE = 20
"""Scores sent one by one, to time them."""
TEXTS = 1.328
"""Messages of words for each score, and scores for each event, as a session with much talk had."""
EVENT = 100
PHRASE = 8
"""Words of an utterance; each message of it has one more, the last is final."""

FRAMES = """() => {
    window.frames = [];
    let last = performance.now();
    const next = (now) => { frames.push(now - last); last = now; requestAnimationFrame(next); };
    requestAnimationFrame(next);
}"""


def talk(running: Aside, index: int) -> None:
    """Publish what else belongs to a score: words, and now and then an event."""
    end = (index + 1) * HOP
    for number in range(int(index * TEXTS), int((index + 1) * TEXTS)):
        utterance, said = divmod(number, PHRASE)
        starts = [end - (said - i) * 0.3 for i in range(said + 1)]
        words = [
            {"text": f"word{i}", "start": at, "end": at + 0.2, "confidence": None}
            for i, at in enumerate(starts)
        ]
        final = said == PHRASE - 1
        text = {"utterance": utterance, "words": words, "tail": "and", "final": final}
        running.publish(**head(index + 1, "text"), **text)
    if index % EVENT == 0:
        event = {"event": "shift", "modality": None, "reason": None, "detail": "", "at": end}
        running.publish(**head(index + 1, "event"), **event)


def heap(session: CDPSession) -> float:
    """Return the megabytes of JavaScript objects that are in use."""
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6


def spent(session: CDPSession) -> tuple[float, float]:
    """Return the seconds that the page's main thread has worked so far, and those in scripts."""
    got = session.send("Performance.getMetrics")["metrics"]
    metrics = {one["name"]: one["value"] for one in got}
    return float(metrics["TaskDuration"]), float(metrics["ScriptDuration"])


def arrived(page: Page, running: Aside, indices: range) -> None:
    """Send scores and wait until the page has the last."""
    for index in indices:
        talk(running, index)
        feed(running, [index])
    end = clock((indices[-1] + 1) * HOP)
    expect(page.locator("#window")).to_contain_text(f"to {end}", timeout=120_000)


def clock(time: float) -> str:
    """Return session time as the page writes it."""
    minutes, seconds = divmod(int(time), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def row(page: Page, running: Aside, session: CDPSession, indices: range) -> str:
    """Feed a stretch of session, its last scores one by one; return the line of the table."""
    for first in range(indices.start, indices.stop - SINGLE, BATCH):
        arrived(page, running, range(first, min(first + BATCH, indices.stop - SINGLE)))
    page.wait_for_timeout(500)
    last = range(indices.stop - SINGLE, indices.stop)
    before = spent(session)
    paced(page, running, last[: SINGLE // 2])
    now = spent(session)
    work, script = ((a - b) / SINGLE * 2000 for a, b in zip(now, before, strict=True))
    minutes = indices.stop * HOP / 60
    figures = f"{heap(session):5.1f} MB  {work:5.1f} ms per score, {script:4.1f} in scripts"
    frames = framed(page, running, last[SINGLE // 2 :])
    kept = page.locator("#kept").inner_text().split()[0]
    return f"{minutes:4.0f} min  {kept:>5} kept  {figures}  {frames}"


def paced(page: Page, running: Aside, indices: range) -> None:
    """Send scores at the pace of a session."""
    for index in indices:
        talk(running, index)
        feed(running, [index])
        page.wait_for_timeout(HOP * 1000)


def framed(page: Page, running: Aside, indices: range) -> str:
    """Return how long frames took: half of them, 99 of 100, and the longest."""
    page.evaluate(FRAMES)
    paced(page, running, indices)
    times = page.evaluate("frames.splice(0)")
    cuts = quantiles(times, n=100)
    return f"frames {cuts[49]:.0f} ms, p99 {cuts[98]:.0f}, longest {max(times):.0f}"


def main() -> None:
    """Print the table: the first hour fills the page, the second shows whether it grows."""
    with (
        chromium() as browser,
        aside(server) as running,
        opened(browser, f"http://127.0.0.1:{running.server.port}/") as page,
    ):
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        page.wait_for_timeout(1000)
        print(f"first paint {page.evaluate(paint):.0f} ms")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        page.locator("#spans label").last.click()
        for start in range(0, 14_400, QUARTER):
            print(row(page, running, session, range(start, start + QUARTER)), flush=True)


if __name__ == "__main__":
    main()
