"""A past session as plain values and as lines for people.

Knows what a list of sessions shows. Knows no file and no page.
"""

import time
from collections.abc import Iterable, Iterator

from ..protocol import messages
from ..publishers.terminal import line
from .history_db import Past


def item(past: Past) -> dict[str, object]:
    """Return what a list shows of a session, as plain values; times are RFC 3339, in UTC."""
    return {
        "id": past.id,
        "started": messages.utc(past.started),
        "ended": messages.utc(past.ended),
        "seconds": round(past.seconds, 2),
        "mean_sentiment": past.mean_sentiment,
        "subject": past.hello["subject"],
        "reason": past.reason,
        "checkpoint": past.hello["checkpoint"],
    }


def row(past: Past) -> tuple[str, ...]:
    """Return the cells of a list for people: name, local start, length, mean, subject, end."""
    mean = "" if past.mean_sentiment is None else f"{past.mean_sentiment:+.2f}"
    subject = past.hello["subject"]
    who = " ".join(part for part in (subject["role"], subject["id"]) if part)
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(past.started))
    minutes, seconds = divmod(round(past.seconds), 60)
    return past.id, started, f"{minutes}:{seconds:02}", mean, who, past.reason or "no end"


def told(past: Past, lines: Iterable[str]) -> Iterator[str]:
    """Yield a session as it was told on the terminal."""
    about = past.hello
    yield f"session {past.id}, {messages.utc(past.started)}: {', '.join(about['sources'])}"
    yield f"version {about['version']}, checkpoint {about['checkpoint']}"
    for payload in lines:
        if text := line(messages.decode(payload)):
            yield text
