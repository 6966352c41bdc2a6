"""MPNet out of our own layers: transformers' numbers, without transformers."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from support.small_mpnet import LAYERS, SIZE, small_mpnet
from tamulag.models.nn.errors import TextEncoderError
from tamulag.models.runtime.checkpoint import MPNET
from tamulag.models.text import mpnet
from tamulag.models.text.mpnet_pieces import joined_folder
from tamulag.models.text.text_encoder import TextEncoder

WORDS = ["i", "did", "not", "like", "it", "she", "was", "wonderful", "unreal"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_mpnet(tmp_path_factory.mktemp("mpnet"))


def test_states_are_those_of_the_network_that_is_trained(folder: Path) -> None:
    """Both run the same weights, one rounding apart, up to the longest text."""
    encoder = TextEncoder(folder, name=MPNET)
    texts = [WORDS[:1], WORDS, WORDS * 8]
    quick = [encoder.encode(words)[0] for words in texts]
    assert [states.shape for states in quick] == [(1, SIZE), (10, SIZE), (64, SIZE)]
    assert encoder.network.training is False
    for words, states in zip(texts, quick, strict=True):
        np.testing.assert_allclose(states, encoder.encode(words)[0], atol=1e-5)


def test_place_and_order_of_words_count(folder: Path) -> None:
    """Else the two could agree because neither biases nor places are used."""
    encoder = TextEncoder(folder, name=MPNET)
    there, back = encoder.encode(["good", "so"])[0], encoder.encode(["so", "good"])[0]
    assert abs(there - back[::-1]).max() > 1e-2


def test_batch_equals_one_by_one(folder: Path) -> None:
    """Texts of one length go through together."""
    encoder = TextEncoder(folder, name=MPNET)
    texts = ["good film", "", "so bad", "i did not like it", "very"]
    for text, values in zip(texts, encoder.encode_batch(texts), strict=True):
        np.testing.assert_allclose(values, encoder.encode(text.split())[0], atol=1e-5)


def test_names_are_those_of_the_network(folder: Path) -> None:
    """No weight is forgotten, and none is left over."""
    network = TextEncoder(folder, name=MPNET).network
    assert mpnet.names(LAYERS) == set(network.state_dict())


def test_buckets_are_those_of_transformers() -> None:
    """Near distances have one each, later tokens another half, far ones the last."""
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(-200, 201)
    bucket: Callable[..., torch.Tensor] = MPNetEncoder.relative_position_bucket
    wanted = bucket(distances, num_buckets=32)
    assert torch.equal(mpnet.buckets(distances, 32), wanted)
    assert mpnet.buckets(torch.tensor([0, -1, 1, -7, -200, 200]), 32).tolist() == [
        *(0, 1, 17, 7, 15, 31)
    ]


def test_loading_leaves_the_seed_alone(folder: Path) -> None:
    """Neither network draws from the caller's random numbers."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert TextEncoder(folder, name=MPNET).network is not None
    assert torch.equal(torch.rand(1), expected)


def test_who_only_encodes_imports_no_transformers(folder: Path) -> None:
    """Their import takes longer than all else at a start."""
    code = (
        "import sys; from pathlib import Path; "
        "from tamulag.models.text.text_encoder import TextEncoder; "
        f"TextEncoder(Path({str(folder)!r}), name={MPNET!r}).encode(['good']); "
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.fixture(scope="module")
def real() -> TextEncoder:
    try:
        return TextEncoder(name=MPNET)
    except TextEncoderError as error:
        pytest.skip(str(error))


def test_the_packaged_weights_give_the_numbers_of_transformers(real: TextEncoder) -> None:
    """768 values a token, tokens as its own tokenizer has them, within 1e-5."""
    words = ["Unbelievably", "good", ",", "I", "didn't", "expect", "it", "!"]
    states, word_of_token = real.encode(words)
    assert states.shape == (len(word_of_token), real.size) == (14, 768)
    assert sorted(set(word_of_token)) == list(range(8))
    folder = joined_folder()
    from transformers import AutoTokenizer, MPNetModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert real.framed(real.tokens(words)[0]) == tokenizer(" ".join(words))["input_ids"]
    with torch.inference_mode():
        network = MPNetModel.from_pretrained(folder, add_pooling_layer=False).train(False)
        ids = torch.tensor([real.framed(real.tokens(words)[0])])
        wanted = network(input_ids=ids).last_hidden_state[0, 1:-1]
    np.testing.assert_allclose(states, wanted, atol=1e-5)
