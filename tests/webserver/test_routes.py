"""What a request gets: a page, a refusal, or the way in. Texts from outside are fuzzed."""

import json
from collections.abc import Sequence
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamulag.streamer.webserver.access_control import Access, FailedAttempts, Token
from tamulag.streamer.webserver.rights import ALL
from tamulag.streamer.webserver.routes import HttpRequest, Page, Route, Router

SECRET = "correct-horse-battery"
GOOD, BAD = f"Bearer {SECRET}", "Bearer wrong-horse-battery"
LINES = st.text(max_size=60) | st.sampled_from(["/", "/metrics", "/healthz?token=x", GOOD, "[::1]"])


def shelf(text: str, *, is_public: bool = False) -> Route:
    return Route(make=lambda: Page(HTTPStatus.OK, text), is_public=is_public)


def door(*, token: bool = True, now: Sequence[float] = (0.0,)) -> Router:
    """Return a door with two pages; three wrong tokens in a minute are allowed."""
    return Router(
        access=Access(tokens=(Token(SECRET),) if token else ()),
        routes={"/healthz": shelf("well", is_public=True), "/metrics": shelf("figures")},
        attempts=FailedAttempts(allowed=3),
        clock=lambda: now[-1],
    )


def status(opened: Router, target: str, *authorizations: str, **rest: object) -> int | None:
    """Return the status of the answer; None: the way to the WebSocket is free."""
    asked = {"method": "GET", "target": target, "peer": "10.0.0.7"} | rest
    page, _ = opened.answer(HttpRequest(authorizations=authorizations, **asked))  # type: ignore[arg-type]
    return None if page is None else page.status.value


@pytest.mark.parametrize(
    ("target", "with_token", "without"),
    [("/healthz", 200, 200), ("/metrics", 200, 401), ("/", 426, 426), ("/x", 404, 404)],
)
def test_pages_but_the_public_one_need_the_token(
    target: str, with_token: int, without: int
) -> None:
    """Metrics tell who is there; health tells a supervisor only that all is well."""
    assert status(door(), target, GOOD) == with_token
    assert status(door(), target) == without


def test_without_a_token_every_page_is_shown() -> None:
    """On loopback nothing is asked for."""
    assert status(door(token=False), "/metrics") == 200
    assert status(door(token=False), "/metrics", "Basic eDp5") == 200


@pytest.mark.parametrize(
    "authorizations",
    [
        pytest.param([BAD], id="wrong"),
        pytest.param([f"Basic {SECRET}"], id="scheme"),
        pytest.param([GOOD, GOOD], id="twice"),
        pytest.param([""], id="empty"),
        pytest.param([SECRET], id="bare"),
    ],
)
def test_a_header_that_is_not_right_is_refused(authorizations: list[str]) -> None:
    """Also for a page that is public, and for the WebSocket: nobody guesses for free."""
    assert status(door(), "/healthz", *authorizations) == 401
    assert status(door(), "/", *authorizations, is_upgrade=True) == 401


def test_a_websocket_may_come_without_a_header_and_is_not_known_yet() -> None:
    """Browsers cannot set headers: the first message decides."""
    opened = door()
    asked = HttpRequest(method="GET", target="/", peer="10.0.0.7", is_upgrade=True)
    assert opened.answer(asked) == (None, None)
    assert opened.rights_of(json.dumps({"token": SECRET}), "10.0.0.7") == ALL
    assert door(token=False).answer(asked) == (None, ALL)


def test_a_websocket_lives_at_the_root() -> None:
    """Another path is free for what comes later."""
    assert status(door(), "/", GOOD, is_upgrade=True) is None
    assert status(door(), "/metrics", GOOD, is_upgrade=True) == 404


@pytest.mark.parametrize("target", [f"/?token={SECRET}", f"/metrics?a=1&token={SECRET}"])
def test_a_token_in_an_address_opens_nothing(target: str) -> None:
    """Addresses stand in logs and histories; the answer says what to do instead."""
    asked = HttpRequest(method="GET", target=target, peer="10.0.0.7", is_upgrade=True)
    page, rights = door().answer(asked)
    assert page is not None
    assert page.status == 400
    assert "Authorization: Bearer" in page.body
    assert SECRET not in page.body
    assert not rights


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "DELETE", "get"])
def test_pages_are_only_read(method: str) -> None:
    """Nothing can be changed from outside."""
    assert status(door(), "/metrics", GOOD, method=method) == 405


def test_head_is_answered_as_get_is() -> None:
    """On every page, with the same rules; it begins no WebSocket."""
    for target in ("/metrics", "/nothing", "/"):
        given, asked = (status(door(), target, GOOD, method=m) for m in ("GET", "HEAD"))
        assert given == asked
    assert status(door(), "/metrics", method="HEAD") == 401
    assert status(door(), "/", GOOD, method="HEAD", is_upgrade=True) == 426


