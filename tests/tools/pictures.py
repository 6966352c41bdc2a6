"""Take the pictures of docs/images from real runs: `python -m tests.tools.pictures`.

The dashboard, light, dark and on a phone, and the meter from a run of the demo; the capture page
with the demo's portrait and voice as camera and microphone. It takes about two minutes.
"""

import io
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tamulag.streamer.app.build_agent import demo_files

from ..support.browser import as_devices, chromium, opened, site
from ..support.dashboard import START, real
from ..support.devices import spoken
from ..support.paths import ROOT

IMAGES = ROOT / "docs" / "images"
LIMIT = 150_000
"""Bytes of a picture at most."""
SECONDS = 52
"""Of session that the timeline has at least when it is taken."""
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
SMALL = {"width": 500, "height": 360}
TABLET = {"width": 520, "height": 740}

READY = f"""() => {{
    const parts = [...document.querySelectorAll("#parts li")];
    const [minutes, seconds] = document.querySelector("#window").textContent.split(" to ").at(-1)
        .split(":").map(Number);
    return document.querySelector("#state").textContent === "online"
        && parts.every((it) => it.dataset.status === "ok") && 60 * minutes + seconds >= {SECONDS}
        && document.querySelectorAll("#words .heavy").length >= 4;
}}"""
"""A score of each modality, marked words, a timeline to look at, and nothing given up."""


def take(page: Page, name: str, *, whole: bool = False) -> None:
    """Write what a page shows as a PNG, of few colours if it is too large."""
    page.wait_for_timeout(300)  # what moves has come to rest
    shot = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    path = IMAGES / name
    shot.save(path, optimize=True)
    if path.stat().st_size > LIMIT:  # a photograph
        shot.quantize(256).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)} {shot.width} x {shot.height}, {size / 1000:.0f} kB")
    if size > LIMIT:
        raise ValueError(f"{path} has {size} bytes, more than {LIMIT}: show less of the page")


def dashboard(page: Page) -> None:
    """Take the dashboard in its three looks; the timeline goes on meanwhile."""
    page.wait_for_function(READY, timeout=2 * START)
    take(page, "dashboard.png", whole=True)
    page.emulate_media(color_scheme="dark")
    take(page, "dashboard-dark.png", whole=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    take(page, "dashboard-phone.png", whole=True)


@contextmanager
def demo(folder: Path, origin: str) -> Iterator[str]:
    """Run the demo, which a page of the origin may listen to; give its address."""
    settings = folder / "my.toml"
    settings.write_text(f'[websocket]\norigins = ["{origin}"]\n')
    with real("--demo", "--loop", "--config", str(settings)) as address:
        yield address


def meter(browser: Browser, origin: str, folder: Path, address: str) -> None:
    """Take the example page with the meter."""
    text = (ROOT / "examples" / "embed.html").read_text()
    place = address.removeprefix("http://").rstrip("/")
    (folder / "embed.html").write_text(text.replace("127.0.0.1:8765", place))
    with opened(browser, f"{origin}/embed.html") as page:
        page.set_viewport_size(SMALL)  # type: ignore[arg-type]
        expect(page.locator("#mean")).not_to_have_text("none yet")
        take(page, "meter.png")


def devices(folder: Path) -> list[str]:
    """Return the flags that make the demo's portrait and voice Chromium's devices."""
    portrait, voice = demo_files()
    face = folder / "face.mjpeg"
    read = ["ffmpeg", "-loglevel", "error", "-loop", "1", "-i", str(portrait), "-t", "4"]
    look = ["-r", "10", "-vf", "crop=iw:iw*3/4:0:40,scale=640:480", "-pix_fmt", "yuvj420p"]
    write = ["-c:v", "mjpeg", "-q:v", "3", str(face)]
    subprocess.run([*read, *look, *write], check=True, timeout=60, stdin=subprocess.DEVNULL)
    return as_devices(spoken(voice, folder / "voice.wav", 24.0), face)


def capture(folder: Path) -> None:
    """Take the capture page while it is on."""
    with (
        real("--ingest") as address,
        chromium(*devices(folder)) as browser,
        opened(browser, f"{address}capture", ["camera", "microphone"]) as page,
    ):
        page.set_viewport_size(TABLET)  # type: ignore[arg-type]
        page.get_by_label("I have read this").check()
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("status")).to_contain_text("ON", timeout=START)
        expect(page.locator("#figures")).to_contain_text("pictures")
        page.wait_for_timeout(5000)
        take(page, "capture.png")


def main() -> None:
    """Take all of them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        with site(folder) as origin, demo(folder, origin) as address, chromium() as browser:
            with opened(browser, address) as page:
                page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
                dashboard(page)
            meter(browser, origin, folder, address)
        capture(folder)


if __name__ == "__main__":
    main()
