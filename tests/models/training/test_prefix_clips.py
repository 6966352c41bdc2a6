"""Prefixes of clips: a few words or steps, and nothing of the rest."""

import numpy as np
import pytest
import torch

from tamulag.models import ModelConfig, TamUlag
from tamulag.models.data.clips import Clip, TextRow
from tamulag.models.data.corpus import Corpus, from_clips
from tamulag.models.data.prefix_texts import encode_prefixes
from tamulag.models.text.text_encoder import TextEncoder
from tamulag.models.training.prefix_clips import PREFIXES, prefix_vectors, text_prefix_vectors
from tamulag.models.training.train_fusion import PrefixVectors

TEXTS = ["it was not so good", "", "great", "i did not like it at all"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


def texts(*words: str) -> list[TextRow]:
    return [TextRow(text, float(n), "v") for n, text in enumerate(words)]


def voices(model: TamUlag, lengths: list[int]) -> Corpus:
    """Return clips of random features."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(n, model.config.audio.dim)).astype(np.float32) for n in lengths]
    return from_clips(
        [
            Clip(float(n), "", {"audio": v}, {"audio": np.arange(len(v))})
            for n, v in enumerate(values)
        ]
    )


def whole(found: PrefixVectors) -> torch.Tensor:
    """Return the most steps of each clip that are in it."""
    most = torch.zeros(int(found.clip.max()) + 1, dtype=torch.int64)
    return most.scatter_reduce(0, found.clip, found.steps, "amax")


def test_only_the_words_of_a_prefix_are_encoded(encoder: TextEncoder) -> None:
    """No later word is in the states of a sentence that is cut."""
    one, none = encode_prefixes(encoder, texts("it was not so good", "great"), [2, 0])
    np.testing.assert_allclose(one.values["text"], encoder.encode(["it", "was"])[0], atol=1e-5)
    assert none.values == {}


def test_texts_come_whole_and_cut(encoder: TextEncoder) -> None:
    """Empty ones are not counted; each keeps its label and its corpus."""
    model = TamUlag(ModelConfig())
    corpora = [texts(*TEXTS), texts("so bad")]
    found = text_prefix_vectors(model.text, encoder, corpora, np.random.default_rng(0))
    assert found.clip.bincount().tolist() == [1 + PREFIXES] * 4
    assert found.label.tolist() == [[0.0, 2.0, 3.0, 0.0][n] for n in found.clip.tolist()]
    assert found.source.tolist() == [int(n == 3) for n in found.clip.tolist()]
    full = [len(states) for states in encoder.encode_batch([TEXTS[0], *TEXTS[2:], "so bad"])]
    assert whole(found).tolist() == found.steps[:4].tolist() == full
    assert found.steps.min() < 3


def test_prefixes_of_voices_are_of_any_length(model: TamUlag) -> None:
    """From one step up to all; the vector is that of the cut clip alone."""
    corpus = voices(model, [40, 9])
    found = prefix_vectors(model.audio, "audio", corpus, 0, np.random.default_rng(0))
    assert found.steps[:2].tolist() == whole(found).tolist() == [40, 9]
    assert found.steps.min() >= 1
    row = int(found.steps[2:].argmin()) + 2
    place, count = int(found.clip[row]), int(found.steps[row])
    cut = corpus.select([place, 0]).first("audio", [count, 40])
    alone = prefix_vectors(model.audio, "audio", cut, 0, np.random.default_rng(0))
    torch.testing.assert_close(found.context[row], alone.context[0])


def test_a_picture_is_repeated(model: TamUlag) -> None:
    """A still picture is there for the length of the recipe, or shorter."""
    picture = np.ones((1, model.config.vision.dim), np.float32)
    corpus = from_clips([Clip(1.0, "", {"vision": picture}, {"vision": np.arange(1)})] * 9)
    found = prefix_vectors(model.vision, "vision", corpus, 7, np.random.default_rng(0))
    assert set(found.steps.tolist()) == set(range(1, 8))
