import asyncio
import contextlib
import fcntl
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.waiting import until
from tamulag.streamer.publishers.jsonl import QUEUE, JsonlPublisher
from tamulag.streamer.publishers.publisher import PublisherError, wait_for_backlog

LINES = ['{"seq": 1}', '{"text": "안녕"}']


async def write(path: str, lines: list[str]) -> None:
    publisher = JsonlPublisher(path)
    await publisher.open()
    for line in lines:
        publisher.publish("sentiment", line)
    await publisher.close()


def test_every_message_is_a_line(tmp_path: Path) -> None:
    """A file holds one line per message, in order, in UTF-8."""
    path = tmp_path / "out.jsonl"
    asyncio.run(write(str(path), LINES))
    assert path.read_text(encoding="utf-8").splitlines() == LINES


def test_a_line_is_on_disk_before_close(tmp_path: Path) -> None:
    """Each line is written at once, so a follower of the file sees it."""

    async def scenario() -> None:
        path = tmp_path / "out.jsonl"
        publisher = JsonlPublisher(str(path))
        await publisher.open()
        publisher.publish("sentiment", LINES[0])
        await until(lambda: path.read_text() == LINES[0] + "\n")
        await publisher.close()

    asyncio.run(scenario())


class Pipe(NamedTuple):
    path: str
    reader: int

    def read(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self.reader, 65536)
        return b""


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    """Give a pipe that holds 4 KiB and is read only when the test says so."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    yield Pipe(str(path), reader)
    os.close(reader)


LONG = "x" * 3000


def test_a_reader_that_does_not_read_is_reported_and_loses_nothing(pipe: Pipe) -> None:
    """`publish` does not wait; what waits is written when the reader goes on."""
    told: list[str | None] = []

    async def scenario() -> bytes:
        publisher = JsonlPublisher(pipe.path, lambda reason, _: told.append(reason))
        await publisher.open()
        run = asyncio.create_task(publisher.run())
        for _ in range(9):
            publisher.publish("sentiment", LONG)
        await until(lambda: told == ["publisher_lost"])
        got = b""
        while len(got) < 9 * 3001:
            got += pipe.read()
            await asyncio.sleep(0.01)
        await until(lambda: told == ["publisher_lost", None])
        run.cancel()
        await publisher.close()
        assert publisher.dropped == 0
        return got

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == 9 * (LONG.encode() + b"\n")


def test_only_so_many_lines_wait(pipe: Pipe) -> None:
    """Beyond them the oldest go and are counted; closing before such a reader is bounded."""

    async def scenario() -> int:
        publisher = JsonlPublisher(pipe.path)
        await publisher.open()
        for _ in range(QUEUE + 50):
            publisher.publish("sentiment", LONG)
        assert publisher.backlog <= QUEUE + 1
        start = time.monotonic()
        await publisher.close()
        assert time.monotonic() - start < 2.5
        dropped = publisher.dropped
        await until(lambda: not pipe.read() and not writing())
        return dropped

    assert QUEUE + 45 <= asyncio.run(scenario()) <= QUEUE + 50


def writing() -> bool:
    return any(thread.name == "tamulag.jsonl" for thread in threading.enumerate())


def test_an_existing_file_is_appended_to(tmp_path: Path) -> None:
    """A second run loses nothing of the first."""
    path = tmp_path / "out.jsonl"
    asyncio.run(write(str(path), LINES[:1]))
    asyncio.run(write(str(path), LINES[1:]))
    assert path.read_text(encoding="utf-8").splitlines() == LINES


def test_a_torn_last_line_is_ended_first(tmp_path: Path) -> None:
    """A line that a crash cut short does not swallow the first new message."""
    path = tmp_path / "out.jsonl"
    path.write_text('{"seq": ')
    asyncio.run(write(str(path), LINES))
    assert path.read_text(encoding="utf-8").splitlines() == ['{"seq": ', *LINES]


def test_a_dash_is_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """`-` writes to standard output and leaves it open."""
    asyncio.run(write("-", LINES))
    print("still open", flush=True)
    assert capfd.readouterr().out.splitlines() == [*LINES, "still open"]


def test_an_unwritable_path_is_reported(tmp_path: Path) -> None:
    """The error names the path, the reason and the option."""
    path = tmp_path / "missing" / "out.jsonl"
    with pytest.raises(PublisherError, match=r"cannot write .*out\.jsonl \(No such.*--jsonl PATH"):
        asyncio.run(write(str(path), LINES))


def test_closing_twice_or_unopened_is_harmless(tmp_path: Path) -> None:
    """`close` may be called at any time."""

    async def scenario() -> None:
        publisher = JsonlPublisher(str(tmp_path / "out.jsonl"))
        await publisher.close()
        await publisher.open()
        await publisher.close()
        await publisher.close()

    asyncio.run(scenario())


def test_a_full_disk_ends_run() -> None:
    """A write that fails is reported by `run`, not by `publish`, and closing stays quiet."""

    async def scenario() -> None:
        publisher = JsonlPublisher("/dev/full")
        await publisher.open()
        publisher.publish("sentiment", LINES[0])
        try:
            async with asyncio.timeout(5):
                await publisher.run()
        finally:
            await publisher.close()

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which Linux has")
    with pytest.raises(PublisherError, match=r"/dev/full .*No space left"):
        asyncio.run(scenario())


READER_LEAVES = """
import asyncio, sys
from tamulag.streamer.publishers.jsonl import JsonlPublisher

