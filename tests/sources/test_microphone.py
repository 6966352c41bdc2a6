import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from support.devices import pulse_server
from tamulag.streamer.bench.rig.devices import SoundServer

RECORD = """
import json, sys, threading, time
from tamulag.streamer.features.audio import AudioFeatures
from tamulag.streamer.sources.microphone import MicrophoneSource
from tamulag.streamer.features.audio_pipeline import AudioPipeline
from tamulag.streamer.core.source import SourceError, SourceLost

device, rate, seconds, latency = json.loads(sys.argv[1])
say = lambda *what: print(json.dumps(what), flush=True)
began = time.monotonic()
now = lambda: time.monotonic() - began
sound = AudioPipeline(AudioFeatures(), None, threaded=True)
source = MicrophoneSource(device, sound, now=now, rate=rate, latency=latency)
stop = threading.Event()

def put(sample):
    say("tick", round(sample.timestamp * 50), sample.reason, now() - sample.timestamp)

try:
    source.open()
    say("open", source._rate)
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        source.run(put, stop)
    finally:
        timer.cancel()
        timer.join()
except SourceError as error:
    say("error", str(error))
except SourceLost as loss:
    say("lost", loss.reason, str(loss))
say("gauges", source.gauges())
say("threads", [t.name for t in threading.enumerate() if t is not threading.main_thread()])
"""


class Recording:
    """A microphone source in a process that sees only the private sound server."""

    def __init__(
        self,
        server: SoundServer,
        device: str | None = None,
        rate: int | None = None,
        seconds: float = 20.0,
        setup: str = "",
        latency: float = 0.0,
    ) -> None:
        settings = json.dumps([device, rate, seconds, latency])
        command = [sys.executable, "-c", setup + RECORD, settings]
        self.process = subprocess.Popen(
            command,
            env=server.environment,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdout is not None
        self._lines = self.process.stdout

    def until(self, kind: str) -> list[list[object]]:
        """Read what the source says up to the first line of a kind."""
        said: list[list[object]] = []
        for line in self._lines:
            said.append(json.loads(line))
            if said[-1][0] == kind:
                break
        return said

    def end(self) -> None:
        self.process.kill()
        self.process.wait(5.0)
        self._lines.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SoundServer]:
    with pulse_server(tmp_path) as server:
        yield server


@pytest.fixture
def speech(data: Path) -> Path:
    return data / "asr" / "spk1_snt1.wav"


def ticks_of(said: list[list[object]]) -> list[int]:
    return [int(str(line[1])) for line in said if line[0] == "tick"]


@pytest.mark.sound
@pytest.mark.data
@pytest.mark.parametrize("rate", [None, 44100])
def test_speech_arrives_as_rising_ticks(
    server: SoundServer, speech: Path, rate: int | None
) -> None:
    """Fifty ticks a second, each once, at 16 kHz and through the resampler; speech is heard."""
    recording = Recording(server, rate=rate)
    try:
        recording.until("tick")
        began = time.monotonic()
        server.play(speech)
        seconds = time.monotonic() - began
        server.unplug()
        said = recording.until("lost")
    finally:
        recording.end()
    ticks = ticks_of(said)
    assert ticks == sorted(set(ticks))
    assert len(ticks) >= 0.8 * 50 * seconds
    assert ticks[-1] - ticks[0] == pytest.approx(50 * seconds, rel=0.2)
    heard = [line for line in said if line[0] == "tick" and line[2] is None]
    assert len(heard) > 50
    assert max(float(str(line[3])) for line in heard) < 0.5


SLOWLY = """
import time
from tamulag.streamer.sources.microphone import MicrophoneSource

def open_slowly(self, opened=MicrophoneSource.open):
    opened(self)
    time.sleep(2.5)

MicrophoneSource.open = open_slowly
"""


@pytest.mark.sound
def test_sound_from_before_the_session_is_left_out(server: SoundServer) -> None:
    """What was recorded between `open` and `run` was stamped before session time 0."""
    recording = Recording(server, setup=SLOWLY)
    try:
        first = recording.until("tick")[-1]
    finally:
        recording.end()
    assert float(str(first[3])) < 0.5


@pytest.mark.sound
def test_a_pulled_microphone_is_lost(server: SoundServer) -> None:
    """`run` raises within 3 s, and no thread is left."""
    recording = Recording(server)
    try:
        recording.until("tick")
        server.unplug()
        unplugged = time.monotonic()
        said = recording.until("threads")
    finally:
        recording.end()
    assert time.monotonic() - unplugged < 3.5
    assert said[-3][:2] == ["lost", "microphone_lost"]
    assert said[-1] == ["threads", []]


