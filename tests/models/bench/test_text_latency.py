"""Timing of text updates."""

import torch

from tamulag.models.bench.text_latency import LENGTHS, text_updates, update
from tamulag.models.runtime.checkpoint import load
from tamulag.models.text.text_encoder import encoder_for


def test_each_length_is_timed_with_that_many_tokens() -> None:
    """One row per length; a long update takes more processor time than a short one."""
    rows = text_updates(updates=3)
    assert [row.tokens for row in rows] == list(LENGTHS)
    assert all(0 < row.median_ms <= row.p95_ms for row in rows)
    assert rows[-1].cpu_ms > rows[0].cpu_ms


def test_update_is_of_the_words_that_are_given() -> None:
    """Its tokens are those of the words, and gradients stay on."""
    encoder, branch = encoder_for("default"), load("default")[0].text
    assert update(encoder, branch, ["not", "so", "good"]) == 3
    assert torch.is_grad_enabled()
