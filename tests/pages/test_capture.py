"""The capture page in a real browser, a clip as camera and microphone, to a real agent."""

import json
import re
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from websockets.sync.client import ClientConnection, connect

from support.axe import dark_faults, faults
from support.browser import as_devices, aside, chromium, complaints, opened
from support.capture_server import ReceivedFrames, capture_server
from support.certificates import authority
from support.devices import need, spoken
from support.fork_server import Command
from support.running_server import Serving
from tamulag.streamer.bench.rig.processes import CAMERA, free_port, wait_for
from tamulag.streamer.webserver.access_control import Access, Token

CLIP = "retalking_face_1.mp4"
SECRET = "correct-horse-battery"
START = 120.0
"""Seconds that the agent has to load its models, on a machine that does other things too."""

SPY = """(() => {
    window.tracks = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (what) => {
        const stream = await ask(what);
        window.tracks.push(...stream.getTracks());
        return stream;
    };
})()"""

Message = dict[str, Any]

pytestmark = [pytest.mark.data, pytest.mark.camera, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def devices(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the flags that make a clip Chromium's camera and microphone."""
    need(CAMERA)
    clip = data / "clips" / CLIP
    folder = tmp_path_factory.mktemp("capture")
    wav, mjpeg = spoken(clip, folder / "voice.wav", 24.0), folder / "face.mjpeg"
    read = ["ffmpeg", "-loglevel", "error", "-i", str(clip), "-an", "-r", "10", "-vf"]
    write = ["scale=480:-2", "-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p", str(mjpeg)]
    subprocess.run([*read, *write], check=True, timeout=60, stdin=subprocess.DEVNULL)
    return as_devices(wav, mjpeg)


@pytest.fixture(scope="module")
def agent() -> Iterator[int]:
    """Run `tamulag-stream --ingest` and give its port."""
    port = free_port()
    command = ["tamulag-stream", "--ingest", "--websocket", f"127.0.0.1:{port}"]
    quiet = subprocess.DEVNULL
    with Command(command, stdout=quiet, stderr=quiet) as process:
        wait_for(lambda: is_up(port, process), START, "the agent serves its page")
        yield port


def is_up(port: int, process: Command) -> bool:
    assert process.poll() is None, "the agent has ended"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/capture", timeout=2) as page:
            return bool(page.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser(devices: list[str]) -> Iterator[Browser]:
    with chromium(*devices) as browser:
        yield browser


@contextmanager
def capturing(browser: Browser, port: int) -> Iterator[Page]:
    """Open the page, consent and start."""
    with opened(browser, "about:blank", ["camera", "microphone"]) as page:
        page.add_init_script(SPY)
        page.goto(f"http://127.0.0.1:{port}/capture")
        page.get_by_label("I have read this").check()
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("status")).to_contain_text("ON")
        yield page


def test_axe_finds_no_serious_fault(browser: Browser, agent: int) -> None:
    """Neither while it says ON with its picture, nor after that; in light colours and in dark."""
    with capturing(browser, agent) as page:
        expect(page.locator("#figures")).to_contain_text("pictures")
        assert faults(page) + dark_faults(page) == []
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("status")).to_contain_text("OFF")
        assert dark_faults(page) == []
        page.emulate_media(color_scheme="light")
        assert faults(page) == []


def first(scores: ClientConnection, kind: str, is_it: Any, seconds: float = 60.0) -> Message:
    """Return the first message that is meant."""
    found: list[Message] = []

    def is_here() -> bool:
        message: Message = json.loads(scores.recv(timeout=seconds))
        found[:] = [message] if message["type"] == kind and is_it(message) else []
        return bool(found)

    wait_for(is_here, seconds, f"the {kind} message comes")
    return found[0]


@pytest.mark.timeout(240)
def test_what_the_page_sends_is_scored(browser: Browser, agent: int) -> None:
    """Words, voice and face of the clip count, and the page says clearly that it is on."""
    with connect(f"ws://127.0.0.1:{agent}/") as scores, capturing(browser, agent) as page:
        found = complaints(page)
        # On a busy machine the recogniser begins late.
        score = first(scores, "sentiment", all_there, seconds=180.0)
        assert score["sentiment"] is not None
        assert {m: p["status"] for m, p in score["modalities"].items()} != {}
        assert "ON" in page.title()
        expect(page.locator("#figures")).to_contain_text("s of sound")
        assert found == []


def all_there(message: Message) -> bool:
    return all(p["status"] in ("ok", "stale") for p in message["modalities"].values())


def test_many_pages_are_seats_of_one_server(browser: Browser) -> None:
    """`tamulag serve` takes the page twice at a time; the dashboard follows one of the two."""
    with Serving(workers=1) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with capturing(browser, port), capturing(browser, port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/seats", timeout=5) as page:
                seats = [seat["session"] for seat in json.load(page)["seats"]]
            assert len(seats) == 2
            with connect(f"{server.url}?session={seats[0]}") as scores:
                # Two browsers and the worker share the cores, so sound may come too late to count.
                score = first(scores, "sentiment", lambda m: m["sentiment"] is not None, START)
            assert score["session"] == seats[0]
            with opened(browser, f"http://127.0.0.1:{port}/?session={seats[1]}") as dashboard:
                expect(dashboard.locator("#score")).to_contain_text(re.compile(r"\d"))


def test_stop_ends_the_devices(browser: Browser, agent: int) -> None:
    """The tracks have ended, the page says OFF, and the agent tells that both are lost."""
    with connect(f"ws://127.0.0.1:{agent}/") as scores, capturing(browser, agent) as page:
        assert page.evaluate("tracks.map(t => t.readyState)") == ["live", "live"]
        first(scores, "sentiment", lambda m: m["modalities"]["vision"]["status"] == "ok")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("status")).to_contain_text("OFF")
        assert page.evaluate("tracks.map(t => t.readyState)") == ["ended", "ended"]
        lost = first(scores, "status", lambda m: "vision" in m["lost"] and "audio" in m["lost"])
        assert lost["lost"]["vision"] == "camera_lost"
        assert lost["lost"]["audio"] == "microphone_lost"


def test_nothing_starts_without_consent(browser: Browser, agent: int) -> None:
    """The box is empty at first, and no device is asked for until it is checked."""
    with opened(browser, "about:blank", ["camera", "microphone"]) as page:
        page.add_init_script(SPY)
        page.goto(f"http://127.0.0.1:{agent}/capture")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("status")).to_contain_text("OFF")
        assert page.evaluate("tracks.length") == 0


