"""Each token opens its own doors: every door of a real server, with every right."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from support.past_sessions import end, hello, score
from support.running_server import Serving
from support.websocket_peers import served
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.storage.history_db import HistoryDb
from tamulag.streamer.webserver import dashboard, widgets
from tamulag.streamer.webserver.access_control import Access, AuthSettings, Token, access
from tamulag.streamer.webserver.connection import Connection
from tamulag.streamer.webserver.rights import ALL, DOORS, Rights, parse_rights
from tamulag.streamer.webserver.server import WebSocketPublisher

from ..service.test_server_senders import VOICE, voice

pytestmark = pytest.mark.timeout(300)

RIGHTS = {
    "plain": "",
    "send": "send",
    "listen": "listen",
    "one": "listen:seat-1",
    "other": "listen:seat-1-2",
    "metrics": "metrics",
    "admin": "admin",
    "seat": "send,listen:seat-2",
}
TOKENS = {name: f"{name}-horse-battery-staple" for name in RIGHTS}
"""One for each right; `other` is for a session whose name looks like an id of `seat-1`."""

PAGES = {
    "/metrics": {"plain", "metrics", "admin"},
    "/seats": {"plain", "admin"},
    "/sessions": {"plain", "listen", "one", "other", "admin", "seat"},
    "/sessions/seat-1": {"plain", "listen", "one", "admin"},
    "/sessions/seat-1-2": {"plain", "listen", "one", "admin"},
    "/sessions/seat-1-2-2": {"plain", "listen", "other", "admin"},
    "/sessions/seat-2": {"plain", "listen", "admin", "seat"},
    **{path: {*RIGHTS} for path in ("/healthz", "/", "/meter.js", "/capture", "/app.js")},
}
"""Path -> who is shown it; to all others the answer is 403."""

SOCKETS = {
    "": {"plain", "listen"},
    "?session=": {"plain", "listen"},
    "?session=seat-1": {"plain", "listen", "one"},
    "?session=seat-2": {"plain", "listen", "seat"},
    "?session=seat-2&session=seat-1": {"plain", "listen", "seat"},
    "?session=nobody": {"plain", "listen"},
    "ingest": {"plain", "send", "seat"},
    "ingest?session=seat-1": {"plain", "send", "seat"},
}
"""What is behind the port's address -> for whom it opens."""


ENDS = ("no such session", "no valid hello: ")
"""What is said to those who may come in, and want what is not there."""


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[name]}"}


