"""Lines reach a pipe in order; adding them never blocks."""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO

import pytest

from tamulag.streamer.aio.background_writer import PATIENCE, BackgroundWriter


@contextmanager
def pipe() -> Iterator[tuple[FileIO, int]]:
    """Give the end to write to, which the writer closes, and the end to read from; 4 KiB."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield FileIO(writer, "wb"), reader
    os.close(reader)


def everything(reader: int) -> bytes:
    """Read until the other end is closed."""
    got = b""
    while data := os.read(reader, 65536):
        got += data
    return got


def test_lines_are_written_in_order_to_the_last() -> None:
    """`end` comes after the last line, and the file is closed then."""

    async def scenario(file: FileIO) -> BackgroundWriter:
        writer = BackgroundWriter("lines", file, size=9, lines=[b"0\n"])
        for number in range(1, 9):
            writer.put(b"%d\n" % number)
        assert await writer.end() == []
        return writer

    with pipe() as (file, reader):
        writer = asyncio.run(scenario(file))
        assert file.closed
        assert everything(reader) == b"".join(b"%d\n" % number for number in range(9))
    assert (writer.dropped, writer.backlog) == (0, 0)


def test_the_oldest_that_waits_goes_and_not_the_one_in_the_systems_hands() -> None:
    """A line is written as a whole or not at all."""
    lines = [b"%d" % number * 5000 + b"\n" for number in range(6)]

    async def scenario(file: FileIO, reader: int) -> tuple[bytes, int]:
        writer = BackgroundWriter("lines", file, size=2)
        writer.put(lines[0])
        async with asyncio.timeout(5):
            while not writer._queue.writing:  # noqa: ASYNC110 (bounded by the timeout)
                await asyncio.sleep(0.01)
        for line in lines[1:]:
            writer.put(line)
        reading = asyncio.create_task(asyncio.to_thread(everything, reader))
        await writer.end()
        return await reading, writer.dropped

    with pipe() as (file, reader):
        got, dropped = asyncio.run(scenario(file, reader))
    assert got == lines[0] + lines[4] + lines[5]
    assert dropped == 3


def test_a_slow_reader_is_none_that_stands_still() -> None:
    """Lines that wait for longer than a second while others are written are all waited for."""

    async def scenario(file: FileIO, reader: int) -> tuple[float, int, bytes]:
        writer = BackgroundWriter("lines", file, size=9)
        for _ in range(6):
            writer.put(bytes(4000))
        got, longest = b"", 0.0
        for _ in range(6):
            await asyncio.sleep(PATIENCE / 4)
            longest = max(longest, writer.waited)
            got += os.read(reader, 3500)
        reading = asyncio.create_task(asyncio.to_thread(everything, reader))
        await writer.end()
        return longest, writer.dropped, got + await reading

    with pipe() as (file, reader):
        longest, dropped, got = asyncio.run(scenario(file, reader))
    assert longest < PATIENCE
    assert (dropped, len(got)) == (0, 24_000)


def test_a_reader_that_keeps_a_line_waiting_is_not_waited_for() -> None:
    """Beyond a second the end comes at once."""

    async def scenario(file: FileIO) -> tuple[float, int]:
        writer = BackgroundWriter("lines", file, size=9)
        writer.put(bytes(5000))
        async with asyncio.timeout(5):
            while writer.waited <= PATIENCE:  # noqa: ASYNC110 (bounded by the timeout)
                await asyncio.sleep(0.05)
        begin = time.monotonic()
        await writer.end()
        return time.monotonic() - begin, writer.dropped

    with pipe() as (file, reader):
        took, dropped = asyncio.run(scenario(file))
        assert len(everything(reader)) == 5000  # lets the thread go
    assert took < 1.0
    assert dropped == 1


def test_a_failure_gives_back_what_it_left() -> None:
    """The line that failed comes first, and `failed` says why."""

    async def scenario(file: FileIO) -> tuple[list[bytes], BaseException]:
        writer = BackgroundWriter("lines", file, size=9, lines=[b"a", b"b"])
        async with asyncio.timeout(5):
            error = await writer.failed
        return await writer.end(), error

    reader, end = os.pipe()
    os.close(reader)
    rest, error = asyncio.run(scenario(FileIO(end, "wb")))
    assert rest == [b"a", b"b"]
    assert isinstance(error, BrokenPipeError)


def test_what_a_full_disk_leaves_is_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Also where nobody looks at `failed` any more; the lines come back."""

    async def scenario() -> list[bytes]:
        writer = BackgroundWriter("lines", FileIO("/dev/full", "wb"), size=9)
        writer.put(b"first\n")
        await asyncio.wait([writer.failed], timeout=5)
        return await writer.end()

    assert asyncio.run(scenario()) == [b"first\n"]
    assert "1 lines are not written" in caplog.text
