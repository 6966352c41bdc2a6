"""A recording played again: the same estimates to the bit, the same messages."""

import asyncio
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from support.recordings import ABOUT, Lines, agent_of, inputs, record
from tamulag.models import TamUlag
from tamulag.streamer.app.build_recording import session_of
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.session_messages import SessionMessages
from tamulag.streamer.publishers.publisher import Publisher, PublisherError
from tamulag.streamer.service.clock import SessionClock
from tamulag.streamer.service.outputs import Outputs
from tamulag.streamer.service.replay_feed import ReplayFeed, feed
from tamulag.streamer.service.service import Service
from tamulag.streamer.storage.arrow_file import Recording
from tamulag.streamer.storage.recording import RecordingError, Row, estimate_row


def replay_of(folder: Path, *publishers: Publisher, paced: bool = False) -> Service:
    recording = Recording(folder / "records")
    outputs, clock = Outputs(publishers), SessionClock()
    sent = SessionMessages("replay-1", ABOUT, wall_now=clock.wall_now, send=outputs.publish)
    feed = ReplayFeed(
        recording=recording,
        session=session_of(recording.header, None)[0],
        outputs=outputs,
        messages=sent,
        clock=clock,
        paced=paced,
    )
    return Service(feed=feed, outputs=outputs, messages=sent)


def replayed(folder: Path, *, paced: bool = False) -> Lines:
    lines = Lines()
    asyncio.run(replay_of(folder, lines, paced=paced).run())
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
    core = agent_of(tmp_path, model, inputs(), lines)
    push = core.feed._push

    def turn(item: object) -> None:
        if getattr(item, "timestamp", 0.0) == 2.0:
            core.feed.session.set_hop(1.0)
        push(item)  # type: ignore[arg-type]

    core.feed._push = turn  # type: ignore[method-assign]
    asyncio.run(core.service.run())
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
    """And its end reports the cut."""
    sent = record(tmp_path, model)
    (file,) = (tmp_path / "records").rglob("*.arrows")
    file.write_bytes(file.read_bytes()[:-50])
    again = replayed(tmp_path)
    *before, end = again.plain()
    assert before == sent.plain()[: len(before)]
    assert (end.type, getattr(end, "reason", None)) == ("session_end", "recording_cut")


def test_a_replay_can_be_stopped(tmp_path: Path, model: TamUlag) -> None:
    """It ends at once and reports it."""
    record(tmp_path, model, inputs(0.5))
    lines = Lines()
    replay = replay_of(tmp_path, lines, paced=True)
    replay.stop()
    asyncio.run(asyncio.wait_for(replay.run(), 5.0))
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
    """The error names how many features the model takes."""
    record(tmp_path, model, inputs(0.5))
    recording = Recording(tmp_path / "records")
    session, _ = session_of(recording.header, None)
    row = next(row for row in recording.rows() if row.kind == "audio")
    assert row.values is not None
    with pytest.raises(RecordingError, match="audio sample of 3 features: the model takes 4"):
        feed(session, replace(row, values=row.values[:3]))


class Breaking(Lines):
    """A publisher that breaks after some lines, and can be opened again."""

    name = "breaking"

    def __init__(self) -> None:
        super().__init__()
        self.broken = asyncio.Event()
        self.opened = 0

    async def open(self) -> None:
        self.opened += 1

    def publish(self, kind: str, payload: str) -> None:
        super().publish(kind, payload)
        if len(self.all) == 6:
            self.broken.set()

    async def run(self) -> None:
        if self.opened == 1:
            await self.broken.wait()
            raise PublisherError("disk full")
        await asyncio.Event().wait()


def test_a_replay_outlives_an_output_that_breaks(tmp_path: Path, model: TamUlag) -> None:
    """As a live run does: the others carry the loss, numbers have no gap, nothing else changes."""
    sent = record(tmp_path, model)
    lines, breaking = Lines(), Breaking()
    asyncio.run(replay_of(tmp_path, lines, breaking).run())
    found = [messages.decode(line) for line in lines.all]
    assert [m.seq for m in found] == list(range(1, len(found) + 1))
    lost = [m for m in found if isinstance(m, messages.Event) and m.event == "publisher_lost"]
    assert [m.detail for m in lost] == ["disk full"]
    states = [m.lost for m in found if isinstance(m, messages.State)]
    assert {"breaking": "publisher_lost"} in states
    kinds = [m.type for m in lines.plain()]
    assert kinds.count("sentiment") == [m.type for m in sent.plain()].count("sentiment")
    assert kinds[-1] == "session_end"


def test_a_replay_says_whom_it_is_about_when_it_goes(tmp_path: Path, model: TamUlag) -> None:
    """The retained status of a broker names subject and notice, as a live run's does."""
    record(tmp_path, model, inputs(0.5))
    replay = replay_of(tmp_path)
    replay.messages.about = replace(ABOUT, subject=messages.Subject(role="visitor"), notice="You.")
    status = messages.decode(replay.offline("offline"))
    assert isinstance(status, messages.State)
    assert (status.state, status.notice, status.subject.role) == ("offline", "You.", "visitor")
