"""The streaming contract, and for each of its laws a model that breaks it."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from contract import LAWS, ends, stream, tensors, verify_contract
from tamulag.models import ModelConfig, Output, State, TamUlag, Ticks
from tamulag.models.tam_ulag import config_dict

Stream = Mapping[str, Ticks]


def test_model_keeps_the_contract(model: TamUlag) -> None:
    """All seven laws hold for the model that ships."""
    verify_contract(model)


class ForgetsItsMemory(TamUlag):
    """Breaks law 1: attention sees the ticks of this step only."""

    def step(
        self, ticks: Stream, now_BN: Tensor, state: State, allowed_BNM: Tensor | None = None
    ) -> tuple[Output, State]:
        fresh = self.initial_state(len(now_BN))
        state = State(*(b._replace(memory=f.memory) for b, f in zip(state, fresh, strict=True)))
        return super().step(ticks, now_BN, state, allowed_BNM)


class MultipliesByTheMask(TamUlag):
    """Breaks law 2: 0 * NaN is NaN."""

    def step(
        self, ticks: Stream, now_BN: Tensor, state: State, allowed_BNM: Tensor | None = None
    ) -> tuple[Output, State]:
        def spoil(t: Ticks) -> Ticks:
            leak = (t.values * ~t.mask.unsqueeze(-1)).sum(dim=(1, 2), keepdim=True)
            return t._replace(values=t.values + leak * 0)

        return super().step({n: spoil(t) for n, t in ticks.items()}, now_BN, state, allowed_BNM)


class IgnoresTheMask(TamUlag):
    """Breaks law 3: masked ticks go through the encoder as zeros."""

    def step(
        self, ticks: Stream, now_BN: Tensor, state: State, allowed_BNM: Tensor | None = None
    ) -> tuple[Output, State]:
        def fill(t: Ticks) -> Ticks:
            values = t.values.masked_fill(~t.mask.unsqueeze(-1), 0.0)
            return t._replace(values=values, mask=torch.ones_like(t.mask))

        return super().step({n: fill(t) for n, t in ticks.items()}, now_BN, state, allowed_BNM)


class LooksAtItsNeighbours(TamUlag):
    """Breaks law 4: estimates are centred over the batch."""

    def step(
        self, ticks: Stream, now_BN: Tensor, state: State, allowed_BNM: Tensor | None = None
    ) -> tuple[Output, State]:
        output, state = super().step(ticks, now_BN, state, allowed_BNM)
        centred = output.sentiment - output.sentiment.mean(dim=0, keepdim=True)
        return output._replace(sentiment=centred), state


class LooksAhead(TamUlag):
    """Breaks law 5: features are centred over the whole step."""

    def step(
        self, ticks: Stream, now_BN: Tensor, state: State, allowed_BNM: Tensor | None = None
    ) -> tuple[Output, State]:
        def centre(t: Ticks) -> Ticks:
            clean = t.values.masked_fill(~t.mask.unsqueeze(-1), 0.0)
            return (
                t._replace(values=clean - clean.mean(dim=1, keepdim=True)) if t.mask.shape[1] else t
            )

        return super().step({n: centre(t) for n, t in ticks.items()}, now_BN, state, allowed_BNM)


class HidesStateOnTheModule(TamUlag):
    """Breaks law 6: an average of former estimates lives on the module, not in the state."""

    average = 0.0

    def step(
        self, ticks: Stream, now_BN: Tensor, state: State, allowed_BNM: Tensor | None = None
    ) -> tuple[Output, State]:
        output, state = super().step(ticks, now_BN, state, allowed_BNM)
        self.average = 0.5 * self.average + 0.5 * float(output.sentiment.detach().mean())
        return output._replace(sentiment=output.sentiment + self.average), state


class WritesIntoTheState(TamUlag):
    """Breaks law 7: the former state is updated in place."""

    def step(
        self, ticks: Stream, now_BN: Tensor, state: State, allowed_BNM: Tensor | None = None
    ) -> tuple[Output, State]:
        output, after = super().step(ticks, now_BN, state, allowed_BNM)
        with torch.no_grad():
            for old, new in zip(tensors(state), tensors(after), strict=True):
                old.copy_(new)
        return output, after


BROKEN = (
    ForgetsItsMemory,
    MultipliesByTheMask,
    IgnoresTheMask,
    LooksAtItsNeighbours,
    LooksAhead,
    HidesStateOnTheModule,
    WritesIntoTheState,
)


@pytest.mark.parametrize(
    ("law", "kind"),
    [pytest.param(law, kind, id=kind.__name__) for law, kind in zip(LAWS, BROKEN, strict=True)],
)
def test_each_law_fails_on_a_model_that_breaks_it(
    model: TamUlag, law: Callable[[TamUlag], None], kind: type[TamUlag]
) -> None:
    """Each law of the contract can fail."""
    broken = kind(model.config).eval()
    broken.load_state_dict(model.state_dict())
    with pytest.raises(AssertionError):
        law(broken)


@pytest.mark.parametrize("absent", [["text"], ["audio", "vision"], ["text", "audio", "vision"]])
def test_any_subset_of_modalities_scores(model: TamUlag, absent: list[str]) -> None:
    """A modality that brings nothing is absent: weight 0, the others' weights sum to 1."""
    x = {name: ticks for name, ticks in stream(model).items() if name not in absent}
    now = torch.full((3, 1), 200)
    output = model.forward(x, now)
    assert torch.isfinite(output.sentiment).all()
    for index, name in enumerate(("text", "audio", "vision")):
        assert output.present[..., index].all() == (name not in absent)
    total = 0.0 if len(absent) == 3 else 1.0
    torch.testing.assert_close(output.weight.sum(dim=-1), torch.full((3, 1), total))


def test_a_forbidden_modality_does_not_count(model: TamUlag) -> None:
    """A lost source is kept out although its ticks still lie in the window."""
    x = stream(model)
    allowed = torch.tensor([True, True, False]).expand(3, 8, 3)
    without = model.forward({n: x[n] for n in ("text", "audio")}, ends(x))
    kept_out = model.forward(x, ends(x), allowed)
    torch.testing.assert_close(kept_out.sentiment, without.sentiment)


def test_estimates_lie_in_range(model: TamUlag) -> None:
    """Whatever comes in, sentiment stays within [-3, 3]."""
    x = {n: t._replace(values=t.values * 1e4) for n, t in stream(model).items()}
    output = model.forward(x, ends(x))
    assert output.sentiment.abs().max() <= 3
    assert output.heads.abs().max() <= 3


def test_wrong_shape_is_refused_with_both_shapes(model: TamUlag) -> None:
    """The message names what came and what was expected."""
    x = dict(stream(model))
    x["audio"] = x["audio"]._replace(values=x["audio"].values[..., :2])
    with pytest.raises(ValueError, match=r"audio values \(3, 200, 2\).*expected \(3, T, 4\)"):
        model.forward(x, ends(x))


def test_config_survives_a_round_trip(model: TamUlag) -> None:
    """A config written as plain values is rebuilt as it was."""
    assert ModelConfig.from_dict(config_dict(model.config)) == model.config
