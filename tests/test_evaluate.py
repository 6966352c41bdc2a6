"""A checkpoint is measured on a CSV of texts as it would score them live."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tamulag.models import MODALITIES, ModelConfig, TamUlag, load
from tamulag.models.checkpoint import SHIPPED, Card, CheckpointError, save
from tamulag.models.data import DataError
from tamulag.models.evaluate import evaluate_texts, score_texts
from tamulag.models.text import TextEncoder

TEXTS = ["great", "i did not like it at all", "", "well it was a movie", "so " * 100]
KEYS = ("n", "MAE", "Corr", "Acc2_has0", "Acc2_non0", "F1_has0", "F1_non0", "Acc7")


@pytest.fixture(scope="module")
def states() -> list[np.ndarray]:
    return TextEncoder().encode_batch(TEXTS)


def random_model() -> TamUlag:
    torch.manual_seed(0)
    return TamUlag(ModelConfig()).eval()


def checkpoint(folder: Path, *, trained: bool = True) -> str:
    path = folder / "random.safetensors"
    save(random_model(), Card(trained=dict.fromkeys(("sentiment", *MODALITIES), trained)), path)
    return str(path)


def table(folder: Path, *rows: str) -> Path:
    path = folder / "texts.csv"
    path.write_text("text,label\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_figures_are_those_of_the_scores(tmp_path: Path, states: list[np.ndarray]) -> None:
    """End to end, the CSV's texts are scored by the checkpoint's text head."""
    labels = [2.0, -1.5, 0.0, 0.5, 1.0]
    path = table(tmp_path, *(f"{t},{v}" for t, v in zip(TEXTS, labels, strict=True)))
    seen: list[int] = []
    figures = evaluate_texts(path, checkpoint(tmp_path), seen.append)
    assert tuple(figures) == KEYS
    assert (figures["n"], seen) == (5, [5])
    errors = np.abs(score_texts(random_model(), states) - labels)
    assert figures["MAE"] == pytest.approx(errors.mean(), abs=1e-5)


def test_text_alone_scores_as_in_a_batch(states: list[np.ndarray]) -> None:
    """Neighbours and padding do not change a score."""
    model = random_model()
    alone = np.concatenate([score_texts(model, [state]) for state in states])
    np.testing.assert_allclose(score_texts(model, states), alone, atol=1e-5)


def test_every_word_counts(states: list[np.ndarray]) -> None:
    """Also the longest text lies in one window: its first token changes the score."""
    model, longest = random_model(), states[-1]
    assert len(longest) == 64
    assert score_texts(model, [longest])[0] != score_texts(model, [longest[1:]])[0]


def test_untrained_text_head_is_refused(tmp_path: Path) -> None:
    """No figure is given for random numbers."""
    with pytest.raises(CheckpointError, match=r"random\.safetensors: its text head is untrained"):
        evaluate_texts(table(tmp_path, "fine,1"), checkpoint(tmp_path, trained=False), print)


def test_table_without_rows_is_refused(tmp_path: Path) -> None:
    """The message names the file and what it needs."""
    with pytest.raises(DataError, match=r"texts\.csv has no rows: expected"):
        evaluate_texts(table(tmp_path), checkpoint(tmp_path), print)


def test_unknown_checkpoint_is_refused(tmp_path: Path) -> None:
    """A wrong name is told before the text encoder is loaded."""
    with pytest.raises(CheckpointError, match="'nonesuch' not found"):
        evaluate_texts(table(tmp_path, "fine,1"), "nonesuch", print)


@pytest.mark.data
def test_shipped_checkpoint_reads_sentiment(data: Path) -> None:
    """On the validation rows of CMU-MOSI it is far better than guessing (MAE 1.3, Corr 0)."""
    if not (SHIPPED / "default.safetensors").is_file():
        pytest.skip("no shipped checkpoint: run tamulag train --config configs/train/default.toml")
    assert load("default")[1].trained["text"]
    figures = evaluate_texts(data / "mosi" / "valid.csv", "default", lambda _: None)
    assert figures["n"] == 229
    assert figures["MAE"] < 1.0
    assert figures["Corr"] > 0.65
