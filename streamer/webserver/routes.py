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
from urllib.parse import urlsplit

from .access_control import Access, FailedAttempts, is_loopback

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
    later: "Callable[[], Page] | None" = None
    """Returns the page in place of this one; it reads a disk, so it is called in a thread."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """A page that is made for each request.

    Attributes:
        make: Returns the page; called on the event loop, must be quick.
        is_public: Whether it is served without the token.
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
        attempts: Counts wrong tokens.
        clock: Monotonic clock, seconds.
    """

    access: Access
    routes: Mapping[str, Route] = field(default_factory=dict)
    websockets: Sequence[str] = ("/",)
    attempts: FailedAttempts = field(default_factory=FailedAttempts)
    clock: Callable[[], float] = time.monotonic

    def answer(self, request: HttpRequest) -> tuple[Page | None, bool]:
        """Return a page, or None for a WebSocket; and whether the peer is authenticated."""
        path, _, query = request.target.partition("?")
        if re.search(r"(^|&)token=", query):
            return _page(400, f"a token never belongs into an address: {_WHERE}"), False
        if not self._is_host(request.hosts):
            return _page(403, UNKNOWN_HOST), False
        if request.is_upgrade and not self._is_origin(request):
            return _page(403, "pages of this origin may not listen: list it in origins"), False
        is_known = self.access.token is None
        if request.authorizations and not is_known:
            is_known = self._is_bearer(request)
            if not is_known:
                return self._refusal(request.peer), False
        return self._choose(path, request, is_known), is_known

    def is_token(self, message: str | bytes, peer: str) -> bool:
        """Return whether a first message contains the token; a wrong one is counted."""
        return self._check(_offered(message), peer)

    def _choose(self, path: str, request: HttpRequest, is_known: bool) -> Page | None:
        route, make = self._find(request.target)
        if request.is_upgrade and request.method == "GET":
            return (
                None
                if path in self.websockets
                else _page(404, f"WebSocket: {' '.join(self.websockets)}")
            )
        if route is None and path != "/":
            return _page(404, f"not here; here are: {' '.join(['/', *self.routes])}")
        if request.method not in READING:
            return _page(405, "only GET and HEAD", ("Allow", ", ".join(READING)))
        if route is None:
            return _page(426, "this is a WebSocket", ("Upgrade", "websocket"))
        if not (is_known or route.is_public):
            return self._refusal(request.peer)
        return make()

    def _find(self, target: str) -> tuple[Route | None, Callable[[], Page]]:
        """Return the route of a target, or of the path above it, and the function for its page."""
        path = target.partition("?")[0]
        route = self.routes.get(path)
        if route is not None:
            return route, route.make
        above = path.rpartition("/")[0]
        route = self.routes.get(above)
        if route is None or route.below is None:
            return None, partial(_page, 404, "not here")
        return route, partial(route.below, target.removeprefix(f"{above}/"))

    def _is_host(self, hosts: Sequence[str]) -> bool:
        # Without authentication a foreign page could reach us by a host name of its own that
        # resolves to this machine (DNS rebinding); an address or localhost cannot be such a name.
        # With a token it could guess on, and its guesses would count as this machine's.
        is_local = is_loopback(self.access.host)
        if self.access.tls is not None or (self.access.token is not None and not is_local):
            return True
        listed = {urlsplit(origin).netloc.lower() for origin in self.access.origins}
        return all(_is_own(host) or host.lower() in listed for host in hosts)

    def _is_origin(self, request: HttpRequest) -> bool:
        """Return whether the request comes from a program, a listed page, or our own page."""
        scheme = "http" if self.access.tls is None else "https"
        own = [f"{scheme}://{host}".lower() for host in request.hosts]
        listed = self.access.origins
        return all(one in listed or [one.lower()] == own for one in request.origins)

    def _is_bearer(self, request: HttpRequest) -> bool:
        scheme, _, offered = request.authorizations[0].partition(" ")
        is_clear = len(request.authorizations) == 1 and scheme.lower() == "bearer"
        return self._check(offered.strip() if is_clear else None, request.peer)

    def _check(self, offered: str | None, peer: str) -> bool:
        now = self.clock()
        token = self.access.token
        if token is None:
            return True
        if offered is not None and token.matches(offered):
            return True
        if not self.attempts.is_blocked(peer, now):
            logger.warning("no token, or a wrong one, from %s", peer)
        self.attempts.add(peer, now)
        return False

    def delay(self, peer: str) -> float:
        """Return the seconds that the answer to a wrong token of a peer waits."""
        return self.attempts.delay(peer, self.clock())

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
