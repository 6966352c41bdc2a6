"""The streaming contract, and for each of its laws a model that breaks it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from support.model_contract import (
    HOPS,
    LAWS,
    chained,
    ends,
    rows,
    stream,
    tensors,
    tiny,
    turns,
    values,
    verify_contract,
)
from tamulag.models import MODALITIES, ModelConfig, Output, State, TamUlag, Ticks, load, save
from tamulag.models.nn.attention import Tam
from tamulag.models.nn.config import preset
from tamulag.models.nn.fusion import Fusion
from tamulag.models.nn.tam_ulag import config_dict
from tamulag.models.nn.ulag import Labels
from tamulag.models.runtime.checkpoint import Card

Stream = Mapping[str, Ticks]

TAMS: tuple[Tam, ...] = get_args(Tam)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


def attending(
    tams: tuple[Tam, ...], fusion: Fusion = "hadamard", *, residual: bool = False
) -> TamUlag:
    """Return a tiny model whose branches attend each in its own way: each has a head to show it."""
    config = ModelConfig(fusion=fusion)
    branches = {
        name: replace(getattr(config, name), tam=tam, residual=residual)
        for name, tam in zip(MODALITIES, tams, strict=True)
    }
    return tiny(replace(config, **branches))


@pytest.mark.parametrize("place", range(len(TAMS)))
def test_every_form_keeps_the_contract(place: int) -> None:
    """All seven laws hold for each attention in each branch, and for each fusion."""
    turned = (TAMS[place:] + TAMS[:place])[: len(MODALITIES)]
    verify_contract(attending(turned, FUSIONS[place % len(FUSIONS)]))


@pytest.mark.parametrize("name", ["stream", "paper", "paper-sims"])
def test_every_preset_keeps_the_contract(name: str) -> None:
    """What ships; the paper's: identity encoder, projections, three-layer heads, experts."""
    verify_contract(tiny(preset(name)))


def test_residual_gates_keep_the_contract() -> None:
    """All seven laws hold for h_hat = (1 + gate) h."""
    verify_contract(attending(("gate_sum", "gate_last", "gate_first"), residual=True))


def test_means_of_centred_features_keep_the_contract() -> None:
    """All seven laws hold for a voice without an LSTM, of which the level alone is carried."""
    audio = replace(ModelConfig().audio, encoder="identity", tam="mean")
    verify_contract(tiny(replace(ModelConfig(), audio=audio)))


def test_means_of_token_states_keep_the_contract() -> None:
    """All seven laws hold for the words of `large`, of which nothing recurrent is carried."""
    text = replace(ModelConfig().text, encoder="identity", tam="mean")
    verify_contract(tiny(replace(ModelConfig(), text=text)))


def test_centred_features_keep_the_contract() -> None:
    """The running mean is state like any other: savable, resettable, the same in any chunking."""
    audio = replace(ModelConfig().audio, centred=2, horizon=30)
    verify_contract(tiny(ModelConfig(audio=audio)))


class ForgetsItsMemory(TamUlag):
    """Breaks law 1: attention sees the ticks of this step only."""

    def _advance(
        self, ticks: Stream, now_BN: Tensor, state: State, *rest: Any
    ) -> tuple[Output, State]:
        fresh = self.initial_state(len(now_BN))
        state = State(*(b._replace(memory=f.memory) for b, f in zip(state, fresh, strict=True)))
        return super()._advance(ticks, now_BN, state, *rest)


class MultipliesByTheMask(TamUlag):
    """Breaks law 2: 0 * NaN is NaN."""

    def _advance(
        self, ticks: Stream, now_BN: Tensor, state: State, *rest: Any
    ) -> tuple[Output, State]:
        def spoil(t: Ticks) -> Ticks:
            leak = (t.values * ~t.mask.unsqueeze(-1)).sum(dim=(1, 2), keepdim=True)
            return t._replace(values=t.values + leak * 0)

        return super()._advance({n: spoil(t) for n, t in ticks.items()}, now_BN, state, *rest)


class IgnoresTheMask(TamUlag):
    """Breaks law 3: masked ticks go through the encoder as zeros."""

    def _advance(
        self, ticks: Stream, now_BN: Tensor, state: State, *rest: Any
    ) -> tuple[Output, State]:
        def fill(t: Ticks) -> Ticks:
            values = t.values.masked_fill(~t.mask.unsqueeze(-1), 0.0)
            return t._replace(values=values, mask=torch.ones_like(t.mask))

        return super()._advance({n: fill(t) for n, t in ticks.items()}, now_BN, state, *rest)


