"""Who may connect: which addresses need which lock, and what a token is."""

import logging
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.certificates import Pair, authority
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.webserver.access_control import (
    AuthSettings,
    FailedAttempts,
    Token,
    access,
    is_loopback,
    network,
)

SECRET = "correct-horse-battery"
OTHERS = ["0.0.0.0", "192.168.0.7", "example.org", "::", "", "::ffff:127.0.0.1", "127.0.0.1.nip.io"]


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAMULAG_TOKEN", raising=False)


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(f"{SECRET}\n")
    return str(path)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return authority(tmp_path).sign("server")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_lock(host: str) -> None:
    """Nobody else can reach it."""
    opened = access(host)
    assert (opened.tokens, opened.tls) == ((), None)
    assert is_loopback(opened.host)


@pytest.mark.parametrize("host", OTHERS)
def test_another_address_without_a_lock_is_refused(host: str) -> None:
    """The line names what to set, and the address that needs nothing."""
    with pytest.raises(PublisherError) as refused:
        access(host)
    for word in (host, "token_file", "TAMULAG_TOKEN", "client_ca", "--websocket 127.0.0.1:PORT"):
        assert word in str(refused.value)


@pytest.mark.parametrize("host", OTHERS)
def test_a_token_alone_does_not_go_over_a_network(host: str, token_file: str) -> None:
    """It could be read on its way; a setting must allow that."""
    with pytest.raises(PublisherError, match=r"unencrypted: .*certificate.*plain = true"):
        access(host, AuthSettings(token_file=token_file))
    assert access(host, AuthSettings(token_file=token_file, plain=True)).tokens


def test_plain_is_no_lock() -> None:
    """Without a token it opens nothing."""
    with pytest.raises(PublisherError, match="nothing keeps them out"):
        access("0.0.0.0", AuthSettings(plain=True))


def test_a_token_with_tls_is_a_lock(token_file: str, pair: Pair) -> None:
    """TLS 1.2 or newer."""
    lock = AuthSettings(token_file=token_file, certificate=str(pair.certificate), key=str(pair.key))
    opened = access("0.0.0.0", lock)
    assert opened.tls is not None
    assert opened.tls.minimum_version is ssl.TLSVersion.TLSv1_2


def test_tls_without_client_certificates_is_no_lock(pair: Pair) -> None:
    """It hides what is sent, and not from whom."""
    with pytest.raises(PublisherError, match="nothing keeps them out"):
        access("0.0.0.0", AuthSettings(certificate=str(pair.certificate), key=str(pair.key)))


def test_client_certificates_are_a_lock(pair: Pair) -> None:
    """No token is needed beside them."""
    certificate, key = map(str, pair)
    opened = access(
        "0.0.0.0", AuthSettings(certificate=certificate, key=key, client_ca=certificate)
    )
    assert opened.tokens == ()
    assert opened.tls is not None
    assert opened.tls.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("lock", "named"),
    [
        pytest.param(
            AuthSettings(certificate="no/such.pem"), "websocket.certificate", id="missing"
        ),
        pytest.param(
            AuthSettings(certificate=__file__, key=__file__), "websocket.key", id="no-pem"
        ),
        pytest.param(AuthSettings(key="server.key"), "websocket.certificate", id="key-alone"),
        pytest.param(AuthSettings(client_ca="ca.pem"), "websocket.certificate", id="ca-alone"),
        pytest.param(AuthSettings(token_file="no/such"), "websocket.token_file", id="no-token"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(lock: AuthSettings, named: str) -> None:
    """So is the key of the settings, on loopback too."""
    with pytest.raises(PublisherError, match=named):
        access("127.0.0.1", lock)


def test_a_client_authority_that_cannot_be_used_is_named(pair: Pair) -> None:
    """A damaged file is found at the start, not by the first client."""
    certificate, key = map(str, pair)
    with pytest.raises(PublisherError, match=r"websocket\.client_ca"):
        access("127.0.0.1", AuthSettings(certificate=certificate, key=key, client_ca=__file__))


def test_an_encrypted_key_is_reported_without_a_prompt(pair: Pair, tmp_path: Path) -> None:
    """A service has no terminal on which a password could be typed."""
    locked = tmp_path / "locked.key"
    encrypt = ["openssl", "pkey", "-aes128", "-passout", "pass:secret", "-in", str(pair.key)]
    subprocess.run([*encrypt, "-out", str(locked)], check=True, capture_output=True, timeout=60)
    with pytest.raises(PublisherError, match="not encrypted"):
        access("127.0.0.1", AuthSettings(certificate=str(pair.certificate), key=str(locked)))


def test_a_token_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback too: who sets one wants it asked for."""
    monkeypatch.setenv("TAMULAG_TOKEN", SECRET)
    (token,) = access("127.0.0.1").tokens
    assert token.matches(SECRET)


def test_a_token_file_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, token_file: str
) -> None:
    """The settings of this run are nearer than those of the shell."""
    monkeypatch.setenv("TAMULAG_TOKEN", "another-token-of-the-shell")
    (token,) = access("127.0.0.1", AuthSettings(token_file=token_file)).tokens
    assert token.matches(SECRET)


def test_a_token_file_that_others_can_read_is_refused(token_file: str) -> None:
    """The remedy can be pasted."""
    Path(token_file).chmod(0o644)
    with pytest.raises(PublisherError, match=f"chmod 600 {token_file}"):
        access("127.0.0.1", AuthSettings(token_file=token_file))


@pytest.mark.parametrize("text", ["", "short", "x" * 15, "has blanks in it, many", "Bäckerei" * 4])
def test_a_weak_token_is_refused_and_not_shown(text: str) -> None:
    """The error says how to make a good one."""
    with pytest.raises(PublisherError, match=r"secrets\.token_urlsafe") as refused:
        Token(text)
    assert not text or text not in str(refused.value)


def test_a_token_shows_itself_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a log, nor in the text of what holds it."""
    token = Token(SECRET)
    logging.getLogger("test").warning("%s %r", token, access("127.0.0.1"))
    assert SECRET not in caplog.text + str(vars(AuthSettings())) + f"{token}"


@given(st.text())
def test_only_the_token_itself_matches(text: str) -> None:
    """Whatever is offered, lone surrogates included, is compared and not raised about."""
    assert Token(SECRET).matches(text) == (text == SECRET)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
    ],
)
def test_a_peer_is_an_address_or_a_network(address: str, peer: str) -> None:
    """A host with one IPv6 address has 2^64 of them."""
    assert network(address) == peer


def test_too_many_wrong_tokens_block_a_peer_for_a_while() -> None:
    """The others are not blocked, and a minute later nobody is."""
    attempts = FailedAttempts(allowed=3, period=60.0)
    for second in range(3):
        assert not attempts.is_blocked("a", second)
        attempts.add("a", second)
    assert attempts.is_blocked("a", 3.0)
    assert not attempts.is_blocked("b", 3.0)
    assert not attempts.is_blocked("a", 60.0)
    attempts.add("a", 61.0)
    assert not attempts.is_blocked("a", 62.0)


def test_only_so_many_peers_are_remembered() -> None:
    """An attacker with many addresses fills no memory."""
    attempts = FailedAttempts(allowed=1, remembered=10)
    for number in range(1000):
        attempts.add(str(number), 0.0)
    blocked = [number for number in range(1000) if attempts.is_blocked(str(number), 1.0)]
    assert blocked == list(range(990, 1000))
