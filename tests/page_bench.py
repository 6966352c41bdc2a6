"""Measure the dashboard over more than an hour of session: `python tests/page_bench.py`.

A real server sends scores as fast as the page takes them; printed per quarter of an hour: scores
kept, JavaScript heap after collection, and how long one more score keeps the main thread busy
while the whole hour is drawn.
"""

import json
import math
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from playwright.sync_api import CDPSession, Page, expect

from chromium import Aside, aside, chromium, opened
from tamulag.streamer import pages
from tamulag.streamer.access import Access
from tamulag.streamer.message import label
from tamulag.streamer.subscriber import Limits
from tamulag.streamer.websocket import WebSocketPublisher

AXE = "axe-core@4.14.1"
ROOT = Path(__file__).parent.parent
HOP = 0.5
BATCH = 150
QUARTER = 1800
SINGLE = 20
"""Scores sent one by one, to time them."""
HEAD = {"v": 1, "time": "2026-11-24T08:00:00.000Z", "subject": {"role": "customer", "id": None}}


def server(port: int = 0, session: str = "s", access: Access | None = None) -> WebSocketPublisher:
    """Return a server of the dashboard and of messages that a test makes."""
    return WebSocketPublisher(
        access,
        port,
        hello=lambda: json.dumps(hello(session)),
        missed=lambda count: json.dumps({**hello(session), "type": "missed", "missed": count}),
        shelves=pages.shelves(),
        limits=Limits(queue=20_000),
    )


def hello(session: str = "s") -> dict[str, Any]:
    """Return the first message."""
    return {
        **HEAD,
        "type": "hello",
        "session": session,
        "seq": 0,
        "version": "0.1.0",
        "checkpoint": "default",
        "heads": {},
        "modalities": ["text", "audio", "vision"],
        "sources": ["source clip.mp4"],
        "window": 5.0,
        "hop": HOP,
        "lateness": 0.3,
        "epoch": HEAD["time"],
    }


def score(
    index: int,
    sentiment: float = 0.5,
    session: str = "s",
    lost: dict[str, str] | None = None,
    attended: Sequence[object] = (),
) -> dict[str, Any]:
    """Return the score of a hop; the modalities are 0.4 around it, those in `lost` have none."""
    parts: dict[str, dict[str, Any]] = {}
    for name, off in (("text", 0.4), ("audio", -0.4), ("vision", 0.0)):
        value = max(-3.0, min(3.0, sentiment + off))
        parts[name] = {"sentiment": value, "weight": 0.333, "status": "ok", "age": 0.1}
        if lost and name in lost:
            parts[name] = {
                "sentiment": None,
                "weight": 0.0,
                "status": "missing",
                "reason": lost[name],
            }
    end = round((index + 1) * HOP, 2)
    return {
        **HEAD,
        "type": "sentiment",
        "session": session,
        "seq": index + 1,
        "window": {"start": max(0.0, end - 5), "end": end, "warmup": end < 5},
        "sentiment": sentiment,
        "interval": [max(-3.0, sentiment - 1), min(3.0, sentiment + 1)],
        "valence": round(sentiment / 3, 4),
        "label": label(sentiment),
        "modalities": parts,
        "conflict": 0.8,
        "attention": {"text": list(attended), "audio": [[end - 0.1, 0.02]], "vision": []},
        "latency": {"align": 0.11, "features": 0.04, "model": 0.007, "total": 0.12},
        "dropped": {"text": 0, "audio": 12, "vision": 0, "asr": 0},
    }


def wave(index: int) -> float:
    """Return a score that moves as a person might."""
    return 1.6 * math.sin(index / 41) + 0.8 * math.sin(index / 7)


def feed(running: Aside, indices: Iterable[int], value: Callable[[int], float] = wave) -> None:
    """Publish a score for each index."""
    for index in indices:
        running.publish(**score(index, sentiment=value(index)))


def axe() -> str:
    """Return the path of axe-core's script, fetched by npm; skip where that is not possible."""
    if which("npm") is None:
        pytest.skip("needs npm: apt install npm")
    folder = ROOT / ".venv" / "axe"
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), AXE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip()[-200:]}")
    return str(script)


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
    feed(running, indices)
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
    before = spent(session)
    for index in range(indices.stop - SINGLE, indices.stop):
        feed(running, [index])
        page.wait_for_timeout(50)
    page.wait_for_timeout(300)
    work, script = (
        (now - then) / SINGLE * 1000 for now, then in zip(spent(session), before, strict=True)
    )
    kept = page.locator("#kept").inner_text().split()[0]
    minutes = indices.stop * HOP / 60
    figures = f"{heap(session):5.1f} MB  {work:5.1f} ms per score, {script:4.1f} in scripts"
    return f"{minutes:4.0f} min  {kept:>5} kept  {figures}"


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
