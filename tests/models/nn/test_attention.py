"""Temporal attention: what lies in a window, how it is weighed, what is forgotten."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from tamulag.models.nn.attention import Memory, Pooled, Tam, TemporalAttention, Turn, forget
from tamulag.models.nn.encoder import Ticks

WINDOW = 10
FORMS: tuple[Tam, ...] = get_args(Tam)
GATES: tuple[Tam, ...] = ("gate_sum", "gate_last", "gate_first")


def attention(kind: Tam = "softmax", *, residual: bool = False) -> TemporalAttention:
    torch.manual_seed(0)
    return TemporalAttention(hidden=2, kind=kind, residual=residual)


def memory_of(
    time: list[int],
    ready: list[int] | None = None,
    mask: list[int] | None = None,
    layer: TemporalAttention | None = None,
) -> Memory:
    """Return the memory of one session; a state's values are its time and 1."""
    times = torch.tensor([time])
    h_BTH = torch.stack([times.float(), torch.ones(1, len(time))], dim=-1)
    valid = torch.tensor([mask or [1] * len(time)], dtype=torch.bool)
    readies = times + 1 if ready is None else torch.tensor([ready])
    layer = layer or attention()
    return layer.extend(layer.initial_memory(1, 0), h_BTH, Ticks(h_BTH, valid, times, readies))


def pooled(memory: Memory, *now: int) -> Pooled:
    return attention().pool(memory, torch.tensor([now]), WINDOW)


def attended(memory: Memory, now: int) -> list[int]:
    """Return the ticks that have a weight."""
    out = pooled(memory, now)
    return out.time[0][out.weight[0, 0] > 0].tolist()


def test_window_takes_its_first_tick_and_leaves_out_its_end() -> None:
    """A window that ends at 20 covers the ticks 10 to 19."""
    assert attended(memory_of([9, 10, 19, 20], ready=[10, 11, 20, 20]), 20) == [10, 19]


def test_tick_counts_from_when_it_is_known() -> None:
    """A word that is known at 16 is not seen by the hop that ends at 15."""
    word = memory_of([12, 13], ready=[13, 16])
    assert attended(word, 15) == [12]
    assert attended(word, 16) == [12, 13]


def test_masked_tick_is_not_attended() -> None:
    """What is not valid has no weight, wherever it lies."""
    assert attended(memory_of([12, 13, 14], mask=[1, 0, 1]), 20) == [12, 14]


def test_weights_sum_to_one_where_present_and_else_to_zero() -> None:
    """Hops of one step differ: the last window has lost everything."""
    out = pooled(memory_of([3, 5, 8, 9]), 9, 12, 40)
    assert out.present.tolist() == [[True, True, False]]
    torch.testing.assert_close(out.weight.sum(dim=-1), torch.tensor([[1.0, 1.0, 0.0]]))


def test_empty_window_gives_zeros() -> None:
    """An absent modality is zeros, never NaN, also in the gradient."""
    memory = memory_of([1])
    energy = torch.zeros(1, 1, requires_grad=True)
    out = pooled(memory._replace(energy=energy), 50)
    assert not out.context.any()
    assert not torch.autograd.grad(out.context.sum(), energy)[0].any()


def test_equal_energies_give_the_mean() -> None:
    """Attention that prefers nothing averages the window."""
    memory = memory_of([2, 4, 9, 11])
    out = pooled(memory._replace(energy=torch.full((1, 4), 0.7)), 12)
    assert out.context[0, 0].tolist() == pytest.approx([6.5, 1.0])


def test_weights_follow_the_equation() -> None:
    """The weights are the softmax of v^T tanh(W h + b) over the window."""
    layer, memory = attention(), memory_of([2, 4, 9])
    energy = torch.tanh(memory.hidden[0] @ layer.project.weight.T + layer.project.bias)
    expected = torch.softmax((energy @ layer.score.weight.T).squeeze(-1)[1:], dim=0)
    out = pooled(memory, 13)
    torch.testing.assert_close(out.weight[0, 0, 1:], expected)
    torch.testing.assert_close(out.context[0, 0], expected @ memory.hidden[0, 1:])


def test_huge_energies_do_not_overflow() -> None:
    """The heaviest tick takes all."""
    memory = memory_of([1, 2, 3])
    out = pooled(memory._replace(energy=torch.tensor([[1e30, -1e30, 5.0]])), 5)
    assert out.weight[0, 0].tolist() == [1, 0, 0]


def test_new_states_stand_behind_the_remembered_ones() -> None:
    """Extending forgets nothing and gives masked ticks no energy."""
    layer, memory = attention(), memory_of([1, 2])
    h_BTH = torch.ones(1, 2, 2)
    new = Ticks(
        h_BTH, torch.tensor([[True, False]]), torch.tensor([[3, 4]]), torch.tensor([[4, 5]])
    )
    longer = layer.extend(memory, h_BTH, new)
    assert longer.time.tolist() == [[1, 2, 3, 4]]
    assert longer.ready.tolist() == [[2, 3, 4, 5]]
    assert longer.energy[0, 3] == 0


