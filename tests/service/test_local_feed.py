"""The whole run with scripted sources: order, numbers, loss, return, end."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from websockets.asyncio.client import connect

from support.services import Live, live
from tamulag.models import TamUlag
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.core.sample import Input, Modality, Notice, Phrase, Sample, Word
from tamulag.streamer.core.session import Session
from tamulag.streamer.core.source import FAILED, Put, SourceError, SourceLost
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.session_messages import RunInfo
from tamulag.streamer.publishers.jsonl import JsonlPublisher
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.webserver.server import WebSocketPublisher

HEADS = ("sentiment", "text", "audio", "vision")
CARD = Card(trained=dict.fromkeys(HEADS, True))
Script = Callable[[Put, threading.Event], None]


class Scripted:
    """A source whose `run` is a function of the test."""

    name = "scripted"
    modalities: tuple[Modality, ...] = ("audio",)

    def __init__(self, *scripts: Script, refuse: str = "") -> None:
        self._scripts = list(scripts)
        self._refuse = refuse
        self.waiting = 0.0
        self.shed_steps: list[tuple[str, ...]] = []

    def losses(self) -> dict[str, int]:
        return {"audio": 3}

    def gauges(self) -> dict[str, float]:
        return {"microphone_waiting": self.waiting}

    def shed(self, steps: Collection[str]) -> None:
        self.shed_steps.append(tuple(steps))

    def open(self) -> None:
        if self._refuse:
            raise SourceError(self._refuse)

    def run(self, put: Put, stop: threading.Event) -> None:
        self._scripts.pop(0)(put, stop)


class RecordingPublisher:
    """A publisher that records its lines."""

    name = "recorded"
    dropped = 0

    def __init__(self, refuse: str = "") -> None:
        self.lines: list[str] = []
        self.is_closed = False
        self._refuse = refuse

    async def open(self) -> None:
        if self._refuse:
            raise PublisherError(self._refuse)

    def publish(self, kind: str, payload: str) -> None:
        sent = messages.decode(payload)
        assert sent.type == kind
        self.lines.append(payload)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.is_closed = True

    def of(self, kind: str) -> list[messages.AnyMessage]:
        return [m for m in self.all() if m.type == kind]

    def all(self) -> list[messages.AnyMessage]:
        return [messages.decode(line) for line in self.lines]


def sound(seconds: float) -> Iterator[Sample]:
    for tick in range(round(seconds * 50)):
        yield Sample("audio", tick / 50, np.full(4, np.sin(tick), np.float32))


def play(items: Iterable[Input]) -> Script:
    def run(put: Put, stop: threading.Event) -> None:
        for item in items:
            if stop.is_set():
                return
            put(item)

    return run


def lose(put: Put, stop: threading.Event) -> None:
    raise SourceLost("microphone_lost", "microphone: no block for 2 s")


def fail(put: Put, stop: threading.Event) -> None:
    raise SourceLost(FAILED, "a.wav holds nothing that can be decoded")


def idle(put: Put, stop: threading.Event) -> None:
    stop.wait(10)


def crash(put: Put, stop: threading.Event) -> None:
    raise ZeroDivisionError("a bug")


def agent(model: TamUlag, source: Scripted, recorded: RecordingPublisher, **settings: Any) -> Live:
    return live(
        Session(TorchEngine(model), CARD, ("text", "audio")),
        [source],
        [recorded],
        RunInfo(version="0", checkpoint="tiny", heads={}, sources=[source.name]),
        **({"paced": False} | settings),
    )


def words(at: float) -> Phrase:
    return Phrase(at, 0, (Word("hi", 0.0, 0.2),), np.ones((1, 5), np.float32), (0,), True)


def test_a_file_is_scored_from_start_to_end(model: TamUlag) -> None:
    """Start, status, one score per hop, the words, and the end, numbered without a gap."""
    recorded = RecordingPublisher()
    samples = list(sound(2))
    items: list[Input] = [*samples[:95], words(1.9), *samples[95:]]
    asyncio.run(agent(model, Scripted(play(items)), recorded).service.run())
    kinds = [m.type for m in recorded.all()]
    assert kinds[:2] == ["session_start", "status"]
    assert kinds[-1] == "session_end"
    assert kinds.count("sentiment") == 4
    assert kinds.count("text") == 1
    assert [m.seq for m in recorded.all()] == list(range(1, len(kinds) + 1))
    assert recorded.is_closed


def test_a_file_at_full_speed_loses_nothing(model: TamUlag) -> None:
    """A source that is faster than the session waits; all hops are valid and none is dropped."""
    recorded = RecordingPublisher()
    asyncio.run(agent(model, Scripted(play(sound(60))), recorded).service.run())
    scores = [m for m in recorded.of("sentiment") if isinstance(m, messages.SentimentMessage)]
    assert len(scores) == 120
    assert all(m.modalities.audio.status == "ok" for m in scores)
    assert scores[-1].dropped == {"text": 0, "audio": 3, "vision": 0, "asr": 0}


def test_duration_ends_the_stream(model: TamUlag) -> None:
    """Not one hop more than was asked for."""
    recorded = RecordingPublisher()
    asyncio.run(agent(model, Scripted(play(sound(30))), recorded, duration=2.0).service.run())
    scores = [m for m in recorded.of("sentiment") if isinstance(m, messages.SentimentMessage)]
    assert scores[-1].window.end == 2.0
    assert recorded.of("session_end")[0].model_dump()["reason"] == "duration"


def test_a_lost_source_degrades_the_status_until_it_is_back(model: TamUlag) -> None:
    """Loss and return are reported as events and in the status, and the run goes on."""
    recorded = RecordingPublisher()
    asyncio.run(agent(model, Scripted(lose, play([])), recorded, paced=True).service.run())
    states = [(m.state, m.lost) for m in recorded.all() if isinstance(m, messages.State)]
    assert states == [("online", {}), ("degraded", {"audio": "microphone_lost"}), ("online", {})]
    events = [(m.event, m.modality) for m in recorded.all() if isinstance(m, messages.Event)]
    assert events == [("source_lost", "audio"), ("source_back", "audio")]


def test_hops_close_although_everything_is_silent(model: TamUlag) -> None:
    """With no sample at all scores go on, without a number."""
    recorded = RecordingPublisher()
    asyncio.run(agent(model, Scripted(idle), recorded, paced=True, duration=1.5).service.run())
    scores = [m for m in recorded.of("sentiment") if isinstance(m, messages.SentimentMessage)]
    assert scores
    assert scores[0].sentiment is None
    assert scores[0].modalities.audio.status == "missing"


def test_stop_ends_in_order(model: TamUlag) -> None:
    """A signal leads to a session_end and closed publishers, soon."""
    recorded = RecordingPublisher()
    core = agent(model, Scripted(idle), recorded, paced=True)

    async def run() -> None:
        asyncio.get_running_loop().call_later(0.2, core.service.stop)
        async with asyncio.timeout(3):
            await core.service.run()

    asyncio.run(run())
    assert recorded.of("session_end")[0].model_dump()["reason"] == "stopped"
    assert recorded.is_closed


def test_a_permanent_fault_ends_the_run_with_its_reason(model: TamUlag) -> None:
    """Nothing is left: what was scored is sent, then the run ends as failed."""
    recorded = RecordingPublisher()
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(agent(model, Scripted(fail), recorded, paced=True).service.run())
    assert caught.group_contains(SourceLost, match="holds nothing")
    assert [m.lost for m in recorded.all() if isinstance(m, messages.State)][-1] == {
        "audio": FAILED
    }
    assert recorded.of("session_end")[0].model_dump()["reason"] == "end"


def test_a_remark_of_a_source_is_an_event_and_changes_nothing(model: TamUlag) -> None:
    """A jump of the time stamps is an event; nothing is lost by it."""
    recorded = RecordingPublisher()
    remark = Notice(0.1, "audio", None, "jumps by +9 s", "time_jump")
    asyncio.run(agent(model, Scripted(play([remark, *sound(1)])), recorded).service.run())
    events = [m for m in recorded.all() if isinstance(m, messages.Event)]
    assert [(m.event, m.detail) for m in events] == [("time_jump", "jumps by +9 s")]
    assert len([m for m in recorded.all() if isinstance(m, messages.State)]) == 1


def test_a_source_that_is_away_is_waited_for(model: TamUlag) -> None:
    """With `waits` the run begins without it, and joins it."""
    recorded = RecordingPublisher()
    source = Scripted(play([]), refuse="no device")
    core = agent(model, source, recorded, paced=True, waits=True)

    async def run() -> None:
        asyncio.get_running_loop().call_later(0.2, setattr, source, "_refuse", "")
        await core.service.run()

    asyncio.run(run())
    states = [m.lost for m in recorded.all() if isinstance(m, messages.State)]
    assert states == [{}, {"audio": "source_lost"}, {}]


def test_a_bug_in_a_source_is_not_hidden(model: TamUlag) -> None:
    """It ends the run with its own traceback, and the publishers are closed."""
    recorded = RecordingPublisher()
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(agent(model, Scripted(crash), recorded, paced=True).service.run())
    assert caught.group_contains(ZeroDivisionError)
    assert recorded.is_closed


@pytest.mark.parametrize("which", ["source", "publisher"])
def test_what_cannot_be_opened_leaves_nothing_open(model: TamUlag, which: str) -> None:
    """The text is passed on as it is."""
    recorded = RecordingPublisher(refuse="port taken" if which == "publisher" else "")
    source = Scripted(idle, refuse="no device" if which == "source" else "")
    with pytest.raises((SourceError, PublisherError), match=r"no device|port taken"):
        asyncio.run(agent(model, source, recorded).service.run())
    assert recorded.is_closed
    assert recorded.lines == []


def still_running(before: set[threading.Thread]) -> set[threading.Thread]:
    """Return the threads that were begun since and do not end within 3 s of the stop."""
    new = set(threading.enumerate()) - before
    for thread in new:
        thread.join(3)
    return {thread for thread in new if thread.is_alive()}


def test_cancellation_leaves_no_task_and_no_thread(model: TamUlag) -> None:
    """After a cancelled run nothing of it is left, counted after the source noticed."""
    before = set(threading.enumerate())

    async def run() -> int:
        task = asyncio.create_task(
            agent(model, Scripted(idle), RecordingPublisher(), paced=True).service.run()
        )
        await asyncio.wait([task], timeout=0.3)
        task.cancel()
        await asyncio.wait([task], timeout=3)
        assert task.cancelled()
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1
    assert not still_running(before)


def test_every_message_says_whom_it_is_about(model: TamUlag) -> None:
    """Role and pseudonym in all of them, the notice in each status."""
    recorded, subject = RecordingPublisher(), messages.Subject(role="visitor", id="p-7")
    core = agent(model, Scripted(play([*sound(1.0), words(0.3)])), recorded)
    core.feed.messages.about = replace(
        core.feed.messages.about, subject=subject, notice="You are measured."
    )
    asyncio.run(core.service.run())
    assert {type(m) for m in recorded.all()} >= {messages.SentimentMessage, messages.Text}
    assert {m.subject for m in recorded.all()} == {subject}
    notices = {m.notice for m in recorded.all() if isinstance(m, messages.State)}
    assert notices == {"You are measured."}


def test_hello_and_offline_repeat_the_newest_number(model: TamUlag) -> None:
    """A newcomer's hello makes no gap for the others."""
    core = agent(model, Scripted(idle), RecordingPublisher())
    core.feed.messages.seq = 41
    hello = messages.decode(core.service.hello())
    assert (hello.type, hello.seq) == ("hello", 41)
    assert messages.decode(core.service.offline("offline")).model_dump()["state"] == "offline"
    assert messages.decode(core.service.offline("online")).model_dump()["state"] == "online"


