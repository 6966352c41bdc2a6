"""Sound and picture of a file stay together, and odd files play whole or end with their reason."""

import os
import struct
import subprocess
import threading
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
import pytest

from support.devices import need
from tamulag.streamer.bench.rig.processes import CAMERA
from tamulag.streamer.core.sample import SAMPLE_RATE, TICK_RATE, Array, Input, Notice, Sample
from tamulag.streamer.core.source import SourceError, SourceLost
from tamulag.streamer.features.audio_pipeline import AudioPipeline
from tamulag.streamer.sources.containers import opened
from tamulag.streamer.sources.geometry import Image
from tamulag.streamer.sources.media_file import MediaSource
from tamulag.streamer.sources.media_reader import MediaReader, TimedPicture

TICK = 1 / TICK_RATE


class Form(NamedTuple):
    """How a file holds its two tracks."""

    end: str
    codec: str
    rate: int
    frames: int
    slow: float = 0.0
    """By how much the stamps of the sound run slower than its samples are counted."""


def beeps_and_flashes(folder: Path, seconds: float, form: Form) -> Path:
    """Make a file that beeps and flashes for a tenth of a second at each full second."""
    need(CAMERA)
    stretch = 1 + form.slow
    beep = f"0.5*sin(2*PI*1000*t)*lt(mod(t*{stretch}+1e-6,1),0.1)"
    flash = "drawbox=c=white:t=fill:enable='lt(mod(t+1e-6,1),0.1)'"
    path = folder / f"beep.{form.end}"
    command = ["ffmpeg", "-loglevel", "error", "-t", f"{seconds:g}"]
    command += ["-f", "lavfi", "-i", f"color=c=black:s=16x16:r={form.frames},{flash}"]
    command += ["-t", f"{seconds:g}", "-f", "lavfi"]
    command += ["-i", f"aevalsrc='{beep}':s={form.rate},asetpts=PTS*{stretch}"]
    command += ["-c:v", "mpeg4", "-g", "10", "-q:v", "2", "-c:a", form.codec]
    command += ["-frame_size", "2304", str(path)] if form.codec == "flac" else [str(path)]
    subprocess.run(command, check=True, timeout=300, stdin=subprocess.DEVNULL)
    return path


def apart(path: Path) -> list[float]:
    """Return for each second by how much the beep comes after its flash."""
    beeps: list[float] = []
    flashes: list[float] = []
    was_light = False
    last_loud = -1.0
    with opened(str(path)) as container:
        for item in MediaReader(container, ("audio", "vision"), 0, None).items():
            if isinstance(item, TimedPicture):
                is_light = bool(item.image.mean() > 128)
                if is_light and not was_light:
                    flashes.append(item.end - 0.1)
                was_light = is_light
                continue
            peaks = np.maximum.reduceat(np.abs(item.values), np.arange(0, len(item.values), 16))
            for at in np.flatnonzero(peaks > 0.2):
                time = (item.start + 16 * int(at)) / SAMPLE_RATE
                if time - last_loud > 0.5:
                    beeps.append(time)
                last_loud = time
    nearest = np.abs(np.subtract.outer(flashes, beeps)).argmin(axis=1)
    return [beeps[at] - flash for at, flash in zip(nearest, flashes, strict=True)]


@pytest.mark.parametrize(
    "form",
    [
        Form("mkv", "flac", 44100, 25),
        Form("mp4", "aac", 48000, 25),
        Form("mkv", "flac", 16000, 50),
    ],
    ids=lambda form: f"{form.end}-{form.rate}",
)
def test_a_beep_is_heard_in_the_tick_of_its_flash(tmp_path: Path, form: Form) -> None:
    """Within one tick, whatever container, rate and codec."""
    found = apart(beeps_and_flashes(tmp_path, 8, form))
    assert len(found) >= 7
    assert max(map(abs, found)) < TICK


