"""What a token may do, and which right each door of the port asks for.

Knows names of rights, paths and names of sessions. Knows no token and no request.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

SEND, LISTEN, LISTEN_ONE, METRICS, ADMIN = "send", "listen", "listen:NAME", "metrics", "admin"

RIGHTS = (SEND, LISTEN, LISTEN_ONE, METRICS, ADMIN)
"""What may stand behind a token; `NAME` stands for the name of a session."""

PAST = (LISTEN, LISTEN_ONE, ADMIN)
"""Each of these shows the past of a session."""

NAMED = "/?session="
"""The door of a subscriber that follows one of many sessions."""

DOORS: Mapping[str, tuple[str, ...]] = {
    "/": (LISTEN,),
    NAMED: (LISTEN, LISTEN_ONE),
    "/ingest": (SEND,),
    "/sessions": PAST,
    "/metrics": (METRICS, ADMIN),
    "/seats": (ADMIN,),
}
"""Path -> rights, each of which opens it and the pages below it; any other path takes `admin`."""

_NAME = re.compile(r"[\w.-]{1,64}")
"""A name that a session can have, see `protocol.ingest.SenderHello`."""


@dataclass(frozen=True)
class Rights:
    """The rights of one token.

    Attributes:
        names: Of `RIGHTS`, with a session's name in place of `NAME`.
    """

    names: frozenset[str]

    def may_read(self, session: str) -> bool:
        """Return whether the past of a session may be read; `session`: its own name."""
        return self._has(PAST, session)

    def refusal(self, path: str, session: str | None = None) -> str | None:
        """Return why a door stays shut, with the remedy, at most 123 bytes; None: it opens.

        Args:
            path: Of the door, as `DOORS` has it.
            session: The one that a subscriber wants to follow; None: the server itself.
        """
        wanted = DOORS.get(path if session is None else NAMED, (ADMIN,))
        return None if self._has(wanted, session) else _lacking(wanted)

    def _has(self, wanted: tuple[str, ...], session: str | None) -> bool:
        return any(
            self._follows(session) if one == LISTEN_ONE else one in self.names for one in wanted
        )

    def _follows(self, session: str | None) -> bool:
        """Return whether a session, or any where none is named, has a right of its own here."""
        if session is not None:
            return f"{LISTEN}:{session}" in self.names
        return any(name.startswith(f"{LISTEN}:") for name in self.names)


def _lacking(wanted: tuple[str, ...]) -> str:
    return f"this token lacks the right: use one with {' or '.join(wanted)}"


NOT_YOURS = _lacking(PAST)
"""Why the past of a session is not shown."""

ALL = Rights(frozenset((SEND, LISTEN, METRICS, ADMIN)))
"""Rights of a token behind which none stands, and of everybody where no token is asked for."""

NONE = Rights(frozenset())
"""Rights of a client of which no token is known."""


def parse_rights(text: str) -> Rights:
    """Return the rights of a list with commas, such as `send,listen:seat-7`.

    Raises:
        ValueError: If one is none; the text does not quote it, as it may be a token.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(map(_is_right, names)):
        raise ValueError(f"a right that is none of {', '.join(RIGHTS)}")
    return Rights(frozenset(names))


def _is_right(name: str) -> bool:
    kind, colon, session = name.partition(":")
    if colon:
        return kind == LISTEN and _NAME.fullmatch(session) is not None
    return name in ALL.names
