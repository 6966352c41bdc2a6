"""Turn a second of speech into states of a speech recogniser's encoder, tick by tick.

Knows the encoder of the packaged Moonshine model. Knows no microphone, no file and no words: the
states of its second layer still carry how something is spoken, the last ones mostly what.
"""

import functools
import struct
from typing import TYPE_CHECKING

import numpy as np

from ..core.sample import Array
from .pretrained import locate

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SPEECH_DIM = 288
CONTEXT = 16000
"""Samples (one second) of input; the output belongs to its end."""
BLOCK_TICKS = 5
"""Ticks of 20 ms per call."""

_LAYER = "/layers.1/Add_1_output_0"
"""Output of the second of six transformer layers; docs/explanation/features.md has the reason."""
_MODEL, _GRAPH, _OUTPUTS = 6, 18, 16
"""Slots of ONNX Runtime's own format (its ort.fbs): of the session, of `Model`, of `Graph`."""


class SpeechEncoder:
    """Two layers of moonshine-tiny-en's encoder (Jeffries et al. 2024), bit-equal on every call.

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
        # The encoder gives about 41 states a second: use the newest at or before each tick's end.
        rate = len(states) / CONTEXT
        ends = CONTEXT - 320 * np.arange(BLOCK_TICKS)[::-1]
        picked: Array = states[(ends * rate).astype(np.int64) - 1]
        return picked


@functools.cache
def _session() -> "InferenceSession":
    # One per process: it holds no state, and its weights are 8 MB.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    path = locate("moonshine-tiny-en") / "encoder_model.ort"
    model = answering(path.read_bytes(), _LAYER)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answering(model: bytes, name: str) -> bytes:
    """Return the model with the value `name` of its graph as its only output.

    ONNX Runtime's own format exposes its outputs alone, and no tool edits it. It is a flatbuffer:
    the list of outputs can be pointed at another name, which is appended. ONNX Runtime's reader of
    the format is not used: it imports torch.

    Args:
        model: Content of an .ort file.
        name: Value that one of its nodes computes; loading or running fails for any other.
    """
    changed, table = bytearray(model), _followed(model, 0)
    for slot in (_MODEL, _GRAPH, _OUTPUTS):
        table = _followed(model, _entry(model, table, slot))
    place = table + 4  # behind the length of the list
    changed += bytes(-len(changed) % 4)
    struct.pack_into("<I", changed, place, len(changed) - place)
    text = name.encode()
    return bytes(changed + struct.pack("<I", len(text)) + text + bytes(1))


def _entry(data: bytes, table: int, slot: int) -> int:
    """Return the place of an entry of a flatbuffer's table."""
    slots = table - struct.unpack_from("<i", data, table)[0]
    return table + int(struct.unpack_from("<H", data, slots + slot)[0])


def _followed(data: bytes, place: int) -> int:
    """Return the place that the offset at a place of a flatbuffer means."""
    return place + int(struct.unpack_from("<I", data, place)[0])
