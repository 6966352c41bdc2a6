"""Clips become batches: each once, little padding, nothing invented."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.learnable_data import SHAPES, write
from tamulag.models.data.batches import collate, cost, shortened, shuffled_batches, windows
from tamulag.models.data.clips import Clip
from tamulag.models.data.corpus import Corpus, from_clips, from_packed
from tamulag.models.data.mmsa_pickle import read_packed

VOCABULARY = 30522


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Corpus]:
    """Return the training rows with the states of text, and with its tokens."""
    split = read_packed(write(tmp_path_factory.mktemp("batches")))["train"]
    return [from_packed(split, tokens=t, vocabulary=VOCABULARY) for t in (False, True)]


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=150),
    st.integers(1, 9),
    st.integers(1, 5),
    st.booleans(),
)
@settings(max_examples=60)
def test_each_clip_comes_once_per_epoch(
    lengths: list[int], batch: int, accumulate: int, sort: bool
) -> None:
    """No batch is left over, none is over its size, no step has more than its batches."""
    rng = np.random.default_rng(1)
    steps = list(windows(np.array(lengths), batch, accumulate, rng, sort=sort))
    rows = [row for parts in steps for part in parts for row in part]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(1 <= len(part) <= batch for parts in steps for part in parts)
    assert all(len(parts) <= accumulate for parts in steps)


def test_sorting_keeps_the_clips_of_a_step() -> None:
    """So the gradient of a step is the same; only what is padded differs."""
    lengths = np.random.default_rng(0).integers(1, 50, 100)
    sorted_, drawn = (
        [
            np.sort(np.concatenate(parts))
            for parts in windows(lengths, 8, 4, np.random.default_rng(1), sort=sort)
        ]
        for sort in (True, False)
    )
    assert all((a == b).all() for a, b in zip(sorted_, drawn, strict=True))


@given(
    st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=30),
    st.floats(0, 1),
    st.floats(0, 1),
)
@settings(max_examples=60)
def test_a_clip_never_loses_everything(
    rows: list[tuple[int, int, int]], drop: float, prefix: float
) -> None:
    """What was there stays in one modality at least, and nothing grows."""
    lengths = np.array(rows)
    left = shortened(lengths, np.random.default_rng(1), drop=drop, prefix=prefix)
    assert ((left > 0).any(axis=1) == (lengths > 0).any(axis=1)).all()
    assert (left <= lengths).all()
    assert (left >= 0).all()


def test_variation_happens_as_often_as_asked() -> None:
    """A third loses a modality, a half is cut."""
    lengths = np.full((4000, 3), 40)
    dropped = shortened(lengths, np.random.default_rng(1), drop=1 / 3)
    assert (dropped == 0).any(axis=1).mean() == pytest.approx(1 / 3, abs=0.03)
    cut = shortened(lengths, np.random.default_rng(1), prefix=0.5)
    assert (cut[:, 0] < 40).mean() == pytest.approx(0.5, abs=0.04)
    assert (shortened(lengths, np.random.default_rng(1)) == lengths).all()


def test_batch_is_trimmed_to_its_longest(corpora: Sequence[Corpus]) -> None:
    """Nothing of the file's padding is left, and masks have the true lengths."""
    corpus = corpora[0]
    rows = np.argsort(cost(corpus))[:5]
    lengths = corpus.lengths()[rows]
    batch = collate(corpus, rows)
    for place, name in enumerate(SHAPES):
        assert batch.ticks[name].mask.shape[1] == lengths[:, place].max()
        assert batch.ticks[name].mask.sum(dim=1).tolist() == lengths[:, place].tolist()
    assert batch.now[:, 0].tolist() == lengths.max(axis=1).tolist()
    assert batch.labels.tolist() == corpus.labels[rows].tolist()


def test_padding_to_the_full_length_is_possible(corpora: Sequence[Corpus]) -> None:
    """As the field's framework does it, for comparison."""
    full = {name: steps for name, (steps, _) in SHAPES.items()}
    for corpus in corpora:
        rows = np.array([3])
        batch = collate(corpus, rows, full=full)
        assert {name: t.mask.shape[1] for name, t in batch.ticks.items()} == full
        if batch.tokens is not None:
            assert batch.tokens.ids.shape[1] == full["text"]


def test_cut_sentence_keeps_its_frame(corpora: Sequence[Corpus]) -> None:
    """[CLS], the first words, [SEP]; without a word nothing of text is there."""
    corpus = corpora[1]
    row = int(corpus.lengths()[:, 0].argmax())
    whole = corpus.tokens[row] if corpus.tokens else torch.zeros(0)
    left = np.array([[2, 1, 1], [0, 1, 1]])
    batch = collate(corpus, np.array([row, row]), left)
    assert batch.tokens is not None
    assert batch.tokens.ids[0].tolist() == [101, *whole[1:3].tolist(), 102]
    assert batch.tokens.mask.sum(dim=1).tolist() == [4, 2]
    assert batch.ticks["text"].mask.sum(dim=1).tolist() == [4, 0]
    plain = collate(corpus, np.array([row, row]), left, special=False).ticks["text"].mask
    assert plain.tolist() == [[False, True, True, False], [False] * 4]


def test_clips_may_lack_modalities() -> None:
    """Each has what it has; what no clip has is not there."""
    one = np.ones((3, 2), np.float32)
    ticks = np.arange(3)
    clips = [Clip(1.0, "a", {"text": one}, {"text": ticks}), Clip(0.0, "b", {}, {})]
    corpus = from_clips([*clips, Clip(-1.0, "c", {"audio": one}, {"audio": ticks * 2})])
    assert corpus.lengths().tolist() == [[3, 0, 0], [0, 0, 0], [0, 3, 0]]
    batch = collate(corpus, np.arange(3))
    assert batch.now[:, 0].tolist() == [3, 1, 5]
    assert set(batch.ticks) == {"text", "audio"}


def test_shuffled_batches_hold_each_row_once() -> None:
    """Nothing is dropped, nothing is repeated, and lengths inside a batch are similar."""
    lengths = np.random.default_rng(1).integers(1, 60, 500)
    found = list(shuffled_batches(lengths.tolist(), 16, np.random.default_rng(0)))
    assert sorted(np.concatenate(found)) == list(range(500))
    spread = np.mean([np.ptp(lengths[rows]) for rows in found])
    assert spread < 0.25 * np.ptp(lengths)


def test_shuffled_batches_come_in_another_order_each_time() -> None:
    """The draw is random, and the same for the same stream of random numbers."""
    lengths = list(range(100))
    streams = (np.random.default_rng(seed) for seed in (0, 0, 1))
    draw = [next(shuffled_batches(lengths, 10, rng)).tolist() for rng in streams]
    assert draw[0] == draw[1] != draw[2]
