"""Measure how long the text of an utterance takes to be encoded and scored again, as live.

Knows a checkpoint's text encoder and text branch. Knows no stream and no recogniser.
"""

import time
from typing import NamedTuple

import numpy as np
import torch

from ..nn.branch import Branch
from ..nn.encoder import Ticks
from ..runtime.checkpoint import load
from ..text.text_encoder import TextEncoder, encoder_for

LENGTHS = (5, 10, 17, 33, 64)
"""Tokens; 17 is a usual sentence, of more than 64 the last 64 are encoded."""
WORD = "good"
"""One token in each of the text encoders; which word it is changes nothing about the time."""
WARMUP = 5


class TextLatency(NamedTuple):
    """Updates of one length, in milliseconds."""

    tokens: int
    median_ms: float
    p95_ms: float
    cpu_ms: float
    """Median processor time: what other programs add is not in it."""


def text_updates(checkpoint: str = "default", *, updates: int = 100) -> list[TextLatency]:
    """Time text updates of each length on one thread; torch is left with one thread.

    An update is the words of an utterance through the encoder, and its token states through the
    text branch from the state at the utterance's start.

    Args:
        checkpoint: Name or path.
        updates: Timed per length, at least 1.

    Raises:
        CheckpointError: If the checkpoint or its text encoder cannot be used.
    """
    torch.set_num_threads(1)
    branch: Branch = load(checkpoint)[0].text
    encoder = encoder_for(checkpoint)
    return [_row(encoder, branch, [WORD] * tokens, updates) for tokens in LENGTHS]


def _row(encoder: TextEncoder, branch: Branch, words: list[str], updates: int) -> TextLatency:
    for _ in range(WARMUP):
        update(encoder, branch, words)
    wall, cpu = [], []
    for _ in range(updates):
        begin, busy = time.perf_counter(), time.process_time()
        tokens = update(encoder, branch, words)
        wall.append(1000 * (time.perf_counter() - begin))
        cpu.append(1000 * (time.process_time() - busy))
    return TextLatency(
        tokens, float(np.median(wall)), float(np.percentile(wall, 95)), float(np.median(cpu))
    )


@torch.inference_mode()
def update(encoder: TextEncoder, branch: Branch, words: list[str]) -> int:
    """Encode and score the words of one utterance; return the number of tokens."""
    states = torch.from_numpy(encoder.encode(words)[0])[None]
    at = torch.zeros(states.shape[:2], dtype=torch.int64)
    ticks = Ticks(states, torch.ones_like(at, dtype=torch.bool), at, at)
    pooled, _ = branch.step(ticks, torch.ones(1, 1, dtype=torch.int64), branch.initial_state(1))
    branch.head(pooled.context)
    return states.shape[1]
