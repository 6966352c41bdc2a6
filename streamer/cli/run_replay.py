"""One run of `tamulag replay`: a recording becomes a service, which is run and announced.

Knows what people read at the start and at the end. Knows neither rows nor messages.
"""

import asyncio
import sys
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path

from tamulag.models.runtime.checkpoint import Card

from ..aio.shutdown import until_stopped
from ..app.build_agent import HEADS, publishers_of
from ..app.build_recording import session_of
from ..config.loader import Config, load
from ..protocol import messages
from ..protocol.session_messages import RunInfo, SessionMessages
from ..publishers.terminal import TerminalPublisher
from ..service.clock import SessionClock
from ..service.outputs import Outputs
from ..service.replay_feed import ReplayFeed
from ..service.service import Service
from ..storage.arrow_file import Recording
from .log_setup import Log
from .run import run


def run_replay(
    folder: Path, checkpoint: str | None, path: Path | None, overrides: Mapping[str, object]
) -> int:
    """Replay a recording to its end and return the exit code: 0 done, 1 failed, 2 wrong use.

    Args:
        folder: Of the recording.
        checkpoint: Instead of the recorded one; None: the recorded one.
        path: TOML file of settings, of which source.speed and the publishers' tables count.
        overrides: Values of the command line by dotted key.
    """

    def main(config: Config, log: Log, until: ExitStack) -> None:
        recording = newest(folder)
        service = opened(recording, checkpoint, config)
        asyncio.run(until_stopped(service))
        if recording.cut:
            print(f"tamulag: the recording is cut: {recording.cut}", file=sys.stderr)

    return run("tamulag", lambda: load(path, overrides), main)


def newest(folder: Path) -> Recording:
    """Open a recording; of several in the folder the newest, and print which one.

    Raises:
        RecordingError: If there is none that can be read.
    """
    recording = Recording(folder)
    if recording.sessions > 1:
        chosen = f"the newest of {recording.sessions} sessions: {recording.folder}"
        print(f"tamulag: {chosen}", file=sys.stderr)
    return recording


def opened(recording: Recording, checkpoint: str | None, config: Config) -> Service:
    """Make the replay of a recording with the publishers that the settings name.

    Raises:
        RecordingError: If it cannot be replayed.
        CheckpointError: If its checkpoint cannot be used.
        PublisherError: If an address cannot be used.
    """
    session, card = session_of(recording.header, checkpoint)
    outputs, clock = Outputs(), SessionClock()
    sent = SessionMessages(
        uuid.uuid4().hex[:8],
        _about(recording, checkpoint or recording.header.checkpoint, card),
        wall_now=clock.wall_now,
        send=outputs.publish,
    )
    feed = ReplayFeed(
        recording=recording,
        session=session,
        outputs=outputs,
        messages=sent,
        clock=clock,
        paced=config.source.speed == "1",
    )
    service = Service(
        feed=feed, outputs=outputs, messages=sent, heartbeat=config.websocket.heartbeat
    )
    for publisher in publishers_of(config, service, feed.output_changed):
        outputs.add(publisher)
    if config.jsonl.path != "-":
        outputs.add(TerminalPublisher(sys.stdout, partial(_greeting, recording, sent.about)))
    return service


def _about(recording: Recording, checkpoint: str, card: Card) -> RunInfo:
    heads = {n: messages.Head(trained=card.trained[n], data=card.data.get(n)) for n in HEADS}
    status = _first_status(recording)
    return RunInfo(
        version=metadata.version("tamulag-stream"),
        checkpoint=checkpoint,
        heads=heads,
        sources=[f"replay {recording.folder.name}"],
        subject=messages.ANONYMOUS if status is None else status.subject,
        notice=None if status is None else status.notice,
    )


def _first_status(recording: Recording) -> messages.State | None:
    """Return the first recorded status, which names the subject; None: there is none."""
    for row in recording.rows():
        if row.kind == "message" and '"type":"status"' in (row.text or ""):
            found = messages.decode(row.text or "")
            return found if isinstance(found, messages.State) else None
    return None


def _greeting(recording: Recording, about: RunInfo) -> str:
    header = recording.header
    lines = [f"replay of session {header.session}, {messages.utc(header.epoch)}"]
    if header.version != about.version:
        lines.append(f"made with version {header.version}: a score may differ in its last bits")
    return "\n".join([*lines, "Ctrl-C ends."])
