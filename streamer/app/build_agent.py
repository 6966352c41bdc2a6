"""The composition root of `tamulag-stream`: settings become a service of one session.

Knows every part by name and how they fit. Runs nothing.
"""

import logging
import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tamulag.models.nn.tam_ulag import TICK_RATE, TamUlag
from tamulag.models.runtime.checkpoint import Card, load
from tamulag.models.runtime.engine_choice import open_engine
from tamulag.models.runtime.step_engine import StepEngine

from ..config.loader import Config
from ..core.estimate import Timing
from ..core.sample import MODALITIES
from ..core.session import Session
from ..core.source import Now, Source, SourceError
from ..features.audio_pipeline import AudioPipeline
from ..protocol import messages
from ..protocol.session_messages import RunInfo, SessionMessages
from ..publishers.mqtt_login import MqttLogin
from ..publishers.publisher import Publisher, ServiceStatus
from ..service.clock import SessionClock
from ..service.local_feed import LocalFeed
from ..service.outputs import OutputChanged, Outputs
from ..service.service import Service
from ..storage.recorder import MEGABYTE
from .build_recording import recorder_of
from .build_web import WebOptions, build_web, endpoint_of
from .checkpoint_check import check_streamable

if TYPE_CHECKING:
    from ..service.single_sender import SingleSender
    from ..storage.history import History

logger = logging.getLogger("tamulag.run")

NOTHING = (
    "nothing to capture: give --camera N, --microphone NAME or --source FILE "
    "(in Python a source), or try --demo"
)
DAY = 86400.0
HEADS = ("sentiment", "text", "audio", "vision")


@dataclass(frozen=True)
class Built:
    """A service that has not run yet, and what must be freed when it has.

    Attributes:
        service: Its life cycle.
        feed: Its session and sources.
        resources: Not to be closed while `feed.is_hanging`.
    """

    service: Service
    feed: LocalFeed
    resources: ExitStack


def build(config: Config) -> Built:
    """Load the model and make sources and publishers; opens no device and no port.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        AssetError: If a pretrained part is missing or damaged.
        SourceError: If nothing is to be captured, or the recogniser has no model.
        PublisherError: If an address cannot be used.
    """
    model, card = load(config.model.checkpoint, window=round(config.session.window * TICK_RATE))
    check_streamable(model.config, config)
    clock = SessionClock()
    paced = config.source.path is None or config.source.speed == "1"
    with ExitStack() as resources:
        sender = _single_sender(config, clock.now, resources)
        sources = sender.sources if sender else _sources(config, clock.now, resources)
        asked = {modality for source in sources for modality in _wanted(config, source)}
        about = about_of(config, card, [source.name for source in sources])
        waits = config.session.wait and config.source.path is None
        outputs = Outputs(waits=waits)
        sent = SessionMessages(
            uuid.uuid4().hex[:8], about, wall_now=clock.wall_now, send=outputs.publish
        )
        shows_words = config.session.privacy == "none"
        timing = timing_of(config)
        in_order = [name for name in MODALITIES if name in asked]
        recorder = recorder_of(config, sent, in_order, timing, clock)
        session = Session(
            _engine(config, model),
            card,
            asked,
            timing,
            names_words=shows_words,
            observer=recorder,
        )
        feed = LocalFeed(
            session=session,
            sources=sources,
            outputs=outputs,
            messages=sent,
            clock=clock,
            paced=paced,
            duration=config.session.duration,
            recorder=recorder,
            sends_words=shows_words,
            blame=sender.blame if sender else None,
            waits=waits,
        )
        service = Service(
            feed=feed, outputs=outputs, messages=sent, heartbeat=config.websocket.heartbeat
        )

        def own(session: str | None) -> str | None:
            return feed.hello() if session is None else None

        web = WebOptions(receive=endpoint_of(config, sender).receive if sender else None)
        for publisher in publishers_of(config, service, feed.output_changed, web, past=own):
            outputs.add(publisher)
        if recorder is not None:
            outputs.add(recorder)
        if "NOTIFY_SOCKET" in os.environ:
            from ..publishers.systemd import SystemdPublisher

            outputs.add(SystemdPublisher(os.environ, hop=config.session.hop))
        return Built(service, feed, resources.pop_all())


