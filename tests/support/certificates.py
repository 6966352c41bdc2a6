"""Real certificates for tests: an authority, a server's and a client's, made by openssl."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Pair(NamedTuple):
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority(NamedTuple):
    """Who signs; everything it makes lies in one folder."""

    folder: Path
    own: Pair

    def sign(self, name: str) -> Pair:
        """Make a certificate for 127.0.0.1 and localhost."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, names = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        _openssl(*new, "-keyout", str(pair.key), "-out", str(request))
        signed_by = ["-CA", str(self.own.certificate), "-CAkey", str(self.own.key)]
        made = ["-in", str(request), "-out", str(pair.certificate), "-extfile", str(names)]
        _openssl("x509", "-req", "-days", "2", "-CAcreateserial", *signed_by, *made)
        return pair


def authority(folder: Path) -> Authority:
    """Make an authority; skips the test where openssl is missing."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: apt install openssl")
    folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(folder / "ca.pem", folder / "ca.key")
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test ca"]
    _openssl(*new, "-keyout", str(pair.key), "-out", str(pair.certificate))
    return Authority(folder, pair)


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, timeout=60, capture_output=True)
