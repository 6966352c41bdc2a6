"""Configurations: the presets, what is refused, and what an older checkpoint means."""

import dataclasses
import json

import pytest

from tamulag.models import ModelConfig, TamUlag
from tamulag.models.nn.config import PRESETS, BranchConfig, config_dict, preset, with_tam


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json(name: str) -> None:
    """What a checkpoint writes down is what comes back."""
    config = preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config_dict(config)))) == config


def test_stream_is_what_ships() -> None:
    """The defaults have a name."""
    assert preset("stream") == ModelConfig()


def test_config_without_the_newer_keys_means_the_first_model() -> None:
    """A checkpoint from before there was a choice goes on loading."""
    old = ("dim", "hidden", "layers", "dropout", "period")
    stored = {key: getattr(ModelConfig(), key) for key in ("semantic", "head", "dropout", "window")}
    for name in ("text", "audio", "vision"):
        branch = getattr(ModelConfig(), name)
        stored[name] = {key: getattr(branch, key) for key in old}
    audio = dataclasses.replace(ModelConfig().audio, centred=0)
    first = dataclasses.replace(ModelConfig(), audio=audio)
    assert ModelConfig.from_dict(stored) == first


RELEASE = {"paper-mosi": 421_514, "paper-mosei": 386_234, "paper-sims": 595_882}
CONFIDENCE, FLAGS = 867, 3 * 128


@pytest.mark.parametrize("name", sorted(RELEASE))
def test_paper_has_as_many_parameters_as_the_release(name: str) -> None:
    """Equal but for the presence flags, and the confidence nets that the release forgot."""
    count = sum(parameter.numel() for parameter in TamUlag(preset(name)).parameters())
    assert count == RELEASE[name] + CONFIDENCE + FLAGS


def test_paper_is_the_one_of_mosi() -> None:
    """One name is enough for who does not care."""
    assert preset("paper") == preset("paper-mosi")


def test_preset_takes_the_features_there_are() -> None:
    """The paper's model can be trained on features of another front end."""
    config = preset("paper", dims={"audio": 44})
    assert (config.text.dim, config.audio.dim, config.vision.dim) == (768, 44, 20)


def test_attention_can_be_set_in_all_branches() -> None:
    """An ablation changes one thing."""
    config = with_tam(preset("paper"), "gate_sum", residual=True)
    assert {(b.tam, b.residual) for b in (config.text, config.audio, config.vision)} == {
        ("gate_sum", True)
    }
    assert with_tam(config, "gate_last").fusion == config.fusion


@pytest.mark.parametrize("key", ["tam", "encoder"])
def test_unknown_form_of_a_branch_is_refused(key: str) -> None:
    """The message names the key, the value and the choices."""
    with pytest.raises(ValueError, match=f"{key} = 'best' is not known: use one of"):
        dataclasses.replace(BranchConfig(dim=1), **{key: "best"})  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["fusion", "labels", "similarity", "head_layers"])
def test_unknown_form_of_the_model_is_refused(key: str) -> None:
    """The message names the key, the value and the choices."""
    with pytest.raises(ValueError, match=f"{key} = 'best' is not known: use one of"):
        dataclasses.replace(ModelConfig(), **{key: "best"})  # type: ignore[arg-type]


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    """The message lists them."""
    with pytest.raises(ValueError, match=r"preset = 'papre' .*stream, paper, paper-mosi"):
        preset("papre")


def test_dimension_of_no_modality_is_refused() -> None:
    """A misspelt name is an error, not an unused number."""
    with pytest.raises(ValueError, match="modality = 'video' is not known"):
        preset("paper", dims={"video": 3})


def test_features_of_others_are_not_centred() -> None:
    """The preset `stream` on the 5 values of a packed file; with our own width it centres."""
    assert preset("stream", dims={"audio": 5}).audio.centred == 0
    assert preset("stream", dims={"audio": 332}).audio.centred == 41