def same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_forget_keeps_the_last_valid_states_in_order() -> None:
    """Valid states stand at the right, oldest first; energy and hidden states move with them."""
    memory = memory_of([1, 2, 3, 4, 5], mask=[1, 1, 0, 1, 0])
    left = forget(memory, 2)
    assert left.time.tolist() == [[2, 4]]
    assert left.mask.all()
    same(left, tuple(part[:, [1, 3]] for part in memory))


def test_forget_is_right_justified_when_little_is_valid() -> None:
    """An unfilled memory has its gap at the left."""
    left = forget(memory_of([1, 2, 3, 4], mask=[0, 1, 0, 0]), 3)
    assert left.mask.tolist() == [[False, False, True]]
    assert left.time[0, -1] == 2


def test_forget_cuts_where_nothing_has_to_move() -> None:
    """If all that is new is valid, a cut gives the bits that sorting gives."""
    ready = memory_of([7, 1, 2, 3], mask=[0, 1, 1, 1])
    stirred = memory_of([7, 1, 2, 3], mask=[1, 1, 0, 1])
    both = Memory(*(torch.cat(pair) for pair in zip(ready, stirred, strict=True)))
    same(forget(ready, 2), tuple(part[:, -2:] for part in ready))
    same(forget(ready, 3), tuple(part[:1] for part in forget(both, 3)))


def test_row_that_gains_nothing_keeps_its_bits() -> None:
    """Cleared ticks, as the encoder gives them for a silent session, do not stir its memory."""
    layer = attention()
    zeros = torch.zeros(1, 4, dtype=torch.int64)
    before = layer.initial_memory(1, 3)
    for time in (3, 5):
        h_BTH = torch.full((1, 1, 2), float(time))
        times = torch.tensor([[time]])
        before = forget(layer.extend(before, h_BTH, Ticks(h_BTH, times > 0, times, times)), 3)
    silence = torch.zeros(1, 4, 2)
    longer = layer.extend(before, silence, Ticks(silence, zeros.bool(), zeros, zeros))
    same(forget(longer, 3), before)


def test_initial_memory_is_empty() -> None:
    """Someone who has just come has nothing in any window."""
    memory = attention().initial_memory(2, 4)
    assert memory.hidden.shape == (2, 4, 2)
    assert not memory.mask.any()
    assert not attention().pool(memory, torch.tensor([[1], [5]]), WINDOW).present.any()


def gate(layer: TemporalAttention, h_TH: Tensor) -> Tensor:
    """Return tanh(a) (b - tanh(b)) of each state, written out from the weights."""
    a = h_TH @ layer.alpha.weight[0] + layer.alpha.bias
    b = h_TH @ layer.beta.weight[0] + layer.beta.bias
    return torch.tanh(a) * (b - torch.tanh(b))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", GATES)
def test_gates_follow_their_equations(kind: Tam, residual: bool) -> None:
    """The window holds 4, 9 and 12; 2 is too old, 11 is masked and 13 not yet known."""
    layer = attention(kind, residual=residual)
    memory = memory_of([2, 4, 9, 11, 12, 13], [3, 5, 10, 12, 13, 20], [1, 1, 1, 0, 1, 1], layer)
    inside = memory.hidden[0, [1, 2, 4]]
    weight = gate(layer, inside) + residual
    expected = {
        "gate_sum": weight @ inside / 3,
        "gate_last": weight[2] * inside[2],
        "gate_first": weight[0] * inside[0],
    }
    out = layer.pool(memory, torch.tensor([[14]]), WINDOW)
    torch.testing.assert_close(out.context[0, 0], expected[kind])


def test_softmax_gate_follows_its_equation() -> None:
    """The gates are the energies of a softmax over the window."""
    layer = attention("softmax_gate")
    memory = memory_of([2, 4, 9], layer=layer)
    expected = torch.softmax(gate(layer, memory.hidden[0, 1:]), dim=0)
    out = layer.pool(memory, torch.tensor([[13]]), WINDOW)
    torch.testing.assert_close(out.weight[0, 0, 1:], expected)
    torch.testing.assert_close(out.context[0, 0], expected @ memory.hidden[0, 1:])


def test_mean_counts_every_state_inside_the_same() -> None:
    """2 is too old, 11 is masked and 13 not yet known; there is nothing to learn."""
    layer = attention("mean")
    memory = memory_of([2, 4, 9, 11, 12, 13], [3, 5, 10, 12, 13, 20], [1, 1, 1, 0, 1, 1], layer)
    out = layer.pool(memory, torch.tensor([[14]]), WINDOW)
    torch.testing.assert_close(out.context[0, 0], memory.hidden[0, [1, 2, 4]].mean(dim=0))
    assert out.weight[0, 0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3, 0])
    assert not list(layer.parameters())


def test_without_attention_the_newest_state_inside_is_taken() -> None:
    """Newest is the last that entered, whatever its time; each hop has its own."""
    layer = attention("none")
    memory = memory_of([7, 3, 9], [8, 8, 10], layer=layer)
    out = layer.pool(memory, torch.tensor([[8, 10, 14, 40]]), WINDOW)
    assert out.context[0, :, 0].tolist() == [3, 9, 9, 0]
    assert not list(layer.parameters())


