"""Route a request before it is served: to a page, a refusal, or the WebSocket.

Knows request lines, headers and access rules. Knows no socket: texts in, pages out.
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
from urllib.parse import parse_qs, urlsplit

from .access_control import Access, FailedAttempts, is_loopback
from .rights import ALL, Rights

logger = logging.getLogger("tamulag.websocket")

UNKNOWN_HOST = "unknown name in Host: use the address or localhost, or list its page in origins"
READING = ("GET", "HEAD")
"""Methods of a request for a page; to HEAD the page's head alone is the answer."""

_WHERE = 'send it as `Authorization: Bearer ...`, or as first message {"token": "..."}'


@dataclass(frozen=True)
class Page:
    """An HTTP response."""

    status: HTTPStatus
    body: str
    kind: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    later: "Callable[[Rights], Page] | None" = None
    """Returns the page in place of this one, for a client's rights; it reads a disk, so it is
    called in a thread."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """A page that is made for each request.

    Attributes:
        make: Returns the page; called on the event loop, must be quick.
        is_public: Whether it is served without a token; else rights.py has what it takes.
        below: Returns the page for what follows the route's own path and a slash, query included;
            None: there is none.
    """

    make: Callable[[], Page]
    is_public: bool = False
    below: Callable[[str], Page] | None = None


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A request; a header may occur several times, or not at all."""

    method: str
    target: str
    peer: str
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    authorizations: Sequence[str] = ()
    is_upgrade: bool = False


@dataclass(kw_only=True)
class Router:
    """Routes requests and checks tokens.

    Attributes:
        access: Requirements of clients.
        routes: Routes by path, static files included.
        websockets: Paths of WebSockets.
        has_sessions: Whether `/?session=NAME` follows one of many.
        attempts: Counts wrong tokens.
        clock: Monotonic clock, seconds.
    """

    access: Access
    routes: Mapping[str, Route] = field(default_factory=dict)
    websockets: Sequence[str] = ("/",)
    has_sessions: bool = False
    attempts: FailedAttempts = field(default_factory=FailedAttempts)
    clock: Callable[[], float] = time.monotonic

    def answer(self, request: HttpRequest) -> tuple[Page | None, Rights | None]:
        """Return a page, or None for a WebSocket; and the peer's rights, None: no token yet."""
        path, _, query = request.target.partition("?")
        if re.search(r"(^|&)token=", query):
            return _page(400, f"a token never belongs into an address: {_WHERE}"), None
        if not self._is_host(request.hosts):
            return _page(403, UNKNOWN_HOST), None
        if request.is_upgrade and not self._is_origin(request):
            return _page(403, "pages of this origin may not listen: list it in origins"), None
        rights = None if self.access.tokens else ALL
        if request.authorizations and rights is None:
            rights = self._rights_of_bearer(request)
            if rights is None:
                return self._refusal(request.peer), None
        return self._choose(path, request, rights), rights

    def rights_of(self, message: str | bytes, peer: str) -> Rights | None:
        """Return the rights of the token in a first message; None: a wrong one, it is counted."""
        return self._check(_offered(message), peer)

    def shuts_out(self, target: str, rights: Rights) -> str | None:
        """Return why a WebSocket is not for somebody with these rights; None: it is."""
        path = target.partition("?")[0]
        session = session_of(target) if self.has_sessions and path == "/" else None
        return rights.refusal(path, session)

    def _choose(self, path: str, request: HttpRequest, rights: Rights | None) -> Page | None:
        if request.is_upgrade and request.method == "GET":
            return self._upgrade(path, request, rights)
        door, route, make = self._find(request.target)
        if route is None and path != "/":
            return _page(404, f"not here; here are: {' '.join(['/', *self.routes])}")
        if request.method not in READING:
            return _page(405, "only GET and HEAD", ("Allow", ", ".join(READING)))
        if route is None:
            return _page(426, "this is a WebSocket", ("Upgrade", "websocket"))
        shut = None if route.is_public else self._shut(door, request.peer, rights)
        return make() if shut is None else shut

    def _shut(self, door: str, peer: str, rights: Rights | None) -> Page | None:
        """Return why a page is not for somebody with these rights; None: it is."""
        if rights is None:
            return self._refusal(peer)
        lacking = rights.refusal(door)
        return None if lacking is None else _page(403, lacking)

    def _upgrade(self, path: str, request: HttpRequest, rights: Rights | None) -> Page | None:
        """Return why a WebSocket is refused; None: the way is free, as far as is known by now."""
        if path not in self.websockets:
            return _page(404, f"WebSocket: {' '.join(self.websockets)}")
        lacking = None if rights is None else self.shuts_out(request.target, rights)
        return None if lacking is None else _page(403, lacking)

    def _find(self, target: str) -> tuple[str, Route | None, Callable[[], Page]]:
        """Return path and route of a target, or of what is above it, and what makes its page."""
        path = target.partition("?")[0]
        route = self.routes.get(path)
        if route is not None:
            return path, route, route.make
        above = path.rpartition("/")[0]
        route = self.routes.get(above)
        if route is None or route.below is None:
            return path, None, partial(_page, 404, "not here")
        return above, route, partial(route.below, target.removeprefix(f"{above}/"))

    def _is_host(self, hosts: Sequence[str]) -> bool:
        # Without authentication a foreign page could reach us by a host name of its own that
        # resolves to this machine (DNS rebinding); an address or localhost cannot be such a name.
        # With a token it could guess on, and its guesses would count as this machine's.
        is_local = is_loopback(self.access.host)
        if self.access.tls is not None or (self.access.tokens and not is_local):
            return True
        listed = {urlsplit(origin).netloc.lower() for origin in self.access.origins}
        return all(_is_own(host) or host.lower() in listed for host in hosts)

    def _is_origin(self, request: HttpRequest) -> bool:
        """Return whether the request comes from a program, a listed page, or our own page."""
        scheme = "http" if self.access.tls is None else "https"
        own = [f"{scheme}://{host}".lower() for host in request.hosts]
        listed = self.access.origins
        return all(one in listed or [one.lower()] == own for one in request.origins)

    def _rights_of_bearer(self, request: HttpRequest) -> Rights | None:
        scheme, _, offered = request.authorizations[0].partition(" ")
        is_clear = len(request.authorizations) == 1 and scheme.lower() == "bearer"
        return self._check(offered.strip() if is_clear else None, request.peer)

    def _check(self, offered: str | None, peer: str) -> Rights | None:
        now = self.clock()
        if not self.access.tokens:
            return ALL
        rights = None if offered is None else self.access.rights_of(offered)
        if rights is not None:
            return rights
        if not self.attempts.is_blocked(peer, now):
            logger.warning("no token, or a wrong one, from %s", peer)
        self.attempts.add(peer, now)
        return None

    def delay(self, peer: str) -> float:
        """Return the seconds that the answer to a wrong token of a peer waits."""
        return self.attempts.delay(peer, self.clock())

    def _refusal(self, peer: str) -> Page:
        if self.attempts.is_blocked(peer, self.clock()):
            return _page(429, "too many wrong tokens: wait a minute", ("Retry-After", "60"))
        return _page(401, f"token wanted: {_WHERE}", ("WWW-Authenticate", "Bearer"))


def session_of(target: str) -> str | None:
    """Return the session requested by a subscriber's target; None: the server itself."""
    return next(iter(parse_qs(urlsplit(target).query).get("session", [])), None)


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
