"""Access control: listening address, tokens, TLS, and how often a wrong token may be tried.

Knows settings, certificates and the places of a token. Opens no port and reads no request.
"""

import contextlib
import hashlib
import hmac
import ipaddress
import os
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from ..config.secret_file import SecretError, check_key, read_secrets
from ..publishers.publisher import PublisherError
from .rights import ALL, Rights, parse_rights

VARIABLE = "TAMULAG_TOKEN"
SHORTEST = 16
"""Least characters of a token; a shorter one could be guessed."""

FIRST_DELAY, LONGEST_DELAY = 0.05, 4.0
"""Seconds that the answer to a wrong token waits, at first and at most."""

_MAKE_ONE = "make one: python -c 'import secrets; print(secrets.token_urlsafe())'"


@dataclass(frozen=True, kw_only=True)
class AuthSettings:
    """Settings of token and TLS, all optional; values are paths of files.

    Attributes:
        token_file: Holds the tokens and their rights, a line for each; without it the environment
            variable is used, which holds one with all rights.
        certificate: Our certificate, PEM, with its chain.
        key: Key of our certificate, PEM; None: it is in the certificate's file.
        client_ca: PEM; a client must present a certificate signed by one of these.
        plain: Whether a token may be sent over the network unencrypted.
    """

    token_file: str | None = None
    certificate: str | None = None
    key: str | None = None
    client_ca: str | None = None
    plain: bool = False


class Token:
    """A secret that never appears in logs or representations.

    Args:
        text: The secret.
        place: Where it was found, for errors.
        rights: What it opens.

    Raises:
        PublisherError: If it is shorter than 16 characters, or has blanks or non-ASCII characters.
    """

    def __init__(self, text: str, place: str = "the token", rights: Rights = ALL) -> None:
        if len(text) < SHORTEST:
            raise PublisherError(f"{place} has fewer than {SHORTEST} characters: {_MAKE_ONE}")
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise PublisherError(f"{place} has blanks or characters beyond ASCII: {_MAKE_ONE}")
        self.rights = rights
        self._digest = _digest(text)

    def __repr__(self) -> str:
        return "Token(***)"

    def is_same(self, other: "Token") -> bool:
        """Return whether both are the same secret."""
        return hmac.compare_digest(self._digest, other._digest)

    def matches(self, offered: str) -> bool:
        """Compare in constant time, whatever the length."""
        return hmac.compare_digest(self._digest, _digest(offered))


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a server listens on and requires of clients.

    Attributes:
        host: Address to listen on.
        tokens: One of them is required of every client; none: nothing is required.
        tls: TLS of the server; None: unencrypted.
        origins: Web pages that may connect; programs send no origin.
    """

    host: str = "127.0.0.1"
    tokens: tuple[Token, ...] = ()
    tls: ssl.SSLContext | None = None
    origins: tuple[str, ...] = ()

    def rights_of(self, offered: str) -> Rights | None:
        """Return the rights of a token, None: there is no such; takes as long for each."""
        found = [token.rights for token in self.tokens if token.matches(offered)]
        return found[0] if found else None


def access(host: str, auth: AuthSettings | None = None, *, origins: tuple[str, ...] = ()) -> Access:
    """Return the access settings for an address; one that others can reach needs authentication.

    A token file wins over the environment variable TAMULAG_TOKEN.

    Raises:
        PublisherError: If the address would be open to others, or a token or certificate cannot be
            used.
    """
    auth = auth or AuthSettings()
    address = "127.0.0.1" if host == "localhost" else host
    tokens, tls = _tokens(auth), _tls(auth)
    if not is_loopback(address):
        _require_auth(address, auth, tokens)
    return Access(host=address, tokens=tokens, tls=tls, origins=origins)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an address; False for any host name."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def network(address: str) -> str:
    """Return the unit that limits count: an IPv4 address, or the /64 network of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped or ipaddress.ip_network((int(parsed), 64), strict=False))