def test_a_second_page_is_told_to_wait(browser: Browser, agent: int) -> None:
    """One sender at a time; the other one's devices are let go again."""
    with capturing(browser, agent), opened(browser, "about:blank", ["camera"]) as page:
        page.add_init_script(SPY)
        page.goto(f"http://127.0.0.1:{agent}/capture")
        page.get_by_label("I have read this").check()
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("somebody else is sending")
        assert set(page.evaluate("tracks.map(t => t.readyState)")) <= {"ended"}


def test_a_tablet_sends_over_tls_with_a_token(browser: Browser, tmp_path: Path) -> None:
    """Without the token the devices are let go and the page asks for it; with it both come."""
    own = authority(tmp_path).sign("server")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own.certificate, own.key)
    taken = ReceivedFrames()
    locked = partial(capture_server, taken, Access(tokens=(Token(SECRET),), tls=tls))
    with aside(locked) as running, opened(browser, "about:blank", ["camera"]) as page:
        page.add_init_script(SPY)
        page.goto(f"https://127.0.0.1:{running.server.port}/capture")
        page.get_by_label("I have read this").check()
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("no valid token")
        assert set(page.evaluate("tracks.map(t => t.readyState)")) == {"ended"}
        page.get_by_label("Token").fill(SECRET)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("status")).to_contain_text("ON")
        wait_for(lambda: len(taken.pictures) > 2, 20.0, "pictures come")


TABLET = """(() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
    const pen = canvas.getContext("2d");
    const draw = () => pen.fillRect(0, 0, canvas.width, canvas.height * Math.random());
    setInterval(draw, 50);
    window.turn = () => { [canvas.width, canvas.height] = [canvas.height, canvas.width]; draw(); };
    window.stopped = false;
    window.held = false; // sound waits for a tap
    window.slow = 0; // ms until the devices are given
    window.tracks = [];
    const Own = AudioContext;
    window.AudioContext = class extends Own {
        constructor(...rest) {
            super(...rest);
            window.sound = this;
            if (window.held) this.suspend();
        }
        resume() {
            if (window.held) return new Promise(() => {});
            return window.stopped ? Promise.reject(new Error("a call")) : super.resume();
        }
    };
    navigator.mediaDevices.getUserMedia = async (what) => {
        const device = new Own();
        const tone = device.createOscillator(), out = device.createMediaStreamDestination();
        tone.connect(out);
        tone.start();
        const pictures = canvas.captureStream(20);
        await new Promise((done) => setTimeout(done, window.slow));
        const given = [
            ...(what.audio ? out.stream.getTracks() : []),
            ...(what.video ? pictures.getTracks() : []),
        ];
        window.tracks.push(...given);
        return new MediaStream(given);
    };
    const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (data) {
        if (data instanceof Uint8Array) {
            const length = new DataView(data.buffer).getUint32(0);
            const header = JSON.parse(new TextDecoder().decode(data.slice(4, 4 + length)));
            const rest = new Blob([data.slice(4 + length)]);
            const keep = (picture) => { window.shape = picture.width > picture.height; };
            if (header.kind === "image") createImageBitmap(rest).then(keep);
            else window.newest = header;
        }
        return send.call(this, data);
    };
})()"""