def test_a_failing_publisher_does_not_leave_a_source_at_work(model: TamUlag) -> None:
    """What a source uses is freed after the run, so its thread must have ended by then."""
    busy = threading.Event()

    def work(put: Put, stop: threading.Event) -> None:
        busy.set()
        stop.wait(5)
        busy.clear()

    class Broken(RecordingPublisher):
        async def run(self) -> None:
            await asyncio.to_thread(busy.wait, 5)
            raise BrokenPipeError

    core = agent(model, Scripted(work), Broken(), paced=True)
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(core.service.run())
    assert caught.group_contains(BrokenPipeError)
    assert not busy.is_set()
    assert not core.feed.is_hanging


def struggling(source: Scripted, *, at: float, until: float) -> Script:
    """Play sound in real time, and let some of it wait for a while."""

    def run(put: Put, stop: threading.Event) -> None:
        began = time.monotonic()
        for item in sound(60):
            now = time.monotonic() - began
            source.waiting = 1.0 if at < now < until else 0.0
            if stop.wait(max(item.timestamp - now, 0.0)):
                return
            put(item)

    return run


def test_a_slow_machine_gives_up_work_in_order_and_says_so(model: TamUlag) -> None:
    """The status names what is given up, the sources shed, and the hop doubles."""
    recorded, source = RecordingPublisher(), Scripted()
    source._scripts.append(struggling(source, at=0.0, until=60.0))
    core = agent(model, source, recorded, paced=True, duration=9.0)
    asyncio.run(core.service.run())
    states = [(m.state, m.pressure) for m in recorded.all() if isinstance(m, messages.State)]
    assert states == [
        ("online", []),
        ("degraded", ["asr_partials"]),
        ("degraded", ["asr_partials", "hop"]),
    ]
    assert source.shed_steps == [("asr_partials",), ("asr_partials", "hop")]
    assert core.service.gauges()["degradation_level"] == 2
    ends = [m.window.end for m in recorded.all() if isinstance(m, messages.SentimentMessage)]
    assert set(np.diff(ends).round(2)) == {0.5, 1.0}
    assert core.service.gauges()["hop"] == 1.0


