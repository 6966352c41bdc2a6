"""Certificates, user names and passwords before a real mosquitto; nothing tells a password."""

import logging
import os
import shutil
import subprocess
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import certificates
from support.broker import mosquitto, open_and_close, running, status
from support.certificates import Authority
from support.waiting import until, within
from tamulag.streamer.bench.rig.broker import Broker
from tamulag.streamer.publishers.mqtt import MqttPublisher
from tamulag.streamer.publishers.mqtt_login import MqttLogin, parse_broker
from tamulag.streamer.publishers.publisher import PublisherError

SECRET = "hunter2-of-the-kiosk"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return certificates.authority(tmp_path)


@pytest.fixture
def secure(tmp_path: Path, authority: Authority) -> Iterator[Broker]:
    """Yield a broker with TLS that wants a certificate of its clients."""
    certificate, key = authority.sign("broker", "DNS:localhost")
    files = (f"cafile {authority.own.certificate}", f"certfile {certificate}", f"keyfile {key}")
    rules = ("require_certificate true", "allow_anonymous true", "user root")
    with mosquitto(tmp_path, *files, *rules) as broker:
        broker.url = f"mqtts://localhost:{broker.port}"
        yield broker


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """Yield a broker that wants the user name `kiosk` and the password `SECRET`."""
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("needs mosquitto: apt install mosquitto")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "kiosk", SECRET], check=True)
    rules = ("allow_anonymous false", f"password_file {passwords}", "user root")
    with mosquitto(tmp_path, *rules) as broker:
        yield broker


