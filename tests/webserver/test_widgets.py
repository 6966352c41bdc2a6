"""The element on somebody else's page, in a real browser."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, expect

from support.axe import faults
from support.browser import Aside, aside, complaints, opened, site
from support.websocket_peers import missed
from tamulag.streamer.webserver import widgets
from tamulag.streamer.webserver.access_control import Access, Token
from tamulag.streamer.webserver.server import WebSocketPublisher

SECRET = "correct-horse-battery"
EXAMPLE = Path(__file__).parents[2] / "examples" / "embed.html"
PART = {"weight": 0.5, "status": "ok", "age": 0.0}
MODALITIES = {
    "text": {**PART, "sentiment": 1.24},
    "audio": {**PART, "sentiment": -0.5, "status": "stale"},
    "vision": {**PART, "sentiment": None, "status": "missing", "reason": "no_face"},
}
SCORE = {"sentiment": 1.24, "label": "positive", "interval": [0.2, 2.2], "modalities": MODALITIES}


def server(*origins: str, token: str | None = None) -> WebSocketPublisher:
    access = Access(tokens=() if token is None else (Token(token),), origins=origins)
    return WebSocketPublisher(
        access,
        0,
        hello=lambda: '{"type": "hello"}',
        missed=missed,
        routes=widgets.routes(),
    )


def write(folder: Path, port: int, script: str = "") -> str:
    """Write the example page for a port; return its name."""
    text = EXAMPLE.read_text().replace("127.0.0.1:8765", f"127.0.0.1:{port}")
    (folder / "page.html").write_text(text.replace("</body>", f"{script}</body>"))
    return "page.html"


def show(running: Aside, page: Page) -> None:
    """Send a score once the page listens."""
    expect(page.get_by_role("status")).to_have_text("")
    running.publish(type="sentiment", **SCORE)


def test_an_allowed_page_shows_the_score(browser: Browser, tmp_path: Path) -> None:
    """The number, its word, each modality and what is missing; nothing in the console."""
    with site(tmp_path) as origin, aside(lambda: server(origin)) as running:
        name = write(tmp_path, running.server.port)
        with opened(browser, "about:blank") as page:
            found = complaints(page)
            page.goto(f"{origin}/{name}")
            show(running, page)
            meter = page.locator("tamulag-meter")
            expect(meter).to_contain_text("+1.2")
            expect(meter).to_contain_text("positive")
            expect(meter).to_contain_text("\u22120.5 stale")
            expect(meter).to_contain_text("missing (no face)")
            expect(page.locator("#mean")).to_have_text("1.24")
            assert found == []


def test_a_screen_reader_gets_a_meter(browser: Browser, tmp_path: Path) -> None:
    """It has a name, a range, a value and the value in words."""
    with (
        site(tmp_path) as origin,
        aside(lambda: server(origin)) as running,
        opened(browser, f"{origin}/{write(tmp_path, running.server.port)}") as page,
    ):
        show(running, page)
        meter = page.get_by_role("meter", name="Sentiment of the customer")
        expect(meter).to_have_attribute("aria-valuenow", "1.24")
        expect(meter).to_have_attribute("aria-valuetext", "+1.2, positive")


@contextmanager
def showing(browser: Browser, folder: Path, scheme: str) -> Iterator[Page]:
    """Open the example page with a score and a modality that is missing."""
    with (
        site(folder) as origin,
        aside(lambda: server(origin)) as running,
        opened(browser, f"{origin}/{write(folder, running.server.port)}") as page,
    ):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        show(running, page)
        expect(page.locator("tamulag-meter")).to_contain_text("+1.2")
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, tmp_path: Path, scheme: str) -> None:
    """On the example page, with a score and a modality that is missing."""
    with showing(browser, tmp_path, scheme) as page:
        assert faults(page) == []


def test_a_page_that_is_not_allowed_gets_the_reason(browser: Browser, tmp_path: Path) -> None:
    """The browser gives no reason, so the element finds out and names the setting."""
    with (
        site(tmp_path) as origin,
        aside(server) as running,
        opened(browser, f"{origin}/{write(tmp_path, running.server.port)}") as page,
    ):
        told = f"refused this page: its origin {origin} is not in websocket.origins"
        expect(page.get_by_role("status")).to_contain_text(told)
        assert running.count() == 0


def test_it_connects_again(browser: Browser, tmp_path: Path) -> None:
    """A restarted agent is found; until then the element says that nobody answers, not a score."""
    with site(tmp_path) as origin, aside(lambda: server(origin)) as running:
        port = running.server.port
        with opened(browser, f"{origin}/{write(tmp_path, port)}") as page:
            show(running, page)
            expect(page.locator("tamulag-meter")).to_contain_text("+1.2")
            running.stop()
            expect(page.get_by_role("status")).to_contain_text("no answer from ws://")
            expect(page.locator("tamulag-meter")).not_to_contain_text("+1.2")
            with aside(lambda: at_port(port, origin)) as again:
                show(again, page)
                expect(page.locator("tamulag-meter")).to_contain_text("+1.2")


def at_port(port: int, origin: str) -> WebSocketPublisher:
    return WebSocketPublisher(
        Access(origins=(origin,)),
        port,
        hello=lambda: '{"type": "hello"}',
        missed=missed,
        routes=widgets.routes(),
    )


@pytest.mark.parametrize("late", [False, True], ids=["before the file came", "later"])
def test_a_token_is_a_property(browser: Browser, tmp_path: Path, late: bool) -> None:
    """It opens the server whenever it is set, and is in no attribute and no address."""
    script = f"<script>document.querySelector('tamulag-meter').token = '{SECRET}'</script>"
    with site(tmp_path) as origin, aside(lambda: server(origin, token=SECRET)) as running:
        name = write(tmp_path, running.server.port, "" if late else script)
        with opened(browser, f"{origin}/{name}") as page:
            if late:
                page.evaluate("document.querySelector('tamulag-meter').token = 'x'.repeat(20)")
                expect(page.get_by_role("status")).to_contain_text("Set the element's token")
                page.evaluate(f"document.querySelector('tamulag-meter').token = '{SECRET}'")
            show(running, page)
            expect(page.locator("tamulag-meter")).to_contain_text("+1.2")
            assert SECRET not in page.locator("tamulag-meter").evaluate("e => e.outerHTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible_in_light_and_dark(browser: Browser, tmp_path: Path, scheme: str) -> None:
    """The number stands out by 4.5 to 1 from its ground, as WCAG 2 asks for."""
    with showing(browser, tmp_path, scheme) as page:
        colours = page.locator("tamulag-meter").evaluate(COLOURS)
        light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
        assert (luminance(colours[1]) < 0.5) == (scheme == "dark")


COLOURS = """meter => {
    const ink = getComputedStyle(meter.shadowRoot.querySelector(".value")).color;
    const ground = getComputedStyle(meter).backgroundColor;
    return [ink, ground].map(text => text.match(/[0-9.]+/g).slice(0, 3).map(Number));
}"""


def luminance(colour: list[float]) -> float:
    """Return the relative luminance of an sRGB colour, channels 0 to 255."""
    parts = [channel / 255 for channel in colour]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_any_page_may_read_the_file_and_nothing_else() -> None:
    """A script of another origin is let in by its header, without a token; no other page is."""
    with aside(lambda: server(token=SECRET)) as running:
        address = f"http://127.0.0.1:{running.server.port}"
        with urlopen(f"{address}/meter.js", timeout=5) as got:
            assert got.headers["Access-Control-Allow-Origin"] == "*"
            assert got.headers["Content-Type"].startswith("text/javascript")
        with pytest.raises(HTTPError) as refused:
            urlopen(f"{address}/", timeout=5)
        refused.value.close()
        assert "Access-Control-Allow-Origin" not in refused.value.headers


def test_an_installed_package_has_every_file() -> None:
    """Whatever lies in web/ goes into the wheel, and the element is among it."""
    tool = tomllib.loads((EXAMPLE.parent.parent / "pyproject.toml").read_text())["tool"]
    patterns = tool["setuptools"]["package-data"]["tamulag.streamer.webserver"]
    names = [f"static/{path.name}" for path in widgets.STATIC.iterdir()]
    assert "static/meter.js" in names
    assert [n for n in names if not any(fnmatch(n, pattern) for pattern in patterns)] == []


def test_without_the_file_nothing_is_promised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A broken installation shows when the agent starts, not on somebody's page."""
    monkeypatch.setattr(widgets, "STATIC", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"meter\.js"):
        widgets.routes()
