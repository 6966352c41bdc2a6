"""The whole path as a user runs it: camera, microphone and words in, WebSocket and MQTT out.

TAMULAG_LIVE_SECONDS (15) says for how long the messages are counted; `pytest -s` shows the figures.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import jsonschema
import numpy as np
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from support.devices import (
    end,
    free_port,
    mjpeg_camera,
    mosquitto,
    need,
    pulse_server,
    spoken,
    wait_for,
)

BIN = Path(sys.executable).parent
SECONDS = float(os.environ.get("TAMULAG_LIVE_SECONDS", "15"))
START = 60.0
"""Seconds that the process has to load its models and to open its devices."""

MODALITIES = ("text", "audio", "vision")
STATUS = "tamulag/v1/site/device/status"

Message = dict[str, Any]

pytestmark = [pytest.mark.data, pytest.mark.camera, pytest.mark.sound, pytest.mark.broker]


class Receipt(NamedTuple):
    at: float  # wall time, seconds
    message: Message


class Receiver:
    """Keep what one subscriber gets, stamped on arrival."""

    def __init__(self, name: str, lines: Iterable[str]) -> None:
        self.name = name
        self.receipts: list[Receipt] = []
        self._thread = Thread(target=self._listen, args=(lines,), name=f"receiver.{name}")
        self._thread.start()

    def _listen(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.receipts.append(Receipt(time.time(), json.loads(line)))

    def of(self, kind: str, since: float = 0.0) -> list[Receipt]:
        return [r for r in list(self.receipts) if r.message["type"] == kind and r.at >= since]

    def first(self, kind: str, is_it: Callable[[Message], bool], *, since: float = 0.0) -> Receipt:
        """Wait for the first message that is meant and return it."""
        found: list[Receipt] = []

        def is_here() -> bool:
            found[:] = [r for r in self.of(kind, since) if is_it(r.message)]
            return bool(found)

        wait_for(is_here, START, f"the {kind} message comes to {self.name}")
        return found[0]

    def join(self) -> None:
        self._thread.join(5.0)
        assert not self._thread.is_alive(), f"{self.name} is not told the end"


class Live(NamedTuple):
    """A running `tamulag-stream` with two subscribers."""

    process: subprocess.Popen[bytes]
    websocket: Receiver
    mqtt: Receiver


class Room(NamedTuple):
    """A person who speaks, a microphone that hears it, a broker."""

    clip: Path
    environment: dict[str, str]
    mqtt_port: int


@pytest.fixture
def room(data: Path, tmp_path: Path) -> Iterator[Room]:
    need("mosquitto_sub", "mosquitto-clients")
    need("paplay", "pulseaudio-utils")
    clip = data / "clips" / "retalking_face_1.mp4"
    wav = spoken(clip, tmp_path / "speech.wav", SECONDS + 2 * START)
    with pulse_server(tmp_path) as sound, sound.speaking(wav), mosquitto() as port:
        yield Room(clip, sound.environment, port)


@contextmanager
def streaming(room: Room, camera: str) -> Iterator[Live]:
    """Start the program and its subscribers, and end what of it is left."""
    address = f"127.0.0.1:{free_port()}"
    sources = ["--camera", camera, "--microphone", "default", "--asr", "moonshine"]
    outputs = ["--websocket", address, "--mqtt", f"mqtt://127.0.0.1:{room.mqtt_port}"]
    command = [str(BIN / "tamulag-stream"), *sources, *outputs]
    with ExitStack() as stack:
        ear = stack.enter_context(hearing(room.mqtt_port, "tamulag/v1/#"))
        process = subprocess.Popen(command, env=room.environment, stdout=subprocess.DEVNULL)
        stack.callback(end, process)
        socket = stack.enter_context(connected(f"ws://{address}/"))
        receivers = (Receiver("WebSocket", told(socket)), Receiver("MQTT", payloads(ear)))
        for receiver in receivers:
            stack.callback(receiver.join)
        stack.callback(ear.kill)
        stack.callback(end, process)
        yield Live(process, *receivers)


def hearing(port: int, topic: str, *options: str) -> subprocess.Popen[bytes]:
    command = ["mosquitto_sub", "-p", str(port), "-t", topic, "-v", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def payloads(ear: subprocess.Popen[bytes]) -> Iterator[str]:
    assert ear.stdout is not None
    for line in ear.stdout:
        yield line.decode().split(" ", 1)[1]


def connected(url: str) -> ClientConnection:
    """Subscribe as soon as the server is there."""
    deadline = time.monotonic() + START
    while True:
        try:
            return connect(url)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def told(socket: ClientConnection) -> Iterator[str]:
    with suppress(ConnectionClosed):
        for payload in socket:
            yield str(payload)


class Load(NamedTuple):
    cores: float
    rss: tuple[float, float]  # MiB, 5 s after the first score and at the end


def measured(process: subprocess.Popen[bytes], seconds: float) -> Load:
    """Let the program run for some seconds and return what it took."""
    look = psutil.Process(process.pid)
    began, before = time.monotonic(), look.cpu_times()
    time.sleep(min(5.0, seconds))
    early = look.memory_info().rss
    time.sleep(max(began + seconds - time.monotonic(), 0.0))
    after, passed = look.cpu_times(), time.monotonic() - began
    spent = after.user + after.system - before.user - before.system
    return Load(spent / passed, (early / 2**20, look.memory_info().rss / 2**20))


def ways(scores: list[Receipt], epoch: float) -> list[float]:
    """Return the seconds from the end of each hop to its receipt."""
    return [at - epoch - score["window"]["end"] for at, score in scores]


def shares(scores: list[Receipt], *words: str) -> dict[str, float]:
    """Return for each modality in which share of the scores its status is one of `words`."""
    found = {
        name: [score["modalities"][name]["status"] in words for _, score in scores]
        for name in MODALITIES
    }
    return {name: sum(hits) / len(hits) for name, hits in found.items()}


def row(name: str, values: Iterable[float]) -> str:
    return f"{name:28}" + "".join(f"{value:10.3f}" for value in values)


def spread(values: list[float]) -> list[float]:
    return [*np.percentile(values, [50, 95]), max(values)]


def table(per_receiver: dict[str, list[Receipt]], epoch: float, load: Load) -> str:
    """Return the figures for people."""
    lines = [f"{SECONDS:g} s live", f"{'seconds':28}{'p50':>10}{'p95':>10}{'max':>10}{'1/s':>10}"]
    for name, scores in per_receiver.items():
        figures = [*spread(ways(scores, epoch)), len(scores) / SECONDS]
        lines.append(row(f"hop end to {name}", figures))
    scores = per_receiver["WebSocket"]
    for part in ("align", "features", "model", "total"):
        told_by_itself = [score["latency"][part] for _, score in scores]
        lines.append(row(f"  latency.{part}", spread(told_by_itself)))
    lines.append(f"{'':28}" + "".join(f"{name:>10}" for name in MODALITIES))
    lines.append(row("share ok", shares(scores, "ok").values()))
    lines.append(row("share ok or stale", shares(scores, "ok", "stale").values()))
    dropped = scores[-1].message["dropped"]
    lines.append(f"{'dropped':28}" + "".join(f"{dropped[name]:10}" for name in MODALITIES))
    lines.append(f"cores {load.cores:.2f}, RSS {load.rss[0]:.0f} -> {load.rss[1]:.0f} MiB")
    return "\n".join(lines)


def is_any(_: Message) -> bool:
    return True


def epoch_of(live: Live) -> float:
    hello = live.websocket.first("hello", is_any).message
    return datetime.fromisoformat(hello["epoch"]).timestamp()


def test_a_face_a_voice_and_words_become_messages_for_both(room: Room) -> None:
    """Two scores a second reach each subscriber within a second, from all three modalities."""
    with mjpeg_camera(room.clip) as camera, streaming(room, camera.url) as live:
        begin = live.websocket.first("sentiment", is_any).at
        load = measured(live.process, SECONDS)
        epoch = epoch_of(live)
        scores = {
            who.name: [r for r in who.of("sentiment", begin) if begin < r.at <= begin + SECONDS]
            for who in (live.websocket, live.mqtt)
        }
    print("\n" + table(scores, epoch, load))
    check = jsonschema.Draft202012Validator(schema()).validate
    for receipts in scores.values():
        assert len(receipts) / SECONDS >= 1.8
        assert min(ways(receipts, epoch)) >= 0
        assert np.percentile(ways(receipts, epoch), 95) <= 1.0
        for _, score in receipts:
            check(score)
        warm = [r for r in receipts if not r.message["window"]["warmup"]]
        seen = [{p["status"] for p in score["modalities"].values()} for _, score in warm]
        assert {"ok"} in seen
        present = shares(warm, "ok", "stale")
        assert min(present["audio"], present["vision"]) >= 0.8
        # A busy test machine may cost the moment of a placement anew, five ticks of 20 ms.
    assert warm[-1].message["dropped"]["audio"] <= 5


def schema() -> dict[str, Any]:
    done = subprocess.run([BIN / "tamulag", "schema"], capture_output=True, check=True, timeout=60)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_sigterm_leaves_offline_behind(room: Room) -> None:
    """The program ends with code 0 within 3 s, and the broker keeps its status `offline`."""
    with mjpeg_camera(room.clip) as camera, streaming(room, camera.url) as live:
        live.websocket.first("sentiment", is_any)
        asked = time.monotonic()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(3.0) == 0
        print(f"\nended {time.monotonic() - asked:.2f} s after SIGTERM")
        with hearing(room.mqtt_port, STATUS, "-C", "1", "-W", "3") as ear:
            assert [json.loads(line)["state"] for line in payloads(ear)] == ["offline"]


def test_a_camera_that_goes_and_comes_back(room: Room) -> None:
    """The loss is told within 4 s and scores go on; 8 s after its return the face is seen."""
    port = free_port()
    with ExitStack() as stack:
        camera = stack.enter_context(mjpeg_camera(room.clip, port))
        live = stack.enter_context(streaming(room, camera.url))
        live.mqtt.first("sentiment", is_seen_and_heard)
        camera.unplug()
        gone = time.time()
        degraded = live.mqtt.first("status", partial(is_state, "degraded"), since=gone)
        blind = live.mqtt.first("sentiment", partial(is_vision, "missing", "camera_lost"))
        wait_for(lambda: len(live.mqtt.of("sentiment", blind.at)) >= 4, 5.0, "scores go on")
        dark = live.mqtt.of("sentiment", blind.at)
        stack.enter_context(mjpeg_camera(room.clip, port))
        back = time.time()
        seen = live.mqtt.first("sentiment", partial(is_vision, "ok", None), since=back)
        online = live.mqtt.first("status", partial(is_state, "online"), since=back)
    print(f"\ndegraded after {degraded.at - gone:.2f} s, blind after {blind.at - gone:.2f} s")
    print(f"online after {online.at - back:.2f} s, vision ok after {seen.at - back:.2f} s")
    assert degraded.message["lost"] == {"vision": "camera_lost"}
    assert max(degraded.at, blind.at) - gone <= 4.0
    assert all(score["sentiment"] is not None for _, score in dark)
    assert max(seen.at, online.at) - back <= 8.0


def is_seen_and_heard(message: Message) -> bool:
    return all(message["modalities"][name]["status"] == "ok" for name in ("audio", "vision"))


def is_state(word: str, message: Message) -> bool:
    return bool(message["state"] == word)


def is_vision(status: str, reason: str | None, message: Message) -> bool:
    vision = message["modalities"]["vision"]
    return (vision["status"], vision.get("reason")) == (status, reason)
