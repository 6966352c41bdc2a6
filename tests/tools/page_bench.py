"""Measure the dashboard over two hours of session, compressed: `python -m tests.tools.page_bench`.

A real server sends scores, words and events as a session does, but as fast as the page takes them;
printed per quarter of an hour of session: scores kept, JavaScript heap after collection, how long
one more score keeps the main thread busy, and how long frames take while scores come at their real
pace; the whole hour is drawn.
"""

from statistics import quantiles

from playwright.sync_api import CDPSession, Page

from ..support.browser import Aside, aside, chromium, opened
from ..support.dashboard import HOP, arrived, feed, server, talk

BATCH = 150
QUARTER = 1800
SINGLE = 20
"""Scores sent one by one, to time them."""
FRAMES = """() => {
    window.frames = [];
    let last = performance.now();
    const next = (now) => { frames.push(now - last); last = now; requestAnimationFrame(next); };
    requestAnimationFrame(next);
}"""


def heap(session: CDPSession) -> float:
    """Return the megabytes of JavaScript objects that are in use."""
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6


def spent(session: CDPSession) -> tuple[float, float]:
    """Return the seconds that the page's main thread has worked so far, and those in scripts."""
    got = session.send("Performance.getMetrics")["metrics"]
    metrics = {one["name"]: one["value"] for one in got}
    return float(metrics["TaskDuration"]), float(metrics["ScriptDuration"])


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
    kept = page.locator("#retained").inner_text().split()[0]
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
