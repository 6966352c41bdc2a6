"""Turn a second of speech into states of a speech recogniser's encoder, tick by tick.

Knows the encoder of the packaged Moonshine model. Knows no microphone, no file and no words: the
states say how something is spoken as much as what.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np

from .assets import locate
from .sample import Array

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SPEECH_DIM = 288
CONTEXT = 16000
"""Samples (one second) that the encoder sees; it answers for the end of them."""
BLOCK_TICKS = 5
"""Ticks of 20 ms that one call answers for."""


class SpeechEncoder:
    """The encoder of moonshine-tiny-en (Jeffries et al. 2024); one thread, the same bits each time.

    Raises:
        AssetError: If the model's files are missing or damaged.
    """

    def __init__(self) -> None:
        self._session = _session()

    def encode(self, wave: Array) -> Array:
        """Return the states of the last five ticks.

        Args:
            wave: Shape (16000,), float32 mono at 16 kHz in [-1, 1], zeros before the start.

        Returns:
            Shape (5, 288), float32; state k belongs to tick k of the last 100 ms and depends on
            nothing after them.
        """
        mask = np.ones((1, CONTEXT), np.int64)
        states = self._session.run(None, {"input_values": wave[None], "attention_mask": mask})[0][0]
        # The encoder gives about 41 states a second: the newest at or before each tick's end.
        rate = len(states) / CONTEXT
        ends = CONTEXT - 320 * np.arange(BLOCK_TICKS)[::-1]
        picked: Array = states[(ends * rate).astype(np.int64) - 1]
        return picked


@functools.cache
def _session() -> "InferenceSession":
    # One for the process: it holds no state, and its weights are 8 MB.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    path = locate("moonshine-tiny-en") / "encoder_model.ort"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
