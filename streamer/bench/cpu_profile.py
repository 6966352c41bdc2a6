"""Processor time of a live session by part, each part measured alone, on the demo's clip.

Knows the parts that process a second of stream. Knows no thread, no device and no socket: their
cost is the rest of a live session's time.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from tamulag.models.runtime.checkpoint import load
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.models.text.text_encoder import encoder_for

from ..app.build_agent import demo_files
from ..core.estimate import Estimate
from ..core.sample import MODALITIES, SAMPLE_RATE, Array, Input
from ..core.session import Session
from ..features.asr.open import open_recogniser
from ..features.asr.recogniser import PhraseRecogniser
from ..features.audio import AudioFeatures
from ..features.audio_pipeline import Resampler
from ..features.speech_encoder import CONTEXT, SpeechEncoder
from ..features.vision import VisionFeatures
from ..protocol import messages
from ..sources.containers import opened
from ..sources.media_reader import picture_of

BLOCK = SAMPLE_RATE // 10
"""Samples of a tenth of a second; there is one picture for each."""
CALLS = 100
"""Timed calls of the speech encoder."""

P = ParamSpec("P")
T = TypeVar("T")


class Share(NamedTuple):
    """Processor time of one part."""

    part: str
    calls: float
    """Per second of stream."""
    ms: float
    """Processor time of one call, mean."""
    cores: float
    """Processor cores, all threads of the part together."""


class _Clock:
    """Adds up processor time by part."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)

    def timed(self, part: str, call: Callable[P, T]) -> Callable[P, T]:
        """Return the function with its processor time added to a part."""

        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            begin = time.process_time()
            done = call(*args, **kwargs)
            self.times[part].append(time.process_time() - begin)
            return done

        return run

    def share(self, part: str, seconds: float, *, without: str = "") -> Share:
        """Return the share of a part, less another part that it calls."""
        times = self.times[part]
        total = sum(times) - sum(self.times[without]) if without else sum(times)
        count = max(1, len(times))
        return Share(part, len(times) / seconds, 1000 * total / count, total / seconds)


def shares(seconds: float = 30.0, checkpoint: str = "default") -> list[Share]:
    """Run every part on the demo's voice and portrait, one after the other, and time it.

    Args:
        seconds: Length of stream; the demo's voice lasts 44.
        checkpoint: Name or path.

    Raises:
        SourceError: If a file of the demo is missing.
    """
    portrait, speech = demo_files()
    wave, image = wave_of(speech)[: round(seconds * SAMPLE_RATE)], picture_of(str(portrait))
    seconds, clock = len(wave) / SAMPLE_RATE, _Clock()
    model, card = load(checkpoint)
    recogniser = open_recogniser("moonshine", None)
    assert recogniser is not None
    recogniser_path = PhraseRecogniser(
        recogniser, clock.timed("text encoder", encoder_for(checkpoint).encode)
    )
    # The first call of some parts prepares what all others use.
    recogniser_path.push(np.zeros(BLOCK, np.float32), -SAMPLE_RATE)
    clock.times.clear()
    with VisionFeatures() as vision:
        hear, see = (
            clock.timed("recogniser", recogniser_path.push),
            clock.timed("face", vision.push),
        )
        measure = clock.timed("voice", AudioFeatures().push)
        score = clock.timed("session, model", Session(TorchEngine(model), card, MODALITIES).push)
        tell, spoken = clock.timed("message", _message), 0
        for start in range(0, len(wave) - BLOCK + 1, BLOCK):
            block = wave[start : start + BLOCK]
            phrases, samples = hear(block, start), measure(block, start)
            spoken += any(sample.values is not None for sample in samples)
            items: list[Input] = [*phrases, *samples, see(image, start / SAMPLE_RATE)]
            for estimate in (estimate for item in items for estimate in score(item)):
                tell(estimate)
    recogniser_path.close()
    return _table(clock, seconds, spoken)


def wave_of(path: Path) -> Array:
    """Return the sound of a file, 16 kHz mono float32; raises SourceError if it has none."""
    resampler = Resampler(SAMPLE_RATE)
    with opened(str(path)) as container:
        pieces = [resampler.push_frame(frame) for frame in container.decode(audio=0)]
    return np.concatenate([*pieces, resampler.finish()])


def _message(estimate: Estimate) -> str:
    latency = messages.Latency(align=0.0, features=0.0, model=0.0, total=0.0)
    message = messages.sentiment_message(
        estimate, session="bench", seq=1, time=messages.utc(0.0), latency=latency, dropped={}
    )
    return messages.encode(message)


def _table(clock: _Clock, seconds: float, spoken: int) -> list[Share]:
    sound = np.zeros(CONTEXT, np.float32)
    encode = clock.timed("speech encoder", SpeechEncoder().encode)
    for _ in range(CALLS):
        encode(sound)
    each = float(np.mean(clock.times["speech encoder"]))
    states = Share("speech encoder", spoken / seconds, 1000 * each, each * spoken / seconds)
    voice = clock.share("voice", seconds)
    rest = voice.cores - states.cores
    steps, sending = (clock.share(part, seconds) for part in ("session, model", "message"))
    hops = sending.calls
    return [
        clock.share("recogniser", seconds, without="text encoder"),
        clock.share("text encoder", seconds),
        states,
        Share("bands, pitch, speech or not", voice.calls, 1000 * rest / voice.calls, rest),
        clock.share("face", seconds),
        Share("session, model", hops, 1000 * steps.cores / hops, steps.cores),
        sending,
    ]
