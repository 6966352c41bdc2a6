"""Where the MQTT broker is, and how to log in: TLS, user name and password.

Knows addresses, certificates and the places of a password. Opens no connection.
"""

import logging
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..config.secret_file import SecretError, check_key, read_secret
from ..core.urls import redacted
from .publisher import PublisherError

logger = logging.getLogger("tamulag.mqtt")

USERNAME = "TAMULAG_MQTT_USERNAME"
PASSWORD = "TAMULAG_MQTT_PASSWORD"
CREDENTIALS = f"mqtt.user and mqtt.password_file, or {USERNAME} and {PASSWORD}"

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_USE_URL = "use mqtt://HOST or mqtt://HOST:PORT with --mqtt (Mqtt), or mqtts:// for TLS"
_LOOPBACK = ("localhost", "127.", "::1")
_REMEDIES = {
    "CERTIFICATE_VERIFY_FAILED": "give the certificate of its authority as mqtt.ca, "
    "and the name that stands in the broker's certificate as HOST",
    "WRONG_VERSION_NUMBER": "it has no TLS on this port, use mqtt:// or another port",
    "CERTIFICATE_REQUIRED": "give mqtt.certificate and mqtt.key",
    "ALERT": "give a certificate that it knows as mqtt.certificate and mqtt.key",
}
"""Name of an OpenSSL error -> remedy."""


@dataclass(frozen=True, kw_only=True)
class MqttLogin:
    """Settings for TLS and the user, all optional; paths are PEM files."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    user: str | None = None
    password_file: str | None = None


@dataclass(frozen=True)
class MqttBroker:
    """A broker that can be connected to; its representation does not hold the password."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return its name in logs and errors."""
        return f"the MQTT broker at {self.host}:{self.port}"


def parse_broker(url: str, login: MqttLogin | None = None) -> MqttBroker:
    """Return the broker of a URL, with TLS for `mqtts://`.

    A password file wins over the two environment variables.

    Raises:
        PublisherError: If the URL, a certificate or the password file cannot be used.
    """
    login = login or MqttLogin()
    host, port, is_secure = _address(url)
    _check_pairs(login, is_secure)
    user, password = _credentials(login)
    if password is not None and not is_secure and not host.startswith(_LOOPBACK):
        logger.warning("the password goes to %s:%d unencrypted: use mqtts://", host, port)
    return MqttBroker(host, port, _context(login) if is_secure else None, user, password)


def remedy(error: BaseException) -> str:
    """Return the remedy for a broker that cannot be reached."""
    text = str(error).upper().replace(" ", "_")
    known = [cure for name, cure in _REMEDIES.items() if name in text]
    return known[0] if known else "start one (e.g. mosquitto) or leave --mqtt out (Mqtt)"


def _check_pairs(login: MqttLogin, is_secure: bool) -> None:
    """Refuse settings that would be ignored silently."""
    if not is_secure and (login.ca or login.certificate or login.key):
        raise PublisherError("mqtt.ca, mqtt.certificate and mqtt.key need TLS: use mqtts://")
    if bool(login.certificate) != bool(login.key):
        raise PublisherError("mqtt.certificate and mqtt.key go together: give both, or neither")
    if login.password_file and not login.user:
        raise PublisherError("mqtt.password_file needs its user: give mqtt.user")


def _credentials(login: MqttLogin) -> tuple[str | None, str | None]:
    if login.password_file is None:
        return login.user or os.environ.get(USERNAME), os.environ.get(PASSWORD)
    try:
        return login.user, read_secret(Path(login.password_file))
    except SecretError as error:
        raise PublisherError(f"mqtt.password_file: {error}") from None


def _context(login: MqttLogin) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=login.ca)
    except OSError as error:
        raise PublisherError(_unusable("mqtt.ca", login.ca, error)) from error
    context.sslsocket_class = _ClosedOnFailure
    if login.certificate is not None:
        try:
            check_key(Path(login.key or login.certificate))
        except SecretError as error:
            raise PublisherError(f"mqtt.key: {error}") from None
        try:
            # With an empty password an encrypted key is an error, not a prompt on the terminal.
            context.load_cert_chain(login.certificate, login.key, password="")
        except OSError as error:
            names = f"{login.certificate} and {login.key}"
            raise PublisherError(_unusable("mqtt.certificate, mqtt.key", names, error)) from error
    return context


def _unusable(key: str, value: object, error: OSError) -> str:
    reason = error.strerror or error
    return f"cannot use {key} = {value} ({reason}): give PEM files that can be read, not encrypted"


class _ClosedOnFailure(ssl.SSLSocket):
    """Closes itself when its handshake fails, because paho-mqtt does not."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands; see ssl.SSLSocket."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _address(url: str) -> tuple[str, int, bool]:
    """Return host, port and whether TLS is wanted."""
    if "@" in url:  # not quoted: it may hold a password
        raise PublisherError(
            "the URL of --mqtt (Mqtt) holds a user name or password, which others can see: "
            f"put them into {CREDENTIALS}"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise PublisherError(f"cannot use the MQTT address ({error}): {_USE_URL}") from error
    is_bare = not (parts.path.strip("/") or parts.query or parts.fragment)
    if parts.scheme not in _PORTS or not host or not is_bare:
        raise PublisherError(f"cannot use the MQTT address {redacted(url)}: {_USE_URL}")
    return host, port, parts.scheme == "mqtts"
