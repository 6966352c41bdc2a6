"""Publish scores as lines that a person can read.

Knows the messages and one stream of text. Knows no colours and no cursor: the same when piped.
"""

import asyncio
from collections.abc import Callable
from typing import TextIO

from ..aio.background_writer import BackgroundWriter, duplicate, open_with
from ..aio.threads import in_thread
from ..core.sample import MODALITIES
from ..protocol import messages
from .publisher import PublisherError

QUEUE = 100
"""Lines that may wait for a reader: almost a minute of scores."""

WORDS = 6
"""Most attended words of a line."""


class TerminalPublisher:
    """Prints one line per score, event and change of state, by a thread of its own.

    A stopped terminal or an unread pipe blocks nothing: the oldest lines are dropped.

    Args:
        out: Where to print, e.g. standard output; has a file descriptor.
        greeting: Returns the first lines, called once everything is open.
    """

    name = "terminal"

    def __init__(self, out: TextIO, greeting: Callable[[], str] = str) -> None:
        self._out = out
        self._greeting: Callable[[], str] | None = greeting
        self._dropped = 0
        self._is_back = False
        self._writer: BackgroundWriter | None = None

    @property
    def dropped(self) -> int:
        """Lines that were not printed."""
        return self._dropped + (self._writer.dropped if self._writer else 0)

    @property
    def backlog(self) -> int:
        """Lines that are not printed yet."""
        return self._writer.backlog if self._writer else 0

    async def open(self) -> None:
        """Start, or resume after a loss if an empty line can be printed.

        Raises:
            PublisherError: If it cannot.
        """
        first = b"\n" * self._is_back
        try:
            file = await in_thread("terminal open", lambda: open_with(duplicate(self._out), first))
        except OSError as error:
            raise _lost(error) from error
        self._writer = BackgroundWriter(self.name, file, size=QUEUE)
        self._is_back = True

    def publish(self, kind: str, payload: str) -> None:
        """Print what is relevant to a person; after a failed write `run` raises.

        The greeting precedes the first message, when every source is open.
        """
        if self._greeting is not None:
            greeting, self._greeting = self._greeting, None
            self._print(greeting())
        self._print(line(messages.decode(payload)))

    async def run(self) -> None:
        """Wait until a write fails.

        Raises:
            BrokenPipeError: If the program that read the lines has ended.
            PublisherError: If nothing can be written any more, e.g. the disk is full.
        """
        assert self._writer is not None, "open() comes first"
        error = await asyncio.shield(self._writer.failed)
        if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
            raise error
        raise _lost(error) from error

    async def close(self) -> None:
        """Print the queue, for two seconds at most; the stream stays open for its owner."""
        writer, self._writer = self._writer, None
        if writer is not None:
            unwritten = await writer.end()
            self._dropped += writer.dropped + len(unwritten)

    def _print(self, text: str) -> None:
        if text and self._writer is None:
            self._dropped += 1
        elif text and self._writer is not None:
            self._writer.put(f"{text}\n".encode(self._out.encoding, "replace"))


def _lost(error: OSError) -> PublisherError:
    return PublisherError(
        f"cannot print scores ({error.strerror or error}): send standard output elsewhere"
    )


def line(sent: messages.AnyMessage) -> str:
    """Return the line for a message, or "" if it is irrelevant to a person."""
    if isinstance(sent, messages.SentimentMessage):
        return _score(sent)
    if isinstance(sent, messages.Event):
        what = f" ({sent.reason.replace('_', ' ')})" if sent.reason else ""
        who = f"{sent.modality} " if sent.modality else ""
        detail = f": {sent.detail}" if sent.detail else ""
        return f"{sent.at:7.1f} s  {who}{sent.event.replace('_', ' ')}{what}{detail}"
    if isinstance(sent, messages.State):
        lost = ", ".join(f"{n} ({r.replace('_', ' ')})" for n, r in sent.lost.items())
        return f"           status: {sent.state}{': ' + lost if lost else ''}"
    if isinstance(sent, messages.Bound) and sent.type == "session_end":
        return f"{sent.at:7.1f} s  session ended ({sent.reason})"
    return ""


def _score(sent: messages.SentimentMessage) -> str:
    total = "  none" if sent.sentiment is None else f"{sent.sentiment:+6.2f}"
    parts = "  ".join(_modality(name, getattr(sent.modalities, name)) for name in MODALITIES)
    words = " ".join(word for word, *_ in sorted(sent.attention.text[:WORDS], key=lambda w: w[1]))
    return f"{sent.window.end:7.1f} s {total} {sent.label or '':8}  {parts}  {words}".rstrip()


def _modality(name: str, part: messages.Modality) -> str:
    if part.sentiment is not None:
        return f"{name} {part.sentiment:+.2f} {part.status:5}      "
    reason = f" ({part.reason.replace('_', ' ')})" if part.reason else ""
    return f"{name} {part.status}{reason}"
