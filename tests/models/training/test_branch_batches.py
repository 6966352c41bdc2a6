"""Clips as batches: cut, drawn out, balanced."""

import numpy as np
import pytest
import torch

from tamulag.models.data.clips import Clip
from tamulag.models.training.branch_batches import BranchRecipe, Rows, cut, stacked


def rows(*lengths: int, labels: list[float] | None = None) -> Rows:
    clips = []
    for number, length in enumerate(lengths):
        values = np.arange(length, dtype=np.float32)[:, None] + 100 * number
        label = labels[number] if labels else float(number)
        clips.append(Clip(label, "g", {"audio": values}, {"audio": np.arange(length)}))
    return stacked(clips, "audio")


def recipe(**keys: object) -> BranchRecipe:
    return BranchRecipe.model_validate({"train": [], "valid": [], "data": "", "epochs": 1} | keys)


def test_a_batch_is_padded_behind_its_clips() -> None:
    """Each row holds its clip and is scored one tick after the clip's last."""
    ticks, now = cut(rows(3, 1), np.array([0, 1]), recipe(), None)
    assert ticks.mask.tolist() == [[True] * 3, [True, False, False]]
    assert ticks.values[..., 0][ticks.mask].tolist() == [0, 1, 2, 100]
    assert now.tolist() == [[3], [1]]


def test_a_crop_is_a_piece_of_at_least_its_length() -> None:
    """Training sees pieces, validation whole clips."""
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(200):
        ticks, _ = cut(rows(10), np.array([0]), recipe(crop=4), rng)
        piece = ticks.values[0, :, 0]
        assert (piece.diff() == 1).all()
        lengths.add(len(piece))
    assert lengths == set(range(4, 11))
    assert cut(rows(10), np.array([0]), recipe(crop=4), None)[0].mask.shape == (1, 10)


def test_a_still_picture_is_drawn_out() -> None:
    """One vector becomes a sequence at 10 Hz: the full length in validation, without noise."""
    ticks, now = cut(rows(1, 1), np.array([1]), recipe(still=4, jitter=0.5), None)
    assert ticks.values[0, :, 0].tolist() == [100.0] * 4
    assert ticks.time.tolist() == [[0, 5, 10, 15]]
    assert now.tolist() == [[16]]


def test_offset_is_the_same_for_a_whole_clip() -> None:
    """Another room moves all vectors of a clip alike."""
    ticks, _ = cut(rows(5, 5), np.array([0]), recipe(offset=1.0), np.random.default_rng(0))
    moved = ticks.values[0, :, 0] - torch.arange(5)
    torch.testing.assert_close(moved, moved[:1].expand(5))
    assert moved[0].abs() > 1e-3


@pytest.mark.parametrize(
    "labels", [[-2.0, -2.0, -1.0, 3.0], [1.0, 2.0, -1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
)
def test_balanced_weights_make_both_sides_count_the_same(labels: list[float]) -> None:
    """However many negative and positive clips there are; the mean weight is 1."""
    weighed = rows(1, 1, 1, 1, labels=labels)
    negative, positive = (
        float(weighed.weight[side].sum()) for side in (weighed.labels < 0, weighed.labels > 0)
    )
    if negative:
        assert negative == pytest.approx(positive)
    assert float(weighed.weight.mean()) == pytest.approx(1.0)
