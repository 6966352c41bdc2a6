"""The streaming contract: seven laws, each a function of a model, used for every variant.

A law raises AssertionError when it is broken. `tests/models/nn/test_tam_ulag.py` shows for each law
a model that breaks it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from tamulag.models import MODALITIES, ModelConfig, Output, State, TamUlag, Ticks
from tamulag.models.nn.attention import Memory
from tamulag.models.nn.branch import BranchState
from tamulag.models.nn.encoder import EncoderState
from tamulag.models.nn.tam_ulag import SPOKEN, Turns, reset
from tamulag.models.runtime.checkpoint import dump_state, load_state

HOP = 25
HOPS = 8
ATOL = 1e-6

Stream = Mapping[str, Ticks]


def tiny(config: ModelConfig) -> TamUlag:
    """Return a model of the same forms at tiny sizes, with fixed random weights."""
    torch.manual_seed(0)
    branches = {}
    for name, dim in zip(MODALITIES, (5, 4, 3), strict=True):
        full = getattr(config, name)
        out = 4 if full.out else 0
        centred = min(full.centred, 2)
        branches[name] = replace(
            full, dim=dim, hidden=6, dropout=0.0, out=out, post=5, centred=centred
        )
    small = replace(config, **branches, semantic=4, head=6, dropout=0.0, window=100, expert=4)
    model = TamUlag(small).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention.alpha" in name or "attention.beta" in name:
                parameter.mul_(6)  # a gate near zero would hide every broken law behind it
            if name.startswith("scales."):
                parameter.normal_().abs_()  # as it begins, a scale depends on nothing
        if model.scales is not None:
            model.scales.limit.fill_(0.5)
    return model


def live(model: TamUlag) -> list[nn.Parameter]:
    """Return the parameters on which an estimate depends.

    Not those that make labels; nor, where the heads' scores are fused, those of the fused head.
    """
    unused = ("ulag.", "fusion.", "head.") if model.config.shares else ("ulag.",)
    return [p for name, p in model.named_parameters() if not name.startswith(unused)]


def stream(model: TamUlag, *, batch: int = 3, hops: int = HOPS, seed: int = 0) -> Stream:
    """Return random ticks of all modalities; about a third of them is masked."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name in MODALITIES:
        branch = getattr(model.config, name)
        step = 6 if name == "text" else branch.period
        time = torch.arange(0, hops * HOP, step).expand(batch, -1)
        values = torch.randn(batch, time.shape[1], branch.dim, generator=generator)
        mask = torch.rand(batch, time.shape[1], generator=generator) > 1 / 3
        late = 10 if name == "text" else branch.period
        out[name] = Ticks(values, mask, time, time + late)
    return out


def ends(stream: Stream, first: int = 0, last: int = HOPS) -> Tensor:
    """Return the ticks at which the hops first .. last - 1 end, (B, N)."""
    batch = len(stream["audio"].mask)
    return (torch.arange(first + 1, last + 1) * HOP).expand(batch, -1)


def turns(stream: Stream, first: int = 0, last: int = HOPS) -> Turns:
    """Return a turn for each modality of the hops first .. last - 1: some are young."""
    hops = torch.arange(first + 1, last + 1)
    since = (hops - 1) // 3 * 3 * HOP  # a turn takes three hops
    share = (hops * HOP - since) / (3 * HOP)
    shape = (len(stream["audio"].mask), len(hops), len(SPOKEN))
    return Turns(*(part[:, None].expand(shape) for part in (since, share)))


def between(stream: Stream, first: int, last: int) -> Stream:
    """Return the ticks that became known in the hops first .. last - 1."""
    out = {}
    for name, ticks in stream.items():
        known = (ticks.ready[0] > first * HOP) & (ticks.ready[0] <= last * HOP)
        out[name] = Ticks(*(part[:, known] for part in ticks))
    return out


def rows(stream: Stream, index: list[int]) -> Stream:
    """Return some rows of the batch."""
    return {name: Ticks(*(part[index] for part in ticks)) for name, ticks in stream.items()}


def chained(model: TamUlag, x: Stream, cuts: list[int], state: State | None = None) -> list[Output]:
    """Step through the hops between the cuts, e.g. [0, 1, 5, 8]."""
    state = model.initial_state(len(x["audio"].mask)) if state is None else state
    outputs = []
    for first, last in pairwise(cuts):
        output, state = model.step(
            between(x, first, last), ends(x, first, last), state, None, turns(x, first, last)
        )
        outputs.append(output)
    return outputs


def values(output: Output) -> Tensor:
    """Return all outputs of a hop, (B, N, 1 + 3 + 3 + 3)."""
    heads, scale = (x.masked_fill(~output.present, 0.0) for x in (output.heads, output.scale))
    return torch.cat([output.sentiment.unsqueeze(-1), heads, output.weight, scale], dim=-1)


def close(actual: Tensor, expected: Tensor, law: str, atol: float = ATOL) -> None:
    """Assert equality to `atol`; NaN counts as a difference."""
    assert actual.shape == expected.shape, f"{law}: {actual.shape} is not {expected.shape}"
    difference = (actual - expected).abs().max().item() if actual.numel() else 0.0
    assert difference <= atol, f"{law}: differs by {difference}"


def same_state(actual: State, expected: State, law: str) -> None:
    """Assert that two states are equal to the bit."""
    for a, b in zip(tensors(actual), tensors(expected), strict=True):
        assert torch.equal(a, b), f"{law}: state differs"


def tensors(state: State) -> list[Tensor]:
    """Return every tensor of a state."""
    return [tensor for branch in state for part in branch for tensor in part]


