"""Inject faults into a running agent, and measure how long it takes to detect and to recover.

Knows the faults and their measurements. The external processes are in rig/processes.py; the agent
runs in a process of its own, exactly as a user starts it.
"""

import contextlib
import json
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from .rig.agent_process import Streaming, streaming
from .rig.bad_clients import Pipe, malformed, stalled
from .rig.broker import Broker, broker
from .rig.devices import Camera, SoundServer, camera, microphone
from .rig.probe import Message, MessageProbe, Receipt, has_score, is_back, is_lost
from .rig.processes import BROKER, CAMERA, MICROPHONE, missing, small_disk, wait_for

WAIT_LIMIT = 20.0
"""Seconds after which a wait is given up: its cell stays empty."""

PAUSE = 3.0
"""Seconds for which a fault lasts after its detection."""

STEP = 20.0
"""Seconds by which the wall clock is set forward, for two seconds."""


class Row(NamedTuple):
    """Results of one fault; None: not applicable, or not within 20 s."""

    fault: str
    degraded_s: float | None
    """From the fault to the status that reports it."""
    recovered_s: float | None
    """From the end of the fault to the status without it, or to the end of a process."""
    lost: int | None
    """Messages that a subscriber missed; for a recording: scores missing in it."""
    status: str
    """The reported status, or why the fault was skipped."""


@dataclass(frozen=True)
class Target:
    """A running agent with everything that can be broken; None where a tool is missing."""

    agent: Streaming
    broker: Broker | None
    camera: Camera | None
    microphone: SoundServer | None
    disk: Path
    """Folder of the recording."""
    is_tmpfs: bool
    steps_clock: bool


class Fault(NamedTuple):
    """A fault: name, required commands, and function that causes it."""

    name: str
    tools: Sequence[str]
    cause: Callable[[Target, str], Row]


def faults(
    picture: Path,
    voice: Path,
    report: Callable[[Row], None],
    *,
    only: Collection[str] = (),
    steps_clock: bool = False,
) -> list[Row]:
    """Cause faults, one after the other; all of them take about three minutes.

    Args:
        picture: Picture of a face, for the camera.
        voice: Sound file, for the microphone.
        report: Called with each row as soon as it is known.
        only: Names of the wanted faults, of `ALL`; empty: all of them.
        steps_clock: Whether the wall clock of this machine may be set, for two seconds.

    Raises:
        StageError: If an agent does not start.
    """
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        report(row)

    wanted = [fault for fault in RUNNING if not only or fault.name in only]
    if wanted:
        with _target(picture, voice, steps_clock) as target:
            for fault in wanted:
                gone = missing(fault.tools)
                add(_skipped(fault.name, gone) if gone else fault.cause(target, fault.name))
    if not only or UNREAD in only:
        add(_unread(UNREAD))
    for name, number in ENDING.items():
        if not only or name in only:
            gone = missing(BROKER)
            add(_skipped(name, gone) if gone else _ended(name, number))
    return rows


def _skipped(name: str, why: str) -> Row:
    return Row(name, None, None, None, f"skipped: {why}")


@contextmanager
def _target(picture: Path, voice: Path, steps_clock: bool) -> Iterator[Target]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk, is_tmpfs = stack.enter_context(small_disk(folder / "disk"))
        enter = stack.enter_context
        hub = None if missing(BROKER) else enter(broker())
        view = None if missing(CAMERA) else enter(camera(picture))
        sound = None if missing(MICROPHONE) else enter(microphone(folder, voice))
        options = ["--asr", "none", "--record", str(disk)]
        options += ["--mqtt", hub.url] if hub else []
        options += ["--camera", view.url] if view else []
        options += ["--microphone", "default" if sound else "none"] if view or sound else []
        if not (view or sound):
            options += ["--source", str(voice), "--loop"]
        environment = sound.environment if sound else None
        agent = enter(streaming(folder / "log", *options, environment=environment))
        for modality, there in (("vision", view), ("audio", sound)):
            if there:
                agent.probe.first(has_score(modality), since=0.0, limit=WAIT_LIMIT)
        yield Target(agent, hub, view, sound, disk, is_tmpfs, steps_clock)


def _seconds(begin: float, reported: float | None) -> float | None:
    return None if reported is None else round(reported - begin, 2)


