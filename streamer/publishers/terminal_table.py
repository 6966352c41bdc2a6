"""Draw one live table on a terminal, in place of lines.

Knows the messages and how rich draws. For a pipe or a file see terminal.py.
"""

import asyncio
import io
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..aio.background_writer import BackgroundWriter, duplicate
from ..core.sample import LIMIT, MODALITIES
from ..protocol import messages
from .publisher import PublisherError
from .terminal import line

WIDTH = 49
"""Columns of the scale from -3 to 3; odd, so that 0 has one."""

EVENTS = 4
"""Newest events in the table."""

WORDS = 14
"""Newest words in the table."""

MIN_REDRAW = 0.1
"""Least seconds between two drawings; messages in between are in the next one."""

QUEUE = 20
"""Drawings and log lines that may wait for a stopped terminal."""

COLOURS = {
    "negative": "red",
    "neutral": "yellow",
    "positive": "green",
    "ok": "green",
    "stale": "yellow",
    "missing": "red",
    "off": "dim",
    "untrained": "dim",
    "online": "green",
    "degraded": "yellow",
    "offline": "red",
}


class TablePublisher:
    """Draws the newest score, modality by modality, and the latest events.

    Draws in `publish`, on the event loop; a thread writes to the terminal. While the terminal is
    stopped nothing is drawn, and then the newest.

    Args:
        out: A terminal with a file descriptor.
        greeting: Returns the first lines, called once everything is open.
    """

    name = "terminal"

    def __init__(self, out: TextIO, greeting: Callable[[], str] = str) -> None:
        self._dropped = 0
        self._out = out
        self._writer: BackgroundWriter | None = None
        self._console = Console(file=_DrawingBuffer(self._put), force_terminal=True)
        self._greeting = greeting
        self._model = TableModel()
        self._live: Live | None = None
        self._drawn = float("-inf")

    @property
    def dropped(self) -> int:
        """Drawings that did not reach the terminal."""
        return self._dropped + (self._writer.dropped if self._writer else 0)

    async def open(self) -> None:
        """Start; the first drawing comes with the first message, when every source is open.

        Raises:
            PublisherError: If the terminal is gone.
        """
        try:
            self._writer = BackgroundWriter(self.name, duplicate(self._out), size=QUEUE)
        except OSError as error:
            raise _gone(error) from error

    def publish(self, kind: str, payload: str) -> None:
        """Update the table and draw it; after a failed write `run` raises."""
        self._model.update(messages.decode(payload))
        self._draw(is_due=kind == "session_end")

    async def run(self) -> None:
        """Wait until a write fails.

        Raises:
            PublisherError: If the terminal is gone.
        """
        assert self._writer is not None, "open() comes first"
        error = await asyncio.shield(self._writer.failed)
        if not isinstance(error, OSError):
            raise error
        raise _gone(error) from error

    async def close(self) -> None:
        """Leave the last drawing on the screen, and restore the cursor."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        writer, self._writer = self._writer, None
        if writer is not None:
            unwritten = await writer.end()
            self._dropped += writer.dropped + len(unwritten)

    def _put(self, drawn: str) -> None:
        if self._writer is None:
            self._dropped += 1
        else:
            self._writer.put(drawn.encode(self._out.encoding, "replace"))

    def _draw(self, *, is_due: bool) -> None:
        if self._live is None:
            self._console.print(Text(self._greeting()))
            # Drawn by `publish`, without a thread of rich. Log lines appear above the table.
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        now = time.monotonic()
        is_stopped = self._writer is not None and self._writer.backlog > 0
        if is_due or (now - self._drawn >= MIN_REDRAW and not is_stopped):
            self._drawn = now
            self._live.update(self._model.render(), refresh=True)


class _DrawingBuffer(io.StringIO):
    """The stream that rich draws on: passes each drawing on as a whole."""

    def __init__(self, put: Callable[[str], None]) -> None:
        super().__init__()
        self._put = put

    def flush(self) -> None:
        drawn = self.getvalue()
        self.seek(0)
        self.truncate()
        if drawn:
            self._put(drawn)


def _gone(error: OSError) -> PublisherError:
    return PublisherError(f"cannot draw ({error}): send standard output elsewhere")


class TableModel:
    """Content of the table: the newest of each type of message."""

    def __init__(self) -> None:
        self._score: messages.SentimentMessage | None = None
        self._status: messages.State | None = None
        self._end = ""
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._words: dict[int, str] = {}

    def update(self, sent: messages.AnyMessage) -> None:
        """Store what the table shows of a message."""
        if isinstance(sent, messages.SentimentMessage):
            self._score = sent
        elif isinstance(sent, messages.State):
            self._status = sent
        elif isinstance(sent, messages.Text):
            self._add_words(sent)
        elif isinstance(sent, messages.Event):
            self._events.append(line(sent).strip())
        elif isinstance(sent, messages.Bound):
            self._end = line(sent).strip()

    def render(self) -> RenderableType:
        """Return the drawing."""
        rows: list[RenderableType] = [self._head()]
        if self._score is not None:
            rows += [_modalities(self._score), self._words_row(self._score), _costs(self._score)]
        rows += [Text(event, "dim") for event in self._events]
        if self._end:
            rows.append(Text(self._end, "bold"))
        return Group(*rows)

    def _add_words(self, sent: messages.Text) -> None:
        spoken = [word.text for word in sent.words]
        self._words[sent.utterance] = " ".join([*spoken, *([sent.tail] if sent.tail else [])])
        for old in sorted(self._words)[:-WORDS]:
            del self._words[old]

    def _head(self) -> Text:
        state = self._status.state if self._status else "starting"
        head = Text(state, COLOURS.get(state, "dim"))
        if self._status:
            problems = [f"{what} ({_plain(reason)})" for what, reason in self._status.lost.items()]
            problems += [f"less {_plain(step)}" for step in self._status.pressure]
            head.append(f"  {', '.join(problems)}" if problems else "")
        score = self._score
        if score is None:
            return head
        value = "none" if score.sentiment is None else f"{score.sentiment:+.2f}"
        label = score.label or ""
        about = f"{score.window.end:8.1f} s  {value:>5} {label:9}"
        style = f"bold {COLOURS.get(label, '')}".strip()
        return Text.assemble((about, style), scale(score), "\n", head)

    def _words_row(self, score: messages.SentimentMessage) -> Text:
        newest = " ".join(self._words[number] for number in sorted(self._words)).split()[-WORDS:]
        attended = {word.lower() for word, *_ in score.attention.text}
        shown = Text("words  ", "dim")
        for word in newest:
            shown.append(f"{word} ", "bold" if word.lower().strip(".,!?") in attended else "dim")
        return shown


def scale(score: messages.SentimentMessage) -> Text:
    """Return the scale from -3 to 3 with the interval and the score on it."""
    cells = ["─"] * WIDTH
    cells[WIDTH // 2] = "┼"
    if score.interval is not None:
        low, high = map(_column, score.interval)
        cells[low : high + 1] = "━" * (high + 1 - low)
    if score.sentiment is not None:
        cells[_column(score.sentiment)] = "●"
    return Text("".join(cells), COLOURS.get(score.label or "", "dim"))


def _column(value: float) -> int:
    return round((value + LIMIT) / (2 * LIMIT) * (WIDTH - 1))


def _modalities(score: messages.SentimentMessage) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", min_width=6)
    for column in ("score", "share", "age"):
        table.add_column(column, justify="right", min_width=5)
    table.add_column("status")
    for name in MODALITIES:
        part: messages.Modality = getattr(score.modalities, name)
        value = "" if part.sentiment is None else f"{part.sentiment:+.2f}"
        reason = f" ({_plain(part.reason)})" if part.reason else ""
        age = "" if part.age is None else f"{part.age:.1f} s"
        status = Text(f"{part.status}{reason}", COLOURS[part.status])
        table.add_row(name, value, f"{part.weight:.0%}", age, status)
    return table


def _costs(score: messages.SentimentMessage) -> Text:
    dropped = " ".join(f"{name} {count}" for name, count in score.dropped.items()) or "nothing"
    total = "" if score.latency.total is None else f"latency {score.latency.total:.2f} s  "
    conflict = "" if score.conflict is None else f"conflict {score.conflict:.1f}  "
    return Text(f"{total}{conflict}dropped {dropped}", "dim")


def _plain(word: str) -> str:
    return word.replace("_", " ")
