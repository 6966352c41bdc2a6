"""Make the recorder of a session, and the session of a recording.

Knows what must be the same for the same numbers: checkpoint, timing, threads. Writes no file.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from tamulag.models.nn.tam_ulag import TICK_RATE
from tamulag.models.runtime.checkpoint import Card, load, resolve
from tamulag.models.runtime.checksums import sha256_of
from tamulag.models.runtime.torch_engine import TorchEngine

from ..config.loader import Config
from ..core.estimate import Timing
from ..core.sample import Modality
from ..core.session import Session
from ..protocol.session_messages import SessionMessages
from ..service.clock import SessionClock
from ..storage.recorder import MEGABYTE, Recorder
from ..storage.recording import Header, ModalityTimes, RecordingError
from ..storage.session_recorders import SessionRecorders


def recorder_of(
    config: Config,
    sent: SessionMessages,
    asked: Sequence[Modality],
    timing: Timing,
    clock: SessionClock,
) -> Recorder | None:
    """Return the recorder of a session's inputs, estimates and messages, if one is wanted.

    Raises:
        CheckpointError: If the checkpoint's file cannot be found.
    """
    recorders = recorders_of(config, sent.about.version, timing)
    if recorders is None:
        return None
    # Session time 0 is when the sources are open: the clock's epoch is asked for then.
    return recorders.begin(sent.session, asked, lambda: clock.epoch, clock.now)


def recorders_of(config: Config, version: str, timing: Timing) -> SessionRecorders | None:
    """Return the recorders of sessions with these settings, if recordings are wanted.

    Raises:
        CheckpointError: If the checkpoint's file cannot be found.
    """
    if config.record.path is None:
        return None
    sha256 = _sha256(config.model.checkpoint)
    return SessionRecorders(
        Path(config.record.path),
        partial(_header, config, version, timing, sha256),
        file_limit=config.record.file_size * MEGABYTE,
        total_limit=config.record.total * MEGABYTE,
        results_only=config.session.privacy == "strict",
    )


def session_of(header: Header, checkpoint: str | None) -> tuple[Session, Card]:
    """Make the session of a recording, fresh, and the card of its checkpoint.

    Args:
        header: Of the recording.
        checkpoint: Name or path that is used whatever the recording was made with; None: the
            recording's, which must be the same file still.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        RecordingError: If it is another one, or nothing of what went in was recorded.
    """
    if header.privacy == "strict":
        raise RecordingError(
            f"recording of session {header.session} holds results alone, because it was made "
            "with --privacy strict: it can be read, but not replayed"
        )
    if checkpoint is None and (found := _sha256(header.checkpoint)) != header.sha256:
        raise RecordingError(
            f"recording of session {header.session} was made with another checkpoint "
            f"{header.checkpoint!r} (sha256 {header.sha256[:12]}, this one is {found[:12]}): "
            "name that one, or this one, with --checkpoint"
        )
    torch.set_num_threads(header.threads)
    name = checkpoint or header.checkpoint
    model, card = load(name, window=round(header.window * TICK_RATE))
    engine = TorchEngine(model, hop=round(header.hop * TICK_RATE))
    return Session(engine, card, header.asked, header.timing), card


def _header(
    config: Config,
    version: str,
    timing: Timing,
    sha256: str,
    name: str,
    asked: tuple[Modality, ...],
    epoch: float,
) -> Header:
    return Header(
        session=name,
        version=version,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        checkpoint=config.model.checkpoint,
        sha256=sha256,
        asked=asked,
        window=timing.window,
        hop=timing.hop,
        lateness=timing.lateness,
        stale_after=ModalityTimes(**timing.stale_after),
        missing_after=ModalityTimes(**timing.missing_after),
        attention=timing.attention,
        labels=timing.labels,
        epoch=epoch,
        privacy=config.session.privacy,
    )


def _sha256(checkpoint: str) -> str:
    return sha256_of(resolve(checkpoint))
