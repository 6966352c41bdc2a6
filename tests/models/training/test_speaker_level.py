"""The running level after other clips of the same speaker."""

import numpy as np
import pytest
import torch

from tamulag.models.data.clips import Clip
from tamulag.models.nn.encoder import Encoder
from tamulag.models.training.branch_batches import Rows, stacked
from tamulag.models.training.speaker_level import SpeakerLevels

GROUPS = ["ann", "ann", "ben", "ann", "cid"]


@pytest.fixture
def rows() -> Rows:
    rng = np.random.default_rng(0)
    shapes = [(length, 3) for length in (4, 6, 5, 3, 7)]
    values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return stacked(
        [
            Clip(0.0, group, {"audio": v}, {"audio": np.arange(len(v))})
            for group, v in zip(GROUPS, values, strict=True)
        ],
        "audio",
    )


@pytest.fixture
def encoder() -> Encoder:
    encoder = Encoder(dim=3, hidden=2, layers=1, centred=2, horizon=9).eval()
    encoder.level.fill_(0.5)
    return encoder


def after(encoder: Encoder, *clips: torch.Tensor) -> torch.Tensor:
    """Return the level after clips that really went through."""
    level = encoder.initial_state(1).level
    for clip in clips:
        level = encoder.centre(clip[None], level)[1]
    return level[0]


def test_level_is_that_of_a_session_that_heard_the_clips(rows: Rows, encoder: Encoder) -> None:
    """As if the speaker's other clips had gone through the encoder, in one order or the other."""
    first, _, _, last, _ = rows.values
    level = SpeakerLevels(encoder, rows).levels(
        np.array([1]), np.array([9]), np.random.default_rng(0)
    )[0]
    orders = (after(encoder, first, last), after(encoder, last, first))
    assert any(torch.allclose(level, order) for order in orders)


def test_level_of_one_who_said_nothing_else_is_the_initial_one(
    rows: Rows, encoder: Encoder
) -> None:
    """Neither the clip itself nor other speakers are heard."""
    heard = SpeakerLevels(encoder, rows)
    levels = heard.levels(np.array([2, 4, 0]), np.array([8, 8, 0]), np.random.default_rng(0))
    torch.testing.assert_close(levels, encoder.initial_state(3).level)