def test_what_was_given_up_is_taken_up_when_there_is_room(model: TamUlag) -> None:
    """Ten seconds with room bring a step back."""
    recorded, source = RecordingPublisher(), Scripted()
    source._scripts.append(struggling(source, at=0.0, until=3.5))
    asyncio.run(agent(model, source, recorded, paced=True, duration=16.0).service.run())
    states = [(m.state, m.pressure) for m in recorded.all() if isinstance(m, messages.State)]
    assert states == [("online", []), ("degraded", ["asr_partials"]), ("online", [])]
    assert source.shed_steps == [("asr_partials",), ()]


def test_a_source_that_hangs_is_found_by_its_age(model: TamUlag) -> None:
    """No sample and no error: the status has it after 3 s, and again when it goes on."""

    def hang(put: Put, stop: threading.Event) -> None:
        for item in sound(0.5):
            put(item)
        stop.wait(4.0)
        put(Sample("audio", 4.5, np.ones(4, np.float32)))
        stop.wait(10.0)

    recorded = RecordingPublisher()
    asyncio.run(agent(model, Scripted(hang), recorded, paced=True, duration=5.0).service.run())
    states = [(m.state, m.lost) for m in recorded.all() if isinstance(m, messages.State)]
    assert states == [("online", {}), ("degraded", {"audio": "source_lost"}), ("online", {})]


