"""Clips of one modality as batches: cropped, repeated, shifted, pooled."""

import numpy as np
import torch

from tamulag.models.data.clips import Clip
from tamulag.models.data.corpus import Corpus, from_clips
from tamulag.models.nn.encoder import Encoder
from tamulag.models.training.branch_batches import (
    Variation,
    branch_batch,
    repeat_pictures,
    standardise,
    vary,
)
from tamulag.models.training.heads_recipe import BranchRecipe


def corpus(*lengths: int) -> Corpus:
    clips = []
    for number, length in enumerate(lengths):
        values = np.arange(length, dtype=np.float32)[:, None] + 100 * number
        clips.append(Clip(float(number), "g", {"audio": values}, {"audio": np.arange(length)}))
    return from_clips(clips)


def variation(**keys: object) -> Variation:
    fixed = {"train": [], "valid": [], "data": "", "epochs": 1}
    recipe = BranchRecipe.model_validate(fixed | keys)
    return Variation(recipe, torch.ones(1), np.random.default_rng(0))


def test_a_batch_is_padded_behind_its_clips() -> None:
    """Each row holds its clip and is scored one tick after the clip's last."""
    ticks, now = branch_batch(corpus(3, 1), "audio", np.array([0, 1]))
    assert ticks.mask.tolist() == [[True] * 3, [True, False, False]]
    assert ticks.values[..., 0][ticks.mask].tolist() == [0, 1, 2, 100]
    assert now.tolist() == [[3], [1]]


def test_a_crop_is_a_piece_of_at_least_its_length() -> None:
    """Training gets pieces, validation whole clips."""
    cropped, lengths = variation(crop=4), set()
    for _ in range(200):
        ticks, _ = branch_batch(corpus(10), "audio", np.array([0]), cropped)
        piece = ticks.values[0, :, 0]
        assert (piece.diff() == 1).all()
        lengths.add(len(piece))
    assert lengths == set(range(4, 11))
    assert branch_batch(corpus(10), "audio", np.array([0]))[0].mask.shape == (1, 10)


def test_a_picture_is_repeated() -> None:
    """One vector becomes a sequence at 10 Hz, without noise."""
    still = repeat_pictures(corpus(1, 1), "audio", 4)
    ticks, now = branch_batch(still, "audio", np.array([1]))
    assert ticks.values[0, :, 0].tolist() == [100.0] * 4
    assert ticks.time.tolist() == [[0, 5, 10, 15]]
    assert now.tolist() == [[16]]
    assert repeat_pictures(corpus(3), "audio", 0).lengths()[0, 1] == 3


def test_training_repeats_a_picture_with_noise() -> None:
    """Up to the full length, each vector with noise of its own."""
    shaken, lengths = variation(still=4, jitter=0.5), set()
    for _ in range(50):
        values, time = vary(torch.full((1, 1), 100.0), torch.zeros(1), shaken)
        assert len(values.unique()) == len(values) == len(time)
        lengths.add(len(values))
    assert lengths == {1, 2, 3, 4}


def test_offset_is_the_same_for_a_whole_clip() -> None:
    """Another room moves all vectors of a clip alike."""
    ticks, _ = branch_batch(corpus(5, 5), "audio", np.array([0]), variation(offset=1.0))
    moved = ticks.values[0, :, 0] - torch.arange(5)
    torch.testing.assert_close(moved, moved[:1].expand(5))
    assert moved[0].abs() > 1e-3


def test_centred_features_are_standardised_around_their_level() -> None:
    """The level is the mean of all vectors, the deviation that around each clip's own."""
    encoder = Encoder(dim=1, hidden=2, layers=1, centred=1, horizon=9)
    clips = corpus(5, 5).values["audio"]
    standardise(encoder, [*clips, torch.zeros(0, 1)])
    torch.testing.assert_close(encoder.level, torch.cat(clips).mean(dim=0))
    assert encoder.deviation < torch.cat(clips).std(dim=0)
