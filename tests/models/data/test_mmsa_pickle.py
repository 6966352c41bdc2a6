"""Packed feature files of the field: keys, shapes and types of method section 3, small."""

import os
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamulag.models.data.clips import DataError, read_clips, write_clips
from tamulag.models.data.mmsa_pickle import PackedSplit, read_packed

MOSI = {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)}
SIMS = {"text": (39, 768), "audio": (400, 33), "vision": (55, 709)}
ALIGNED = {"text": (50, 768), "audio": (50, 5), "vision": (50, 20)}
LENGTHS = {"text": [4, 1, 9], "audio": [30, 7, 1], "vision": [40, 2, 11]}


def split(
    shapes: dict[str, tuple[int, int]], *, lengths: bool = True, human: bool = False
) -> dict[str, object]:
    """Return a split of three clips as the field packs it: lists beside arrays."""
    rng = np.random.default_rng(7)
    rows = len(LENGTHS["text"])
    content: dict[str, object] = {
        "raw_text": np.array(["A LOT OF SAD PARTS", "我不想嫁给李茶", "fine"]),
        "id": ["03bSnISJMiM$_$11", "03bSnISJMiM$_$10", "aqua$_$1"],
        "annotations": ["Negative", "Neutral", "Positive"],
        "classification_labels": np.array([0, 1, 2.0]),
        "regression_labels": np.array([-0.4, 0.0, 1.0], np.float32),
    }
    for name, (steps, dim) in shapes.items():
        values = rng.normal(size=(rows, steps, dim)).astype(np.float32)
        for row, length in enumerate(LENGTHS[name]):
            values[row, length:] = 0
        content[name] = values if name != "vision" else values.astype(np.float64)
    steps = shapes["text"][0]
    mask = np.arange(steps) < np.array(LENGTHS["text"])[:, None]
    ids = rng.integers(1, 30000, (rows, steps)) * mask
    content["text_bert"] = np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(np.float32)
    if lengths:
        content |= {f"{name}_lengths": LENGTHS[name] for name in ("audio", "vision")}
    if human:
        content |= {f"regression_labels_{s}": np.full(rows, 0.2) for s in "TAV"}
    return content


def packed(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "packed.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def first(path: Path) -> PackedSplit:
    return read_packed(path)["train"]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("shapes", "lengths"),
    [
        pytest.param(MOSI, True, id="unaligned_50"),
        pytest.param(SIMS, True, id="unaligned_39"),
        pytest.param(ALIGNED, False, id="aligned_50"),
    ],
)
def test_file_of_the_field_is_read(
    tmp_path: Path, shapes: dict[str, tuple[int, int]], lengths: bool, protocol: int
) -> None:
    """All three splits come with values as float32, lengths, labels, ids, texts and tokens."""
    content = split(shapes, lengths=lengths)
    splits = read_packed(
        packed(tmp_path, dict.fromkeys(("valid", "train", "test"), content), protocol)
    )
    assert list(splits) == ["train", "valid", "test"]
    for found in splits.values():
        for name, shape in shapes.items():
            assert found.values[name].shape == (3, *shape)
            assert found.values[name].dtype == np.float32
            np.testing.assert_allclose(found.values[name], np.asarray(content[name]), rtol=1e-6)
            assert found.lengths[name].tolist() == LENGTHS[name]
        assert found.labels.tolist() == pytest.approx([-0.4, 0.0, 1.0])
        assert found.ids[2] == "aqua$_$1"
        assert found.texts[1] == "我不想嫁给李茶"
        assert found.tokens is not None
        assert found.tokens.shape == (3, 3, shapes["text"][0])
        assert found.tokens.dtype == np.int64


def test_lists_are_as_good_as_arrays(tmp_path: Path) -> None:
    """Labels as a list of numbers and features as a list of arrays give the same split."""
    content = split(SIMS)
    listed = content | {
        "regression_labels": [np.float32(-0.4), 0.0, 1],
        "audio": list(np.asarray(content["audio"])),
        "id": np.array(content["id"], object),
    }
    one, other = (first(packed(tmp_path, {"train": c})) for c in (content, listed))
    np.testing.assert_array_equal(one.values["audio"], other.values["audio"])
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.ids == other.ids


def test_human_labels_of_each_modality_are_kept(tmp_path: Path) -> None:
    """CH-SIMS has them; the clips carry them."""
    found = first(packed(tmp_path, {"train": split(SIMS, human=True)}))
    assert list(found.unimodal) == ["text", "audio", "vision"]
    assert found.clips()[1].unimodal == pytest.approx({"text": 0.2, "audio": 0.2, "vision": 0.2})


def test_what_is_not_finite_is_zero(tmp_path: Path) -> None:
    """COVAREP has -inf; a NaN would spread over the whole model."""
    content = split(MOSI)
    audio = np.array(content["audio"])
    audio[0, 2], audio[1, 3, 1] = -np.inf, np.nan
    found = first(packed(tmp_path, {"train": content | {"audio": audio}})).values["audio"]
    assert np.isfinite(found).all()
    assert (found[0, 2] == 0).all()
    assert found[1, 3, 1] == 0


