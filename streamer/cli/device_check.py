"""Try a camera or a microphone for three seconds: pictures and faces, sound and its level.

Knows the sources of a live run and uses them, so that it fails where a run would. Stores nothing.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from ..core.sample import SAMPLE_RATE, Array, Input, Notice, Sample
from ..core.source import Source, SourceError, SourceLost
from ..core.urls import redacted
from ..features.audio_pipeline import AudioPipeline
from ..features.pretrained import AssetError
from ..features.sound_check import QUIET
from ..sources.camera import CameraSource
from ..sources.microphone import MicrophoneSource
from .doctor import Check, Device

LENGTH = 3.0
"""Seconds of a trial, from the first picture or sound."""

START_LIMIT = 6.0
"""Seconds granted until the first picture or sound."""

_STEP = 0.05
_STOP_LIMIT = 3.0


class Meter:
    """Measures the level of sound, in place of a feature extractor.

    Attributes:
        peak: Largest absolute value, 1 = full scale.
        count: Samples at 16 kHz.
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self.count = 0
        self._energy = 0.0

    @property
    def level(self) -> float:
        """Root mean square of all sound, 1 = full scale."""
        return math.sqrt(self._energy / self.count) if self.count else 0.0

    def push(self, block: Array, start: int) -> list[Sample]:
        """Measure a block; see `AudioExtractor`."""
        if len(block):
            self.peak = max(self.peak, float(np.abs(block).max()))
            self._energy += float(np.square(block, dtype=np.float64).sum())
            self.count += len(block)
        return []


def trials(found: Sequence[Device]) -> list[Check]:
    """Try each device, one after the other."""
    return [
        try_camera(device.index) if device.kind == "camera" else try_microphone(device.index)
        for device in found
    ]


def try_camera(device: int | str) -> Check:
    """Check that a camera gives pictures, and count those with a face."""
    from ..features.vision import VisionFeatures

    name = f"capture camera {redacted(str(device))}"
    pictures: list[Input] = []
    try:
        with VisionFeatures() as features:
            source = CameraSource(device, features, now=time.monotonic)
            _run(source, pictures, lambda: len(pictures) > 0)
    except (SourceError, SourceLost, AssetError, ImportError, OSError) as error:
        return Check(name, False, str(error), "choose another: tamulag devices")
    samples = [one for one in pictures if isinstance(one, Sample)]
    faces = sum(one.values is not None for one in samples)
    detail = f"{len(samples)} pictures, a face in {faces}"
    remedy = "look into the camera, with light on the face"
    return Check(name, faces > 0, detail, remedy, required=False)


def try_microphone(device: int | str | None) -> Check:
    """Check that a microphone gives sound, and measure its level."""
    name = f"capture microphone {'default' if device is None else device}"
    meter = Meter()
    source = MicrophoneSource(
        device, AudioPipeline(meter, None, threaded=False), now=time.monotonic
    )
    inputs: list[Input] = []
    try:
        _run(source, inputs, lambda: meter.count > 0)
    except (SourceError, SourceLost, OSError) as error:
        return Check(name, False, str(error), "choose another: tamulag devices")
    peak = _decibel(meter.peak)
    detail = (
        f"{meter.count / SAMPLE_RATE:.1f} s, level {_decibel(meter.level):.0f} dBFS, "
        f"peak {peak:.0f} dBFS"
    )
    remedy = "silence: unmute it, plug it in, or speak while this runs"
    faults = [
        one.detail for one in inputs if isinstance(one, Notice) and one.event == "sound_fault"
    ]
    remedy = faults[0] if faults else remedy
    return Check(name, peak > QUIET and not faults, detail, remedy, required=False)


def _run(source: Source, into: list[Input], has_begun: Callable[[], bool]) -> None:
    """Run a source for `LENGTH` seconds after its first input.

    Raises:
        SourceError: If it cannot be opened.
        SourceLost: If it stops, or nothing comes from it.
        Exception: Any other error of the source.
    """
    source.open()
    stop = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            source.run(into.append, stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name=f"tamulag.trial.{source.name}", daemon=True)
    thread.start()
    deadline = time.monotonic() + START_LIMIT
    while thread.is_alive() and time.monotonic() < deadline and not has_begun():
        time.sleep(_STEP)
    thread.join(LENGTH if has_begun() else 0.0)
    stop.set()
    thread.join(_STOP_LIMIT)
    if failed:
        raise failed[0]
    if not has_begun():
        raise SourceLost("source_lost", f"{source.name} gave nothing for {START_LIMIT:g} s")


def _decibel(value: float) -> float:
    return 20 * math.log10(max(value, 1e-5))