@pytest.mark.parametrize("kind", FORMS)
def test_empty_window_is_zeros_in_every_form(kind: Tam) -> None:
    """Neither the context nor a gradient is NaN where nothing is there."""
    layer = attention(kind)
    memory = memory_of([1, 30], layer=layer)
    hidden = memory.hidden.clone().requires_grad_()
    out = layer.pool(memory._replace(hidden=hidden), torch.tensor([[20, 35]]), WINDOW)
    assert out.present.tolist() == [[False, True]]
    assert not out.context[0, 0].any()
    assert not out.weight[0, 0].any()
    (gradient,) = torch.autograd.grad(out.context.sum(), [hidden])
    assert torch.isfinite(gradient).all()
    assert not gradient[0, 0].any()


@pytest.mark.parametrize("kind", FORMS)
def test_shares_are_never_negative_and_sum_to_one(kind: Tam) -> None:
    """What is shown to people is a share, also where a gate turns a state around."""
    layer = attention(kind)
    memory = memory_of([4, 9, 12], layer=layer)
    if kind in GATES:
        memory = memory._replace(energy=torch.tensor([[-0.5, 0.2, -0.3]]))
    out = layer.pool(memory, torch.tensor([[14]]), WINDOW)
    assert (out.weight >= 0).all()
    assert out.weight.sum().item() == pytest.approx(1)
    if kind == "gate_sum":
        assert out.weight[0, 0].tolist() == pytest.approx([0.5, 0.2, 0.3])


@pytest.mark.parametrize("kind", FORMS[:-1])
def test_gradient_reaches_attention_and_states(kind: Tam) -> None:
    """The release reads a padded step without gradient; here both the gate and the states learn."""
    layer = attention(kind)
    h_BTH = torch.randn(1, 3, 2, requires_grad=True)
    times = torch.tensor([[4, 9, 12]])
    ticks = Ticks(h_BTH, times > 0, times, times + 1)
    memory = layer.extend(layer.initial_memory(1, 2), h_BTH, ticks)
    context = layer.pool(memory, torch.tensor([[14]]), WINDOW).context
    gradients = torch.autograd.grad(context.square().sum(), [h_BTH, *layer.parameters()])
    names = ["states", *(name for name, _ in layer.named_parameters())]
    for name, part in zip(names, gradients, strict=True):
        assert part.any(), name


@pytest.mark.parametrize("kind", ["softmax", "softmax_gate", "mean", "none"])
def test_residual_is_refused_where_it_would_change_nothing(kind: Tam) -> None:
    """The message names both keys and the forms that have a residual."""
    with pytest.raises(ValueError, match=rf"residual = true .*{kind}.*gate_last"):
        attention(kind, residual=True)


@pytest.mark.parametrize("kind", GATES)
def test_residual_lets_states_through_a_closed_gate(kind: Tam) -> None:
    """At a gate of 0 the residual form is plain pooling: the mean, the newest, the oldest."""
    layer = attention(kind, residual=True)
    torch.nn.init.zeros_(layer.beta.weight)
    torch.nn.init.zeros_(layer.beta.bias)
    out = layer.pool(memory_of([4, 9, 11], layer=layer), torch.tensor([[13]]), WINDOW)
    expected = {"gate_sum": 8.0, "gate_last": 11.0, "gate_first": 4.0}[kind]
    assert out.context[0, 0, 0].item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_turn_is_blended_with_what_stood_before(kind: Tam, share: float) -> None:
    """The context is that of the turn times its share plus that of the rest times the rest."""
    layer = attention(kind)
    memory = memory_of([1, 2, 4, 6, 7], layer=layer)
    now = torch.tensor([[8]])
    turn = Turn(torch.tensor([[4]]), torch.tensor([[share]]))
    blended = layer.pool(memory, now, WINDOW, turn).context
    new = layer.pool(memory_of([4, 6, 7], layer=layer), now, WINDOW).context
    old = layer.pool(memory_of([1, 2], layer=layer), now, WINDOW).context
    torch.testing.assert_close(blended, share * new + (1 - share) * old)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("since", [0, 9])
def test_where_one_side_is_empty_the_other_counts(kind: Tam, since: int) -> None:
    """Whatever the share is: nothing before, or nothing of the turn yet."""
    layer = attention(kind)
    memory, now = memory_of([1, 2, 4], layer=layer), torch.tensor([[8]])
    turn = Turn(torch.tensor([[since]]), torch.tensor([[0.25]]))
    plain = layer.pool(memory, now, WINDOW)
    torch.testing.assert_close(layer.pool(memory, now, WINDOW, turn).context, plain.context)


def test_a_turn_in_an_empty_window_gives_no_nan() -> None:
    """Neither in the context nor in its gradient."""
    layer = attention()
    memory = memory_of([1, 2], layer=layer)
    turn = Turn(torch.tensor([[30]]), torch.tensor([[0.5]]))
    context = layer.pool(memory, torch.tensor([[40]]), WINDOW, turn).context
    assert torch.equal(context, torch.zeros(1, 1, 2))
    context.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in layer.parameters())
