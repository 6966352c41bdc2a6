"""Labels from other groups' clips: out of fold, no collapse, what is found, and fallbacks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamulag.models.data.clips import Clip, DataError
from tamulag.models.data.corpus import from_clips
from tamulag.models.training.ulag_labels import (
    Numbers,
    Places,
    generate,
    out_of_fold,
    pooled_vectors,
    predictive_power,
    ulag_labels,
)

COUNT, GROUPS = 300, 30


def planted(seed: int, *, noise: float = 0.5) -> tuple[Numbers, Numbers, Numbers, Places]:
    """Return vectors that show a modality's own label, that label, the clips', and groups.

    The clip's label is the mean of the own one and of what another modality says.
    """
    rng = np.random.default_rng(seed)
    own, other = rng.uniform(-3, 3, (2, COUNT))
    direction = rng.standard_normal((2, 8))
    x = np.stack([own, np.abs(own)], axis=1) @ direction
    x += noise * rng.standard_normal(x.shape)
    return x, own, (own + other) / 2, rng.integers(GROUPS, size=COUNT)


@pytest.mark.parametrize("row", [0, 17, 299])
def test_own_label_is_never_asked(row: int) -> None:
    """Nor is any of the clip's group: q of the group stays to the bit, that of others moves."""
    x, _, whole, group = planted(1)
    before = out_of_fold(x, whole, group, seed=1)
    whole = whole.copy()
    whole[row] += 2.0
    after = out_of_fold(x, whole, group, seed=1)
    same = group == group[row]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new[same], old[same], atol=1e-9)
        assert (np.abs(new[~same] - old[~same]) > 1e-9).mean() > 0.5


def test_who_repeats_a_clip_in_another_group_is_heard() -> None:
    """The law above can fail: a twin in another group does move what is said of a clip."""
    x, _, whole, group = planted(1)
    x[1], group[0], group[1] = x[0], 0, 1
    before, _ = out_of_fold(x, whole, group, seed=1)
    whole[1] += 2.0
    after, _ = out_of_fold(x, whole, group, seed=1)
    assert after[0] - before[0] > 0.05


def test_planted_labels_are_recovered() -> None:
    """Nearer to the modality's own than a copy is, in Corr, MAE and the sign of conflicts."""
    x, own, whole, group = planted(2)
    made = generate(x, whole, group, seed=1, limit=3.0)
    assert made.amount == 0.5
    assert np.corrcoef(made.label, own)[0, 1] > np.corrcoef(whole, own)[0, 1] + 0.05
    assert np.abs(made.label - own).mean() < np.abs(whole - own).mean() - 0.1
    conflict = own * whole < 0
    assert conflict.sum() > 40
    assert (np.sign(made.label) == np.sign(own))[conflict].mean() > 0.3


def test_neutral_clips_may_move_and_labels_may_grow() -> None:
    """The release's form allows neither."""
    x, own, whole, group = planted(3)
    whole[:60] = 0.0
    label = generate(x, whole, group, seed=1, limit=3.0).label
    assert np.corrcoef(label[:60], own[:60])[0, 1] > 0.5
    assert (np.abs(label) > np.abs(whole) + 0.05).mean() > 0.2


@pytest.mark.parametrize("seed", range(5))
def test_what_says_nothing_leaves_labels(seed: int) -> None:
    """Noise has hardly any power over people, so labels stay the clips', or nearly."""
    _, _, whole, group = planted(seed)
    x = np.random.default_rng(seed).standard_normal((COUNT, 8))
    made = generate(x, whole, group, seed=1, limit=3.0)
    assert made.power < 0.15
    assert np.abs(made.label - whole).max() < 0.6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 30), st.integers(2, 60))
def test_labels_never_collapse(seed: int, noise: float, groups: int) -> None:
    """They keep nearly sqrt(3/4) of the spread whatever the features: only H cuts them."""
    x, _, whole, group = planted(seed, noise=noise)
    label = generate(x, whole, group % groups, seed=seed, limit=3.0).label
    assert label.std() > 0.8 * whole.std()
    assert np.abs(label).max() <= 3.0
    assert np.isfinite(label).all()


def test_few_groups_mean_a_copy() -> None:
    """Of three people nobody can say how the fourth would be predicted."""
    x, _, whole, group = planted(1)
    made = generate(x, whole, group % 3, seed=1, limit=3.0)
    assert made.power == made.amount == 0
    np.testing.assert_array_equal(made.label, whole)


def test_labels_that_do_not_vary_are_copied() -> None:
    """There is nothing to predict."""
    x, _, whole, group = planted(1)
    made = generate(x, 0 * whole + 1.5, group, seed=1, limit=3.0)
    assert (made.label == 1.5).all()


def test_power_is_judged_by_groups() -> None:
    """The same correlation of fewer people counts less; one against the label counts nothing."""
    rng = np.random.default_rng(1)
    label = rng.standard_normal(400)
    said = label + 2 * rng.standard_normal(400)
    few, many = predictive_power(said, label, 8), predictive_power(said, label, 400)
    assert 0 < few < many <= np.corrcoef(said, label)[0, 1]
    assert predictive_power(-said, label, 400) == 0
    assert predictive_power(said, label, 2) == 0


def clips(groups: int, *, steps: int = 4) -> list[Clip]:
    """Return clips with text and, every second one, voice; the text shows the own label."""
    x, _, whole, group = planted(4)
    rng = np.random.default_rng(1)
    out = []
    for place in range(COUNT):
        text = (x[place] + 0.1 * rng.standard_normal((steps, 8))).astype(np.float32)
        values = {"text": text} | ({"audio": text[:, :3]} if place % 2 else {})
        ticks = {name: np.arange(steps) for name in values}
        out.append(Clip(float(whole[place]), f"v{group[place] % groups}", values, ticks))
    return out


def test_absent_modality_keeps_the_clips_label() -> None:
    """A modality has labels where it is; the vector is mean, and of the voice deviation too."""
    corpus = from_clips(clips(GROUPS))
    vectors = pooled_vectors(corpus)
    assert {name: tuple(v.shape) for name, (v, _) in vectors.items()} == {
        "text": (COUNT, 8),
        "audio": (COUNT // 2, 6),
    }
    torch.testing.assert_close(vectors["audio"][0][0, 3:], corpus.values["audio"][1].std(0, False))
    made = ulag_labels(vectors, corpus.labels, corpus.groups, seed=1, limit=3.0)
    assert made.power.keys() == {"text", "audio"}
    assert torch.equal(made.label[::2, 1], corpus.labels[::2])
    assert torch.equal(made.label[:, 2], corpus.labels)
    assert (made.label[1::2, 1] != corpus.labels[1::2]).all()


def test_one_group_is_refused() -> None:
    """With the remedy."""
    corpus = from_clips(clips(1))
    with pytest.raises(DataError, match=r'two or more speakers.*model\.labels = "none"'):
        ulag_labels(pooled_vectors(corpus), corpus.labels, corpus.groups, seed=1, limit=3.0)
