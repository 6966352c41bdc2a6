"""The page of the call centre, in a real browser with a microphone that beeps."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from support.axe import faults
from support.browser import Aside, aside, chromium, complaints, opened, site
from support.capture_server import IdlePipeline
from support.devices import spoken
from support.paths import ROOT
from support.websocket_peers import missed
from tamulag.streamer.bench.rig.processes import wait_for
from tamulag.streamer.core.sample import Modality
from tamulag.streamer.core.source import Put
from tamulag.streamer.protocol.ingest import PlacedFrame, SenderHello
from tamulag.streamer.service.ingest_endpoint import IngestEndpoint
from tamulag.streamer.service.single_sender import SingleSender
from tamulag.streamer.webserver import widgets
from tamulag.streamer.webserver.access_control import Access
from tamulag.streamer.webserver.server import WebSocketPublisher

EXAMPLE = ROOT / "examples" / "call_centre.html"
PART = {"sentiment": 1.25, "weight": 1.0, "status": "ok", "age": 0.0}
SCORE = {
    "type": "sentiment",
    "sentiment": 1.25,
    "label": "positive",
    "interval": [-0.25, 2.75],
    "modalities": {"text": PART, "audio": PART, "vision": PART},
}


class RecordingPipeline(IdlePipeline):
    """Work that keeps the loudest sample of each channel."""

    def __init__(self, *modalities: Modality) -> None:
        super().__init__(*modalities)
        self.peaks = np.zeros(2)
        self.hello = SenderHello(words=True)

    def begin(self, hello: SenderHello) -> None:
        self.hello = hello

    def push(self, placed: PlacedFrame, put: Put) -> None:
        frame = placed.frame
        assert frame.sound is not None
        self.peaks = np.maximum(self.peaks, np.abs(frame.sound.astype(float)).max(0))


FAKE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
"""Chromium's own microphone, which beeps."""


@dataclass
class Call:
    """The page of the call centre in a browser, and an agent that it sends to."""

    page: Page
    heard: RecordingPipeline
    running: Aside

    def answer(self) -> None:
        self.page.get_by_role("button", name="Answer").click()

    def says(self, text: str) -> None:
        expect(self.page.locator("#state")).to_contain_text(text)

    def is_over(self) -> None:
        """Check that the microphone is given back, and that the next call can be answered."""
        expect(self.page.get_by_role("button", name="Answer")).to_be_enabled()
        expect(self.page.get_by_role("button", name="Hang up")).to_be_disabled()
        ended = "taken.every((track) => track.readyState === 'ended')"
        self.page.wait_for_function(f"taken.length > 0 && {ended}")


KEEP_TRACKS = """
    window.taken = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wish) => {
        const stream = await ask(wish);
        taken.push(...stream.getTracks());
        return stream;
    };
"""


@contextmanager
def call(folder: Path) -> Iterator[Call]:
    """Open the page as it is shipped, but for the port of the agent."""
    heard = RecordingPipeline("text", "audio")
    taken = SingleSender(
        voice=heard,
        face=RecordingPipeline("vision"),
        takes_words=False,
        now=time.monotonic,
    )
    with site(folder) as origin, aside(lambda: sending(origin, taken)) as running:
        page_of_call(folder, running)
        with (
            working(taken),
            chromium(*FAKE) as browser,
            opened(browser, "about:blank", ["microphone"]) as page,
        ):
            page.add_init_script(KEEP_TRACKS)
            page.goto(f"{origin}/call_centre.html")
            yield Call(page, heard, running)


@pytest.mark.data
@pytest.mark.camera
def test_call_centre_page(tmp_path: Path, data: Path) -> None:
    """Both sides of the call come, each on its channel; the meter shows what is published."""
    wav = spoken(data / "clips" / "retalking_face_1.mp4", tmp_path / "caller.wav", 6.0)
    with call(tmp_path) as line:
        found = complaints(line.page)
        line.page.locator("#recording").set_input_files(wav)
        line.answer()
        line.says("is scored")
        wait_for(lambda: bool((line.heard.peaks > 500).all()), 30.0, "both sides are heard")
        line.running.publish(**SCORE)
        expect(line.page.locator("tamulag-meter")).to_contain_text("+1.3")
        line.page.get_by_role("button", name="Hang up").click()
        expect(line.page.locator("#state")).to_have_text("no call")
        line.is_over()
        assert line.heard.hello.audio
        assert line.heard.hello.audio.roles == ["agent", "customer"]
        assert found == []


def test_call_centre_page_without_a_recording(tmp_path: Path) -> None:
    """As shipped, with no file beside it, the microphone is the customer."""
    with call(tmp_path) as line:
        line.answer()
        line.says("is scored")
        wait_for(lambda: bool(line.heard.peaks[1] > 500), 30.0, "the customer is heard")
        assert line.heard.peaks[0] == 0


def test_axe_finds_no_serious_fault(tmp_path: Path) -> None:
    """Before a call and in one, with a score in the meter."""
    with call(tmp_path) as line:
        assert faults(line.page) == []
        line.answer()
        line.says("is scored")
        line.running.publish(**SCORE)
        expect(line.page.locator("tamulag-meter")).to_contain_text("+1.3")
        assert faults(line.page) == []


def test_call_centre_page_survives_a_recording_that_is_none(tmp_path: Path) -> None:
    """The reason is shown, the microphone is given back, and the next call goes through."""
    (tmp_path / "notes.txt").write_text("no sound at all")
    with call(tmp_path) as line:
        line.page.locator("#recording").set_input_files(tmp_path / "notes.txt")
        line.answer()
        line.says("no call: notes.txt: ")
        line.is_over()
        line.page.locator("#recording").set_input_files([])
        line.answer()
        line.says("is scored")


def test_call_centre_page_without_an_agent(tmp_path: Path) -> None:
    """It says what to start, and can be tried again."""
    with call(tmp_path) as line:
        line.running.stop()
        line.answer()
        line.says("start tamulag-stream --ingest")
        line.is_over()


def sending(origin: str, taken: SingleSender) -> WebSocketPublisher:
    return WebSocketPublisher(
        Access(origins=(origin,)),
        0,
        hello=lambda: '{"type": "hello"}',
        missed=missed,
        routes=widgets.routes(),
        receive=IngestEndpoint(taken, subject="customer").receive,
    )


def page_of_call(folder: Path, running: Aside) -> None:
    text = EXAMPLE.read_text()
    text = text.replace("127.0.0.1:8765", f"127.0.0.1:{running.server.port}")
    (folder / "call_centre.html").write_text(text)


@contextmanager
def working(taken: SingleSender) -> Iterator[None]:
    """Run the sources of a remote sender, as the agent does."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=source.run, args=(lambda _: None, stop)) for source in taken.sources
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)
