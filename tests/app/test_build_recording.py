"""What an agent records of its settings, and which session a recording gets."""

import time
from pathlib import Path

import pytest
import torch

from support.recordings import ABOUT, HEADER, Lines, agent_of, checkpoint, inputs, record
from tamulag.models import TamUlag
from tamulag.streamer.app.build_recording import recorder_of, session_of
from tamulag.streamer.config.loader import load
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.protocol.session_messages import SessionMessages
from tamulag.streamer.service.clock import SessionClock
from tamulag.streamer.storage.arrow_file import Recording
from tamulag.streamer.storage.recording import RecordingError


def test_a_session_is_made_anew_from_the_header(tmp_path: Path, model: TamUlag) -> None:
    """The modalities and all times are those of the recorded session."""
    lines = Lines()
    core = agent_of(tmp_path, model, (), lines)
    record(tmp_path, model, inputs(0.5))
    session, _ = session_of(Recording(tmp_path / "records").header, None)
    assert session.asked == core.feed.session.asked
    assert session.timing == core.feed.session.timing


def test_another_checkpoint_is_refused_unless_it_is_named(tmp_path: Path, model: TamUlag) -> None:
    """A file of the same name with other weights gives other numbers."""
    record(tmp_path, model, inputs(0.5))
    header = Recording(tmp_path / "records").header
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    path = checkpoint(tmp_path, model)
    with pytest.raises(RecordingError, match=r"made with another checkpoint .*--checkpoint"):
        session_of(header, None)
    assert session_of(header, str(path))[0].asked == header.asked


def test_results_alone_cannot_be_replayed() -> None:
    """The line has the reason."""
    with pytest.raises(RecordingError, match="--privacy strict: it can be read, but not replayed"):
        session_of(HEADER.model_copy(update={"privacy": "strict"}), None)


def test_nothing_is_recorded_unless_it_is_asked_for() -> None:
    """Without `record.path` there is no recorder."""
    sent = SessionMessages("x", ABOUT, wall_now=time.time, send=lambda kind, line: None)
    config = load(None, {"record.path": None})
    assert recorder_of(config, sent, ("audio",), Timing(), SessionClock()) is None
