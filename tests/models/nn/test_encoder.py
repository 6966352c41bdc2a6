"""The recurrent encoder: each valid tick once, nothing from a masked one, state as a value."""

import pytest
import torch
from torch import Tensor

from tamulag.models.nn.encoder import Encoder, EncoderKind, EncoderState, Ticks, compact

NAN = float("nan")


def ticks(mask: list[list[int]]) -> Ticks:
    """Return ticks whose single value is their place (1, 2, ...); NaN where masked."""
    valid = torch.tensor(mask, dtype=torch.bool)
    place = torch.arange(1, valid.shape[1] + 1).expand(valid.shape)
    values = place.float().masked_fill(~valid, NAN).unsqueeze(-1)
    return Ticks(values, valid, place * 10, place * 10 + 1)


def encoder(dropout: float = 0.0) -> Encoder:
    torch.manual_seed(0)
    return Encoder(dim=1, hidden=3, layers=2, dropout=dropout).eval()


def random_state(batch: int) -> EncoderState:
    generator = torch.Generator().manual_seed(1)
    h, c = (torch.randn(batch, 2, 3, generator=generator) for _ in "hc")
    return EncoderState(h, c, torch.zeros(batch, 1, dtype=torch.float64))


def same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_valid_ticks_move_to_the_front_in_their_order() -> None:
    """Values, mask and both times move together, and the rest is cleared."""
    packed = compact(ticks([[0, 1, 0, 1], [1, 0, 0, 0]]))
    assert packed.values.squeeze(-1).tolist() == [[2, 4], [1, 0]]
    assert packed.mask.tolist() == [[True, True], [True, False]]
    assert packed.time.tolist() == [[20, 40], [10, 0]]
    assert packed.ready.tolist() == [[21, 41], [11, 0]]


@pytest.mark.parametrize("mask", [[[0, 0, 0], [0, 0, 0]], [[], []]], ids=["all-masked", "no-ticks"])
def test_nothing_valid_leaves_no_ticks(mask: list[list[int]]) -> None:
    """The time axis shrinks to nothing instead of holding cleared ticks."""
    assert compact(ticks(mask)).values.shape == (2, 0, 1)


def test_masked_nan_reaches_neither_result_nor_gradient() -> None:
    """NaN under a False mask is replaced, in the forward and in the backward pass."""
    model = encoder()
    h_BTH, state = model.step(compact(ticks([[1, 0, 1], [0, 0, 0]])), model.initial_state(2))
    gradients = torch.autograd.grad(h_BTH.sum() + state.c.sum(), list(model.parameters()))
    assert all(torch.isfinite(part).all() for part in (h_BTH, *state, *gradients))


def test_all_masked_row_keeps_its_state_to_the_bit() -> None:
    """A silent session stays where it was while its neighbour moves on."""
    before = random_state(2)
    h_BTH, after = encoder().step(compact(ticks([[1, 1], [0, 0]])), before)
    same((after.h[1], after.c[1]), (before.h[1], before.c[1]))
    assert not torch.equal(after.h[0], before.h[0])
    assert not h_BTH[1].any()


def test_no_ticks_keep_the_state_to_the_bit() -> None:
    """A step without ticks gives no hidden states and moves no session."""
    before = random_state(2)
    h_BTH, after = encoder().step(compact(ticks([[0], [0]])), before)
    assert h_BTH.shape == (2, 0, 3)
    same(after, before)


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_one_long_step_equals_two_short_ones(cut: int) -> None:
    """The cut of a stream into steps does not show, whatever is masked around it."""
    model, x = encoder(), ticks([[1, 0, 1, 1, 1], [1, 1, 0, 0, 1]])
    whole, end = model.step(compact(x), random_state(2))
    first, middle = model.step(compact(Ticks(*(p[:, :cut] for p in x))), random_state(2))
    second, chained = model.step(compact(Ticks(*(p[:, cut:] for p in x))), middle)
    for row in range(2):
        parts = torch.cat([first[row][first[row].any(-1)], second[row][second[row].any(-1)]])
        torch.testing.assert_close(parts, whole[row][whole[row].any(-1)], atol=1e-6, rtol=0)
    torch.testing.assert_close(chained, end, atol=1e-6, rtol=0)


def test_hidden_state_of_the_last_valid_tick_is_the_state() -> None:
    """What attention sees of a tick is what the next tick starts from."""
    h_BTH, state = encoder().step(compact(ticks([[1, 1, 0], [1, 1, 1]])), random_state(2))
    same((h_BTH[0, 1], h_BTH[1, 2]), (state.h[0, -1], state.h[1, -1]))


def test_state_is_not_changed_in_place() -> None:
    """The former state can be stepped from again."""
    before = random_state(1)
    encoder().step(compact(ticks([[1, 1]])), before)
    same(before, random_state(1))


