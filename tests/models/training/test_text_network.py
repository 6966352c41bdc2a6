"""The text encoder with its branch: padding does not count, rates rise and fall."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tamulag.models import ModelConfig, TamUlag
from tamulag.models.text.text_encoder import TextEncoder
from tamulag.models.training.heads_recipe import TuneRecipe
from tamulag.models.training.text_network import (
    TextNet,
    evaluate,
    factor,
    start_run,
    train_epoch,
)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


def test_a_sentence_alone_equals_the_same_in_a_batch(encoder: TextEncoder) -> None:
    """Padding does not count."""
    torch.manual_seed(0)
    net = TextNet(encoder, TamUlag(ModelConfig()).text)
    rows = [(["a", "very", "good", "and", "rather", "long", "film"], 1.0), (["bad"], -1.0)]
    together = evaluate(net, encoder, rows)["MAE"]
    alone = np.mean([evaluate(net, encoder, [row])["MAE"] for row in rows])
    assert together == pytest.approx(alone, abs=1e-5)


def test_rates_rise_and_fall() -> None:
    """From a tenth of ten steps to the whole, then along a cosine to nothing."""
    rates = [factor(step, 20, 0.5) for step in range(21)]
    assert rates[:11] == pytest.approx([*(step / 10 for step in range(1, 11)), 1.0])
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[20] == pytest.approx(0.0)


def test_an_epoch_reports_each_sentence(encoder: TextEncoder) -> None:
    """In the last call all are done, and the loss is that of their labels."""
    recipe = TuneRecipe(
        train=[], valid=[], data="", layers=1, batch=2, head_rate=1e-9, encoder_rate=1e-9
    )
    run = start_run(TextNet(encoder, TamUlag(ModelConfig()).text), recipe, 9)
    rows = [(["good"], 3.0), (["so", "so"], 3.0), (["fine", "film"], 3.0)]
    calls: list[tuple[str, int, int]] = []

    def progress(work: str, done: int, total: int) -> None:
        calls.append((work, done, total))

    loss = train_epoch(run, encoder, rows, recipe, np.random.default_rng(0), progress, "epoch 1/1")
    assert calls[-1] == ("epoch 1/1", 3, 3)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert loss == pytest.approx(3.0, abs=1.0)