class FailedAttempts:
    """Counts wrong tokens per peer, for a bounded number of peers, the newest.

    A right token is never counted and never delayed: who guesses beside somebody else, from the
    same address or page, must not shut that one out.

    Args:
        allowed: Wrong tokens after which a peer is answered with 429.
        period: Seconds after which a peer's count restarts.
        remembered: Most peers to remember.
    """

    def __init__(self, allowed: int = 10, period: float = 60.0, remembered: int = 1024) -> None:
        self._allowed = allowed
        self._period = period
        self._remembered = remembered
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def is_blocked(self, peer: str, now: float) -> bool:
        """Return whether the peer has guessed too often; `now`: seconds, monotonic."""
        started, count = self._wrong.get(peer, (now, 0))
        return count >= self._allowed and now - started < self._period

    def delay(self, peer: str, now: float) -> float:
        """Return the seconds that the answer to a wrong token waits: more with each of a peer."""
        started, count = self._wrong.get(peer, (now, 0))
        # The count has no limit, a float has: 2**1024 is none.
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(count, 10))
        return delay if now - started < self._period else 0.0

    def add(self, peer: str, now: float) -> None:
        """Count a wrong token."""
        started, count = self._wrong.pop(peer, (now, 0))
        if now - started >= self._period:
            started, count = now, 0
        self._wrong[peer] = (started, count + 1)
        if len(self._wrong) > self._remembered:
            self._wrong.popitem(last=False)


def _tokens(auth: AuthSettings) -> tuple[Token, ...]:
    if auth.token_file is None:
        text = os.environ.get(VARIABLE)
        return () if text is None else (Token(text, VARIABLE),)
    place = f"websocket.token_file = {auth.token_file}"
    try:
        lines = read_secrets(Path(auth.token_file))
    except SecretError as error:
        raise PublisherError(f"websocket.token_file: {error}") from None
    tokens: list[Token] = []
    for number, line in lines.items():
        token = _token(line, place if len(lines) == 1 else f"{place}, line {number},")
        if any(token.is_same(other) for other in tokens):
            raise PublisherError(f"{place}, line {number}, repeats a token: one line for each")
        tokens.append(token)
    return tuple(tokens)


def _token(line: str, place: str) -> Token:
    """Return the token of a line, `TOKEN` or `TOKEN RIGHT,RIGHT,...`."""
    text, *rest = line.split(maxsplit=1)
    try:
        return Token(text, place, parse_rights(rest[0]) if rest else ALL)
    except ValueError as error:
        raise PublisherError(
            f"{place} has {error}: give a token and its rights, as in `TOKEN send,listen:seat-7`"
        ) from None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _tls(auth: AuthSettings) -> ssl.SSLContext | None:
    if auth.certificate is None:
        if auth.key is not None or auth.client_ca is not None:
            raise PublisherError(
                f"websocket.key = {auth.key}, websocket.client_ca = {auth.client_ca}: "
                "they need websocket.certificate, give it or leave them out"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    keys = "websocket.certificate, websocket.key"
    values = f"{auth.certificate} and {auth.key or 'no key (it may stand in the certificate file)'}"
    try:
        check_key(Path(auth.key or auth.certificate))
    except SecretError as error:
        raise PublisherError(f"{keys.rpartition(' ')[2]}: {error}") from None
    try:
        # With an empty password an encrypted key is an error, not a prompt on the terminal.
        context.load_cert_chain(auth.certificate, auth.key, password="")
        if auth.client_ca is not None:
            keys, values = "websocket.client_ca", auth.client_ca
            context.load_verify_locations(auth.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise PublisherError(
            f"cannot use {keys} = {values} ({error.strerror or error}): "
            "give PEM files that can be read, not encrypted"
        ) from error
    return context


def _require_auth(host: str, auth: AuthSettings, tokens: tuple[Token, ...]) -> None:
    if auth.client_ca is not None:
        return
    if not tokens:
        raise PublisherError(
            f"others can reach {host or 'every address'}, and nothing keeps them out: set "
            "websocket.token_file (or "
            f"{VARIABLE}) and websocket.certificate, or websocket.client_ca; "
            "or use --websocket 127.0.0.1:PORT (WebSocket)"
        )
    if auth.certificate is None and not auth.plain:
        raise PublisherError(
            f"the token and the scores would go to {host or 'every address'} unencrypted: set "
            "websocket.certificate and websocket.key, or websocket.plain = true if the network "
            "is trusted or encrypted otherwise"
        )
