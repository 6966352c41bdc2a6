"""Every example is run as its first lines say, against a real server, broker or browser."""

import csv
import json
import os
import subprocess
import sys
import threading
import wave as wavefile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import aiomqtt
import pytest

from support.broker import mosquitto
from support.browser import aside, chromium, opened, site
from support.devices import mjpeg_camera, need, pulse_server, spoken
from support.paths import ROOT
from support.running_server import Serving
from support.senders import wave
from support.waiting import within
from support.websocket_peers import missed
from tamulag.streamer.app.build_agent import demo_files
from tamulag.streamer.bench.rig.processes import free_port, wait_for
from tamulag.streamer.webserver import widgets
from tamulag.streamer.webserver.access_control import Access, Token
from tamulag.streamer.webserver.server import WebSocketPublisher

EXAMPLES = ROOT / "examples"
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


def server(*origins: str, token: str | None = None, port: int = 0) -> WebSocketPublisher:
    return WebSocketPublisher(
        Access(token=Token(token) if token else None, origins=origins),
        port,
        hello=lambda: '{"type": "hello"}',
        missed=missed,
        routes=widgets.routes(),
    )


def command(name: str) -> list[str]:
    """Return how an example is run; skip the test where there is no Node.js that can."""
    if not name.endswith(".mjs"):
        return [sys.executable, str(EXAMPLES / name)]
    flags = ["--experimental-websocket"] if node_version() < (22, 0) else []
    return ["node", *flags, str(EXAMPLES / name)]


def node_version() -> tuple[int, int]:
    need(["node"])
    told = subprocess.run(
        ["node", "--version"], check=True, capture_output=True, text=True, timeout=30
    )
    major, minor = map(int, told.stdout.lstrip("v").split(".")[:2])
    if (major, minor) < (20, 10):
        pytest.skip(f"Node.js {told.stdout.strip()} has no WebSocket: install 20.10 or newer")
    return major, minor


