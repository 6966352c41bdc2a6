"""The scale that comes with a score: where it grows, and between which bounds it stays."""

import pytest
import torch
from torch import Tensor

from tamulag.models.nn.scale import LARGEST, SMALLEST, Scales

SIZES = (4, 6)
UNITS = (slice(0, 4), slice(4, 10))


def scales(*, unlike: float = 0.0, heard: float = 0.0, direction: float = 0.0) -> Scales:
    """Return scales whose contexts of training had mean 0 and deviation 1."""
    made = Scales(SIZES)
    with torch.no_grad():
        made.bias.fill_(-1.0)
        made.limit.fill_(2.0)
        made.unlike.fill_(unlike)
        made.heard.fill_(heard)
        made.direction.fill_(direction)
    return made


def scale(made: Scales, place: int, context: Tensor, steps: int = 1) -> float:
    """Return the scale of one modality; of the other there is nothing."""
    contexts = [torch.zeros(1, 1, size) for size in SIZES]
    weights = [torch.zeros(1, 1, 30) for _ in SIZES]
    contexts[place] = context.expand(1, 1, -1)
    weights[place][..., :steps] = 1 / steps
    return float(made(contexts, weights)[0, 0, place].detach())


def test_at_first_it_is_one() -> None:
    """Until it is fitted nothing is changed by it."""
    assert scale(Scales(SIZES), 0, torch.full((4,), 1e3)) == pytest.approx(1.0)


@pytest.mark.parametrize("place", [0, 1])
def test_it_grows_with_what_is_unlike_training(place: int) -> None:
    """By what was fitted; and beyond the limit even where nothing was."""
    along = torch.linspace(0.5, 2.0, 4).unsqueeze(1) * torch.ones(SIZES[place])
    fitted = [scale(scales(unlike=0.5), place, x) for x in along]
    assert fitted == sorted(fitted)
    assert len(set(fitted)) == 4
    near, limit, far, farther = (
        scale(scales(), place, torch.full((SIZES[place],), x)) for x in (0.0, 2.5, 4.0, 6.0)
    )
    assert near == limit < far < farther


def test_far_out_it_grows_whatever_direction_was_learned() -> None:
    """A direction that made it smaller among the clips of training has no say beyond them."""
    made = scales(direction=-1.0)
    near, far = scale(made, 0, torch.full((4,), 1.0)), scale(made, 0, torch.full((4,), 8.0))
    assert near < scale(scales(), 0, torch.full((4,), 1.0))
    assert far > scale(made, 0, torch.zeros(4))


def test_it_grows_while_little_was_heard() -> None:
    """It falls with each state that has a share in the context."""
    found = [scale(scales(heard=0.3), 0, torch.zeros(4), steps) for steps in (1, 2, 10, 30)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


def test_it_stays_within_its_bounds() -> None:
    """Whatever comes."""
    made = scales(unlike=2.0)
    assert scale(made, 0, torch.full((4,), 1e6)) == LARGEST
    with torch.no_grad():
        made.bias.fill_(-30.0)
    assert scale(made, 0, torch.zeros(4)) == pytest.approx(SMALLEST)


def test_a_modality_does_not_see_the_others() -> None:
    """Its numbers, its units and its states alone."""
    made = scales(unlike=1.0, heard=0.2, direction=0.5)
    contexts, weights = [torch.randn(1, 1, n) for n in SIZES], [torch.rand(1, 1, 9) for _ in SIZES]
    before = made(contexts, weights)[..., 0]
    after = made([contexts[0], contexts[1] * 5], [weights[0], weights[1][..., :2]])[..., 0]
    torch.testing.assert_close(after, before)