class Breaking(RecordingPublisher):
    """A publisher that is lost once."""

    name = "breaking"

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    async def open(self) -> None:
        self.opened += 1

    async def run(self) -> None:
        if self.opened == 1:
            raise PublisherError("disk full")
        await asyncio.Event().wait()


def test_a_lost_publisher_does_not_end_the_run(model: TamUlag) -> None:
    """It is opened again; meanwhile the others carry its loss, and scores go on."""
    recorded = RecordingPublisher()
    core = agent(model, Scripted(idle), recorded, paced=True, duration=2.0)
    core.service.outputs.add(Breaking())
    asyncio.run(core.service.run())
    states = [(m.state, m.lost) for m in recorded.all() if isinstance(m, messages.State)]
    assert states == [
        ("online", {}),
        ("degraded", {"breaking": "publisher_lost"}),
        ("online", {}),
    ]
    assert [m.event for m in recorded.all() if isinstance(m, messages.Event)] == [
        "publisher_lost",
        "publisher_back",
    ]
    assert recorded.of("sentiment")


def test_gauges_name_latencies_queues_and_clocks(model: TamUlag) -> None:
    """What a page of metrics reads, by plain names."""
    recorded, source = RecordingPublisher(), Scripted()
    source._scripts.append(struggling(source, at=0.0, until=0.0))
    core = agent(model, source, recorded, paced=True, duration=1.5)
    assert "hop_total_latency" not in core.service.gauges()
    asyncio.run(core.service.run())
    found = core.service.gauges()
    assert 0 <= found["hop_total_latency"] < 1.5
    assert found["microphone_waiting"] == 0.0
    assert found["inbox_dropped_audio"] == 0
    assert found["publisher_dropped_recorded"] == 0
    assert all(isinstance(value, int | float) for value in found.values())