def secret_file(folder: Path, secret: str = SECRET) -> str:
    path = folder / "secret"
    path.write_text(f"{secret}\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.broker
def test_tls_with_a_certificate_of_ours(authority: Authority, secure: Broker) -> None:
    """A broker that wants certificates takes the one in the settings, also after a restart."""
    certificate, key = map(str, authority.sign("kiosk"))
    login = MqttLogin(ca=str(authority.own.certificate), certificate=certificate, key=key)

    async def scenario() -> None:
        async with running(MqttPublisher(secure.url, status=status, login=login)) as publisher:
            secure.kill()
            await until(lambda: publisher._client is None)
            secure.start()
            await until(lambda: publisher._client is not None)

    within(20, scenario())


@pytest.mark.broker
def test_an_unknown_authority_is_reported(secure: Broker) -> None:
    """A broker that anybody could be is not trusted; the error names the key that mends it."""
    with pytest.raises(PublisherError, match=r"CERTIFICATE_VERIFY_FAILED.*mqtt\.ca"):
        open_and_close(MqttPublisher(secure.url, status=status))


@pytest.mark.broker
def test_another_name_than_that_of_the_certificate_is_reported(
    authority: Authority, secure: Broker
) -> None:
    """A certificate for localhost does not do for 127.0.0.1."""
    url = secure.url.replace("localhost", "127.0.0.1")
    with pytest.raises(PublisherError, match=r"CERTIFICATE_VERIFY_FAILED.*as HOST"):
        open_and_close(
            MqttPublisher(url, status=status, login=MqttLogin(ca=str(authority.own.certificate)))
        )


@pytest.mark.broker
def test_a_missing_certificate_of_ours_is_reported(authority: Authority, secure: Broker) -> None:
    """A broker that hangs up because it wants a certificate is told as one that cannot be used."""
    with pytest.raises(PublisherError, match="cannot reach"):
        open_and_close(
            MqttPublisher(
                secure.url, status=status, login=MqttLogin(ca=str(authority.own.certificate))
            )
        )


@pytest.mark.broker
def test_tls_for_a_broker_without_it_is_reported(guarded: Broker) -> None:
    """The wrong scheme fails within the limit of the start."""
    url = guarded.url.replace("mqtt:", "mqtts:")
    with pytest.raises(PublisherError, match="cannot reach"):
        open_and_close(MqttPublisher(url, status=status))


@pytest.mark.parametrize(
    ("login", "key"),
    [
        pytest.param(MqttLogin(ca="/no/such.pem"), "mqtt.ca", id="absent-ca"),
        pytest.param(MqttLogin(ca=__file__), "mqtt.ca", id="no-ca"),
    ],
)
def test_a_useless_certificate_is_reported(login: MqttLogin, key: str) -> None:
    """The error names the key of the settings and the file, before anything is connected."""
    with pytest.raises(PublisherError, match=f"cannot use {key}"):
        parse_broker("mqtts://localhost", login)


def test_a_file_that_is_no_certificate_is_reported(tmp_path: Path) -> None:
    """Its owner alone may read it, as it holds the key as well."""
    file = tmp_path / "own.pem"
    file.write_text("no certificate")
    file.chmod(0o600)
    with pytest.raises(PublisherError, match=r"cannot use mqtt\.certificate"):
        parse_broker("mqtts://localhost", MqttLogin(certificate=str(file), key=str(file)))


@pytest.mark.parametrize(
    ("url", "login", "remedy"),
    [
        pytest.param("mqtt://h", MqttLogin(ca="a.pem"), "use mqtts://", id="no-tls"),
        pytest.param("mqtts://h", MqttLogin(certificate="a.pem"), "give both", id="no-key"),
        pytest.param("mqtts://h", MqttLogin(key="a.key"), "give both", id="no-certificate"),
        pytest.param("mqtt://h", MqttLogin(password_file="a"), r"give mqtt\.user", id="no-user"),
    ],
)
def test_half_a_login_is_reported(url: str, login: MqttLogin, remedy: str) -> None:
    """Nobody believes himself protected by a setting that does nothing."""
    with pytest.raises(PublisherError, match=remedy):
        parse_broker(url, login)


@pytest.mark.broker
def test_missing_credentials_are_reported(guarded: Broker) -> None:
    """A broker that wants credentials is told apart from one that is away."""
    with pytest.raises(PublisherError, match=r"refused the connection .*mqtt\.password_file"):
        open_and_close(MqttPublisher(guarded.url, status=status))


@pytest.mark.broker
def test_credentials_come_from_the_environment(
    guarded: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two environment variables open a guarded broker."""
    monkeypatch.setitem(os.environ, "TAMULAG_MQTT_USERNAME", "kiosk")
    monkeypatch.setitem(os.environ, "TAMULAG_MQTT_PASSWORD", SECRET)
    open_and_close(MqttPublisher(guarded.url, status=status))


@pytest.mark.broker
def test_a_password_file_opens_a_guarded_broker(
    guarded: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wins over the environment, which may be that of another program."""
    monkeypatch.setitem(os.environ, "TAMULAG_MQTT_PASSWORD", "wrong")
    login = MqttLogin(user="kiosk", password_file=secret_file(tmp_path))
    open_and_close(MqttPublisher(guarded.url, status=status, login=login))


def test_a_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The key and the command that mends it are named, the password is not."""
    path = secret_file(tmp_path)
    Path(path).chmod(0o644)
    with pytest.raises(PublisherError, match=r"mqtt\.password_file: .*chmod 600") as caught:
        parse_broker("mqtt://localhost", MqttLogin(user="kiosk", password_file=path))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.broker
def test_no_log_line_and_no_error_contains_a_password(
    guarded: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At the finest level of every logger: accepted, lost, found again and refused."""
    caplog.set_level(logging.DEBUG)
    login = MqttLogin(user="kiosk", password_file=secret_file(tmp_path))
    publisher = MqttPublisher(guarded.url, status=status, login=login)

    async def scenario() -> None:
        async with running(publisher):
            guarded.kill()
            await until(lambda: publisher._client is None)
            guarded.start()
            await until(lambda: publisher._client is not None)

    within(20, scenario())
    wrong = MqttLogin(user="kiosk", password_file=secret_file(tmp_path, f"{SECRET}-wrong"))
    with pytest.raises(PublisherError, match="refused the connection") as caught:
        open_and_close(MqttPublisher(guarded.url, status=status, login=wrong))
    told = [caplog.text, *traceback.format_exception(caught.value), repr(vars(publisher))]
    assert "connected to" in caplog.text
    assert not [text for text in told if SECRET in text]


def test_a_password_in_the_clear_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On the loopback nobody listens; elsewhere TLS is the remedy."""
    login = MqttLogin(user="kiosk", password_file=secret_file(tmp_path))
    parse_broker("mqtt://127.0.0.1", login)
    assert not caplog.records
    parse_broker("mqtt://broker.example", login)
    assert "use mqtts://" in caplog.text


def test_credentials_in_the_url_are_refused() -> None:
    """A password on the command line is refused, and not repeated."""
    with pytest.raises(PublisherError, match="TAMULAG_MQTT_USERNAME") as caught:
        parse_broker(f"mqtt://kiosk:{SECRET}@localhost")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost", "http://localhost", "mqtt://", "mqtt://host:x", "mqtts://host/topic"]
)
def test_a_useless_url_is_reported(url: str) -> None:
    """The error shows the forms that work."""
    with pytest.raises(PublisherError, match="use mqtt://HOST or mqtt://HOST:PORT"):
        parse_broker(url)


@pytest.mark.parametrize(
    ("url", "port"), [("mqtt://h", 1883), ("mqtts://h", 8883), ("mqtts://h:1", 1)]
)
def test_a_scheme_has_its_port(url: str, port: int) -> None:
    """Without a port the registered one is meant; TLS is what mqtts says."""
    found = parse_broker(url)
    assert (found.port, found.tls is not None) == (port, url.startswith("mqtts"))


@pytest.mark.broker
def test_a_frozen_broker_with_tls_does_not_hold_up_the_end(
    authority: Authority, secure: Broker
) -> None:
    """A handshake that gets no answer is given up within the limit of the start."""
    certificate, key = map(str, authority.sign("kiosk"))
    login = MqttLogin(ca=str(authority.own.certificate), certificate=certificate, key=key)
    secure.freeze()
    start = time.monotonic()
    with pytest.raises(PublisherError, match="timed out"):
        open_and_close(MqttPublisher(secure.url, status=status, login=login))
    assert time.monotonic() - start < 5.0