def test_beep_and_flash_stay_together(tmp_path: Path) -> None:
    """Twenty minutes of a real file: no second of it is a tick off."""
    found = apart(beeps_and_flashes(tmp_path, 1200, Form("mkv", "flac", 8000, 5)))
    print(f"\ntwenty minutes: {min(found):+.4f} to {max(found):+.4f} s")
    assert len(found) >= 1199
    assert max(map(abs, found)) < TICK


@pytest.mark.parametrize("slow", [300e-6, -300e-6])
def test_sound_that_drifts_against_its_stamps_is_put_right(tmp_path: Path, slow: float) -> None:
    """A recorder with two clocks: the stamps count, and stay within a tick for five minutes."""
    found = apart(beeps_and_flashes(tmp_path, 300, Form("mkv", "flac", 8000, 5, slow)))
    assert len(found) >= 299
    assert max(map(abs, found)) < TICK + 0.003  # the stamps' milliseconds, and the ear's


RATE = 10
"""Pictures a second."""


class Heard:
    def __init__(self) -> None:
        self.blocks: list[tuple[int, Array]] = []

    def push(self, block: Array, start: int) -> list[Sample]:
        self.blocks.append((start, block.copy()))
        return []


class Seen:
    def __init__(self) -> None:
        self.frames: list[tuple[float, Image]] = []

    def push(self, image: Image, timestamp: float) -> Sample:
        self.frames.append((timestamp, image))
        return Sample("vision", timestamp, None, "no_face")


class Play:
    """What a file gave at full speed."""

    def __init__(self, path: Path | str, *, loop: bool = False) -> None:
        self.heard, self.seen = Heard(), Seen()
        self.items: list[Input] = []
        sound = AudioPipeline(self.heard, None, threaded=False)
        self.source = MediaSource(
            str(path), sound=sound, vision=self.seen, now=None, speed="max", loop=loop
        )
        self.source.open()
        self.source.run(self.items.append, threading.Event())

    @property
    def seconds(self) -> float:
        """Sound that was heard."""
        return sum(len(block) for _, block in self.heard.blocks) / SAMPLE_RATE

    @property
    def jumps(self) -> list[float]:
        return [i.timestamp for i in self.items if isinstance(i, Notice) and i.event == "time_jump"]


def film(
    path: Path,
    seconds: float = 2.0,
    *,
    order: Sequence[str] = (),
    sound_at: float = 0.0,
    strays: Sequence[int] = (),
    codec: Literal["pcm_s16le", "mp2"] = "pcm_s16le",
) -> Path:
    """Write grey pictures and a tone; `order` writes one track after the other.

    Args:
        path: Its ending chooses the container.
        seconds: Length.
        order: `audio` and `vision` in the order of their packets; empty: interleaved.
        sound_at: Added to the stamps of the sound.
        strays: Pictures that are stamped ten hours late.
        codec: Of the sound.
    """
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=RATE)
        video.width = video.height = 64
        video.codec_context.max_b_frames = 0
        audio = out.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        packets: dict[str, list[av.Packet[Any]]] = {"vision": [], "audio": []}
        for n in range(round(seconds * RATE)):
            grey = np.full((64, 64, 3), 60 + 5 * n % 150, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            packets["vision"] += video.encode(frame)
        packets["vision"] += video.encode(None)
        tone = np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.2).astype(np.float32) / 2
        size = audio.codec_context.frame_size or 1600
        for at in range(0, len(tone) - size + 1, size):
            part = (tone[None, at : at + size] * 32767).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = (
                SAMPLE_RATE,
                at,
                Fraction(1, SAMPLE_RATE),
            )
            packets["audio"] += audio.encode(sound)
        packets["audio"] += audio.encode(None)
        for packet in packets["audio"]:
            shift = round(sound_at / (packet.time_base or Fraction(1)))
            packet.pts, packet.dts = (packet.pts or 0) + shift, (packet.dts or 0) + shift
        for n in strays:
            stray = packets["vision"][n]
            stray.pts = (stray.pts or 0) + round(36000 / (stray.time_base or 1))
        every = [p for kind in order or ("vision", "audio") for p in packets[kind]]
        if not order:
            every.sort(key=lambda p: float((p.dts or 0) * (p.time_base or 0)))
        for packet in every:
            out.mux_one(packet)
    return path