def test_cancellation_closes_every_socket(model: TamUlag, tmp_path: Path) -> None:
    """A run with a real server and a subscriber, cancelled: no socket, file, task or thread."""
    process = psutil.Process()
    threads = set(threading.enumerate())

    async def run() -> list[str]:
        core = agent(model, Scripted(idle), RecordingPublisher(), paced=True)
        server = WebSocketPublisher(port=0, hello=core.service.hello, missed=str)
        core.service.outputs.add(server)
        core.service.outputs.add(JsonlPublisher(str(tmp_path / "lines.jsonl")))
        task = asyncio.create_task(core.service.run())
        await asyncio.wait([task], timeout=0.5)
        async with connect(f"ws://127.0.0.1:{server.port}/") as subscriber:
            await subscriber.recv()
            assert process.net_connections("tcp")
            task.cancel()
            await asyncio.wait([task], timeout=5)
        assert task.cancelled()
        return [t.get_name() for t in asyncio.all_tasks() if t is not asyncio.current_task()]

    before = len(process.net_connections("tcp")), len(process.open_files())
    assert asyncio.run(run()) == []
    assert len(process.net_connections("tcp")) <= before[0]
    assert len(process.open_files()) <= before[1]
    assert not still_running(threads)


def test_a_model_that_is_too_slow_does_not_let_the_delay_grow(model: TamUlag) -> None:
    """0.7 s of work per score every 0.5 s: with half as many scores the delay falls again."""
    step = TorchEngine.step

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.7)
        return step(*arguments)

    recorded, source = RecordingPublisher(), Scripted()
    source._scripts.append(struggling(source, at=0.0, until=0.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchEngine, "step", slowly)
        core = agent(model, source, recorded, paced=True, duration=18.0)
        asyncio.run(core.service.run())
    scores = [m for m in recorded.all() if isinstance(m, messages.SentimentMessage)]
    delays = [score.latency.total or 0.0 for score in scores]
    assert core.service.gauges()["degradation_level"] == 2
    assert max(delays) > 2.0  # it did grow, until the hop doubled
    assert delays[-2] < 1.5
    assert scores[-2].dropped["audio"] == 3  # those that the source itself counts
