"""A recording played again: the same estimates to the bit, the same messages."""

import asyncio
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from support.recordings import ABOUT, Lines, agent_of, inputs, record
from tamulag.models import TamUlag
from tamulag.streamer.agent.clock import SessionClock
from tamulag.streamer.agent.replay import Replay, feed
from tamulag.streamer.app.build_recording import session_of
from tamulag.streamer.protocol import messages
from tamulag.streamer.storage.arrow_file import Recording
from tamulag.streamer.storage.recording import RecordingError, Row, estimate_row


def replay_of(folder: Path, *, paced: bool = False) -> Replay:
    recording = Recording(folder / "records")
    return Replay(
        recording=recording,
        session=session_of(recording.header, None)[0],
        publishers=[Lines()],
        about=ABOUT,
        clock=SessionClock(),
        paced=paced,
    )


def replayed(folder: Path, *, paced: bool = False) -> Lines:
    replay = replay_of(folder, paced=paced)
    asyncio.run(replay.run())
    (lines,) = replay.publishers
    assert isinstance(lines, Lines)
    return lines


def test_a_replay_sends_the_same_messages(tmp_path: Path, model: TamUlag) -> None:
    """All but session, time and latency, in the same order."""
    sent = record(tmp_path, model)
    again = replayed(tmp_path)
    assert again.plain() == sent.plain()
    assert any(m.type == "text" for m in again.plain())
    assert {m.session for m in map(messages.decode, again.all)}.isdisjoint(
        {m.session for m in map(messages.decode, sent.all)}
    )


def test_a_replay_gives_the_same_estimates_to_the_bit(tmp_path: Path, model: TamUlag) -> None:
    """Before rounding: every number of every estimate, attention included."""
    record(tmp_path, model)
    recording = Recording(tmp_path / "records")
    session, _ = session_of(recording.header, None)
    rows = list(recording.rows())
    again = [estimate_row(e, 0.0).text for row in rows for e in feed(session, row)]
    assert again == [row.text for row in rows if row.kind == "estimate"]
    assert len(again) == 12


def test_another_length_of_hops_in_the_middle_is_replayed(tmp_path: Path, model: TamUlag) -> None:
    """What the agent gives up when the machine is slow is part of the recording."""
    lines = Lines()
    agent = agent_of(tmp_path, model, inputs(), lines)
    take = agent._take

    def turn(item: object) -> None:
        if getattr(item, "timestamp", 0.0) == 2.0:
            agent.session.set_hop(1.0)
        take(item)  # type: ignore[arg-type]

    agent._take = turn  # type: ignore[method-assign]
    asyncio.run(agent.run())
    ends = [m.window.end for m in lines.plain() if m.type == "sentiment"]
    assert {round(b - a, 2) for a, b in pairwise(ends[:-1])} == {0.5, 1.0}
    assert replayed(tmp_path).plain() == lines.plain()


def test_a_paced_replay_takes_as_long_as_the_session(tmp_path: Path, model: TamUlag) -> None:
    """Messages leave when they did, counted from the start."""
    record(tmp_path, model, inputs(0.5))
    rows = list(Recording(tmp_path / "records").rows())
    begin = time.monotonic()
    replayed(tmp_path, paced=True)
    assert time.monotonic() - begin >= rows[-1].arrived


def test_a_cut_recording_is_played_to_its_cut(tmp_path: Path, model: TamUlag) -> None:
    """And its end says that it was cut."""
    sent = record(tmp_path, model)
    (file,) = (tmp_path / "records").rglob("*.arrows")
    file.write_bytes(file.read_bytes()[:-50])
    again = replayed(tmp_path)
    *before, end = again.plain()
    assert before == sent.plain()[: len(before)]
    assert (end.type, getattr(end, "reason", None)) == ("session_end", "recording_cut")


def test_a_replay_can_be_stopped(tmp_path: Path, model: TamUlag) -> None:
    """It ends at once and says so."""
    record(tmp_path, model, inputs(0.5))
    replay = replay_of(tmp_path, paced=True)
    replay.stop()
    asyncio.run(asyncio.wait_for(replay.run(), 5.0))
    (lines,) = replay.publishers
    assert isinstance(lines, Lines)
    (end,) = lines.plain()
    assert getattr(end, "reason", None) == "stopped"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        pytest.param(Row("audio", 0.0, 1e7), "jumps", id="jump"),
        pytest.param(Row("advance", 0.0, 1e7), "jumps", id="advance"),
        pytest.param(Row("hop", 0.0, 3599.0), "at most 60 s", id="hop"),
        pytest.param(Row("hop", 0.0, 0.001), "positive multiple", id="short-hop"),
        pytest.param(Row("notice", 0.0, 0.0, None, "{}"), "at 0.00 s: Field required", id="notice"),
    ],
)
def test_a_row_that_would_hang_or_fill_the_memory_is_refused(
    tmp_path: Path, model: TamUlag, row: Row, problem: str
) -> None:
    """A foreign recording costs no more than one like ours."""
    record(tmp_path, model, inputs(0.5))
    session, _ = session_of(Recording(tmp_path / "records").header, None)
    with pytest.raises(RecordingError, match=problem):
        feed(session, row)


def test_a_sample_of_another_size_is_refused(tmp_path: Path, model: TamUlag) -> None:
    """The line says how many features the model takes."""
    record(tmp_path, model, inputs(0.5))
    recording = Recording(tmp_path / "records")
    session, _ = session_of(recording.header, None)
    row = next(row for row in recording.rows() if row.kind == "audio")
    assert row.values is not None
    with pytest.raises(RecordingError, match="audio sample of 3 features: the model takes 4"):
        feed(session, replace(row, values=row.values[:3]))