def _lose_and_restore(
    target: Target,
    name: str,
    what: str,
    break_it: Callable[[], object],
    restore: Callable[[], object],
) -> Row:
    """Spoil and restore something whose loss the status reports."""
    probe = target.agent.probe
    begin = time.monotonic()
    break_it()
    degraded = probe.first(is_lost(what), since=begin, limit=WAIT_LIMIT)
    time.sleep(PAUSE)
    mended = time.monotonic()
    restore()
    back = probe.first(is_back(what), since=mended, limit=WAIT_LIMIT)
    status: Message = degraded.message if degraded else {"state": "online", "lost": {}}
    return Row(
        name,
        _seconds(begin, degraded.at if degraded else None),
        _seconds(mended, back.at if back else None),
        probe.skipped(begin, time.monotonic()),
        f"{status['state']}: {what} {status['lost'].get(what, 'not reported')}",
    )


def _frozen(target: Target, name: str) -> Row:
    hub = target.broker
    assert hub is not None
    with hub.subscribed() as received:
        time.sleep(1.0)
        begin = time.monotonic()
        row = _lose_and_restore(
            target,
            name,
            "mqtt",
            hub.freeze,
            hub.thaw,
        )
        return _delivered(target, row, [received], begin)


def _killed(target: Target, name: str) -> Row:
    hub = target.broker
    assert hub is not None
    begin = time.monotonic()
    with ExitStack() as stack:
        first = stack.enter_context(hub.subscribed())
        later: list[MessageProbe] = []

        def restart() -> None:
            hub.start()
            later.append(stack.enter_context(hub.subscribed()))

        time.sleep(1.0)
        row = _lose_and_restore(target, name, "mqtt", hub.kill, restart)
        return _delivered(target, row, [first, *later], begin)


def _delivered(target: Target, row: Row, received: Sequence[MessageProbe], begin: float) -> Row:
    """Count the scores that the WebSocket had and the broker's subscribers had not."""
    end = time.monotonic()
    time.sleep(2.0)
    mine = target.agent.probe.scores(begin + 1.0, end)
    theirs = {seq for one in received for seq in one.scores(begin, time.monotonic())}
    return row._replace(lost=len(mine - theirs))


def _without_camera(target: Target, name: str) -> Row:
    view = target.camera
    assert view is not None
    return _lose_and_restore(target, name, "vision", view.unplug, view.start)


def _without_microphone(target: Target, name: str) -> Row:
    sound = target.microphone
    assert sound is not None
    return _lose_and_restore(target, name, "audio", sound.unplug, sound.plug)


def _stalled(target: Target, name: str) -> Row:
    found = stalled(target.agent.port)
    ages = f"p50 {found.p50_ms:.0f} ms, p99 {found.p99_ms:.0f} ms for {found.readers} others"
    return Row(name, None, found.gone_s, found.lost, f"cut; {ages}")


def _malformed(target: Target, name: str) -> Row:
    begin = time.monotonic()
    found = malformed(target.agent.port)
    probe = target.agent.probe
    goes_on = probe.first(
        lambda m: m["type"] == "sentiment", since=time.monotonic(), limit=WAIT_LIMIT
    )
    lost = probe.skipped(begin, time.monotonic())
    result = (
        f"{found.bad} of {found.sent} malformed, {found.cut} senders cut, {found.connected} not"
    )
    return Row(name, None, None, lost if goes_on else None, result)


def _stepped(target: Target, name: str) -> Row:
    """Set the wall clock forward and back: neither scores nor their `time` may jump."""
    if not target.steps_clock:
        return _skipped(name, "it sets the clock of this machine for 2 s: allow it by --step-clock")
    begin, wall = time.monotonic(), time.time()
    try:
        time.clock_settime(time.CLOCK_REALTIME, wall + STEP)
    except PermissionError:
        return _skipped(name, "only root may set the clock: sudo")
    try:
        time.sleep(2.0)
    finally:
        time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - begin)
    time.sleep(2.0)
    probe = target.agent.probe
    received = [r for r in probe if r.at >= begin]
    is_lossy = any(r.message["type"] == "status" and r.message["lost"] for r in received)
    lost = probe.skipped(begin, time.monotonic())
    state = "degraded" if is_lossy else "online"
    return Row(
        name, None, None, lost, f"{state}; `time` was off by {_jump(received):.2f} s at most"
    )


def _jump(received: Sequence[Receipt]) -> float:
    """Return the largest deviation of the messages' stamps from their times of receipt, seconds."""
    stamps = [datetime.fromisoformat(r.message["time"]).timestamp() for r in received]
    apart = [stamp - r.at for stamp, r in zip(stamps, received, strict=True)]
    return max(apart) - min(apart) if apart else 0.0