class LooksAtItsNeighbours(TamUlag):
    """Breaks law 4: estimates are centred over the batch."""

    def _advance(
        self, ticks: Stream, now_BN: Tensor, state: State, *rest: Any
    ) -> tuple[Output, State]:
        output, state = super()._advance(ticks, now_BN, state, *rest)
        centred = output.sentiment - output.sentiment.mean(dim=0, keepdim=True)
        return output._replace(sentiment=centred), state


class LooksAhead(TamUlag):
    """Breaks law 5: features are centred over the whole step."""

    def _advance(
        self, ticks: Stream, now_BN: Tensor, state: State, *rest: Any
    ) -> tuple[Output, State]:
        def centre(t: Ticks) -> Ticks:
            clean = t.values.masked_fill(~t.mask.unsqueeze(-1), 0.0)
            return (
                t._replace(values=clean - clean.mean(dim=1, keepdim=True)) if t.mask.shape[1] else t
            )

        return super()._advance({n: centre(t) for n, t in ticks.items()}, now_BN, state, *rest)


class HidesStateOnTheModule(TamUlag):
    """Breaks law 6: an average of former estimates lives on the module, not in the state."""

    average = 0.0

    def _advance(
        self, ticks: Stream, now_BN: Tensor, state: State, *rest: Any
    ) -> tuple[Output, State]:
        output, state = super()._advance(ticks, now_BN, state, *rest)
        self.average = 0.5 * self.average + 0.5 * float(output.sentiment.detach().mean())
        return output._replace(sentiment=output.sentiment + self.average), state


class WritesIntoTheState(TamUlag):
    """Breaks law 7: the former state is updated in place."""

    def _advance(
        self, ticks: Stream, now_BN: Tensor, state: State, *rest: Any
    ) -> tuple[Output, State]:
        output, after = super()._advance(ticks, now_BN, state, *rest)
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
    """A lost source is left out although its ticks still lie in the window."""
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


def bidirectional() -> TamUlag:
    both = replace(ModelConfig().audio, bidirectional=True)
    return tiny(replace(ModelConfig(), audio=both))


def test_bidirectional_model_is_refused_by_the_streaming_path() -> None:
    """The message names the key and the remedy, before anything is computed."""
    model = bidirectional()
    x = stream(model)
    with pytest.raises(ValueError, match=r"audio\.bidirectional = true .*forward, or set audio\."):
        model.step(x, ends(x), model.initial_state(3))


def test_bidirectional_model_scores_whole_sequences() -> None:
    """Offline it works for any row alone as in its batch, and NaN under the mask stays there."""
    model = bidirectional()
    x = stream(model)
    spoilt = {
        n: t._replace(values=t.values.masked_fill(~t.mask.unsqueeze(-1), torch.nan))
        for n, t in x.items()
    }
    together = values(model.forward(spoilt, ends(x)))
    for index in range(3):
        alone = rows(x, [index])
        torch.testing.assert_close(values(model.forward(alone, ends(alone))), together[[index]])


def test_short_sample_scores_alone_as_beside_a_long_one() -> None:
    """The release reads the last step of the longest sample in the batch."""
    model = tiny(preset("paper"))
    x = stream(model)
    short = {
        n: t._replace(mask=t.mask & torch.tensor([[True], [False], [False]]) | (t.time < 50))
        for n, t in x.items()
    }
    together = values(model.forward(short, ends(x)))
    cut = {n: Ticks(*(part[1:2, t.time[0] < 50] for part in t)) for n, t in short.items()}
    torch.testing.assert_close(values(model.forward(cut, ends(x)[:1])), together[1:2])


@pytest.mark.parametrize("name", ["stream", "paper"])
def test_features_are_what_the_heads_see(name: str) -> None:
    """F*_m, F*_t, F*_a and F*_v with the heads' last layers give the estimates."""
    model = tiny(preset(name))
    x = stream(model)
    output = model.forward(x, ends(x))
    heads = (model.head, model.text.head, model.audio.head, model.vision.head)
    scores = [h.score(f).squeeze(-1) for h, f in zip(heads, output.features, strict=True)]
    assert [f.shape[-1] for f in output.features] == [h.size for h in heads]
    torch.testing.assert_close(3 * torch.tanh(scores[0] / 3), output.sentiment)
    torch.testing.assert_close(3 * torch.tanh(torch.stack(scores[1:], dim=-1) / 3), output.heads)


@pytest.mark.parametrize("labels", ["none", "ulgm", "ulag", "ulag_release", "both"])
def test_label_layers_are_there_when_they_are_used(labels: Labels) -> None:
    """A model that needs none has none, so an older checkpoint fits."""
    model = TamUlag(replace(tiny(ModelConfig()).config, labels=labels))
    layered = labels in ("ulag_release", "both")
    assert (model.ulag is not None) == layered
    assert any("ulag" in name for name in model.state_dict()) == layered


