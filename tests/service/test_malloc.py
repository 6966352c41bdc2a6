"""Memory that was freed stays with the process."""

import subprocess
import sys

COUNT = """
import resource, sys
import torch
from tamulag.streamer.bench.server_capacity import batched
from tamulag.streamer.service.malloc import disable_trim
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert disable_trim()
def faults(hops):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    batched(256, hops=hops)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(1)
# Less those of opening the sessions, whose memory is their own.
print(faults(3) - faults(1))
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], check=True, capture_output=True, text=True, timeout=60
    )
    return int(done.stdout)


def test_a_step_takes_no_new_pages() -> None:
    """Without it every step faults in its pages again."""
    assert faults("keep") < faults("plain") / 2