@contextmanager
def on_tablet(browser: Browser) -> Iterator[Page]:
    """Open the page with the tablet's devices, and consent."""
    with (
        aside(partial(capture_server, ReceivedFrames())) as running,
        opened(browser, "about:blank") as page,
    ):
        page.add_init_script(TABLET)
        page.goto(f"http://127.0.0.1:{running.server.port}/capture")
        page.get_by_label("I have read this").check()
        yield page


def test_the_sign_follows_what_goes_out_and_pictures_follow_the_tablet(browser: Browser) -> None:
    """Turned while it sends; its sound stopped by the system, and let go on."""
    with on_tablet(browser) as page:
        page.get_by_role("button", name="Start").click()
        sign = page.get_by_role("status")
        expect(sign).to_contain_text("You are being seen and heard.")
        wait_for(lambda: page.evaluate("shape") is True, 20.0, "a wide picture is sent")
        page.evaluate("turn()")
        wait_for(lambda: page.evaluate("shape") is False, 20.0, "a high picture is sent")
        page.evaluate("stopped = true; sound.suspend()")
        expect(sign).to_contain_text("You are being seen. The system has stopped the microphone")
        before = page.evaluate("newest")
        page.evaluate("stopped = false")
        expect(sign).to_contain_text("You are being seen and heard.")
        after = page.evaluate("newest")
        passed = after["timestamp"] - before["timestamp"]
        assert (after["position"] - before["position"]) / 16000 == pytest.approx(passed, abs=0.3)


def test_a_stop_while_the_browser_asks_lets_go_what_it_gives(browser: Browser) -> None:
    """What comes after Stop is released at once, and does not end the next start."""
    with on_tablet(browser) as page:
        sign = page.get_by_role("status")
        page.evaluate("slow = 3000")
        page.get_by_role("button", name="Start").click()
        page.get_by_role("button", name="Stop").click()
        expect(sign).to_contain_text("OFF")
        page.evaluate("slow = 0")
        page.get_by_role("button", name="Start").click()
        expect(sign).to_contain_text("You are being seen and heard.")
        wait_for(lambda: page.evaluate("tracks.length") == 4, 20.0, "the first devices come too")
        wait_for(
            lambda: page.evaluate("tracks.filter(t => t.readyState === 'ended').length") == 2,
            5.0,
            "those of the first start end",
        )
        expect(sign).to_contain_text("You are being seen and heard.")


def test_sound_that_waits_for_a_tap_does_not_hold_up_pictures(browser: Browser) -> None:
    """The browser answers only after the tap; until then the sign asks for it."""
    with on_tablet(browser) as page:
        page.evaluate("held = true")
        page.get_by_role("button", name="Start").click()
        sign = page.get_by_role("status")
        expect(sign).to_contain_text("You are being seen. The browser has not started the sound")
        page.evaluate("held = false")
        page.locator("h1").click()
        expect(sign).to_contain_text("You are being seen and heard.")


def test_sound_alone_that_waits_for_a_tap_is_no_endless_waiting(browser: Browser) -> None:
    """After some seconds without anything sent the sign says so."""
    with on_tablet(browser) as page:
        page.evaluate("held = true")
        page.get_by_label("Camera: ten pictures").uncheck()
        page.get_by_role("button", name="Start").click()
        sign = page.get_by_role("status")
        expect(sign).to_contain_text("PAUSED Nothing is sent. The browser has not")
        page.evaluate("held = false")
        page.locator("h1").click()
        expect(sign).to_contain_text("You are being heard.")


@pytest.mark.parametrize(
    ("label", "other"), [("Camera: ten pictures", "heard"), ("Microphone", "seen")]
)
def test_one_device_alone_is_said_to_be_on(browser: Browser, label: str, other: str) -> None:
    """Nothing goes out that the sign does not tell."""
    with on_tablet(browser) as page:
        found = complaints(page)
        page.get_by_label(label).uncheck()
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("status")).to_have_text(f"ON You are being {other}.")
        assert found == []
