"""Publish scores as lines that a person can read.

Knows the messages and one stream of text. Knows no colours and no cursor: piped, it is the same.
"""

import asyncio
from collections.abc import Callable
from typing import TextIO

from . import message
from .publisher import PublisherError
from .sample import MODALITIES

WORDS = 6
"""Attended words that a line shows at most."""


class TerminalPublisher:
    """Print one line per score, event and change of state.

    Writes directly in `publish`, on the event loop; a terminal that is stopped makes it wait.

    Args:
        out: Where to print, e.g. standard output.
        greeting: Makes the first lines, once everything is open.
    """

    name = "terminal"

    def __init__(self, out: TextIO, greeting: Callable[[], str] = str) -> None:
        self.dropped = 0
        self._out = out
        self._greeting: Callable[[], str] | None = greeting
        self._error: OSError | None = None
        self._broken = asyncio.Event()

    async def open(self) -> None:
        """Go on after a loss, if an empty line can be printed.

        Raises:
            PublisherError: If it cannot.
        """
        if self._error is not None:
            self._error = None
            self._broken.clear()
            self._print("\n")
        if self._error is not None:
            raise self._lost(self._error)

    def publish(self, kind: str, payload: str) -> None:
        """Print what a person wants to see; after a failed write `run` raises.

        The greeting comes with the first message, when every source is open.
        """
        if self._greeting is not None:
            greeting, self._greeting = self._greeting, None
            self._print(greeting())
        self._print(line(message.decode(payload)))

    async def run(self) -> None:
        """Wait until a write fails.

        Raises:
            BrokenPipeError: If the program that read the lines has ended.
            PublisherError: If nothing can be written any more, e.g. the disk is full.
        """
        await self._broken.wait()
        assert self._error is not None
        if isinstance(self._error, BrokenPipeError):
            raise self._error
        raise self._lost(self._error)

    async def close(self) -> None:
        """Leave the stream to its owner."""

    def _print(self, text: str) -> None:
        if not text:
            return
        self.dropped += self._error is not None
        if self._error is None:
            try:
                print(text, file=self._out, flush=True)
            except OSError as error:
                self._error = error
                self._broken.set()

    def _lost(self, error: OSError) -> PublisherError:
        return PublisherError(
            f"cannot print scores ({error.strerror}): send standard output elsewhere"
        )


def line(sent: message.AnyMessage) -> str:
    """Return the line for a message, or nothing if it is of no interest to a person."""
    if isinstance(sent, message.SentimentMessage):
        return _score(sent)
    if isinstance(sent, message.Event):
        what = f" ({sent.reason.replace('_', ' ')})" if sent.reason else ""
        who = f"{sent.modality} " if sent.modality else ""
        detail = f": {sent.detail}" if sent.detail else ""
        return f"{sent.at:7.1f} s  {who}{sent.event.replace('_', ' ')}{what}{detail}"
    if isinstance(sent, message.State):
        lost = ", ".join(f"{n} ({r.replace('_', ' ')})" for n, r in sent.lost.items())
        return f"           status: {sent.state}{': ' + lost if lost else ''}"
    if isinstance(sent, message.Bound) and sent.type == "session_end":
        return f"{sent.at:7.1f} s  session ended ({sent.reason})"
    return ""


def _score(sent: message.SentimentMessage) -> str:
    total = "  none" if sent.sentiment is None else f"{sent.sentiment:+6.2f}"
    parts = "  ".join(_modality(name, getattr(sent.modalities, name)) for name in MODALITIES)
    words = " ".join(word for word, *_ in sorted(sent.attention.text[:WORDS], key=lambda w: w[1]))
    return f"{sent.window.end:7.1f} s {total} {sent.label or '':8}  {parts}  {words}".rstrip()


def _modality(name: str, part: message.Modality) -> str:
    if part.sentiment is not None:
        return f"{name} {part.sentiment:+.2f} {part.status:5}      "
    reason = f" ({part.reason.replace('_', ' ')})" if part.reason else ""
    return f"{name} {part.status}{reason}"
