"""What a configuration becomes: real parts, not yet open."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tamulag.models.runtime.checkpoint import CheckpointError
from tamulag.streamer.app.build_agent import HEADS, Built, build, demo_files
from tamulag.streamer.config.loader import load
from tamulag.streamer.core.source import SourceError
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.sources.camera import CameraSource
from tamulag.streamer.sources.microphone import MicrophoneSource

CONFIGS = Path(__file__).parents[2] / "configs"
Settings = Mapping[str, object]
FILE: dict[str, object] = {"source.path": "talk.mp4", "asr.engine": "none"}
"""A media file that is not opened here, and no recogniser to load."""


@contextmanager
def built(settings: Settings, path: Path | None = None) -> Iterator[Built]:
    """Build an agent and free its parts after the block."""
    parts = build(load(path, settings))
    with parts.resources:
        yield parts


def names(built: Built) -> tuple[list[str], list[str]]:
    publishers = built.service.outputs.publishers
    return [source.name for source in built.feed.sources], [part.name for part in publishers]


@pytest.mark.parametrize(
    ("name", "sources", "publishers", "asked"),
    [
        ("webcam", ["camera 0", "microphone"], ["websocket", "metrics"], "text audio vision"),
        (
            "kiosk",
            ["camera 0", "microphone"],
            ["websocket", "metrics", "mqtt"],
            "text audio vision",
        ),
        ("call-centre", ["microphone Monitor of Headset"], ["websocket", "metrics"], "text audio"),
        ("replay", ["source talk.mp4"], ["jsonl"], "text audio vision"),
    ],
)
def test_each_shipped_configuration_can_be_built(
    name: str, sources: list[str], publishers: list[str], asked: str
) -> None:
    """The parts that the file names, though no device, file or broker of it is there."""
    with built({}, CONFIGS / f"{name}.toml") as parts:
        assert names(parts) == (sources, publishers)
        assert parts.feed.session.asked == tuple(asked.split())


def test_the_demo_is_a_voice_and_a_still() -> None:
    """Both are in installed packages, and all three modalities are asked for."""
    portrait, speech = demo_files()
    with built({"source.path": str(speech), "source.still": str(portrait)}) as parts:
        assert names(parts) == ([f"source {speech}"], ["websocket", "metrics"])
        assert parts.feed.session.asked == ("text", "audio", "vision")
        assert parts.feed.paced


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        pytest.param({"camera.device": 0}, ("vision",), id="camera"),
        pytest.param({"microphone.device": "default"}, ("audio",), id="microphone"),
        pytest.param({"camera.device": 0, "microphone.device": "none"}, ("vision",), id="none"),
        pytest.param({"camera.device": 0, "microphone.device": 1}, ("audio", "vision"), id="two"),
        pytest.param({"source.path": "talk.mp4"}, ("audio", "vision"), id="file"),
    ],
)
def test_without_a_recogniser_no_text_is_asked_for(
    settings: Settings, asked: tuple[str, ...]
) -> None:
    """Only what can come is asked for; the rest is `off`, not missing."""
    with built({"asr.engine": "none", **settings}) as parts:
        assert parts.feed.session.asked == asked


def test_every_publisher_that_is_named_is_there(tmp_path: Path) -> None:
    """MQTT and JSON lines beside the WebSocket; none of them is open."""
    path = tmp_path / "scores.jsonl"
    outputs = {"mqtt.url": "mqtt://localhost", "jsonl.path": str(path)}
    with built(FILE | outputs) as parts:
        assert names(parts)[1] == ["websocket", "metrics", "mqtt", "jsonl"]
    assert not path.exists()


def test_a_history_is_kept_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """It is about people; with it come its pages."""
    path = tmp_path / "history.sqlite"
    with built(FILE | {"history.enabled": True, "history.path": str(path)}) as parts:
        assert names(parts)[1] == ["websocket", "metrics", "history"]
    with built(FILE | {"history.path": str(path)}) as parts:
        assert names(parts)[1] == ["websocket", "metrics"]
    assert not path.exists()


def test_a_service_manager_is_told_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names its socket; nothing has to be set for it."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    with built(FILE) as parts:
        assert names(parts)[1][-1] == "service"


def test_the_login_of_the_settings_reaches_the_broker(tmp_path: Path) -> None:
    """A password file that cannot be used ends the start, not the first connection."""
    path = tmp_path / "secret"
    path.write_text("x")
    path.chmod(0o644)
    login = {"mqtt.url": "mqtt://localhost", "mqtt.user": "k", "mqtt.password_file": str(path)}
    with pytest.raises(PublisherError, match="chmod 600"), built(FILE | login):
        pass


def test_subject_and_notice_are_in_what_a_newcomer_gets() -> None:
    """Also in the will, which a broker publishes when the program cannot."""
    about = {"subject": "visitor", "subject_id": "p-7", "notice": "You are measured."}
    with built(FILE | {f"session.{key}": value for key, value in about.items()}) as parts:
        hello, will = (
            json.loads(parts.service.hello()),
            json.loads(parts.service.offline("offline")),
        )
    assert hello["subject"] == will["subject"] == {"role": "visitor", "id": "p-7"}
    assert will["notice"] == "You are measured."


def test_a_run_without_any_publisher_can_be_built() -> None:
    """Then only the terminal shows something."""
    with built(FILE | {"websocket.enabled": False}) as parts:
        assert parts.service.outputs.publishers == []


@pytest.mark.parametrize(("speed", "paced"), [("1", True), ("max", False)])
def test_only_a_file_at_full_speed_does_not_wait_for_the_clock(speed: str, paced: bool) -> None:
    """`speed` decides whether latencies mean something."""
    with built(FILE | {"source.speed": speed}) as parts:
        assert parts.feed.paced is paced


def test_the_numbers_of_the_session_are_those_of_the_configuration() -> None:
    """Window, hop, lateness, ages, duration and heartbeat."""
    numbers = {"session.window": 8.0, "session.hop": 0.2, "session.lateness": 0.1}
    more = {"session.stale_after.vision": 0.7, "session.duration": 9.0, "websocket.heartbeat": 2.0}
    with built(FILE | numbers | more) as parts:
        timing = parts.feed.session.timing
        assert (timing.window, timing.hop, timing.lateness) == (8.0, 0.2, 0.1)
        assert timing.stale_after == {"text": 3.0, "audio": 0.5, "vision": 0.7}
        assert (parts.feed.duration, parts.service.heartbeat) == (9.0, 2.0)


def test_each_device_has_the_latency_that_its_table_says() -> None:
    """What no clock can see is set by hand, for each device on its own."""
    devices = {"camera.device": 0, "microphone.device": "default", "asr.engine": "none"}
    with built(devices | {"camera.latency": 0.25, "microphone.latency": -0.5}) as parts:
        camera, microphone = parts.feed.sources
        assert isinstance(camera, CameraSource)
        assert isinstance(microphone, MicrophoneSource)
        assert (camera._latency, microphone._latency) == (0.25, -0.5)


def test_hello_can_say_what_the_heads_were_trained_on() -> None:
    """Fused head and three modalities, each with its corpus."""
    with built(FILE) as parts:
        heads = parts.service.messages.about.heads
        assert tuple(heads) == HEADS
        assert all(head.data for head in heads.values() if head.trained)
        assert parts.service.messages.about.checkpoint == "default"
        assert parts.service.messages.about.sources == ["source talk.mp4"]


def test_nothing_to_capture_is_told() -> None:
    """The options that mend it are named."""
    with pytest.raises(SourceError, match=r"--camera N, --microphone NAME or --source FILE"):
        build(load(None, {"microphone.device": "none"}))


def test_vosk_without_a_model_is_told() -> None:
    """It needs a folder, which `tamulag models` helps to get."""
    with pytest.raises(SourceError, match=r"needs the folder of a model.*tamulag models"):
        build(load(None, {"microphone.device": "default", "asr.engine": "vosk"}))


def test_an_unknown_checkpoint_is_told() -> None:
    """It is found out before any device is touched."""
    with pytest.raises(CheckpointError, match=r"'best'.*default"):
        build(load(None, {"camera.device": 0, "model.checkpoint": "best"}))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        pytest.param(FILE | {"mqtt.url": "mqtt://localhost:99999"}, PublisherError, id="publisher"),
        pytest.param(
            {"camera.device": 0, "microphone.device": 0, "asr.engine": "vosk"},
            SourceError,
            id="source",
        ),
    ],
)
def test_parts_that_were_made_are_freed_when_a_later_one_fails(
    settings: Settings, error: type[Exception]
) -> None:
    """The face landmarker has several threads; failing again and again does not pile them up."""
    threads = []
    caught = []
    for _ in range(4):
        with pytest.raises(error) as failure:
            build(load(None, settings))
        caught.append(failure)  # keeps the frames, so that no garbage collector can help
        threads.append(psutil.Process().num_threads())
    assert threads[-1] - threads[0] < 4  # one may be about to end