async def main():
    publisher = JsonlPublisher("-")
    await publisher.open()
    publisher.publish("sentiment", "first")
    sys.stdin.readline()
    publisher.publish("sentiment", "second")
    publisher.publish("sentiment", "third")
    try:
        await asyncio.wait_for(publisher.run(), 5)
    except BrokenPipeError:
        await publisher.close()
        sys.exit(7)

asyncio.run(main())
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", READER_LEAVES]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        yield process
        process.kill()


def test_a_reader_that_leaves_ends_run_quietly(program: subprocess.Popen[str]) -> None:
    """When the pipe's other end is gone, `run` raises BrokenPipeError; nothing is said."""
    assert program.stdin
    assert program.stdout
    assert program.stderr
    assert program.stdout.readline() == "first\n"
    program.stdout.close()
    program.stdin.write("go on\n")
    program.stdin.flush()
    assert program.wait(timeout=20) == 7
    assert program.stderr.read() == ""


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Let a file be as long as it may be while the block runs, by the limit of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with path.open("wb") as file:
        file.truncate(LENGTH - 1)
        file.seek(LENGTH - 1)
        file.write(b"\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (LENGTH + TORN, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


LENGTH, TORN = 64 * 2**20, 5  # far above what anything else of this process writes meanwhile


def test_a_full_disk_costs_no_line_but_those_sent_meanwhile(tmp_path: Path) -> None:
    """The line that failed is written when there is room again; the others are counted."""
    path = tmp_path / "out.jsonl"
    publisher = JsonlPublisher(str(path))

    async def scenario() -> None:
        with full_disk(path):
            await publisher.open()
            publisher.publish("sentiment", LINES[0])
            with pytest.raises(PublisherError, match="make room"):
                await publisher.run()
            publisher.publish("sentiment", "lost")
            await publisher.close()
            with pytest.raises(PublisherError, match="cannot write"):
                await publisher.open()
        await publisher.open()
        publisher.publish("sentiment", LINES[1])
        await publisher.close()

    asyncio.run(scenario())
    with path.open("rb") as file:
        file.seek(LENGTH)
        torn, *whole = file.read().decode().splitlines()
    assert torn == LINES[0][:TORN]
    assert whole == LINES
    assert publisher.dropped == 1


def test_waiting_for_the_backlog_loses_nothing(pipe: Pipe) -> None:
    """A file at full speed goes on when its reader does; a stop ends the waiting without it."""
    count = 2 * QUEUE

    async def scenario() -> int:
        publisher, ending = JsonlPublisher(pipe.path), asyncio.Event()
        await publisher.open()
        publisher.publish("sentiment", 3 * LONG)  # more than the pipe takes
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait_for_backlog([publisher], ending, most=0), 0.2)
        reading = asyncio.create_task(lines_read(pipe, count + 1))
        for _ in range(count):
            publisher.publish("sentiment", LONG)
            await wait_for_backlog([publisher], ending)
        await wait_for_backlog([publisher], ending, most=0)
        await reading
        publisher.publish("sentiment", 3 * LONG)
        ending.set()
        await asyncio.wait_for(wait_for_backlog([publisher], ending, most=0), 1.0)
        reading = asyncio.create_task(lines_read(pipe, 1))
        await publisher.close()
        await reading
        return publisher.dropped

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == 0


async def lines_read(pipe: Pipe, count: int) -> None:
    while count > 0:
        got = pipe.read()
        count -= got.count(b"\n")
        await asyncio.sleep(0 if got else 0.001)


def test_a_pipe_without_a_reader_is_told_at_once(tmp_path: Path) -> None:
    """The start does not wait for somebody who may never come."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def scenario() -> None:
        async with asyncio.timeout(5):
            with pytest.raises(PublisherError, match="nobody reads: start its reader first"):
                await JsonlPublisher(str(path)).open()

    asyncio.run(scenario())
