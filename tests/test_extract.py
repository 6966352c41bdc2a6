"""Labelled material becomes clips through the front end that runs live."""

from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from tamulag.models.data import read_clips, write_clips
from tamulag.models.text import TextEncoder
from tamulag.streamer.audio import AUDIO_DIM
from tamulag.streamer.corpora import Row
from tamulag.streamer.extract import clip, media, pictures, samples, texts
from tamulag.streamer.sample import Sample
from tamulag.streamer.vision import VISION_DIM, VisionFeatures

ROWS = [("so good", 2.0, "v1"), ("", 0.0, "v1"), ("well", 0.5, "v2")]


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    path = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = cv2.imread(str(path))
    assert image is not None
    return np.ascontiguousarray(image[:, :, ::-1])


def test_texts_become_clips_of_their_token_states() -> None:
    """Label and group stay with the text; one without words has no text."""
    seen: list[int] = []
    good, silent, well = texts(ROWS, seen.append)
    assert seen == [3]
    assert [(c.label, c.group) for c in (good, silent, well)] == [row[1:] for row in ROWS]
    np.testing.assert_allclose(
        good.values["text"], TextEncoder().encode(["so", "good"])[0], atol=1e-5
    )
    assert not silent.values


def test_picture_becomes_a_clip_of_one_vector(portrait: np.ndarray) -> None:
    """A face is described as live; a picture without one is left out, and counted as done."""
    rows = [Row(0.0, "wall", picture=np.zeros_like(portrait)), Row(1.0, "grace", picture=portrait)]
    seen: list[int] = []
    (found,) = pictures(rows, seen.append)
    assert seen == [1, 2]
    assert (found.label, found.group, list(found.values)) == (1.0, "grace", ["vision"])
    assert found.ticks["vision"].tolist() == [0]
    with VisionFeatures(still=True) as vision:
        expected = vision.push(portrait, 0.0).values
    assert expected is not None
    np.testing.assert_allclose(found.values["vision"], expected[None], atol=1e-5)


def test_picture_does_not_depend_on_the_one_before(portrait: np.ndarray) -> None:
    """Single pictures are not tracked."""
    alone = pictures([Row(1.0, "a", picture=portrait)], lambda _: None)
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    rows = [Row(1.0, "b", picture=mirrored), Row(1.0, "a", picture=portrait)]
    after = pictures(rows, lambda _: None)[-1]
    np.testing.assert_array_equal(after.values["vision"], alone[0].values["vision"])


def test_masked_ticks_are_left_out() -> None:
    """Only what was measured stays, with its tick; a modality without anything is left out."""
    one, two = np.zeros(2, np.float32), np.ones(2, np.float32)
    found = clip(
        1.5,
        "ann",
        [
            Sample("audio", 0.0, None, "silence"),
            Sample("audio", 0.02, one),
            Sample("vision", 0.08, None, "no_face"),
            Sample("audio", 0.04, None, "silence"),
            Sample("audio", 0.06, two),
        ],
    )
    assert (found.label, found.group, list(found.values)) == (1.5, "ann", ["audio"])
    np.testing.assert_array_equal(found.values["audio"], [one, two])
    assert found.ticks["audio"].tolist() == [1, 3]


def test_nothing_measured_is_an_empty_clip() -> None:
    """Silence has a label too."""
    found = clip(0.0, "ann", [Sample("audio", 0.0, None, "silence")])
    assert not found.values
    assert not found.ticks


@pytest.mark.data
def test_media_file_becomes_a_clip_of_voice_and_face(data: Path, tmp_path: Path) -> None:
    """Three seconds give about 150 audio ticks and 30 faces, each in its own tick, and are kept."""
    seen: list[int] = []
    (found,) = media([Row(1.0, "bbaf", media=data / "clips" / "bbaf2n.mpg")], seen.append)
    assert seen == [1]
    audio, vision = found.ticks["audio"], found.ticks["vision"]
    assert found.values["audio"].shape == (len(audio), AUDIO_DIM)
    assert found.values["vision"].shape == (len(vision), VISION_DIM)
    assert 20 < len(audio) <= 150
    assert 28 <= len(vision) <= 31
    assert (np.diff(audio) > 0).all()
    assert (np.diff(vision // 5) == 1).all()
    write_clips(tmp_path / "clips.safetensors", [found], about="a test")
    assert read_clips(tmp_path / "clips.safetensors")[0].values.keys() == found.values.keys()


@pytest.mark.data
def test_file_without_a_face_has_no_vision(data: Path) -> None:
    """The voice alone is a clip as well; live, the missing face is told with its reason."""
    found = samples(data / "clips" / "pyfeat_no_face.mp4")
    faces = [sample for sample in found if sample.modality == "vision"]
    assert {sample.reason for sample in faces} == {"no_face"}
    assert "vision" not in clip(0.0, "nobody", found).values