def sound_file(path: Path, seconds: float, channels: int = 1) -> Path:
    tone = np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.2) * 12000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.repeat(tone[:, None], channels, 1).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 9, 10, 16, 24, 60])
def test_sound_of_any_number_of_channels_is_their_mean(tmp_path: Path, channels: int) -> None:
    """Field recorders name no layout."""
    play = Play(sound_file(tmp_path / "a.wav", 1.0, channels))
    assert play.seconds == pytest.approx(1.0, abs=0.01)
    loudest = max(np.abs(block).max() for _, block in play.heard.blocks)
    assert loudest == pytest.approx(12000 / 32768, abs=0.01)


@pytest.mark.parametrize(
    ("channels", "places", "bits"), [(1, 0, 64), (2, 0, 64), (5, 0x110B, 16), (5, 0x110B, 64)]
)
def test_odd_forms_of_sound_are_heard(
    tmp_path: Path, channels: int, places: int, bits: int
) -> None:
    """PyAV makes no array of 64 bits, and FFmpeg mixes no five places of which one is above."""
    tone = np.sin(np.arange(SAMPLE_RATE) * 0.2) * 0.366 * 2.0 ** (bits - 1)
    data = np.repeat(tone[:, None], channels, 1).astype(f"<i{bits // 8}").tobytes()
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 0xFFFE, channels, SAMPLE_RATE, SAMPLE_RATE * frame, frame, bits)
    form += struct.pack("<HHIH", 22, bits, places, 1) + bytes.fromhex(
        "000000001000800000aa00389b71"
    )
    chunks = b"WAVE" + b"".join(
        name + struct.pack("<I", len(content)) + content
        for name, content in ((b"fmt ", form), (b"data", data))
    )
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    play = Play(path)
    assert play.seconds == pytest.approx(1.0, abs=0.01)
    assert max(np.abs(block).max() for _, block in play.heard.blocks) == pytest.approx(
        0.366, abs=0.01
    )


def test_pictures_that_cannot_be_converted_end_with_a_reason(tmp_path: Path) -> None:
    """Of four bits a pixel FFmpeg reads what it does not convert: a lost source, no bug."""
    path = tmp_path / "a.nut"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb4"
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame(16, 16, "rgb4")))
        out.mux(stream.encode(None))
    with pytest.raises(SourceLost, match="broke off"):
        Play(path)


@pytest.mark.parametrize("order", [("vision", "audio"), ("audio", "vision")])
def test_tracks_one_after_the_other_play_together(tmp_path: Path, order: Sequence[str]) -> None:
    """A file that is not interleaved gives its inputs in order of time, all of them."""
    play = Play(film(tmp_path / "a.nut", 8.0, order=order))
    assert play.seconds == pytest.approx(8.0, abs=0.1)
    assert len(play.seen.frames) == 80
    assert play.jumps == []