def test_features_are_standardised_with_the_buffers() -> None:
    """Shifted and scaled features with the fitting mean and deviation give the same states."""
    plain, scaled, x = encoder(), encoder(), compact(ticks([[1, 1, 1]]))
    scaled.mean.fill_(5.0)
    scaled.deviation.fill_(2.0)
    expected, _ = plain.step(x, plain.initial_state(1))
    actual, _ = scaled.step(x._replace(values=x.values * 2 + 5), scaled.initial_state(1))
    torch.testing.assert_close(actual, expected)


def test_standardisation_travels_with_the_weights() -> None:
    """Mean and deviation are in the state dict, so a checkpoint holds them."""
    assert {"mean", "deviation"} <= encoder().state_dict().keys()


def test_dropout_works_in_training_alone() -> None:
    """An encoder that serves gives the same numbers twice."""
    model, x = encoder(dropout=0.5), compact(ticks([[1, 1, 1]]))
    first, again = (model.step(x, model.initial_state(1))[0] for _ in range(2))
    assert torch.equal(first, again)
    model.train()
    assert not torch.equal(model.step(x, model.initial_state(1))[0], first)


def test_identity_passes_valid_values_through() -> None:
    """Token states go to attention as they are, standardised; there is no state to keep."""
    layer = Encoder(dim=1, hidden=3, layers=2, kind="identity").eval()
    layer.mean.fill_(1.0)
    h_BTH, state = layer.step(compact(ticks([[0, 1, 1], [1, 0, 0]])), layer.initial_state(2))
    assert h_BTH.squeeze(-1).tolist() == [[1, 2], [0, 0]]
    assert state.h.shape == (2, 0, 1)
    assert not list(layer.parameters())


def test_bidirectional_reads_each_row_to_its_own_end() -> None:
    """The backward direction begins at the last valid tick, so padding does not show."""
    torch.manual_seed(0)
    layer = Encoder(dim=1, hidden=3, layers=2, bidirectional=True).eval()
    assert layer.size == 6
    together, _ = layer.step(compact(ticks([[1, 1, 0, 0], [1, 1, 1, 1]])), layer.initial_state(2))
    alone, _ = layer.step(compact(ticks([[1, 1]])), layer.initial_state(1))
    torch.testing.assert_close(together[:1, :2], alone)
    assert not together[0, 2:].any()


@pytest.mark.parametrize("kind", ["lstm", "identity"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_nothing_valid_gives_no_states_in_any_form(kind: EncoderKind, bidirectional: bool) -> None:
    """A modality of length zero is an empty sequence of the form's width."""
    layer = Encoder(dim=2, hidden=3, layers=1, kind=kind, bidirectional=bidirectional)
    none = torch.zeros(1, 0, dtype=torch.int64)
    empty = Ticks(torch.zeros(1, 0, 2), none.bool(), none, none)
    assert layer.step(empty, layer.initial_state(1))[0].shape == (1, 0, layer.size)


def centring(horizon: int = 50) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(dim=4, hidden=3, layers=2, centred=2, horizon=horizon).eval()
    encoder.level.copy_(torch.tensor([1.0, -2.0]))
    return encoder


@pytest.mark.parametrize("seed", range(3))
def test_centring_follows_its_recursion(seed: int) -> None:
    """The closed form equals S_t = d S_{t-1} + x_t, n_t = d n_{t-1} + 1 step by step."""
    encoder, decay = centring(), 1 - 1 / 50
    x = torch.randn(1, 40, 4, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(1, 40, dtype=torch.bool)
    centred, level = encoder.centre(x, encoder.initial_state(1).level, mask)
    total, count = 20 * encoder.level.double(), 20.0
    for t in range(40):
        total, count = decay * total + x[0, t, :2].double(), decay * count + 1
        torch.testing.assert_close(
            centred[0, t, :2].double(), x[0, t, :2] - total / count, atol=1e-6, rtol=0
        )
    torch.testing.assert_close(centred[..., 2:], x[..., 2:])
    torch.testing.assert_close(level[0], torch.cat([total, torch.tensor([count])]).double())


def test_centring_makes_loudness_count_less_and_less() -> None:
    """A constant offset on the centred features, as of another microphone, fades from the input."""
    encoder = centring(horizon=500)
    x = torch.randn(1, 400, 4, generator=torch.Generator().manual_seed(1))
    louder = x + torch.tensor([5.0, 5.0, 0.0, 0.0])
    mask = torch.ones(1, 400, dtype=torch.bool)
    start = encoder.initial_state(1).level
    one, other = (encoder.centre(v, start, mask)[0] for v in (x, louder))
    gap = (one - other).abs().amax(dim=-1)[0]
    assert gap[0] > 4.5
    assert gap[-1] < 0.5