def test_too_many_wrong_tokens_are_answered_with_429() -> None:
    """The right one is let in at any time."""
    now = [0.0]
    opened = door(now=now)
    assert [status(opened, "/metrics", BAD) for _ in range(4)] == [401, 401, 429, 429]
    assert status(opened, "/metrics", GOOD) == 200
    assert opened.delay("10.0.0.7") > opened.delay("10.0.0.8") > 0.0
    now.append(60.0)
    assert status(opened, "/metrics", BAD) == 401


def test_headers_and_first_messages_count_together() -> None:
    """Changing the way of asking gives no more attempts."""
    opened = door()
    for _ in range(3):
        assert not opened.rights_of('{"token": "wrong-horse-battery"}', "10.0.0.7")
    assert opened.rights_of(json.dumps({"token": SECRET}), "10.0.0.7") == ALL
    assert status(opened, "/metrics", BAD) == 429


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1:8765", 200),
        ("[::1]:8765", 200),
        ("LocalHost", 200),
        ("rebound.example:8765", 403),
        ("127.0.0.1.example", 403),
        ("", 403),
    ],
)
def test_a_foreign_name_is_refused_where_nothing_is_locked(host: str, answer: int) -> None:
    """A page that lets its own name point to us is a stranger (DNS rebinding)."""
    assert status(door(token=False), "/metrics", hosts=[host]) == answer
    assert status(door(), "/metrics", GOOD, hosts=[host]) == answer


@given(
    target=LINES,
    method=st.sampled_from(["GET", "POST"]) | st.text(max_size=10),
    hosts=st.lists(LINES, max_size=3),
    authorizations=st.lists(LINES.filter(lambda line: SECRET not in line), max_size=3),
    is_upgrade=st.booleans(),
)
def test_no_request_gets_in_without_the_token(
    target: str, method: str, hosts: list[str], authorizations: list[str], is_upgrade: bool
) -> None:
    """Whatever stands in its lines, it is answered, unknown, and sees no locked page."""
    page, rights = door().answer(
        HttpRequest(
            method=method,
            target=target,
            peer="10.0.0.7",
            hosts=hosts,
            authorizations=authorizations,
            is_upgrade=is_upgrade,
        )
    )
    assert not rights
    assert page is None or (page.body != "figures" and SECRET not in page.body)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
)


@given(st.text() | st.binary() | JSON.map(json.dumps) | JSON.map(lambda x: f'{{"token": {x}}}'))
def test_no_first_message_gets_in_without_the_token(message: str | bytes) -> None:
    """Whatever comes is compared, and never an error."""
    assert not door().rights_of(message, "10.0.0.7")


@pytest.mark.parametrize("message", ["[" * 4000, '{"token":' * 400, "1" * 4096, b"\xff\xfe{"])
def test_no_first_message_breaks_the_reader(message: str | bytes) -> None:
    """Deep and long ones are refused like any other."""
    assert not door().rights_of(message, "10.0.0.7")


def test_a_shelf_may_have_pages_below_it() -> None:
    """One level; the query goes along, and the token is asked for as for the shelf itself."""
    below = Route(
        make=lambda: Page(HTTPStatus.OK, "list"), below=lambda rest: Page(HTTPStatus.OK, rest)
    )
    opened = Router(access=Access(tokens=(Token(SECRET),)), routes={"/sessions": below})
    shown = {}
    for target in ("/sessions", "/sessions/k7?after=3", "/sessions/a/b"):
        asked = HttpRequest(method="GET", target=target, peer="10.0.0.7", authorizations=[GOOD])
        page, _ = opened.answer(asked)
        assert page is not None
        shown[target] = (page.status.value, page.body)
    assert shown["/sessions"] == (200, "list")
    assert shown["/sessions/k7?after=3"] == (200, "k7?after=3")
    assert shown["/sessions/a/b"][0] == 404
    assert status(opened, "/sessions/k7") == 401


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        pytest.param("http://127.0.0.1:8765", "127.0.0.1:8765", None, id="own page"),
        pytest.param("http://localhost:8765", "localhost:8765", None, id="own name"),
        pytest.param("http://127.0.0.1:3000", "127.0.0.1:8765", 403, id="other port"),
        pytest.param("https://127.0.0.1:8765", "127.0.0.1:8765", 403, id="other scheme"),
        pytest.param("http://example.org", "127.0.0.1:8765", 403, id="stranger"),
        pytest.param("null", "127.0.0.1:8765", 403, id="sandboxed or file"),
    ],
)
def test_of_pages_only_our_own_may_listen(origin: str, host: str, expected: int | None) -> None:
    """The page that we serve needs no entry in `origins`; every other does."""
    opened = door(token=False)
    got = status(opened, "/", is_upgrade=True, hosts=[host], origins=[origin])
    assert got == expected