def keep(path: Path) -> None:
    """Keep four past sessions: seat-1 twice, then seat-1-2, and seat-2."""
    with HistoryDb(path, create=True) as store:
        for number, name in enumerate(("seat-1", "seat-1", "seat-1-2", "seat-2")):
            epoch = 1_795_500_000.0 + 1000 * number
            key = store.begin(hello(name, epoch))
            lines = [score(1, session=name, epoch=epoch), end(2, session=name, epoch=epoch)]
            store.append(key, lines)
        assert [past.id for past in store.sessions()] == [
            *("seat-2", "seat-1-2-2", "seat-1-2", "seat-1")
        ]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    lines = [f"{TOKENS[name]} {rights}".strip() for name, rights in RIGHTS.items()]
    path.write_text("# who may what\n\n" + "\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def url(tokens: Path) -> Iterator[str]:
    """Run a server with two seats that are taken, and with a past; give its address."""
    settings = tokens.with_name("mine.toml")
    history = tokens.with_name("history.sqlite")
    keep(history)
    settings.write_text(
        f'[history]\nenabled = true\npath = "{history}"\nmax_age = 3650\n'
        f'[websocket]\ntoken_file = "{tokens}"\n[serve]\nlinger = 600.0\nseats = 8\n'
    )
    with Serving("--config", str(settings)) as server:
        with sender(server.url, "seat-1", "send"), sender(server.url, "seat-2", "seat"):
            pass  # both linger
        yield server.url


@contextmanager
def sender(url: str, session: str, name: str) -> Iterator[ClientConnection]:
    """Connect a sender whose session has begun."""
    named = VOICE.model_copy(update={"session": session})
    with connect(f"{url}ingest", additional_headers=bearer(name), proxy=None) as socket:
        socket.send(named.model_dump_json(exclude_none=True))
        assert json.loads(socket.recv(timeout=20))["type"] == "ready"
        yield socket


def answered(url: str, name: str) -> tuple[int, str]:
    """Return with what a WebSocket's handshake is answered."""
    try:
        with connect(url, additional_headers=bearer(name), proxy=None):
            return 101, ""
    except InvalidStatus as error:
        return error.response.status_code, (error.response.body or b"").decode()


def refusal(socket: ClientConnection) -> tuple[int, str] | None:
    """Return with what a follower is closed at once; None: a message comes."""
    with suppress(ConnectionClosedError):
        socket.recv(timeout=20)
    return None if socket.close_code is None else (socket.close_code, socket.close_reason or "")


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_for_those_with_the_right(url: str, path: str) -> None:
    """The refusal names the missing right and no more; without a token the answer is 401."""
    page = url.replace("ws", "http", 1) + path.removeprefix("/")
    with httpx.Client() as client:
        answers = {name: client.get(page, headers=bearer(name)) for name in TOKENS}
        assert {name for name, got in answers.items() if got.status_code == 200} == PAGES[path]
        for name in TOKENS.keys() - PAGES[path]:
            assert answers[name].status_code == 403
            assert "this token lacks the right: use one with " in answers[name].text
        assert not any(token in got.text for got in answers.values() for token in TOKENS.values())
        assert client.get(page).status_code == (200 if PAGES[path] == {*RIGHTS} else 401)


def test_the_list_is_of_what_may_be_read(url: str) -> None:
    """By the sessions' own names, with all that came under them."""
    page = url.replace("ws", "http", 1) + "sessions"

    def ids(name: str) -> set[str]:
        found = httpx.get(page, headers=bearer(name)).json()
        return {past["id"] for past in found if past["started"] < "2026-11-24T08"}

    assert ids("one") == {"seat-1", "seat-1-2"}
    assert ids("other") == {"seat-1-2-2"}
    assert ids("seat") == {"seat-2"}
    assert ids("admin") == ids("listen") == {"seat-1", "seat-1-2", "seat-1-2-2", "seat-2"}


def test_what_is_not_there_is_not_told_apart(url: str) -> None:
    """Who may not read a session does not learn whether there is one."""
    page = url.replace("ws", "http", 1) + "sessions/"
    with httpx.Client(headers=bearer("one")) as client:
        there, absent = (client.get(page + name) for name in ("seat-2", "seat-9"))
        assert (there.status_code, there.text) == (absent.status_code, absent.text)
    assert httpx.get(page + "seat-9", headers=bearer("listen")).status_code == 404


@pytest.mark.parametrize("behind", SOCKETS)
def test_sockets_open_by_a_header(url: str, behind: str) -> None:
    """Where the right is lacking, the handshake is answered with 403."""
    answers = {name: answered(url + behind, name) for name in TOKENS}
    assert {name for name, (status, _) in answers.items() if status == 101} == SOCKETS[behind]
    for name in TOKENS.keys() - SOCKETS[behind]:
        status, body = answers[name]
        assert status == 403
        assert body.startswith("this token lacks the right: use one with ")


@pytest.mark.parametrize("behind", SOCKETS)
def test_sockets_open_by_a_first_message(url: str, behind: str) -> None:
    """Where the right is lacking, the socket is closed with 1008 and nothing was sent."""
    opened = set()
    for name, token in TOKENS.items():
        with connect(url + behind, proxy=None) as socket:
            socket.send(json.dumps({"token": token}))
            if behind.startswith("ingest"):
                socket.send("no hello")
            refused = refusal(socket)
        if refused is None or refused[1].startswith(ENDS):
            opened.add(name)
        else:
            assert refused[0] == 1008
            assert refused[1].startswith("this token lacks the right: use one with ")
    assert opened == SOCKETS[behind]


def test_a_sender_receives_its_own(url: str) -> None:
    """With `send` alone: its scores come on its own connection."""
    kinds: list[Any] = []
    with sender(url, "seat-5", "send") as socket:
        socket.send(voice(0.0))
        while "sentiment" not in kinds:
            message = json.loads(socket.recv(timeout=20))
            assert message["session"] == "seat-5"
            kinds.append(message["type"])
    assert kinds[0] == "hello"


def test_a_stream_has_no_session_for_a_name() -> None:
    """`tamulag-stream` has one session, and its name is made anew: it takes `listen`."""
    tokens = [Token(TOKENS[name], rights=parse_rights(RIGHTS[name])) for name in ("one", "listen")]

    async def receive(connection: Connection) -> None:
        await connection.wait_closed()

    stream = WebSocketPublisher(
        Access(tokens=tuple(tokens)), 0, hello=lambda: "{}", missed=str, receive=receive
    )

    def statuses(url: str) -> list[int]:
        doors = [f"{url}{behind}" for behind in ("", "?session=seat-1", "ingest")]
        return [answered(door, name)[0] for door in doors for name in ("one", "listen")]

    async def main() -> None:
        async with asyncio.timeout(20), served(stream):
            found = await asyncio.to_thread(statuses, stream.url)
        assert found == [403, 101, 403, 101, 403, 403]

    asyncio.run(main())


def test_no_door_is_forgotten(url: str) -> None:
    """What is not public stands in the table; what stands nowhere takes `admin`."""
    public = {**dashboard.routes(), **widgets.routes(captures=True), "/healthz": None}
    page = url.replace("ws", "http", 1) + "nothing-here"
    listed = httpx.get(page, headers=bearer("send")).text.partition("here are: ")[2].split()
    assert {*listed} - {*public} - {"/"} == {*DOORS} - {"/", "/?session=", "/ingest"}
    assert parse_rights("send,listen,metrics").refusal("/new") is not None
    assert parse_rights("admin").refusal("/new") is None


def test_the_longest_refusal_fits_a_close_frame() -> None:
    """123 bytes, whatever was asked for."""
    nothing = Rights(frozenset())
    for path, session in [*((path, None) for path in DOORS), ("/", "x" * 5000)]:
        assert len(nothing.refusal(path, session) or "") in range(40, 124)


def written(path: Path, *lines: str) -> AuthSettings:
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return AuthSettings(token_file=str(path))


def test_a_file_of_one_bare_token_has_all_rights(tmp_path: Path) -> None:
    """As ever; a bare one among others too, and the variable's."""
    opened = access("127.0.0.1", written(tmp_path / "token", f"{TOKENS['plain']}\n"))
    assert opened.rights_of(TOKENS["plain"]) == ALL
    lines = (f"{TOKENS['send']} send , listen:Zo\u00eb", "# none\u00e9 of these", TOKENS["plain"])
    opened = access("127.0.0.1", written(tmp_path / "tokens", *lines))
    assert opened.rights_of(TOKENS["plain"]) == ALL
    assert opened.rights_of(TOKENS["send"]) == Rights(frozenset(("send", "listen:Zo\u00eb")))
    for other in ("", "# none\u00e9 of these", f"{TOKENS['send']} send", TOKENS["plain"][:-1]):
        assert opened.rights_of(other) is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{} {}", "line 2, has a right that is none of send, listen, listen:NAME, metrics, admin"),
        ("{} sned", "line 2, has a right that is none"),
        ("{} send,", "line 2, has a right that is none"),
        ("{} Send", "line 2, has a right that is none"),
        ("{} send listen", "line 2, has a right that is none"),
        ("{} listen:", "line 2, has a right that is none"),
        ("{} listen:seat 1", "line 2, has a right that is none"),
        ("{} send:seat-1", "line 2, has a right that is none"),
        ("{} listen:NAME:x", "line 2, has a right that is none"),
        ("short send", "line 2, has fewer than 16 characters"),
        ("{0} send\n{0} listen", "line 3, repeats a token"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: str, problem: str) -> None:
    """By its number, never by what stands there: that may be a token."""
    secret, second = TOKENS["one"], TOKENS["other"]
    settings = written(tmp_path / "tokens", f"{TOKENS['send']} send", line.format(secret, second))
    with pytest.raises(PublisherError) as refused:
        access("127.0.0.1", settings)
    assert problem in str(refused.value)
    assert not any(token in str(refused.value) for token in TOKENS.values())
    assert "sned" not in str(refused.value)