@pytest.mark.sound
def test_stop_ends_the_recording(server: SoundServer) -> None:
    """A source that is stopped closes its stream and returns."""
    recording = Recording(server, seconds=0.3)
    try:
        said = recording.until("threads")
    finally:
        recording.end()
    assert [line[0] for line in said if line[0] != "tick"] == ["open", "gauges", "threads"]


@pytest.mark.sound
def test_part_of_a_name_is_enough(server: SoundServer) -> None:
    """An input is found by a part of its name, whatever the case."""
    recording = Recording(server, device="PUL", seconds=0.1)
    try:
        assert recording.until("open") == [["open", 16000]]
    finally:
        recording.end()


@pytest.mark.sound
@pytest.mark.parametrize(
    ("device", "problem"), [("violin", "is not among the inputs"), ("l", "fits several inputs")]
)
def test_a_wrong_name_lists_the_inputs(server: SoundServer, device: str, problem: str) -> None:
    """The message shows what could have been meant."""
    recording = Recording(server, device=device)
    try:
        message = str(recording.until("error")[-1][1])
    finally:
        recording.end()
    assert problem in message
    assert "pulse" in message


@pytest.mark.sound
def test_missing_portaudio_names_what_to_install(server: SoundServer) -> None:
    """Without the library the message names the package, and that the rest works without it."""
    setup = "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
    recording = Recording(server, setup=setup)
    try:
        message = str(recording.until("error")[-1][1])
    finally:
        recording.end()
    assert "apt install libportaudio2" in message
    assert "--microphone none" in message


@pytest.mark.sound
def test_latency_is_subtracted(server: SoundServer) -> None:
    """A known delay of the microphone moves every stamp back: the ticks seem older by it."""
    recording = Recording(server, latency=3.0)
    try:
        ticks = recording.until("tick")
        while len(ticks_of(ticks)) < 20:
            ticks += recording.until("tick")
    finally:
        recording.end()
    ages = [float(str(line[3])) for line in ticks if line[0] == "tick"]
    assert all(3.0 <= age < 3.5 for age in ages)


@pytest.mark.sound
def test_a_silent_driver_is_found_by_the_age_of_its_last_block(server: SoundServer) -> None:
    """A sound server that freezes calls no callback and reports nothing: lost within 2 s."""
    recording = Recording(server)
    try:
        recording.until("tick")
        with server.frozen():
            froze = time.monotonic()
            said = recording.until("lost")
            assert time.monotonic() - froze < 2.2
    finally:
        recording.end()
    assert said[-1][1] == "microphone_lost"


@pytest.mark.sound
def test_the_clock_of_the_device_is_measured(server: SoundServer) -> None:
    """The gauges tell where sample 0 lay and how far the sound is from its place."""
    recording = Recording(server, seconds=3.0)
    try:
        said = recording.until("threads")
    finally:
        recording.end()
    gauges = next(line[1] for line in said if line[0] == "gauges")
    assert isinstance(gauges, dict)
    assert abs(gauges["microphone_error"]) < 0.02
    assert gauges["microphone_gaps"] <= 1
    assert gauges["microphone_waiting"] < 0.2
    assert "microphone_drift_ppm" not in gauges  # three seconds tell nothing


SLOW_FEATURES = """
import time
from tamulag.streamer.features.audio import AudioFeatures

pauses, begins = [6.0], []

def push_slowly(self, block, start, push=AudioFeatures.push):
    begins.append(start)
    if pauses and start > begins[0] + 16000:
        time.sleep(pauses.pop())
    return push(self, block, start)

AudioFeatures.push = push_slowly
"""


@pytest.mark.sound
def test_a_full_queue_is_emptied_and_shows_as_one_gap(server: SoundServer) -> None:
    """An extractor that hangs for 6 s loses 5 s of sound at once, and is then of now again."""
    recording = Recording(server, seconds=17.0, setup=SLOW_FEATURES)
    try:
        said = recording.until("threads")
    finally:
        recording.end()
    ticks = ticks_of(said)
    # A busy sound server loses up to a tenth of a second of its own, which is not the queue's.
    holes = [after - before for before, after in pairwise(ticks) if after - before > 25]
    assert len(holes) == 1
    assert 4.5 * 50 < holes[0] < 5.5 * 50
    gauges = next(line[1] for line in said if line[0] == "gauges")
    assert isinstance(gauges, dict)
    # The sound server may lose some of its own while nobody reads.
    assert gauges["microphone_dropped"] == pytest.approx(holes[0] / 50, abs=0.3)
    assert float(str([line for line in said if line[0] == "tick"][-1][3])) < 0.5