def log_employee_scoring(config: Config) -> None:
    """Log why people at work are scored, where they are."""
    if config.session.subject == "agent":
        reason = config.session.employee_scoring_is_lawful
        logger.warning("an employee is scored, which is stated to be lawful: %s", reason)


def demo_files() -> tuple[Path, Path]:
    """Return a real portrait and real speech that installed packages carry.

    Raises:
        SourceError: If one of them is missing.
    """
    files = (
        ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        ("moonshine_voice", "assets/two_cities.wav"),
    )
    found = []
    for package, name in files:
        spec = find_spec(package)
        path = Path(spec.origin).parent / name if spec and spec.origin else None
        if path is None or not path.is_file():
            raise SourceError(f"the demo needs {name} of {package}: pip install {package}")
        found.append(path)
    return found[0], found[1]


def timing_of(config: Config) -> Timing:
    """Return the numbers of a session."""
    session = config.session
    return Timing(
        window=session.window,
        hop=session.hop,
        lateness=session.lateness,
        stale_after=session.stale_after.model_dump(),
        missing_after=session.missing_after.model_dump(),
    )


def _sources(config: Config, now: Now, resources: ExitStack) -> list[Source]:
    sources: list[Source] = []
    if config.source.path is not None:
        return [_media(config, now, resources)]
    if config.camera.device is not None:
        from ..features.vision import VisionFeatures
        from ..sources.camera import CameraSource

        vision = resources.enter_context(VisionFeatures())
        sources.append(
            CameraSource(config.camera.device, vision, now=now, latency=config.camera.latency)
        )
    if config.microphone.device not in (None, "none"):
        from ..sources.microphone import MicrophoneSource

        device = config.microphone.device
        sound = _sound(config, now, resources, paced=True)
        sources.append(
            MicrophoneSource(
                None if device == "default" else device,
                sound,
                now=now,
                latency=config.microphone.latency,
            )
        )
    if not sources:
        raise SourceError(NOTHING)
    return sources


def _single_sender(config: Config, now: Now, resources: ExitStack) -> "SingleSender | None":
    """Return what admits the remote sender, with its two sources, if `ingest` is enabled."""
    if not config.ingest.enabled:
        return None
    from tamulag.models.text.text_encoder import encoder_for

    from ..features.vision import VisionFeatures
    from ..service.single_sender import SingleSender
    from ..sources.remote_features import RemoteAudio, RemoteVision

    return SingleSender(
        voice=RemoteAudio(
            _sound(config, now, resources, paced=True),
            config.session.subject,
            encoder_for(config.model.checkpoint).encode,
        ),
        face=RemoteVision(resources.enter_context(VisionFeatures())),
        takes_words=config.asr.engine == "none",
        now=now,
    )


def _media(config: Config, now: Now, resources: ExitStack) -> Source:
    from ..features.vision import VisionFeatures
    from ..sources.media_file import MediaSource

    paced = config.source.speed == "1"
    return MediaSource(
        str(config.source.path),
        sound=_sound(config, now, resources, paced=paced),
        vision=resources.enter_context(VisionFeatures()),
        now=now if paced else None,
        speed=config.source.speed,
        loop=config.source.loop,
        still=config.source.still,
    )


def _sound(config: Config, now: Now, resources: ExitStack, *, paced: bool) -> AudioPipeline:
    from ..features.asr.open import open_recogniser
    from ..features.asr.recogniser import PhraseRecogniser
    from ..features.audio import AudioFeatures

    recogniser = open_recogniser(config.asr.engine, config.asr.model)
    listener = None
    if recogniser is not None:
        from tamulag.models.text.text_encoder import encoder_for

        listener = PhraseRecogniser(
            recogniser, encoder_for(config.model.checkpoint).encode, now=now if paced else None
        )
    path = AudioPipeline(AudioFeatures(), listener, threaded=paced)
    resources.callback(path.close)
    return path


