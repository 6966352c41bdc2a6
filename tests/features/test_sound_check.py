"""Why sound is of no use is named: each fault, and its end; good sound is never blamed."""

import numpy as np
import pytest

from tamulag.streamer.core.sample import Array
from tamulag.streamer.features.sound_check import CANCELS, CLIPS, DEAD, LOW, Fault, SoundCheck

RATE = 16000


def voice(seconds: float, level: float = 0.1) -> Array:
    """A tone that swells and fades."""
    time = np.arange(round(seconds * RATE)) / RATE
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 1.3 * time)
    return (level * swell * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def heard(check: SoundCheck, *channels: Array) -> list[str | None]:
    """Push blocks of 20 ms; return each change."""
    sound = np.stack(channels, 1)
    return [
        check.fault.reason if check.fault else None
        for at in range(0, len(sound), RATE // 50)
        if check.push(sound[at : at + RATE // 50], RATE)
    ]


@pytest.mark.parametrize(
    ("left", "right", "fault"),
    [
        (1.0, -1.0, CANCELS),
        (0.3, -0.3, CANCELS),
        (1.0, 0.0, DEAD),
        (1.0, 0.0004, DEAD),
        (30.0, 30.0, CLIPS),
        (0.005, 0.005, LOW),
        (0.0, 0.0, LOW),
    ],
)
def test_a_fault_is_named_and_ends(left: float, right: float, fault: Fault) -> None:
    """Once when it has lasted, once when it is over."""
    check, sound = SoundCheck(), voice(12)
    both = (np.clip(left * sound, -1, 1), np.clip(right * sound, -1, 1))
    assert heard(check, *both) == [fault.reason]
    assert heard(check, voice(3), voice(3)) == [None]


@pytest.mark.parametrize("right", [1.0, 0.2, 0.02])
def test_good_sound_is_not_blamed(right: float) -> None:
    """Channels may differ; a pause of five seconds is none of a muted microphone."""
    check, pause = SoundCheck(), np.zeros(5 * RATE, np.float32)
    for _ in range(3):
        assert heard(check, voice(6), right * voice(6)) == []
        assert heard(check, pause, pause) == []


def test_the_number_of_channels_may_change() -> None:
    """A stream goes on as mono."""
    check = SoundCheck()
    assert heard(check, voice(3), -voice(3)) == [CANCELS.reason]
    assert heard(check, voice(3)) == [None]
