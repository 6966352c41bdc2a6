"""Files that version 0.1.0 wrote are read: tests/old_files holds one of each kind.

They were made by that version, with the tiny model of conftest.py and the inputs of
support/recordings.py; at 2.0 s the hop was doubled.
"""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from support.recordings import CARD, inputs
from tamulag.models import TamUlag
from tamulag.models.data.clips import read_clips
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.app.build_recording import session_of
from tamulag.streamer.core.commands import Close, Push, SessionCommand
from tamulag.streamer.core.estimate import Timing
from tamulag.streamer.core.session_batch import SessionBatch
from tamulag.streamer.core.snapshot import restore
from tamulag.streamer.offline.verify import TOLERANCE
from tamulag.streamer.protocol import messages
from tamulag.streamer.service.replay_feed import feed
from tamulag.streamer.storage.arrow_file import Recording
from tamulag.streamer.storage.history_db import HistoryDb

OLD = Path(__file__).parent / "old_files"


def test_a_recording_is_replayed() -> None:
    """Each estimate is the recorded one, within the tolerance of `verify`."""
    recording = Recording(OLD / "records")
    session, _ = session_of(recording.header, str(OLD / "tiny.safetensors"))
    sent = [messages.decode(line) for line in (OLD / "lines.jsonl").read_text().splitlines()]
    scores = [one for one in sent if isinstance(one, messages.SentimentMessage)]
    estimates = [estimate for row in recording.rows() for estimate in feed(session, row)]
    assert [round(one.end, 2) for one in estimates] == [one.window.end for one in scores]
    # Messages are rounded to four digits.
    for estimate, score in zip(estimates, scores, strict=True):
        assert estimate.sentiment == pytest.approx(score.sentiment, abs=1e-4)
    assert {round(b.end - a.end, 2) for a, b in pairwise(estimates)} == {0.5, 1.0}


def test_a_session_continues_from_a_snapshot(model: TamUlag) -> None:
    """Its remaining scores are those of the session that was not interrupted."""
    expected = json.loads((OLD / "snapshot.json").read_text())
    timing = Timing(window=2.0, hop=0.5, lateness=0.3)
    batch = SessionBatch(TorchEngine(model), CARD, timing)
    restore(batch, "a", (OLD / "session.snapshot").read_bytes(), "weights 1")
    scores = []
    commands: list[SessionCommand] = [*map(Push, inputs()[expected["items"] :]), Close(None)]
    for command in commands:
        batch.apply("a", command)
        while batch.waiting:
            scores += [scored.estimate.sentiment for scored in batch.step()]
    assert scores == pytest.approx(expected["sentiment"], abs=TOLERANCE)


def test_a_history_is_read(tmp_path: Path) -> None:
    """Its session is listed, and its messages come back."""
    path = tmp_path / "history.sqlite"
    shutil.copy(OLD / "history.sqlite", path)
    with HistoryDb(path) as history:
        (session,) = history.sessions()
        lines = list(history.messages(session.id))
    assert [json.loads(line)["type"] for line in lines] == ["sentiment"] * 5 + ["session_end"]


def test_a_feature_file_is_read() -> None:
    """Labels, groups, ticks and vectors are those that were written."""
    clips = read_clips(OLD / "clips.safetensors")
    for clip, row in zip(clips, json.loads((OLD / "clips.json").read_text()), strict=True):
        assert (clip.label, clip.group) == (row["label"], row["group"])
        assert clip.ticks["audio"].tolist() == row["ticks"]
        # Values are stored as float16.
        assert float(np.sum(clip.values["audio"])) == pytest.approx(row["audio"], abs=0.01)