def test_joined_streams_play_whole(tmp_path: Path) -> None:
    """`cat a.ts b.ts`: sound and pictures of both, at one place of the time, reported once."""
    one, two = (
        film(tmp_path / f"{name}.ts", seconds, codec="mp2")
        for name, seconds in (("a", 3.0), ("b", 2.0))
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    whole, parts = Play(joined), [Play(one), Play(two)]
    assert whole.seconds == pytest.approx(sum(part.seconds for part in parts), abs=0.1)
    assert len(whole.seen.frames) >= sum(len(part.seen.frames) for part in parts) - 1
    times = [time for time, _ in whole.seen.frames]
    assert times == sorted(times)
    assert max(times) == pytest.approx(5.0, abs=0.3)
    assert len(whole.jumps) == 1


@pytest.mark.parametrize("at", [1.7e9, -400.0])
def test_sound_on_another_clock_is_placed_beside_the_picture(tmp_path: Path, at: float) -> None:
    """Sound stamped with the time of day neither waits nor fills the memory."""
    play = Play(film(tmp_path / "a.nut", sound_at=at))
    assert play.seconds == pytest.approx(2.0, abs=0.1)
    assert max(start for start, _ in play.heard.blocks) < 5 * SAMPLE_RATE
    assert len(play.seen.frames) == 20


def test_a_picture_ten_hours_ahead_is_shown_where_it_is(tmp_path: Path) -> None:
    """The others keep their time."""
    play = Play(film(tmp_path / "a.nut", order=("vision", "audio"), strays=[7]))
    assert max(time for time, _ in play.seen.frames) < 3.0
    assert len(play.seen.frames) >= 19
    assert len(play.jumps) == 1


def test_a_bare_stream_without_stamps_plays(tmp_path: Path) -> None:
    """Pictures that have no time follow each other at the stream's rate."""
    with av.open(str(tmp_path / "a.h264"), "w", format="h264") as out:
        video = out.add_stream("libx264", rate=25)
        video.width = video.height = 64
        for n in range(50):
            grey = np.full((64, 64, 3), 4 * n, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        out.mux(video.encode(None))
    assert len(Play(tmp_path / "a.h264").seen.frames) == pytest.approx(20, abs=1)


def head_of(path: Path) -> Path:
    """Cut a film before its first packet."""
    whole = film(path.with_name(f"whole{path.suffix}")).read_bytes()
    path.write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75") + 20])
    return path


@pytest.mark.parametrize("name", ["empty.wav", "head.mkv"])
def test_a_file_with_nothing_in_it_ends_with_its_reason(tmp_path: Path, name: str) -> None:
    """It is not opened again: the fault is permanent."""
    path = tmp_path / name
    path = sound_file(path, 0.0) if name == "empty.wav" else head_of(path)
    with pytest.raises((SourceLost, SourceError), match=name) as caught:
        Play(path)
    assert isinstance(caught.value, SourceLost | SourceError)
    assert caught.value.is_permanent


TEXTS = {
    "notes.txt": "hello\nworld\n" * 300,
    "words.srt": "1\n00:00:01,000 --> 00:00:02,000\nhi\n",
    "a.nfo": "x" * 2000,
    "a.ass": "[Script Info]\n[Events]\n",
    "a.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nhi\n",
    "a.lrc": "[00:01.00]hi\n" * 20,
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n",
    "a.ffmeta": ";FFMETADATA1\ntitle=x\n",
    "a.bin": "\0" * 4000,
    "a.xbin": "XBIN\x1a" + "\0" * 4000,
    "a.svg": "<svg xmlns='http://www.w3.org/2000/svg'></svg>",
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_film_is_refused(tmp_path: Path, name: str) -> None:
    """Texts, subtitles, lists and scores, whatever FFmpeg would make of them."""
    (tmp_path / name).write_text(TEXTS[name])
    with pytest.raises(SourceError, match=r"cannot be read|has no audio") as caught:
        Play(tmp_path / name)
    assert isinstance(caught.value, SourceLost | SourceError)
    assert caught.value.is_permanent


@pytest.mark.parametrize(
    "name", [b"caf\xe9.wav", b"new\nline.wav", b"100%03d.wav", b"concat:x.wav", b"a?b#c.wav"]
)
def test_a_file_of_any_name_is_played(tmp_path: Path, name: bytes) -> None:
    """Also of a name that is no text; what is shown of it is."""
    path = os.path.join(os.fsencode(tmp_path), name)
    os.rename(sound_file(tmp_path / "a.wav", 1.0), path)
    play = Play(os.fsdecode(path))
    assert play.seconds == pytest.approx(1.0, abs=0.01)
    assert play.source.name.encode().decode().isprintable()


def test_a_pipe_is_played_once(tmp_path: Path) -> None:
    """A named pipe gives its sound; it cannot be looped."""
    content = sound_file(tmp_path / "a.wav", 1.0).read_bytes()
    pipe = tmp_path / "pipe"
    for loop in (False, True):
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        if loop:
            with pytest.raises(SourceLost, match="--loop") as caught:
                Play(pipe, loop=True)
            assert caught.value.is_permanent
        else:
            assert Play(pipe).seconds == pytest.approx(1.0, abs=0.01)
        writer.join()
        pipe.unlink()