def _wanted(config: Config, source: Source) -> tuple[str, ...]:
    """Return what a source is asked for; what a file has is seen only when it is open."""
    if config.source.path is None:
        return source.modalities
    return ("audio", "vision") if config.asr.engine == "none" else ("text", "audio", "vision")


def about_of(config: Config, card: Card, sources: list[str]) -> RunInfo:
    """Return the run information of a session's hello.

    Args:
        config: The settings.
        card: Of the checkpoint.
        sources: Names of the sources.
    """
    return RunInfo(
        version=metadata.version("tamulag-stream"),
        checkpoint=config.model.checkpoint,
        heads={
            name: messages.Head(trained=card.trained[name], data=card.data.get(name))
            for name in HEADS
        },
        sources=sources,
        subject=messages.Subject(role=config.session.subject, id=config.session.subject_id),
        notice=config.session.notice,
    )


PastHello = Callable[[str | None], str | None]
"""Returns the hello of a session by name, None for the service's own; None: it is not stored."""


def publishers_of(
    config: Config,
    status: ServiceStatus,
    changed: OutputChanged,
    web: WebOptions | None = None,
    *,
    past: PastHello | None = None,
) -> list[Publisher]:
    """Make the publishers that the settings name; none is open yet.

    Args:
        config: The settings.
        status: Of the service that is published.
        changed: Called when a publisher is lost or back that opens itself again.
        web: Connections to the WebSocket server beside subscribers.
        past: For the history; None: nothing goes there, as a replay is in a recording already.

    Raises:
        PublisherError: If an address cannot be used.
    """
    publishers: list[Publisher] = []
    history = None if past is None else _history(config, past, changed)
    if config.websocket.enabled:
        pages = history.routes() if history else {}
        publishers += build_web(config, status, pages, web or WebOptions())
    publishers += [] if history is None else [history]
    if config.mqtt.url is not None:
        from ..publishers.home_assistant import discovery_messages
        from ..publishers.mqtt import MqttPublisher

        publishers.append(
            MqttPublisher(
                config.mqtt.url,
                status=status.offline,
                login=_login(config),
                site=config.session.site,
                device=config.session.device,
                keepalive=config.mqtt.keepalive,
                queue=32 + 2 * (web.senders if web else 0),
                retained=discovery_messages(config),
                report=partial(changed, "mqtt"),
            )
        )
    if config.jsonl.path is not None:
        from ..publishers.jsonl import JsonlPublisher

        # At full speed the reader is waited for, which is no loss.
        is_waited_for = config.source.path is not None and config.source.speed != "1"
        lost = {} if is_waited_for else {"report": partial(changed, "jsonl")}
        publishers.append(JsonlPublisher(config.jsonl.path, **lost))
    return publishers


def _login(config: Config) -> MqttLogin:
    return MqttLogin(**config.mqtt.model_dump(include=set(MqttLogin.__dataclass_fields__)))


def _engine(config: Config, model: TamUlag) -> StepEngine:
    chosen = config.model
    return open_engine(
        model,
        chosen.checkpoint,
        capacity=1,
        hop=round(config.session.hop * TICK_RATE),
        engine=chosen.engine,
        path=None if chosen.onnx is None else Path(chosen.onnx),
    )


def _history(config: Config, past: PastHello, changed: OutputChanged) -> "History | None":
    if not config.history.enabled:
        return None
    from ..storage.history import History
    from ..storage.history_db import default_path

    chosen = config.history
    return History(
        default_path() if chosen.path is None else Path(chosen.path),
        hello=past,
        report=partial(changed, "history"),
        max_age=chosen.max_age * DAY,
        max_bytes=chosen.max_size * MEGABYTE,
    )
