"""What the program says on standard error: lines for people, or JSON lines for a log collector.

Knows the forms of a line and which loggers are ours. Knows nothing of what is logged; those who
log leave out words, passwords and tokens.
"""

import io
import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

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
    """Standard error as it is at that time: a table on the terminal lets lines go above it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class Log:
    """The log of one run; a context.

    A bug that ends the run is one line as well where lines are JSON: it leaves with exit code 1
    instead of the interpreter's traceback.

    Args:
        form: `text` or `json`.
        level: Least weight that is told. Loggers of libraries tell warnings and errors alone: at
            finer levels some of them write what they send, the recognised words among it.
        program: Name before an error that a person can mend.
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
        self._handler = logging.StreamHandler(_Stderr())
        self._handler.setFormatter(self._lines or logging.Formatter(LINE))

    def __enter__(self) -> Self:
        """Begin to log."""
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
        """End logging; with JSON lines log what nobody expected first."""
        is_bug = self._lines is not None and isinstance(error, Exception)
        if is_bug:
            logger.critical("%s: %s", type(error).__name__, error, exc_info=error)
        logging.captureWarnings(False)
        logger.setLevel(logging.NOTSET)
        logging.root.setLevel(logging.WARNING)
        logging.root.removeHandler(self._handler)
        if is_bug:
            raise SystemExit(1) from error

    def begin(self, session: str) -> None:
        """Put the name of the run into every line from now on."""
        if self._lines:
            self._lines.session = session

    def tell(self, problem: object) -> None:
        """Say what a person can mend, in the form of the log."""
        if self._lines:
            logger.error("%s", problem)
        else:
            print(f"{self._program}: {problem}", file=sys.stderr)
