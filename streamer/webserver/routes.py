"""What a request gets before anything is served: a page, a refusal, or the way in.

Knows the text of requests and who may come in. Knows no socket: it is given texts and gives pages.
"""

import ipaddress
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from .access_control import Access, Attempts

logger = logging.getLogger("tamulag.websocket")

_WHERE = 'send it as `Authorization: Bearer ...`, or as first message {"token": "..."}'


@dataclass(frozen=True)
class Page:
    """An answer to plain HTTP."""

    status: HTTPStatus
    body: str
    kind: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    later: "Callable[[], Page] | None" = None
    """Makes the page in place of this one; it reads a disk, so whoever serves calls it in a
    thread."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """A page that is made anew for each request.

    Attributes:
        make: Returns the page; called on the event loop, must be quick.
        is_public: Whether it is shown without the token.
        below: Returns the page for what follows the shelf's own path and a slash, query included;
            None: there is nothing below.
    """

    make: Callable[[], Page]
    is_public: bool = False
    below: Callable[[str], Page] | None = None


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """A request; headers may come several times, or not at all."""

    method: str
    target: str
    peer: str
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    authorizations: Sequence[str] = ()
    is_upgrade: bool = False


@dataclass(kw_only=True)
class Router:
    """Decides on requests and tokens.

    Attributes:
        access: Who may come in.
        shelves: Pages by path; static files of a dashboard belong here too.
        ways: Paths of WebSockets.
        attempts: Counts wrong tokens.
        clock: Any steady clock, seconds.
    """

    access: Access
    shelves: Mapping[str, Route] = field(default_factory=dict)
    ways: Sequence[str] = ("/",)
    attempts: Attempts = field(default_factory=Attempts)
    clock: Callable[[], float] = time.monotonic

    def answer(self, asked: PageRequest) -> tuple[Page | None, bool]:
        """Return a page, or None for a WebSocket; and whether the peer has shown the token."""
        path, _, query = asked.target.partition("?")
        if re.search(r"(^|&)token=", query):
            return _page(400, f"a token never belongs into an address: {_WHERE}"), False
        if not self._is_host(asked.hosts):
            return _page(403, "unknown name in Host: use the address, or localhost"), False
        if asked.is_upgrade and not self._is_origin(asked):
            return _page(403, "pages of this origin may not listen: list it in origins"), False
        is_known = self.access.token is None
        if asked.authorizations and not is_known:
            is_known = self._is_bearer(asked)
            if not is_known:
                return self._refusal(asked.peer), False
        return self._choose(path, asked, is_known), is_known

    def is_token(self, message: str | bytes, peer: str) -> bool:
        """Return whether a first message holds the token; a wrong one is counted."""
        return self._check(_offered(message), peer)

    def _choose(self, path: str, asked: PageRequest, is_known: bool) -> Page | None:
        shelf, make = self._look_up(asked.target)
        if asked.is_upgrade:
            return None if path in self.ways else _page(404, f"WebSocket: {' '.join(self.ways)}")
        if shelf is None and path != "/":
            return _page(404, f"not here; here are: {' '.join(['/', *self.shelves])}")
        if asked.method != "GET":
            return _page(405, "only GET", ("Allow", "GET"))
        if shelf is None:
            return _page(426, "this is a WebSocket", ("Upgrade", "websocket"))
        if not (is_known or shelf.is_public):
            return self._refusal(asked.peer)
        return make()

    def _look_up(self, target: str) -> tuple[Route | None, Callable[[], Page]]:
        """Return the shelf for a target, or of the path above it, and what makes its page."""
        path = target.partition("?")[0]
        shelf = self.shelves.get(path)
        if shelf is not None:
            return shelf, shelf.make
        above = path.rpartition("/")[0]
        shelf = self.shelves.get(above)
        if shelf is None or shelf.below is None:
            return None, partial(_page, 404, "not here")
        return shelf, partial(shelf.below, target.removeprefix(f"{above}/"))

    def _is_host(self, hosts: Sequence[str]) -> bool:
        # Without a lock a foreign page could reach us by a name of its own that it lets point
        # here (DNS rebinding); an address or localhost cannot be such a name.
        if self.access.token is not None or self.access.tls is not None:
            return True
        return all(_is_own(host) for host in hosts)

    def _is_origin(self, asked: PageRequest) -> bool:
        """Return whether a program asks, a listed page, or the page that we serve ourselves."""
        scheme = "http" if self.access.tls is None else "https"
        own = [f"{scheme}://{host}".lower() for host in asked.hosts]
        listed = self.access.origins
        return all(one in listed or [one.lower()] == own for one in asked.origins)

    def _is_bearer(self, asked: PageRequest) -> bool:
        scheme, _, offered = asked.authorizations[0].partition(" ")
        is_clear = len(asked.authorizations) == 1 and scheme.lower() == "bearer"
        return self._check(offered.strip() if is_clear else None, asked.peer)

    def _check(self, offered: str | None, peer: str) -> bool:
        now = self.clock()
        token = self.access.token
        if token is None:
            return True
        # A blocked peer is not told whether it has guessed right.
        if self.attempts.is_blocked(peer, now):
            return False
        if offered is not None and token.matches(offered):
            return True
        self.attempts.add(peer, now)
        logger.warning("no token, or a wrong one, from %s", peer)
        return False

    def _refusal(self, peer: str) -> Page:
        if self.attempts.is_blocked(peer, self.clock()):
            return _page(429, "too many wrong tokens: wait a minute", ("Retry-After", "60"))
        return _page(401, f"token wanted: {_WHERE}", ("WWW-Authenticate", "Bearer"))


def _page(status: int, text: str, *headers: tuple[str, str]) -> Page:
    return Page(HTTPStatus(status), f"{text}\n", headers=headers)


def _is_own(host: str) -> bool:
    name = re.sub(r":\d*$", "", host).strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _offered(message: str | bytes) -> str | None:
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return None
    token = value.get("token") if isinstance(value, dict) else None
    return token if isinstance(token, str) else None
