"""Memory that was freed stays with the process."""

import subprocess
import sys

COUNT = """
import resource, sys
import numpy as np
import torch
from tamulag.models.runtime.checkpoint import load
from tamulag.streamer.core.commands import Push
from tamulag.streamer.core.sample import Block
from tamulag.streamer.core.session_batch import SessionBatch
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.service.malloc import disable_trim

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert disable_trim()
model, card = load("default")
batch = SessionBatch(TorchEngine(model, 256), card, batch=256)
for number in range(256):
    batch.open(str(number), ("audio",))
sound = np.zeros((50, model.config.audio.dim), np.float32)
before = 0
for hop in range(4):
    for number in range(256):
        batch.apply(str(number), Push(Block("audio", hop * 0.5, sound)))
    if hop == 1:  # the first hop's memory is that of the sessions
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    while batch.waiting:
        batch.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], check=True, capture_output=True, text=True, timeout=60
    )
    return int(done.stdout)


def test_a_step_takes_no_new_pages() -> None:
    """Without it every step faults in its pages again."""
    assert faults("keep") < faults("plain") / 2