def forward_equals_steps(model: TamUlag) -> None:
    """Law 1: `forward` equals chained `step` for any chunking, in values and gradients."""
    x = stream(model)
    whole = values(model.forward(between(x, 0, HOPS), ends(x), None, turns(x)))
    gradient = torch.autograd.grad(whole.square().sum(), live(model))
    for cuts in ([0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 3, 4, 8], [0, 7, 8]):
        steps = torch.cat([values(output) for output in chained(model, x, cuts)], dim=1)
        close(steps, whole, "forward == steps")
        parts = torch.autograd.grad(steps.square().sum(), live(model))
        for a, b in zip(parts, gradient, strict=True):
            scale = max(1.0, b.abs().max().item())
            close(a / scale, b / scale, "forward == steps, gradient", atol=1e-5)


def masked_values_do_not_matter(model: TamUlag) -> None:
    """Law 2: NaN under a False mask changes nothing, in values and gradients."""
    x = stream(model)
    spoilt = {
        name: ticks._replace(values=ticks.values.masked_fill(~ticks.mask.unsqueeze(-1), torch.nan))
        for name, ticks in x.items()
    }
    clean = values(model.forward(x, ends(x), None, turns(x)))
    dirty = values(model.forward(spoilt, ends(x), None, turns(x)))
    close(dirty, clean, "NaN under mask")
    for gradient in torch.autograd.grad(dirty.sum(), live(model)):
        assert torch.isfinite(gradient).all(), "NaN under mask: gradient is not finite"


def all_false_keeps_state(model: TamUlag) -> None:
    """Law 3: an all-False mask leaves the state as it was, for all rows or for one."""
    x = stream(model)
    _, state = model.step(between(x, 0, 4), ends(x, 0, 4), model.initial_state(3))
    silent = {n: t._replace(mask=torch.zeros_like(t.mask)) for n, t in between(x, 4, 8).items()}
    _, after = model.step(silent, ends(x, 4, 8), state)
    same_state(after, state, "all-False mask")
    one = torch.tensor([True, False, True]).unsqueeze(-1)
    partly = {n: t._replace(mask=t.mask & one) for n, t in between(x, 4, 8).items()}
    _, after = model.step(partly, ends(x, 4, 8), state)
    same_state(row(after, 1), row(state, 1), "all-False row")


def row(state: State, index: int) -> State:
    """Return one row of a state."""
    one = slice(index, index + 1)
    return State(
        *(
            BranchState(
                EncoderState(*(t[one] for t in b.encoder)), Memory(*(t[one] for t in b.memory))
            )
            for b in state
        )
    )


def rows_are_independent(model: TamUlag) -> None:
    """Law 4: a row does not depend on its neighbours; resetting one touches that row alone."""
    x = stream(model)
    together = values(model.forward(x, ends(x), None, turns(x)))
    for index in range(3):
        alone = rows(x, [index])
        close(
            values(model.forward(alone, ends(alone), None, turns(alone))),
            together[[index]],
            "row alone",
        )
    _, state = model.step(between(x, 0, 4), ends(x, 0, 4), model.initial_state(3))
    chosen = torch.tensor([False, True, False])
    fresh = model.initial_state(3)
    after = reset(state, fresh, chosen)
    for index in range(3):
        expected = fresh if chosen[index] else state
        same_state(row(after, index), row(expected, index), "reset of one row")


def later_input_changes_nothing(model: TamUlag) -> None:
    """Law 5: a longer input does not change earlier outputs."""
    x = stream(model)
    whole = values(model.forward(x, ends(x), None, turns(x)))
    for hops in (1, 3, 6):
        prefix = between(x, 0, hops)
        close(
            values(model.forward(prefix, ends(x, 0, hops), None, turns(x, 0, hops))),
            whole[:, :hops],
            "causality",
        )


def state_survives_a_restart(model: TamUlag) -> None:
    """Law 6: save, load, go on equals the uninterrupted run."""
    x = stream(model)
    _, state = model.step(between(x, 0, 4), ends(x, 0, 4), model.initial_state(3))
    straight = torch.cat([values(o) for o in chained(model, x, [4, 6, 8], state)], dim=1)
    # Another session runs in between: what is hidden on the module is lost or mixed up.
    chained(model, stream(model, seed=1), [0, 8])
    again = load_state(dump_state(state), model.initial_state(3))
    resumed = torch.cat([values(o) for o in chained(model, x, [4, 6, 8], again)], dim=1)
    close(resumed, straight, "save, load, go on", atol=0.0)


def step_changes_no_argument(model: TamUlag) -> None:
    """Law 7: `step` changes none of its arguments."""
    x = stream(model)
    _, state = model.step(between(x, 0, 4), ends(x, 0, 4), model.initial_state(3))
    new, now = between(x, 4, 8), ends(x, 4, 8).clone()
    arguments = [*tensors(state), now, *(part for ticks in new.values() for part in ticks)]
    copies = [tensor.clone() for tensor in arguments]
    model.step(new, now, state)
    for tensor, copy in zip(arguments, copies, strict=True):
        assert torch.equal(tensor, copy), "an argument was changed"


LAWS: tuple[Callable[[TamUlag], None], ...] = (
    forward_equals_steps,
    masked_values_do_not_matter,
    all_false_keeps_state,
    rows_are_independent,
    later_input_changes_nothing,
    state_survives_a_restart,
    step_changes_no_argument,
)


def verify_contract(model: TamUlag) -> None:
    """Check all seven laws."""
    for law in LAWS:
        law(model)
