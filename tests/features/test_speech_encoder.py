"""The states of the speech recogniser's encoder."""

import numpy as np
import onnxruntime
import pytest

from tamulag.streamer.core.sample import Array
from tamulag.streamer.features.audio import AudioFeatures
from tamulag.streamer.features.pretrained import locate
from tamulag.streamer.features.speech_encoder import (
    BLOCK_TICKS,
    CONTEXT,
    SPEECH_DIM,
    SpeechEncoder,
    answering,
)


def noise(seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(CONTEXT)).astype(np.float32)


def test_five_ticks_have_a_state_each() -> None:
    """The newest states are finite and of the documented shape."""
    states = SpeechEncoder().encode(noise(0))
    assert states.shape == (BLOCK_TICKS, SPEECH_DIM)
    assert np.isfinite(states).all()


def test_same_sound_gives_the_same_bits() -> None:
    """Two encoders of one process share weights and hold no state."""
    first, second = SpeechEncoder(), SpeechEncoder()
    second.encode(noise(1))
    assert np.array_equal(first.encode(noise(0)), second.encode(noise(0)))


def test_different_sound_gives_different_states() -> None:
    """The states depend on what is heard."""
    encoder = SpeechEncoder()
    assert np.abs(encoder.encode(noise(0)) - encoder.encode(noise(1))).max() > 0.1


@pytest.mark.parametrize("tick", [4, 9])
def test_states_do_not_depend_on_later_sound(tick: int) -> None:
    """What follows a tenth of a second changes nothing in it."""
    head, one, other = noise(0)[: 320 * (tick + 1)], noise(1), noise(2)
    rows = []
    for tail in (one, other):
        features = AudioFeatures()
        features._quiet_ticks = -100  # as if somebody had spoken: noise alone would be masked
        samples = features.push(np.concatenate((head, tail)), 0)[: tick + 1]
        rows.append([s.values for s in samples])
    for a, b in zip(*rows, strict=True):
        assert a is not None
        assert np.array_equal(a, b)


def test_states_are_those_of_the_second_layer() -> None:
    """What the second layer gives, not what the encoder ends with."""
    plain = (locate("moonshine-tiny-en") / "encoder_model.ort").read_bytes()
    feed = {"input_values": noise(0)[None], "attention_mask": np.ones((1, CONTEXT), np.int64)}
    second, last = (
        onnxruntime.InferenceSession(model).run(None, feed)[0][0, -1]
        for model in (answering(plain, "/layers.1/Add_1_output_0"), plain)
    )
    newest = SpeechEncoder().encode(noise(0))[-1]
    np.testing.assert_allclose(newest, second, atol=1e-5)
    assert np.abs(newest - last).max() > 0.1


def test_unknown_value_is_refused() -> None:
    """A name that no node computes does not give a model that runs."""
    plain = (locate("moonshine-tiny-en") / "encoder_model.ort").read_bytes()
    with pytest.raises(Exception, match="no-such-value"):
        onnxruntime.InferenceSession(answering(plain, "no-such-value"))