def test_checkpoint_holds_every_trained_tensor(tmp_path: Path) -> None:
    """Confidence nets and experts included: the release loses them."""
    model = tiny(preset("paper"))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    save(model, Card(trained={}), tmp_path / "paper.safetensors")
    again, _ = load(str(tmp_path / "paper.safetensors"))
    parameters = dict(again.named_parameters())
    assert any(name.startswith("ulag.confidence") for name in parameters)
    assert parameters.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameters[name], parameter), name


def test_checkpoint_of_before_keeps_its_labels_meaning(tmp_path: Path) -> None:
    """`ulag` with layers is what `ulag_release` is today; without, it is today's `ulag`."""
    for labels in ("ulag_release", "ulag"):
        model = tiny(replace(preset("paper"), labels=labels))
        object.__setattr__(model.config, "labels", "ulag")
        save(model, Card(trained={}), tmp_path / "old.safetensors")
        again, _ = load(str(tmp_path / "old.safetensors"))
        assert again.config.labels == labels
        assert again.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["stream", "paper"])
def test_batch_of_one_keeps_its_shape(name: str) -> None:
    """One clip with one hop is (1, 1), not a scalar."""
    model = tiny(preset(name)).train()
    x = rows(stream(model), [0])
    output = model.forward(x, torch.tensor([[200]]))
    assert output.sentiment.shape == (1, 1)
    assert output.heads.shape == output.present.shape == (1, 1, 3)


@pytest.mark.parametrize("absent", ["text", "audio", "vision"])
def test_modality_of_length_zero_can_be_trained_with(absent: str) -> None:
    """An empty sequence gives neither an error nor a NaN, forwards and backwards."""
    model = tiny(preset("paper"))
    x = dict(stream(model))
    x[absent] = Ticks(*(part[:, :0] for part in x[absent]))
    output = model.forward(x, torch.full((3, 1), 200))
    output.sentiment.sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def passes_through(model: TamUlag, place: int) -> None:
    """Check that a modality that is alone is what its head says, and that nothing gives 0."""
    x = stream(model)
    alone = (torch.arange(3) == place).expand(3, HOPS, 3)
    lone = model.forward(x, ends(x), alone)
    said = lone.present[..., place]
    assert said.any()
    assert torch.equal(lone.sentiment[said], lone.heads[..., place][said])
    assert not lone.sentiment[~said].any()


def test_with_shares_the_score_is_the_mean_of_the_heads_that_are_there(model: TamUlag) -> None:
    """A lone modality is what its head says, and the weights are the shares that act."""
    model.config = replace(model.config, shares=(0.4, 0.2, 0.4))
    x = stream(model)
    whole = model.forward(x, ends(x))
    weight = torch.tensor([0.4, 0.2, 0.4]) * whole.present
    weight = weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-9)
    torch.testing.assert_close(whole.weight, weight)
    mean = (weight * whole.heads.masked_fill(~whole.present, 0.0)).sum(dim=-1)
    torch.testing.assert_close(whole.sentiment, mean)
    passes_through(model, 0)


def test_the_contract_holds_with_shares(model: TamUlag) -> None:
    """All seven laws; gradients go through the heads alone."""
    model.config = replace(model.config, shares=(0.4, 0.2, 0.4))
    x = stream(model)
    steps = torch.cat([values(output) for output in chained(model, x, [0, 3, 8])], dim=1)
    torch.testing.assert_close(steps, values(model.forward(x, ends(x), None, turns(x))))


def test_shares_are_three_or_none() -> None:
    """The error names what was given."""
    with pytest.raises(ValueError, match=r"shares = \(0\.5, 0\.5\): give three numbers above 0"):
        ModelConfig(shares=(0.5, 0.5))


def scaled(shares: tuple[float, ...] = (0.4, 0.2, 0.4)) -> TamUlag:
    return tiny(ModelConfig(scales=True, shares=shares))


@pytest.mark.parametrize("shares", [(), (0.4, 0.2, 0.4)])
def test_scales_keep_the_contract(shares: tuple[float, ...]) -> None:
    """All seven laws hold for the scales, and for the weights that they change."""
    verify_contract(scaled(shares))


def test_a_head_in_doubt_counts_less() -> None:
    """The weight is share / (1 + scale^2); a lone modality is what its head says all the same."""
    model = scaled()
    x = stream(model)
    output = model.forward(x, ends(x), None, turns(x))
    weight = torch.tensor([0.4, 0.2, 0.4]) / (1 + output.scale.square()) * output.present
    weight = weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-9)
    torch.testing.assert_close(output.weight, weight)
    passes_through(model, 1)


def test_a_model_without_scales_says_one(model: TamUlag) -> None:
    """So what is divided by them stays as it is."""
    x = stream(model)
    assert (model.forward(x, ends(x)).scale == 1).all()
