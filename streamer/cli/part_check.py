"""Import the packages and run the parts of a session, each once, in a process of their own.

Knows a second of sound, a picture or a word for each of them. What a damaged library does there, up
to ending its process, does not happen here.
"""

import json
import multiprocessing
import signal
from collections.abc import Callable
from importlib import import_module, metadata
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Self

import numpy as np

from ..aio.shutdown import end_with_parent
from ..core.sample import SAMPLE_RATE

LIMIT = 120.0
"""Seconds that one import or run may take, on a cold disk and a busy machine."""

ENDING = 10.0
"""Seconds for a process to end that answers no more."""

LONGEST = 10_000
"""Characters of what is wrong."""

LARGEST = 6 * LONGEST + 20
"""Bytes of an answer: data, not a pickle, and each character may be an escape of six."""


class Outcome(NamedTuple):
    """Whether something works; what it gave, or what is wrong."""

    ok: bool
    detail: str


class PartProcess:
    """A process that tries one thing after another, from `with` to its end; begun again if lost."""

    def __init__(self) -> None:
        self._running: tuple[BaseProcess, Connection] | None = None

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._end()

    def ask(self, what: Callable[..., str], *arguments: object) -> Outcome:
        """Call a function of a module there; whatever it raises is the outcome."""
        process, pipe = self._running = self._running or _begin()
        pipe.send((what, arguments))
        if not pipe.poll(LIMIT):
            self._end()
            return Outcome(False, f"no answer within {LIMIT:g} s")
        try:
            ok, detail = json.loads(pipe.recv_bytes(LARGEST))
            return Outcome(bool(ok), str(detail))
        except (EOFError, ConnectionError):
            process.join(ENDING)
            self._end()
            return Outcome(False, f"it ends the whole process ({_ended(process.exitcode)})")

    def _end(self) -> None:
        if self._running is not None:
            process, pipe = self._running
            self._running = None
            process.kill()
            process.join(ENDING)
            pipe.close()


def _begin() -> tuple[BaseProcess, Connection]:
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=_serve, args=(theirs,), name="tamulag doctor", daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(pipe: Connection) -> None:
    end_with_parent()
    while True:
        what, arguments = pipe.recv()
        try:
            outcome = Outcome(True, str(what(*arguments)))
        except Exception as error:
            outcome = Outcome(False, str(error) or type(error).__name__)
        pipe.send_bytes(json.dumps((outcome.ok, outcome.detail[:LONGEST])).encode())


def _ended(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def import_package(name: str, module: str) -> str:
    """Import a package and return its version."""
    version = metadata.version(name)
    try:
        import_module(module)
    except Exception as error:
        raise ImportError(f"{version}, cannot be imported: {error}") from error
    return version


def run_face() -> str:
    """Load the face landmarker."""
    from ..features.vision import VisionFeatures

    VisionFeatures(still=True).close()
    return "yes"


def run_voice() -> str:
    """Describe a second of sound."""
    from ..features.audio import AudioFeatures

    return f"yes, {len(AudioFeatures().push(_tone(), 0))} vectors a second"


def run_recogniser() -> str:
    """Recognise a second of sound, which has no words."""
    from ..features.asr.moonshine import MoonshineRecogniser

    recogniser = MoonshineRecogniser()
    recogniser.accept(_tone(), 0)
    recogniser.finish()
    recogniser.close()
    return "yes"


def run_text_encoder(checkpoint: str) -> str:
    """Encode two words for a checkpoint."""
    from tamulag.models.text.text_encoder import encoder_for

    states, _ = encoder_for(checkpoint).encode(["good", "day"])
    return f"yes, {len(states)} states of two words"


def run_checkpoint(name: str) -> str:
    """Load a checkpoint and score three seconds of which nothing is known but that they passed."""
    from ..core.session import Session

    session = Session.open(name, modalities=("audio", "vision"))
    return f"yes, {len(session.advance(3.0))} estimates of three seconds"


def _tone() -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    time = np.arange(SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    return np.asarray(0.1 * np.sin(2 * np.pi * 220 * time), np.float32)