def told(*words: str) -> str:
    """Run a command that must end with exit code 1; return the one line that it says."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@contextmanager
def run(name: str, *arguments: str, **environment: str) -> Iterator[list[str]]:
    """Run an example; give the list that fills with its lines."""
    process = subprocess.Popen(
        [*command(name), *arguments],
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
    tests = ("test_examples.py", "webserver/test_widgets.py", "pages/test_call_centre.py")
    here = "".join((Path(__file__).parent / name).read_text() for name in tests)
    names = [path.name for path in EXAMPLES.iterdir() if path.is_file()]
    assert names
    assert [name for name in names if name.rpartition(".")[0] not in here] == []


@pytest.mark.parametrize(
    ("name", "line"), [("subscribe.py", "+1.25 positive"), ("subscribe.mjs", "1.25 positive")]
)
def test_websocket_client(name: str, line: str) -> None:
    """It shows its token, and prints scores and what is lost."""
    with (
        aside(lambda: server(token=SECRET)) as running,
        run(name, running.server.url, TAMULAG_TOKEN=SECRET) as lines,
    ):
        wait_for(lambda: running.count() == 1, 20.0, "it subscribes")
        running.publish(**STATUS)
        running.publish(**SCORE)
        expected = ["degraded camera_lost", line]
        wait_for(lambda: lines == expected, 10.0, "it prints both")


def test_seat_of_a_server(tmp_path: Path) -> None:
    """It sends real speech and prints the scores of its own session."""
    speech = wave()[: 3 * 16000]
    with wavefile.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(speech.tobytes())
    with Serving("--asr", "none", workers=1) as serving:
        done = subprocess.run(
            [*command("sender.py"), str(tmp_path / "talk.wav"), f"{serving.url}ingest"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
    first, *scores = done.stdout.splitlines()
    assert first.startswith("session ")
    assert 2.8 < float(scores[-1].split()[0]) < 3.2
    assert any(not score.endswith("None") for score in scores)


@pytest.mark.parametrize("name", ["subscribe.py", "subscribe.mjs"])
@pytest.mark.parametrize("address", ["ws://127.0.0.1:1/", "ws://127.0.0.1:99999/", "nonsense"])
def test_websocket_client_says_why_it_ends(name: str, address: str) -> None:
    """Nobody there, or no address: one line with the address."""
    assert told(*command(name), address).startswith(f"{address}: ")


@pytest.mark.parametrize("name", ["subscribe.py", "subscribe.mjs"])
def test_websocket_client_without_its_token(name: str) -> None:
    """It says where the token is taken from."""
    with aside(lambda: server(token=SECRET)) as running:
        assert "TAMULAG_TOKEN" in told(*command(name), running.server.url)


def test_javascript_client_without_a_websocket() -> None:
    """An old Node.js gets the remedy."""
    flags = ["--no-experimental-websocket"] if node_version() >= (22, 0) else []
    line = told("node", *flags, str(EXAMPLES / "subscribe.mjs"))
    assert "use 22 or newer, or node --experimental-websocket" in line


def test_javascript_client_on_a_page() -> None:
    """A page can import it."""
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
        run("subscribe_mqtt.py", "127.0.0.1", str(broker.port), "lab") as lines,
    ):

        async def publish() -> None:
            async with aiomqtt.Client("127.0.0.1", broker.port) as client:
                while not lines:  # until it has subscribed
                    await client.publish("tamulag/v1/lab/k7/state", json.dumps(SCORE), qos=1)
                    await client.publish("tamulag/v1/roof/k8/state", json.dumps(SCORE), qos=1)

        within(20, publish())
        assert set(lines) == {"k7 +1.25 positive"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["127.0.0.1", "1"],
        ["127.0.0.1", "port"],
        ["127.0.0.1", "0"],
        ["no.such.host.invalid"],
        ["127.0.0.1", "1", "lab", "more"],
    ],
)
def test_mqtt_subscriber_says_why_it_ends(arguments: list[str]) -> None:
    """No broker, no port, too much: one line with what was given, and the remedy."""
    line = told(*command("subscribe_mqtt.py"), *arguments)
    assert line.startswith(f"{' '.join(arguments)}: ")
    assert "HOST PORT SITE" in line


def test_ros2_bridge_without_ros() -> None:
    """It says how ROS comes into reach."""
    if find_spec("rclpy"):
        pytest.skip("ROS 2 is here")
    assert "source /opt/ros" in told(*command("ros2_bridge.py"))


def test_ros2_bridge_connects_again(capsys: pytest.CaptureFixture[str]) -> None:
    """It waits for an agent that is not there yet, and for one that comes back."""
    port = free_port()
    heard: list[str] = []

    def listen() -> None:
        for message in example("ros2_bridge").listen(f"ws://127.0.0.1:{port}/", 0.1):
            heard.append(message["type"])
            if len(heard) == 2:
                return

    def has(count: int) -> bool:
        return len(heard) == count

    thread = threading.Thread(target=listen)
    thread.start()
    wait_for(lambda: "refused" in capsys.readouterr().err, 20.0, "it tells that nobody is there")
    for count in (1, 2):
        with aside(lambda: server(port=port)):
            wait_for(partial(has, count), 20.0, "it connects")
    thread.join(20)
    assert not thread.is_alive()
    assert heard == ["hello", "hello"]


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


def film(folder: Path) -> Path:
    """Write some seconds of the demo's portrait, for a camera to show."""
    path = folder / "face.mjpeg"
    read = ["ffmpeg", "-loglevel", "error", "-loop", "1", "-i", str(demo_files()[0]), "-t", "4"]
    write = ["-r", "10", "-vf", "scale=480:-2", "-pix_fmt", "yuvj420p", "-c:v", "mjpeg", str(path)]
    subprocess.run([*read, *write], check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path


@pytest.mark.camera
@pytest.mark.sound
def test_robot_loop(tmp_path: Path) -> None:
    """It sees a face, hears a voice, and shows a mood that changes with what is spoken."""
    need(["espeak-ng"])
    said, words = (
        tmp_path / "said.wav",
        "What a wonderful day, I love it. I hate this, how terrible.",
    )
    subprocess.run(["espeak-ng", "-w", str(said), words], check=True, timeout=20)
    with (
        pulse_server(tmp_path) as sound,
        sound.playing(spoken(said, tmp_path / "voice.wav", 60.0)),
        mjpeg_camera(film(tmp_path)) as camera,
        run("robot_loop.py", camera.url, **sound.environment) as lines,
    ):
        wait_for(lambda: len(lines) >= 3, 100.0, "the robot shows two moods")
    assert lines[0] == "ready"
    assert all(" s: the robot " in line for line in lines[1:])
    assert any("smiles" in line or "concerned" in line or "listens" in line for line in lines)


def test_robot_without_its_camera() -> None:
    """One line with the remedy."""
    assert "`tamulag devices` lists" in told(*command("robot_loop.py"), "77", "none")


def test_score_file(tmp_path: Path) -> None:
    """A row for each half second, with a number for whatever was there."""
    with wavefile.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(wave()[: 4 * 16000].tobytes())
    done = subprocess.run(
        [*command("score_file.py"), str(tmp_path / "talk.wav"), str(demo_files()[0])],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [float(row["end"]) for row in rows[:8]] == [0.5 * (k + 1) for k in range(8)]
    last = rows[7]
    assert float(last["low"]) <= float(last["sentiment"]) <= float(last["high"])
    assert (last["audio_status"], last["vision_status"]) == ("ok", "ok")


def test_score_file_that_is_not_there() -> None:
    """One line with the file and the remedy."""
    assert "check the path" in told(*command("score_file.py"), "no-such-file.mp4")


def test_ready_features() -> None:
    """Voice and face count while they are pushed; a voice that is missing does not."""
    done = subprocess.run(
        command("ready_features.py"), check=True, capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"{0.5 * (k + 1):.1f}" for k in range(20)]
    without = [line.split()[0] for line in lines if "audio 0.00" in line]
    assert without == ["0.5", "5.5", "6.0", "6.5", "7.0", "7.5"]


def jsonl(folder: Path, *messages: dict[str, Any]) -> Path:
    path = folder / "session.jsonl"
    path.write_text("".join(f"{json.dumps(message)}\n" for message in messages))
    return path


def scored(session: str, end: float, **changed: object) -> dict[str, Any]:
    window = {"start": 0.0, "end": end, "warmup": True}
    return SCORE | {"session": session, "window": window, "trend": 1.0} | changed


def test_plot_timeline_of_a_session(tmp_path: Path) -> None:
    """The messages of a real run, with the old ones before it in the file, become a picture."""
    sound = tmp_path / "talk.wav"
    with wavefile.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(wave()[: 4 * 16000].tobytes())
    lines = jsonl(tmp_path, scored("before", 0.5), scored("before", 99.0), {"type": "status"})
    stream = [str(Path(sys.executable).parent / "tamulag-stream"), "--source", str(sound)]
    options = ["--speed", "max", "--asr", "none", "--websocket", "none", "--jsonl", str(lines)]
    subprocess.run([*stream, *options], check=True, capture_output=True, timeout=100)
    picture = tmp_path / "session.png"
    done = subprocess.run(
        [*command("plot_timeline.py"), str(lines), str(picture)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split()[1:] == ["8", "scores,", "4.0", "s"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_plot_timeline_has_a_line_for_what_is_there() -> None:
    """A face that never was has none, and a score that is missing leaves a gap."""
    none = {"sentiment": None, "weight": 0.0, "status": "off"}
    parts = {"text": PART, "audio": PART, "vision": none}
    gap = {"sentiment": None, "interval": None, "trend": None}
    rows = [scored("one", 0.5, modalities=parts), scored("one", 1.0, modalities=parts, **gap)]
    [axes] = example("plot_timeline").draw(rows).axes
    lines = {line.get_label(): [*line.get_ydata()] for line in axes.get_lines()}
    assert {"words", "voice", "fused", "trend"} <= lines.keys()
    assert "face" not in lines
    assert lines["fused"][0] == 1.25
    assert lines["fused"][1] != lines["fused"][1]


@pytest.mark.parametrize("text", ["", "no json\n", '{"type": "hello"}\n'])
def test_plot_timeline_says_what_it_wants(tmp_path: Path, text: str) -> None:
    """A file without a score: one line with its name and the remedy."""
    (tmp_path / "other.jsonl").write_text(text)
    line = told(*command("plot_timeline.py"), str(tmp_path / "other.jsonl"), "picture.png")
    assert "other.jsonl" in line
    assert "--jsonl" in line
