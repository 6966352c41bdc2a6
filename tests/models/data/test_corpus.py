"""The container of clips: what each is of stays with it, and what cannot be used is refused."""

from pathlib import Path

import numpy as np
import pytest

from support.learnable_data import write
from tamulag.models.data.clips import Clip, DataError
from tamulag.models.data.corpus import Corpus, from_clips, from_packed
from tamulag.models.data.mmsa_pickle import read_packed


def corpus() -> Corpus:
    """Return five clips of two corpora and three speakers, labelled by their place."""
    clips = []
    for place, (group, name) in enumerate(zip("abacb", "xxyyy", strict=True)):
        values = {"audio": np.full((place + 1, 2), place, np.float32)}
        ticks = {"audio": np.arange(place + 1)}
        clips.append(Clip(float(place), group, values, ticks, corpus=name, mode="train"))
    return from_clips(clips)


def test_chosen_clips_bring_everything_along() -> None:
    """By places or by a mask: values, labels, speaker, corpus and mode."""
    for rows in ([1, 3], [False, True, False, True, False]):
        chosen = corpus().select(rows)
        assert chosen.labels.tolist() == [1.0, 3.0]
        assert (chosen.groups, chosen.corpora) == (["b", "c"], ["x", "y"])
        assert chosen.modes == ["train"] * 2
        assert [len(values) for values in chosen.values["audio"]] == [2, 4]
        assert [len(ticks) for ticks in chosen.ticks["audio"]] == [2, 4]


def test_speakers_and_corpora_are_left_out_alike() -> None:
    """What a cross-validation needs: the others, and those that are left out."""
    others, ours = corpus().without(["a", "c"])
    assert (others.groups, ours.groups) == (["b", "b"], ["a", "a", "c"])
    others, ours = corpus().without(["y"], by="corpora")
    assert (others.labels.tolist(), ours.labels.tolist()) == ([0.0, 1.0], [2.0, 3.0, 4.0])


def test_prefixes_have_the_first_steps() -> None:
    """Labels and other clips stay."""
    cut = corpus().first("audio", [1, 1, 2, 2, 9])
    assert cut.lengths()[:, 1].tolist() == [1, 1, 2, 2, 5]
    assert cut.labels.tolist() == corpus().labels.tolist()


def test_other_modalities_can_be_left_out() -> None:
    """A branch that is trained alone holds no memory for the rest."""
    steps = np.ones((2, 3), np.float32)
    both = Clip(
        1.0, "a", {"text": steps, "audio": steps}, dict.fromkeys(("text", "audio"), np.arange(2))
    )
    assert from_clips([both], ["audio"]).values.keys() == {"audio"}


def test_tokens_are_chosen_too(tmp_path: Path) -> None:
    """They stand beside the clips' values."""
    split = read_packed(write(tmp_path))["train"]
    whole = from_packed(split, tokens=True, vocabulary=30522)
    assert whole.tokens is not None
    chosen = whole.select([2])
    assert chosen.tokens is not None
    assert chosen.tokens[0] is whole.tokens[2]


def test_vectors_of_two_lengths_are_refused() -> None:
    """The message has both."""
    both = [
        Clip(0, "a", {"text": np.ones((1, n), np.float32)}, {"text": np.zeros(1, np.int64)})
        for n in (2, 3)
    ]
    with pytest.raises(DataError, match=r"\[2, 3\]"):
        from_clips(both)


def test_ids_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    """With the size of the one that there is."""
    split = read_packed(write(tmp_path))["train"]
    with pytest.raises(DataError, match="500 word pieces"):
        from_packed(split, tokens=True, vocabulary=500)
