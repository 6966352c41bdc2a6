"""Logging to standard error: lines for people, or JSON lines for a log collector.

Knows the formats of a line and our loggers. Knows no content; callers never log words, passwords or
tokens.
"""

import io
import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

from .log_lines import BackgroundHandler, Repeats

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"

logger = logging.getLogger("tamulag")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, session, exception.

    Attributes:
        session: Name of the run; None before it has one.
    """

    session: str | None = None

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON; line breaks are escaped in it."""
        line: dict[str, str | None] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "session": self.session,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Stderr(io.TextIOBase):
    """The current standard error: while a table is drawn its lines go above the table."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class Log:
    """The log of one run; a context.

    With JSON lines a bug that ends the run is one line too: exit code 1 in place of the
    interpreter's traceback.

    Args:
        form: `text` or `json`.
        level: Lowest level that is logged. Libraries log warnings and errors alone: at lower levels
            some of them write what they send, recognised words included.
        program: Prefix of an error that a person can fix.
    """

    def __init__(
        self,
        form: Literal["text", "json"] = "text",
        level: str = "warning",
        program: str = "tamulag-stream",
    ) -> None:
        self._lines = JsonLines() if form == "json" else None
        self._level = logging.getLevelNamesMapping()[level.upper()]
        self._program = program
        self._handler = BackgroundHandler(_Stderr())
        self._repeats = Repeats()
        self._handler.addFilter(self._repeats)
        self._handler.setFormatter(self._lines or logging.Formatter(LINE))

    def __enter__(self) -> Self:
        """Start logging."""
        self._handler.begin()
        logging.root.addHandler(self._handler)
        logging.root.setLevel(max(self._level, logging.WARNING))
        logger.setLevel(self._level)
        logging.captureWarnings(self._lines is not None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop logging; with JSON lines log an unexpected error first."""
        for message in self._repeats.rest():
            logger.warning("%s", message)
        is_bug = self._lines is not None and isinstance(error, Exception)
        if is_bug:
            logger.critical("%s: %s", type(error).__name__, error, exc_info=error)
        logging.captureWarnings(False)
        logger.setLevel(logging.NOTSET)
        logging.root.setLevel(logging.WARNING)
        logging.root.removeHandler(self._handler)
        self._handler.end()
        if is_bug:
            raise SystemExit(1) from error

    def begin(self, session: str) -> None:
        """Add the name of the session to every later line."""
        if self._lines:
            self._lines.session = session

    def report(self, problem: object) -> None:
        """Report an error that a person can fix, in the format of the log."""
        if self._lines:
            logger.error("%s", problem)
        else:
            print(f"{self._program}: {problem}", file=sys.stderr)