def test_clip_holds_what_is_valid_and_shares_memory(tmp_path: Path) -> None:
    """Values are cut to their length, ticks count steps, the group is the video; no copies."""
    found = first(packed(tmp_path, {"train": split(MOSI)}))
    one, other, _ = found.clips()
    assert one.label == pytest.approx(-0.4)
    assert one.group == "03bSnISJMiM"
    for name, lengths in LENGTHS.items():
        assert len(one.values[name]) == lengths[0]
        assert one.ticks[name].tolist() == list(range(lengths[0]))
        assert np.shares_memory(one.values[name], found.values[name])
        assert np.shares_memory(one.ticks[name], other.ticks[name])
        assert one.values[name].flags.writeable


def test_modality_of_length_zero_is_left_out(tmp_path: Path) -> None:
    """The field demands at least 1; a clip without any sound is known all the same."""
    content = split(MOSI) | {"audio_lengths": [0, 7, 1]}
    one, other, _ = first(packed(tmp_path, {"train": content})).clips()
    assert "audio" not in one.values
    assert "audio" not in one.ticks
    assert len(other.values["audio"]) == 7


def test_silent_row_of_an_aligned_file_has_length_zero(tmp_path: Path) -> None:
    """Where the file gives no lengths, a row of zeros is nothing."""
    content = split(ALIGNED, lengths=False)
    np.asarray(content["audio"])[1] = 0
    assert first(packed(tmp_path, {"train": content})).lengths["audio"].tolist() == [30, 0, 1]


def test_text_without_a_mask_ends_with_its_last_state(tmp_path: Path) -> None:
    """A file with text states alone is measured like the other modalities."""
    content = split(MOSI)
    del content["text_bert"]
    found = first(packed(tmp_path, {"train": content}))
    assert found.tokens is None
    assert found.lengths["text"].tolist() == LENGTHS["text"]


def test_some_modalities_and_splits_are_enough(tmp_path: Path) -> None:
    """Without vision, ids and texts each clip is a group of its own."""
    content = split(SIMS)
    for key in ("vision", "vision_lengths", "id", "raw_text"):
        del content[key]
    splits = read_packed(packed(tmp_path, {"test": content}))
    assert list(splits) == ["test"]
    assert [clip.group for clip in splits["test"].clips()] == ["0", "1", "2"]


def test_clips_can_be_written_as_a_feature_file(tmp_path: Path) -> None:
    """Training has one input form; human labels survive the trip."""
    clips = first(packed(tmp_path, {"train": split(SIMS, human=True)})).clips()
    write_clips(tmp_path / "f.safetensors", clips, about="a test")
    again = read_clips(tmp_path / "f.safetensors")
    assert [c.unimodal.keys() for c in again] == [c.unimodal.keys() for c in clips]
    np.testing.assert_allclose(again[0].values["text"], clips[0].values["text"], atol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"regression_labels": None}, "regression_labels", id="no labels"),
        pytest.param({"regression_labels": [0.0, np.nan, 1.0]}, "not finite", id="NaN label"),
        pytest.param({"regression_labels": [0.0, 1.0]}, "2 rows", id="fewer labels"),
        pytest.param({"audio": np.zeros((3, 5))}, r"audio has shape \(3, 5\)", id="axes"),
        pytest.param({"audio": np.zeros((2, 9, 5))}, "3 axes and 3 rows", id="rows"),
        pytest.param({"audio": ["a", "b", "c"]}, "audio is not an array of numbers", id="texts"),
        pytest.param({"audio_lengths": [1, 2, 376]}, r"\[1.0, 376.0\].*0..375", id="length"),
        pytest.param({"vision_lengths": [-1, 2, 3]}, "vision_lengths", id="negative length"),
        pytest.param({"text_bert": np.zeros((3, 2, 50))}, "text_bert", id="tokens"),
        pytest.param({"id": ["a"]}, "id: expected 3 texts", id="ids"),
        pytest.param({"raw_text": [1, 2, 3]}, "raw_text: expected texts", id="numbers as text"),
    ],
)
def test_wrong_shape_or_value_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    """The message names file, split and key."""
    path = packed(tmp_path, {"train": split(MOSI) | change})
    with pytest.raises(DataError, match=rf"packed\.pkl, split train: .*{message}"):
        read_packed(path)


@pytest.mark.parametrize("content", [{"a": 1}, [1], {}, {"train": [1]}, {"train": {}}])
def test_other_content_is_refused(tmp_path: Path, content: object) -> None:
    """What is no packed file is refused as that."""
    with pytest.raises(DataError, match=r"packed\.pkl"):
        read_packed(packed(tmp_path, content))


def test_missing_file_is_told(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(DataError, match=r"none\.pkl cannot be read"):
        read_packed(tmp_path / "none.pkl")


class Attack:
    """Pickles as a call of the shell."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_malicious_file_is_refused_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    """Hidden among real arrays, in a key that is not even read."""
    trace = tmp_path / "trace"
    content = {"train": split(MOSI) | {"annotations": [Attack(trace)]}}
    path = packed(tmp_path, content, protocol)
    with pytest.raises(DataError, match="refused: it names 'posix system'"):
        read_packed(path)
    assert not trace.exists()


SMALL = pickle.dumps({"train": split({"text": (9, 3), "audio": (40, 2), "vision": (50, 2)})}, 2)


@settings(max_examples=100)
@given(st.integers(0, len(SMALL) - 1), st.integers(0, 255), st.integers(0, 40))
def test_damaged_file_is_read_or_refused(place: int, value: int, cut: int) -> None:
    """Whatever byte is wrong or lost, only `DataError` comes out."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "packed.pkl"
        path.write_bytes(SMALL[:place] + bytes([value]) + SMALL[place + cut :])
        try:
            read_packed(path)
        except DataError:
            return
