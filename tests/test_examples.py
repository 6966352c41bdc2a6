"""Every example is run as its first lines say, against a real server, broker or browser."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import aiomqtt
import numpy as np
import pytest
from playwright.sync_api import expect

from chromium import Aside, aside, chromium, complaints, opened, site
from peers import missed
from tamulag.streamer import embed
from tamulag.streamer.access import Access, Token
from tamulag.streamer.ingest import Frame, SenderHello
from tamulag.streamer.reception import Reception
from tamulag.streamer.sample import Modality
from tamulag.streamer.source import Put
from tamulag.streamer.websocket import WebSocketPublisher

from .devices import spoken, wait_for
from .mosquitto import mosquitto, within

EXAMPLES = Path(__file__).parent.parent / "examples"
SECRET = "correct-horse-battery"
PART = {"sentiment": 1.25, "weight": 1.0, "status": "ok", "age": 0.0}
SCORE = {
    "type": "sentiment",
    "sentiment": 1.25,
    "valence": 0.4167,
    "label": "positive",
    "interval": [-0.25, 2.75],
    "modalities": {"text": PART, "audio": PART, "vision": PART},
}
STATUS = {"type": "status", "state": "degraded", "lost": {"vision": "camera_lost"}, "notice": None}


def example(name: str) -> ModuleType:
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def server(*origins: str, token: str | None = None) -> WebSocketPublisher:
    return WebSocketPublisher(
        Access(token=Token(token) if token else None, origins=origins),
        0,
        hello=lambda: '{"type": "hello"}',
        missed=missed,
        shelves=embed.shelves(),
    )


@contextmanager
def run(name: str, *arguments: str, **environment: str) -> Iterator[list[str]]:
    """Run an example in Python; give the list that fills with its lines."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    lines: list[str] = []
    assert process.stdout
    reader = threading.Thread(
        target=lambda out: lines.extend(map(str.strip, out)), args=[process.stdout]
    )
    reader.start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait(5)
        reader.join(5)
        process.stdout.close()


def test_every_example_is_tested_here() -> None:
    """A new one needs a test."""
    here = Path(__file__).read_text() + (Path(__file__).parent / "test_embed.py").read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.is_file()]
    assert names
    assert [name for name in names if name.rpartition(".")[0] not in here] == []


def test_python_client() -> None:
    """It shows its token, and prints scores and what is lost."""
    with (
        aside(lambda: server(token=SECRET)) as running,
        run("subscribe.py", running.server.url, TAMULAG_TOKEN=SECRET) as lines,
    ):
        wait_for(lambda: running.count() == 1, 20.0, "it subscribes")
        running.publish(**STATUS)
        running.publish(**SCORE)
        expected = ["degraded camera_lost", "+1.25 positive"]
        wait_for(lambda: lines == expected, 10.0, "it prints both")


def test_javascript_client() -> None:
    """The same in a browser, which has the WebSocket that Node has from version 22 on."""
    with (
        site(EXAMPLES) as origin,
        aside(lambda: server(origin)) as running,
        chromium() as browser,
        opened(browser, f"{origin}/subscribe.mjs") as page,
    ):
        page.evaluate(
            """async (address) => {
                window.lines = [];
                const { subscribe } = await import("/subscribe.mjs");
                subscribe(address, (line) => window.lines.push(line));
            }""",
            running.server.url,
        )
        wait_for(lambda: running.count() == 1, 20.0, "it subscribes")
        running.publish(**STATUS)
        running.publish(**SCORE)
        page.wait_for_function("lines.length === 2")
        assert page.evaluate("lines") == ["degraded camera_lost", "1.25 positive"]


@pytest.mark.broker
def test_mqtt_subscriber(tmp_path: Path) -> None:
    """It prints the device with its score."""
    with (
        mosquitto(tmp_path, "allow_anonymous true") as broker,
        run("subscribe_mqtt.py", "127.0.0.1", str(broker.port), "hall") as lines,
    ):

        async def publish() -> None:
            async with aiomqtt.Client("127.0.0.1", broker.port) as client:
                while not lines:  # until it has subscribed
                    await client.publish("tamulag/v1/hall/k7/state", json.dumps(SCORE), qos=1)
                    await client.publish("tamulag/v1/roof/k8/state", json.dumps(SCORE), qos=1)

        within(20, publish())
        assert set(lines) == {"k7 +1.25 positive"}


