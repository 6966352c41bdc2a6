"""Writing a recording: where, with which rights, within which limits, and when the disk says no."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.recordings import HEADER, Lines, agent_of, inputs, kinds, record
from tamulag.models import TamUlag
from tamulag.streamer.bench.rig.processes import wait_for
from tamulag.streamer.protocol import messages
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.storage import recorder as module
from tamulag.streamer.storage.arrow_file import Recording
from tamulag.streamer.storage.recorder import Recorder, RecordingFolder
from tamulag.streamer.storage.recording import KINDS

LINE = '{"x":"' + "0" * 1000 + '"}'


def recorder(folder: Path, *, file_limit: int = 10**6, total_limit: int = 10**9) -> Recorder:
    shared = RecordingFolder(folder, total_limit)
    return Recorder(shared, lambda: HEADER, lambda: 1.0, file_limit=file_limit)


def test_recordings_at_the_same_time_share_the_limit(tmp_path: Path) -> None:
    """Two sessions of a server get no more together than one alone."""
    shared = RecordingFolder(tmp_path, 900_000)
    both = [
        Recorder(shared, lambda: HEADER, lambda: 1.0, file_limit=10**6),
        Recorder(shared, lambda: HEADER, lambda: 1.0, file_limit=10**6),
    ]

    async def scenario() -> None:
        await asyncio.gather(*(publish(one, 800) for one in both))

    asyncio.run(scenario())
    assert {one.lost[0] for one in both if one.lost} == {"full"}
    assert sum(f.stat().st_size for f in tmp_path.rglob("*.arrows")) <= 900_000


async def publish(to: Recorder, count: int) -> None:
    await to.open()
    for _ in range(count):
        to.publish("event", LINE)
        await asyncio.sleep(0.001)
    await to.close()


def test_what_goes_in_stands_before_what_comes_out(tmp_path: Path, model: TamUlag) -> None:
    """Each estimate follows the input that closed its hop, each score follows its estimate."""
    lines = record(tmp_path, model)
    found = list(kinds(tmp_path / "records"))
    assert set(found) == set(KINDS) - {"advance", "hop"}
    assert found.count("audio") == 300
    assert found.count("estimate") == 12
    assert found.count("message") == len(lines.all)
    assert found.index("audio") < found.index("estimate") < found.index("close")


def test_only_the_owner_can_read_a_recording(tmp_path: Path, model: TamUlag) -> None:
    """Whatever the umask is: folders 0700, files 0600."""
    before = os.umask(0)
    try:
        record(tmp_path, model)
    finally:
        os.umask(before)
    folder = tmp_path / "records"
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (folder, *folder.rglob("*"))}
    assert set(modes.values()) == {0o700, 0o600}
    assert all(mode == (0o600 if path.is_file() else 0o700) for path, mode in modes.items())


def test_a_second_session_leaves_the_first_as_it_was(tmp_path: Path, model: TamUlag) -> None:
    """Each session has a folder of its own."""
    record(tmp_path, model)
    (first,) = (tmp_path / "records").rglob("*.arrows")
    before = first.read_bytes()
    record(tmp_path, model)
    assert len(list((tmp_path / "records").iterdir())) == 2
    assert first.read_bytes() == before


def test_files_are_turned_by_size(tmp_path: Path) -> None:
    """Many small files read as one recording."""
    to = recorder(tmp_path, file_limit=5000)
    asyncio.run(publish(to, 1500))
    files = list(tmp_path.rglob("*.arrows"))
    assert len(files) > 1
    assert to.lost is None
    assert len(list(Recording(tmp_path).rows())) == 1500


def test_a_recording_ends_when_all_have_their_size(tmp_path: Path) -> None:
    """Nothing old is removed, what comes later is counted, and what was written can be read."""
    to = recorder(tmp_path, total_limit=900_000)
    asyncio.run(publish(to, 1500))
    assert to.lost is not None
    assert to.lost[0] == "full"
    assert "remove old ones, or raise record.total" in to.lost[1]
    assert len(list(Recording(tmp_path).rows())) == 1500 - to.dropped
    assert sum(f.stat().st_size for f in tmp_path.rglob("*.arrows")) <= 900_000


def test_a_disk_that_is_too_slow_ends_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is bounded, and nothing is dropped from the middle."""
    monkeypatch.setattr(module, "QUEUE", 10)

    async def flood() -> Recorder:
        to = recorder(tmp_path)
        await to.open()
        for _ in range(100):
            to.publish("event", LINE)
        await to.close()
        return to

    to = asyncio.run(flood())
    assert to.lost is not None
    assert to.lost[0] == "too_slow"
    assert to.dropped == 100


def test_a_folder_that_cannot_be_made_is_reported_before_the_session(tmp_path: Path) -> None:
    """One line with the folder and the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PublisherError, match=r"cannot record in .*file/x .*--record DIR"):
        asyncio.run(recorder(tmp_path / "file" / "x").open())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 200 kB, or skip where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_recording_and_not_the_session(
    small_disk: Path, tmp_path: Path, model: TamUlag
) -> None:
    """An event says so, the status is degraded, the scores go on, what is there can be read."""
    lines = Lines()
    path = str(small_disk / "records")
    agent = agent_of(tmp_path, model, inputs(200.0), lines, record__path=path)
    asyncio.run(agent.service.run())
    sent = [messages.decode(line) for line in lines.all]
    (event,) = [m for m in sent if m.type == "event" and m.event == "recording_lost"]
    assert event.reason == "disk_full"
    after = sent[sent.index(event) + 1 :]
    status = next(m for m in after if m.type == "status")
    assert (status.state, status.lost) == ("degraded", {"recording": "disk_full"} | status.lost)
    assert sum(m.type == "sentiment" for m in sent) == 400
    rows = list(Recording(Path(path)).rows())
    assert rows[0].kind == "message"


KILLED = """
import asyncio, sys
from pathlib import Path
from tamulag.streamer.storage.recorder import Recorder, RecordingFolder
from tamulag.streamer.storage.recording import Header
header = Header.model_validate_json(sys.argv[2])
async def main():
    folder = RecordingFolder(Path(sys.argv[1]), 10**9)
    to = Recorder(folder, lambda: header, lambda: 1.0, file_limit=10**7)
    await to.open()
    while True:
        to.publish("event", '{}')
        print(flush=True)
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


def test_a_kill_costs_the_last_second_at_most(tmp_path: Path) -> None:
    """Whatever was older than that when the process was killed is there."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), HEADER.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        begun: list[float] = []
        while not begun or time.monotonic() - begun[0] < 3.0:
            process.stdout.readline()
            begun.append(time.monotonic())
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        process.wait(5.0)
    wait_for(lambda: any(tmp_path.rglob("*.arrows")), 1.0, "a file is there")
    old = sum(at < killed - 1.0 for at in begun)
    assert old > 50
    assert len(list(Recording(tmp_path).rows())) >= old
