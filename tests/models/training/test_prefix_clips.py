"""Beginnings of clips: what is there after a few words or steps, and nothing of the rest."""

import numpy as np
import pytest
import torch

from tamulag.models import ModelConfig, TamUlag
from tamulag.models.data.clips import Clip, TextRow
from tamulag.models.data.prefix_texts import spoken
from tamulag.models.text.text_encoder import TextEncoder
from tamulag.models.training.branch_batches import BranchRecipe, stacked
from tamulag.models.training.prefix_clips import BEGINNINGS, prefix_rows, prefix_texts
from tamulag.models.training.train_fusion import PrefixVectors

TEXTS = ["it was not so good", "", "great", "i did not like it at all"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


def texts(*words: str) -> list[TextRow]:
    return [TextRow(text, float(n), "v") for n, text in enumerate(words)]


def voices(model: TamUlag, lengths: list[int]) -> tuple[list[Clip], BranchRecipe]:
    """Return clips of random features and a recipe that takes them as they are."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(n, model.config.audio.dim)).astype(np.float32) for n in lengths]
    clips = [
        Clip(float(n), "", {"audio": v}, {"audio": np.arange(len(v))}) for n, v in enumerate(values)
    ]
    return clips, BranchRecipe(train=[], valid=[], data="", epochs=1)


def whole(begun: PrefixVectors) -> torch.Tensor:
    """Return the most steps of each clip that are in it."""
    most = torch.zeros(int(begun.clip.max()) + 1, dtype=torch.int64)
    return most.scatter_reduce(0, begun.clip, begun.heard, "amax")


def test_only_the_words_that_were_heard_are_encoded(encoder: TextEncoder) -> None:
    """No later word is in the states of a sentence that is cut."""
    one, none = spoken(encoder, texts("it was not so good", "great"), [2, 0])
    np.testing.assert_allclose(one.values["text"], encoder.encode(["it", "was"])[0], atol=1e-5)
    assert none.values == {}


def test_texts_come_whole_and_begun(encoder: TextEncoder) -> None:
    """Empty ones are not counted; each keeps its label and its corpus."""
    model = TamUlag(ModelConfig())
    corpora = [texts(*TEXTS), texts("so bad")]
    found = prefix_texts(model.text, encoder, corpora, np.random.default_rng(0))
    assert found.clip.bincount().tolist() == [1 + BEGINNINGS] * 4
    assert found.label.tolist() == [[0.0, 2.0, 3.0, 0.0][n] for n in found.clip.tolist()]
    assert found.source.tolist() == [int(n == 3) for n in found.clip.tolist()]
    full = [len(states) for states in encoder.encode_batch([TEXTS[0], *TEXTS[2:], "so bad"])]
    assert whole(found).tolist() == found.heard[:4].tolist() == full
    assert found.heard.min() < 3


def test_beginnings_of_voices_are_of_any_length(model: TamUlag) -> None:
    """From one step up to all; the vector is that of the cut clip alone."""
    clips, recipe = voices(model, [40, 9])
    rows = stacked(clips, "audio")
    found = prefix_rows(model.audio, rows, recipe, np.random.default_rng(0))
    assert found.heard[:2].tolist() == whole(found).tolist() == [40, 9]
    assert found.heard.min() >= 1
    row = int(found.heard[2:].argmin()) + 2
    place, count = int(found.clip[row]), int(found.heard[row])
    cut = Clip(
        0.0, "", {"audio": clips[place].values["audio"][:count]}, {"audio": np.arange(count)}
    )
    alone = prefix_rows(
        model.audio, stacked([cut, clips[0]], "audio"), recipe, np.random.default_rng(0)
    )
    torch.testing.assert_close(found.context[row], alone.context[0])


def test_a_picture_is_drawn_out(model: TamUlag) -> None:
    """A still picture is there for as long as the recipe says, or shorter."""
    picture = np.ones((1, model.config.vision.dim), np.float32)
    rows = stacked([Clip(1.0, "", {"vision": picture}, {"vision": np.arange(1)})] * 9, "vision")
    recipe = BranchRecipe(train=[], valid=[], data="", epochs=1, still=7)
    found = prefix_rows(model.vision, rows, recipe, np.random.default_rng(0))
    assert set(found.heard.tolist()) == set(range(1, 8))