@dataclass
class Expression:
    """A stand-in for hri_msgs/Expression: its fields and their defaults in ROS 2."""

    header: Any = field(default_factory=SimpleNamespace)
    expression: str = ""
    valence: float = 0.0
    arousal: float = 0.0
    confidence: float = 0.0

    def __setattr__(self, name: str, value: Any) -> None:
        """Take what the message takes: ROS refuses another name, type or range."""
        assert name in Expression.__dataclass_fields__
        if name in ("valence", "arousal", "confidence"):
            assert isinstance(value, float)
            assert (0.0 if name == "confidence" else -1.0) <= value <= 1.0
        object.__setattr__(self, name, value)


WORDS = {
    *("neutral", "angry", "sad", "happy", "surprised", "disgusted", "scared", "pleading"),
    *("vulnerable", "despaired", "guilty", "disappointed", "embarrassed", "horrified"),
    *("skeptical", "annoyed", "furious", "suspicious", "rejected", "bored", "tired", "asleep"),
    *("confused", "amazed", "excited"),
}
"""The constants of the message."""


@pytest.mark.parametrize("label", ["negative", "neutral", "positive"])
def test_ros2_bridge_fills_an_expression(label: str) -> None:
    """A word of the message, valence, and how narrow the interval is."""
    expression = Expression()
    assert example("ros2_bridge").fill(expression, SCORE | {"label": label})
    assert expression.expression in WORDS
    assert (expression.valence, expression.arousal, expression.confidence) == (0.4167, 0.0, 0.5)


@pytest.mark.parametrize("message", [STATUS, SCORE | {"valence": None, "label": None}])
def test_ros2_bridge_says_nothing_where_there_is_no_score(message: dict[str, Any]) -> None:
    """An empty room is not a neutral face."""
    expression = Expression()
    assert not example("ros2_bridge").fill(expression, message)
    assert expression == Expression(header=expression.header)


class Heard:
    """Work that keeps the loudest sample of each channel."""

    def __init__(self, *modalities: Modality) -> None:
        self.modalities = modalities
        self.peaks = np.zeros(2)
        self.hello = SenderHello(words=True)

    def begin(self, hello: SenderHello) -> None:
        self.hello = hello

    def take(self, frame: Frame, place: float, span: tuple[int, int], put: Put) -> None:
        assert frame.sound is not None
        self.peaks = np.maximum(self.peaks, np.abs(frame.sound.astype(float)).max(0))

    def end(self, put: Put) -> None: ...

    def losses(self) -> dict[str, int]:
        return {}

    def relieve(self, steps: Collection[str]) -> None: ...


@pytest.mark.data
@pytest.mark.camera
def test_call_centre_page(tmp_path: Path, data: Path) -> None:
    """Both sides of the call come, each on its channel; the meter shows what is published."""
    spoken(data / "clips" / "retalking_face_1.mp4", tmp_path / "call.wav", 6.0)
    heard = Heard("text", "audio")
    taken = Reception(
        voice=heard,
        face=Heard("vision"),
        subject="customer",
        takes_words=False,
        now=time.monotonic,
    )
    flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with site(tmp_path) as origin, aside(lambda: sending(origin, taken)) as running:
        page_of_call(tmp_path, running)
        with (
            working(taken),
            chromium(*flags) as browser,
            opened(browser, "about:blank", ["microphone"]) as page,
        ):
            found = complaints(page)
            page.goto(f"{origin}/call_centre.html")
            page.get_by_role("button", name="Answer").click()
            expect(page.locator("#state")).to_contain_text("is scored")
            wait_for(lambda: bool((heard.peaks > 500).all()), 30.0, "both sides are heard")
            running.publish(**SCORE)
            expect(page.locator("tamulag-meter")).to_contain_text("+1.3")
            page.get_by_role("button", name="Hang up").click()
            expect(page.locator("#state")).to_have_text("no call")
            assert heard.hello.audio
            assert heard.hello.audio.roles == ["agent", "customer"]
            assert found == []


def sending(origin: str, taken: Reception) -> WebSocketPublisher:
    return WebSocketPublisher(
        Access(origins=(origin,)),
        0,
        hello=lambda: '{"type": "hello"}',
        missed=missed,
        shelves=embed.shelves(),
        receive=taken.receive,
    )


def page_of_call(folder: Path, running: Aside) -> None:
    text = (EXAMPLES / "call_centre.html").read_text()
    text = text.replace("127.0.0.1:8765", f"127.0.0.1:{running.server.port}")
    (folder / "call_centre.html").write_text(text)


@contextmanager
def working(taken: Reception) -> Iterator[None]:
    """Run the sources of a reception, as the agent does."""
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