def _full(target: Target, name: str) -> Row:
    """Leave no room for the recording; the session goes on without it, and it can be read."""
    probe, pid = target.agent.probe, target.agent.process.pid
    files = sorted(target.disk.glob("*/*"))
    if target.is_tmpfs:
        begin = _fill(target.disk / "filler")
    else:
        # Without permission to mount a disk the largest file size of the process is reduced.
        size = max(file.stat().st_size for file in files)
        begin = time.monotonic()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 1, resource.RLIM_INFINITY))
    degraded = probe.first(is_lost("recording"), since=begin, limit=WAIT_LIMIT)
    time.sleep(PAUSE)
    reason = degraded.message["lost"]["recording"] if degraded else "not reported"
    scores = len(probe.scores(begin, time.monotonic()))
    recorded = _recorded(target.disk)
    return Row(
        name,
        _seconds(begin, degraded.at if degraded else None),
        None,
        probe.skipped(begin, time.monotonic()),
        f"degraded: recording {reason}; {scores} scores went on, {len(recorded)} can be read",
    )


def _fill(file: Path) -> float:
    """Write until the disk is full; return the time of that."""
    with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(4096))
    return time.monotonic()


def _recorded(folder: Path) -> set[int]:
    """Return the sequence numbers of the scores in the one recording of a folder."""
    from ..storage.arrow_file import Recording

    rows = list(Recording(folder).rows())
    stored = [json.loads(row.text) for row in rows if row.kind == "message" and row.text]
    return {message["seq"] for message in stored if message["type"] == "sentiment"}


def _ended(name: str, number: signal.Signals) -> Row:
    """End an agent in the middle; check its recording and its last status."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hub = stack.enter_context(broker())
        outputs = ["--record", str(folder / "records"), "--mqtt", hub.url]
        agent = stack.enter_context(streaming(folder / "log", "--demo", "--loop", *outputs))
        agent.probe.first(has_score("audio"), since=0.0, limit=WAIT_LIMIT)
        time.sleep(PAUSE)
        begin = time.monotonic()
        agent.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            agent.process.wait(WAIT_LIMIT)
        gone = time.monotonic()
        wait_for(lambda: '"offline"' in hub.retained(), WAIT_LIMIT, "the status `offline`")
        known = agent.probe.scores(0.0, begin)
        lost = len(known - _recorded(folder / "records"))
        code = agent.process.poll()
        result = f"offline; exit {code}, {len(known) - lost} of {len(known)} scores recorded"
        return Row(name, None, round(gone - begin, 2), lost, result)


def _unread(name: str) -> Row:
    """Stop reading an agent's standard output, then end it: it must not block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out = stack.enter_context(contextlib.closing(Pipe()))
        options = ("--demo", "--loop", "--asr", "none", "--jsonl", "-")
        agent = stack.enter_context(streaming(folder / "log", *options, out=out.writer))
        agent.probe.first(has_score("audio"), since=0.0, limit=WAIT_LIMIT)
        out.drain()
        begin = time.monotonic()
        degraded = agent.probe.first(is_lost("jsonl"), since=begin, limit=WAIT_LIMIT)
        time.sleep(PAUSE)
        lost = agent.probe.skipped(begin, stopped := time.monotonic())
        agent.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            agent.process.wait(WAIT_LIMIT)
        result = "degraded: jsonl publisher_lost" if degraded else "not reported"
        return Row(
            name,
            _seconds(begin, degraded.at if degraded else None),
            _seconds(stopped, time.monotonic()),
            lost,
            f"{result}; exit {agent.process.poll()} after SIGTERM",
        )


RUNNING = (
    Fault("broker frozen", BROKER, _frozen),
    Fault("broker killed, restarted", BROKER, _killed),
    Fault("camera gone, back", CAMERA, _without_camera),
    Fault("microphone gone, back", MICROPHONE, _without_microphone),
    Fault("subscriber never reads", (), _stalled),
    Fault("2 % malformed messages", (), _malformed),
    Fault("wall clock stepped", (), _stepped),
    Fault("disk full while recording", (), _full),
)
"""Faults that one agent goes through, in this order: after the last one it records no more."""

UNREAD = "reader of stdout never reads"
"""Fault with an agent of its own."""

ENDING = {"SIGTERM": signal.SIGTERM, "kill -9": signal.SIGKILL}

ALL = (*(fault.name for fault in RUNNING), UNREAD, *ENDING)
"""The names of the rows."""
