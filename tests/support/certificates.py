"""Real certificates for tests: an authority, a server's and a client's, made by openssl."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
NAMES = "IP:127.0.0.1,DNS:localhost"


class Pair(NamedTuple):
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority(NamedTuple):
    """What signs; everything it makes lies in one folder."""

    folder: Path
    own: Pair

    def sign(self, name: str, names: str = NAMES) -> Pair:
        """Make a certificate for some host names and addresses."""
        by = ("-CA", str(self.own.certificate), "-CAkey", str(self.own.key))
        return _make(self.folder, name, *by, "-addext", f"subjectAltName={names}")


def authority(folder: Path) -> Authority:
    """Make an authority; skips the test where openssl is missing."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: apt-get install openssl")
    folder.mkdir(parents=True, exist_ok=True)
    return Authority(folder, _make(folder, "ca"))


def _make(folder: Path, name: str, *options: str) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    files = ("-out", str(pair.certificate), "-keyout", str(pair.key), "-subj", f"/CN=test {name}")
    command = ["openssl", "req", "-x509", *EC, *files, *options]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return pair
