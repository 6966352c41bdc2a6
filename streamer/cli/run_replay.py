"""One run of `tamulag replay`: settings, recording, publishers, signals, exit code.

Knows how a replay begins and ends. Knows neither rows nor messages.
"""

import asyncio
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from tamulag.models.runtime.checkpoint import Card

from ..agent.clock import SessionClock
from ..agent.replay import Replay
from ..aio.shutdown import leaves, until_stopped
from ..app.build_agent import HEADS, publishers_of
from ..app.build_recording import session_of
from ..config.loader import Config, ConfigError, load
from ..core.errors import TamulagError
from ..protocol import messages
from ..protocol.session_messages import RunInfo
from ..publishers.terminal import TerminalPublisher
from ..storage.arrow_file import Recording


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
    try:
        config = load(path, overrides)
    except ConfigError as error:
        print(f"tamulag: {error}", file=sys.stderr)
        return 2 if str(error).startswith("command line:") else 1
    code = 0
    try:
        replay = opened(folder, checkpoint, config)
        asyncio.run(until_stopped(replay))
        if replay.recording.cut:
            print(f"tamulag: the recording is cut: {replay.recording.cut}", file=sys.stderr)
    except* TamulagError as group:
        for told in leaves(group):
            print(f"tamulag: {told}", file=sys.stderr)
        code = 1
    except* BrokenPipeError:
        code = 0
    return code


def newest(folder: Path) -> Recording:
    """Open a recording; of several in the folder the newest, and say which one.

    Raises:
        RecordingError: If there is none that can be read.
    """
    recording = Recording(folder)
    if recording.sessions > 1:
        chosen = f"the newest of {recording.sessions} sessions: {recording.folder}"
        print(f"tamulag: {chosen}", file=sys.stderr)
    return recording


def opened(folder: Path, checkpoint: str | None, config: Config) -> Replay:
    """Open a recording and make the publishers that the settings name.

    Raises:
        RecordingError: If it cannot be replayed.
        CheckpointError: If its checkpoint cannot be used.
        PublisherError: If an address cannot be used.
    """
    recording = newest(folder)
    session, card = session_of(recording.header, checkpoint)
    replay = Replay(
        recording=recording,
        session=session,
        publishers=[],
        about=_about(recording, checkpoint or recording.header.checkpoint, card),
        clock=SessionClock(),
        paced=config.source.speed == "1",
    )
    replay.publishers.extend(publishers_of(config, replay))
    if config.jsonl.path != "-":
        replay.publishers.append(TerminalPublisher(sys.stdout, lambda: _greeting(replay)))
    return replay


def _about(recording: Recording, checkpoint: str, card: Card) -> RunInfo:
    heads = {n: messages.Head(trained=card.trained[n], data=card.data.get(n)) for n in HEADS}
    return RunInfo(
        version=metadata.version("tamulag-stream"),
        checkpoint=checkpoint,
        heads=heads,
        sources=[f"replay {recording.folder.name}"],
    )


def _greeting(replay: Replay) -> str:
    header = replay.recording.header
    lines = [f"replay of session {header.session}, {messages.utc(header.epoch)}"]
    if header.version != replay.about.version:
        lines.append(f"made with version {header.version}: a score may differ in its last bits")
    return "\n".join([*lines, "Ctrl-C ends."])
