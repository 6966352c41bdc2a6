"""Score features of one's own: a session without devices, threads or clocks.

    python examples/ready_features.py

Every input says when it happened; the session answers whenever half a second is complete. The same
inputs give the same numbers, whenever and however fast they are pushed.
"""

import numpy as np

from tamulag.streamer import Block, Estimate, Session

SECONDS = 10


def show(estimate: Estimate) -> None:
    """Print the score, and how much voice and face counted for it."""
    weights = (f"{name} {part.weight:.2f}" for name, part in estimate.modalities.items())
    print(f"{estimate.end:4.1f} s: {estimate.sentiment:+.3f}  ({', '.join(weights)})")


def main() -> None:
    """Push a voice and a face for ten seconds; the voice is missing in the middle."""
    session = Session.open("default", modalities=("audio", "vision"))
    dims = session.dims
    # In place of your own: a vector each 20 ms of voice, one each 100 ms of face.
    random = np.random.default_rng(0)
    voice = random.normal(0, 0.3, (SECONDS * 50, dims["audio"])).astype(np.float32)
    face = random.normal(0, 0.3, (SECONDS * 10, dims["vision"])).astype(np.float32)

    for second in range(SECONDS):
        estimates = session.push(Block("vision", float(second), face[10 * second :][:10]))
        if not 3 <= second < 7:
            estimates += session.push(Block("audio", float(second), voice[50 * second :][:50]))
        estimates += session.advance(second + 1.0)
        for estimate in estimates:
            show(estimate)
    for estimate in session.close():
        show(estimate)


if __name__ == "__main__":
    main()
