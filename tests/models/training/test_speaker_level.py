"""The running level after other clips of the same speaker."""

import numpy as np
import pytest
import torch

from tamulag.models.nn.encoder import Encoder
from tamulag.models.training.speaker_level import SpeakerLevels

GROUPS = ["ann", "ann", "ben", "ann", "cid"]


@pytest.fixture
def clips() -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    shapes = [(length, 3) for length in (4, 6, 5, 3, 7)]
    return [torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


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


def test_level_is_that_of_a_session_after_the_clips(
    clips: list[torch.Tensor], encoder: Encoder
) -> None:
    """As if the speaker's other clips had gone through the encoder, in one order or the other."""
    first, _, _, last, _ = clips
    level = SpeakerLevels(encoder, clips, GROUPS).levels(
        np.array([1]), np.array([9]), np.random.default_rng(0)
    )[0]
    orders = (after(encoder, first, last), after(encoder, last, first))
    assert any(torch.allclose(level, order) for order in orders)


def test_level_of_a_speaker_without_other_clips_is_the_initial_one(
    clips: list[torch.Tensor], encoder: Encoder
) -> None:
    """Neither the clip itself nor other speakers count."""
    speakers = SpeakerLevels(encoder, clips, GROUPS)
    levels = speakers.levels(np.array([2, 4, 0]), np.array([8, 8, 0]), np.random.default_rng(0))
    torch.testing.assert_close(levels, encoder.initial_state(3).level)
