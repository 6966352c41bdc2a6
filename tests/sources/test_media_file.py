import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.devices import need
from tamulag.streamer.bench.rig.processes import CAMERA, end, free_port, wait_for
from tamulag.streamer.core.sample import Array, Input, Notice, Phrase, Sample
from tamulag.streamer.core.source import SourceError, SourceLost
from tamulag.streamer.features.audio import AudioFeatures
from tamulag.streamer.features.audio_pipeline import AudioPipeline
from tamulag.streamer.features.vision import VisionFeatures
from tamulag.streamer.sources.geometry import Image
from tamulag.streamer.sources.media_file import MediaSource


class Hearing:
    """Extractor that keeps what it was given, and gives one sample per block."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, Array]] = []

    def push(self, block: Array, start: int, /) -> list[Sample]:
        self.blocks.append((start, block))
        return [Sample("audio", start / 16000, np.ones(1, np.float32))]


class Seeing:
    """Extractor that keeps what it was shown."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, Image]] = []

    def push(self, image: Image, timestamp: float, /) -> Sample:
        self.frames.append((timestamp, image))
        return Sample("vision", timestamp, np.ones(1, np.float32))


class Noting:
    """Recogniser that hears nothing."""

    partials = True

    def push(self, block: Array, start: int, /) -> list[Phrase]:
        return []

    def finish(self) -> list[Phrase]:
        return []

    def reopen(self) -> None:
        """Nothing of it fails."""

    def close(self) -> None:
        """Nothing of it is to be freed."""


class Player:
    """A source with extractors that keep what they get."""

    def __init__(
        self, path: Path | str, now: Callable[[], float] | None = None, **options: object
    ) -> None:
        self.hearing, self.seeing = Hearing(), Seeing()
        self.items: list[Input] = []
        self.source = MediaSource(
            str(path),
            sound=AudioPipeline(self.hearing, Noting(), threaded=now is not None),
            vision=self.seeing,
            now=now,
            speed="max" if now is None else "1",
            **options,  # type: ignore[arg-type]
        )

    def play(self, stop: threading.Event | None = None) -> "Player":
        self.source.open()
        self.source.run(self.items.append, stop or threading.Event())
        return self

    @property
    def notices(self) -> list[tuple[str, str | None]]:
        return [(item.modality, item.reason) for item in self.items if isinstance(item, Notice)]


def described(path: Path, now: Callable[[], float] | None = None) -> list[Sample]:
    """Play a file through the real features."""
    items: list[Input] = []
    with VisionFeatures() as vision:
        source = MediaSource(
            str(path),
            sound=AudioPipeline(AudioFeatures(), None, threaded=now is not None),
            vision=vision,
            now=now,
            speed="max" if now is None else "1",
        )
        source.open()
        source.run(items.append, threading.Event())
    return [item for item in items if isinstance(item, Sample)]


def values_of(sample: Sample) -> Array:
    """Return the values; empty where there was nothing to measure."""
    return np.zeros(0, np.float32) if sample.values is None else sample.values


def clock() -> Callable[[], float]:
    began = time.monotonic()
    return lambda: time.monotonic() - began


def made(target: Path, *arguments: str | Path) -> Path:
    """Make a file from a clip by ffmpeg."""
    need(CAMERA)
    command = ["ffmpeg", "-loglevel", "error", *map(str, arguments), str(target)]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return target


@pytest.fixture
def clip(data: Path) -> Path:
    return data / "clips" / "bbaf2n.mpg"


@pytest.fixture
def speech(data: Path) -> Path:
    return data / "asr" / "LJ001-0002.wav"


pytestmark = pytest.mark.data


def test_a_clip_gives_every_tick_once(clip: Path) -> None:
    """Three seconds give the ticks of 2.9 s of sound without a gap, and thirty pictures."""
    samples = described(clip)
    audio = [round(s.timestamp * 50) for s in samples if s.modality == "audio"]
    vision = [int(s.timestamp * 10 + 1e-5) for s in samples if s.modality == "vision"]
    assert audio == list(range(145))
    assert vision == list(range(30))


def test_the_last_frame_of_a_tick_is_taken(clip: Path) -> None:
    """At 25 frames a second the frames at 0.08, 0.16, 0.28, ... stand for their tenths."""
    times = [time for time, _ in Player(clip).play().seeing.frames]
    assert times[:4] == pytest.approx([0.08, 0.16, 0.28, 0.36])


def test_the_same_file_gives_the_same_samples(clip: Path) -> None:
    """At full speed two runs agree in every bit and in the order."""
    first, second = described(clip), described(clip)
    assert [(s.modality, s.timestamp) for s in first] == [(s.modality, s.timestamp) for s in second]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(values_of(one), values_of(other))


def test_real_time_gives_the_samples_of_full_speed(clip: Path) -> None:
    """Played live the file has the same ticks, order and values, moved by whole tenths."""
    paced, fast = described(clip, clock()), described(clip)
    origin = paced[0].timestamp - fast[0].timestamp
    assert origin * 10 == pytest.approx(round(origin * 10))
    for one, other in zip(paced, fast, strict=True):
        assert one.modality == other.modality
        assert one.timestamp - origin == pytest.approx(other.timestamp)
        np.testing.assert_array_equal(values_of(one), values_of(other))


def test_a_relieved_file_leaves_out_every_other_picture(clip: Path) -> None:
    """The sound is whole, half of the pictures are counted as lost, and the clock is kept."""
    whole, shedding = Player(clip).play(), Player(clip, clock())
    shedding.source.shed(["vision_rate", "asr_partials"])
    shedding.play()
    ticks = [int(time * 10 + 1e-5) for time, _ in shedding.seeing.frames]
    assert {after - before for before, after in pairwise(ticks)} == {2}
    lost = shedding.source.losses()["vision"]
    assert len(ticks) + lost == len(whole.seeing.frames)
    assert len(shedding.hearing.blocks) == len(whole.hearing.blocks)
    assert shedding.source.gauges()["source_behind"] < 2.0


def burdened(clip: Path, *, picture: float = 0.0, sound: float = 0.0) -> tuple[Player, float]:
    """Loop a clip for 6 s while each piece takes so long; return the longest delay of a sample."""
    now = clock()
    player, stop, delays = Player(clip, now, loop=True), threading.Event(), [0.0]

    def put(item: Input) -> None:
        if isinstance(item, Sample):
            time.sleep(picture if item.modality == "vision" else sound)
            delays.append(now() - item.timestamp)
        player.items.append(item)

    with_end = threading.Timer(6.0, stop.set)
    with_end.start()
    player.source.open()
    player.source.run(put, stop)
    with_end.join()
    return player, max(delays)


def test_a_file_that_falls_behind_leaves_out_pictures_first(clip: Path) -> None:
    """Pictures that take 0.15 s each: some are left out and counted, the sound is whole."""
    player, delay = burdened(clip, picture=0.15)
    losses = player.source.losses()
    assert losses["vision"] >= 5
    assert losses["audio"] == losses["asr"] == 0
    assert delay < 0.8
    assert len(player.seeing.frames) > 10


def test_a_file_whose_sound_is_too_slow_skips_to_the_clock(clip: Path) -> None:
    """0.15 s for each tenth: the delay stays bounded, and what was not heard is counted."""
    player, delay = burdened(clip, sound=0.15)
    assert delay < 1.0
    heard = sum(len(block) for _, block in player.hearing.blocks) / 16000
    assert heard + player.source.losses()["audio"] / 50 == pytest.approx(6.0, abs=0.8)
    assert player.source.losses()["audio"] > 50


def test_nothing_is_released_before_its_time(clip: Path) -> None:
    """At speed 1 a sample comes when its tick is over, and within a tenth of a second."""
    now = clock()
    player = Player(clip, now)
    delays: list[float] = []
    player.source.open()
    player.source.run(lambda item: delays.append(now() - item.timestamp), threading.Event())
    assert min(delays) >= 0.0
    assert max(delays) < 0.3


def test_badly_interleaved_tracks_come_in_order_of_time(data: Path) -> None:
    """A file whose tracks are a second apart gives no input later than 0.15 s behind another."""
    items = Player(data / "clips" / "pyfeat_no_face.mp4").play().items
    newest = np.maximum.accumulate([item.timestamp for item in items])
    assert max(newest - [item.timestamp for item in items]) < 0.15


def test_sound_that_starts_late_keeps_its_place(data: Path) -> None:
    """A track that begins at 2.43 s is placed there, not at 0."""
    player = Player(data / "clips" / "pyfeat_face_noface.mov").play()
    assert player.hearing.blocks[0][0] == round(2.430023 * 16000)
    assert player.seeing.frames[0][0] < 0.1


def test_sound_is_contiguous_at_16_khz(clip: Path) -> None:
    """44.1 kHz stereo becomes one unbroken line of samples."""
    blocks = Player(clip).play().hearing.blocks
    ends = [start + len(values) for start, values in blocks]
    assert [start for start, _ in blocks[1:]] == ends[:-1]
    assert ends[-1] == pytest.approx(2.978 * 16000, abs=16)


def test_a_picture_that_starts_late_keeps_its_place(clip: Path, tmp_path: Path) -> None:
    """It is not moved to the beginning of the sound."""
    both = ("-i", clip, "-itsoffset", "1.5", "-i", clip)
    late = made(tmp_path / "late.mkv", *both, "-map", "1:v", "-map", "0:a", "-c", "copy")
    player, whole = Player(late).play(), Player(clip).play()
    shift = player.seeing.frames[0][0] - whole.seeing.frames[0][0]
    assert shift == pytest.approx(1.5, abs=0.05)
    assert player.hearing.blocks[0][0] == whole.hearing.blocks[0][0]


@pytest.mark.parametrize("offset", ["-2", "80000"])
def test_where_the_stamps_begin_loses_nothing(clip: Path, tmp_path: Path, offset: str) -> None:
    """Below nought, or after a day: as much sound and as many pictures as in the file itself."""
    moved = made(
        tmp_path / "moved.mkv",
        *("-i", clip, "-c", "copy", "-output_ts_offset", offset, "-avoid_negative_ts", "0"),
    )
    player, whole = Player(moved).play(), Player(clip).play()
    assert len(player.seeing.frames) == pytest.approx(len(whole.seeing.frames), abs=1)
    heard, all_of_it = (sum(len(v) for _, v in one.hearing.blocks) for one in (player, whole))
    assert heard == pytest.approx(all_of_it, abs=1600)


PICTURES = {
    "ten_bits.mkv": ("-pix_fmt", "yuv420p10le", "-c:v", "libx264"),
    "odd_size.mkv": ("-vf", "scale=241:283", "-pix_fmt", "yuv444p", "-c:v", "libx264"),
    "grey.mkv": ("-pix_fmt", "gray", "-c:v", "ffv1"),
    "alpha.webm": ("-pix_fmt", "yuva420p", "-c:v", "libvpx-vp9", "-cpu-used", "8"),
    "palette.gif": ("-r", "10"),
    "interlaced.ts": ("-flags", "+ilme+ildct", "-c:v", "mpeg2video", "-r", "25"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_odd_forms_of_pictures_are_seen(clip: Path, tmp_path: Path, name: str) -> None:
    """Their light is that of the clip, whatever its bits, planes, fields and colours."""
    odd = made(tmp_path / name, "-t", "1", "-i", clip, "-an", *PICTURES[name])
    light = [image.mean() for _, image in Player(odd).play().seeing.frames]
    whole = [image.mean() for _, image in Player(clip).play().seeing.frames]
    assert len(light) >= 9
    assert light[0] == pytest.approx(whole[0], abs=12)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 10**9])
def test_a_wav_whose_header_was_never_finished_plays_whole(
    clip: Path, tmp_path: Path, size: int
) -> None:
    """A recorder that was cut off leaves nought, all ones or more than there is."""
    whole = made(tmp_path / "whole.wav", "-i", clip, "-vn", "-bitexact", "-ac", "1", "-ar", "16000")
    content, field = whole.read_bytes(), struct.pack("<I", size)
    at = content.index(b"data") + 4
    (tmp_path / "odd.wav").write_bytes(
        content[:4] + field + content[8:at] + field + content[at + 4 :]
    )
    odd, right = (Player(path).play().hearing.blocks for path in (tmp_path / "odd.wav", whole))
    assert np.array_equal(
        np.concatenate([v for _, v in odd]), np.concatenate([v for _, v in right])
    )


def test_a_hole_in_the_sound_stays_a_hole(clip: Path, tmp_path: Path) -> None:
    """Sound that is missing in the middle moves nothing that follows."""
    cut = "aselect='not(between(t,1,2))'"
    holed = made(tmp_path / "hole.mkv", "-i", clip, "-vn", "-af", cut, "-c:a", "pcm_s16le")
    blocks = Player(holed).play().hearing.blocks
    ends = [start + len(values) for start, values in blocks]
    gaps = [b - e for (b, _), e in zip(blocks[1:], ends, strict=False) if b != e]
    assert len(gaps) == 1
    assert gaps[0] / 16000 == pytest.approx(1.0, abs=0.06)


def test_wide_pictures_are_scaled_down(data: Path) -> None:
    """Nothing wider than 640 reaches the landmarker, and the shape of the face is kept."""
    frames = Player(data / "clips" / "pyfeat_no_face.mp4").play().seeing.frames
    assert frames[0][1].shape == (360, 640, 3)


def test_a_turned_picture_is_set_upright(clip: Path, tmp_path: Path) -> None:
    """A telephone's film is turned as its container says, and as ffmpeg itself would turn it."""
    plain = made(tmp_path / "plain.mp4", "-i", clip, "-an")
    content = plain.read_bytes()
    matrix = content.index(b"tkhd") + 4 + 40
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:matrix] + quarter + content[matrix + 36 :])
    shown = made(tmp_path / "shown.png", "-i", turned, "-vf", "select='eq(n,2)'", "-frames:v", "1")
    picture = cv2.imread(str(shown))
    assert picture is not None
    expected = picture[..., ::-1]
    assert expected.shape == (360, 288, 3)
    got = Player(turned).play().seeing.frames[0][1]
    assert np.abs(got.astype(int) - expected).mean() < 2.0


def test_a_file_without_picture_is_reported(speech: Path) -> None:
    """Speech alone gives text and audio, and a notice first of all."""
    player = Player(speech).play()
    assert player.source.modalities == ("text", "audio")
    assert player.notices == [("vision", "no_picture")]
    assert isinstance(player.items[0], Notice)


def test_a_file_without_sound_is_reported(clip: Path, tmp_path: Path) -> None:
    """A silent film gives vision alone; words need sound too."""
    player = Player(made(tmp_path / "mute.mp4", "-i", clip, "-an")).play()
    assert player.source.modalities == ("vision",)
    assert player.notices == [("text", "no_sound"), ("audio", "no_sound")]
    assert len(player.seeing.frames) == 30


def test_a_cover_is_no_picture(clip: Path, speech: Path, tmp_path: Path) -> None:
    """The cover of a song is not taken for a face that never moves."""
    cover = made(tmp_path / "cover.png", "-i", clip, "-frames:v", "1")
    song = made(
        tmp_path / "song.mp3",
        *("-i", speech, "-i", cover, "-map", "0", "-map", "1"),
        *("-disposition:v", "attached_pic"),
    )
    assert Player(song).play().source.modalities == ("text", "audio")


def test_a_still_is_shown_ten_times_a_second(clip: Path, speech: Path, tmp_path: Path) -> None:
    """A portrait is the video of a file that has only sound."""
    portrait = made(tmp_path / "portrait.png", "-i", clip, "-frames:v", "1")
    player = Player(speech, still=str(portrait)).play()
    assert player.source.modalities == ("text", "audio", "vision")
    assert [time for time, _ in player.seeing.frames] == [k / 10 for k in range(18)]
    assert player.seeing.frames[0][1].shape == (288, 360, 3)


def test_a_loop_goes_on_where_the_file_ended(clip: Path) -> None:
    """The second pass has the ticks of the first, moved by the file's length."""
    stop = threading.Event()
    player = Player(clip, loop=True)
    player.source.open()

    def put(item: Input) -> None:
        player.items.append(item)
        if item.timestamp > 6.0:
            stop.set()

    player.source.run(put, stop)
    times = [time for time, _ in player.seeing.frames]
    assert times[30:60] == pytest.approx([time + 3.0 for time in times[:30]])
    starts = [start for start, _ in player.hearing.blocks]
    assert starts == sorted(set(starts))
    assert 48000 in starts


def test_stop_ends_a_file_at_once(clip: Path) -> None:
    """A source that waits for its next moment returns within half a second of `stop`."""
    stop = threading.Event()
    player = Player(clip, clock(), loop=True)
    thread = threading.Thread(target=player.play, args=(stop,))
    thread.start()
    wait_for(lambda: bool(player.items), 5.0, "the file plays")
    stop.set()
    thread.join(0.5)
    assert not thread.is_alive()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """One line says which file and what to do."""
    with pytest.raises(SourceError, match=r"gone\.mp4 cannot be read \(No such file.*check the"):
        Player(tmp_path / "gone.mp4").source.open()


def test_a_file_that_is_no_media_is_named(tmp_path: Path) -> None:
    """A text is not played."""
    text = tmp_path / "words.mp4"
    text.write_text("no film at all\n" * 100)
    with pytest.raises(SourceError, match=r"words\.mp4 cannot be read"):
        Player(text).source.open()


@pytest.mark.parametrize("name", ["words.png", "speech.wav"])
def test_a_still_that_is_no_picture_is_named(speech: Path, tmp_path: Path, name: str) -> None:
    """A wrong file for the portrait is told before anything plays."""
    still = tmp_path / name
    still.write_bytes(b"no picture" if name == "words.png" else speech.read_bytes())
    with pytest.raises(SourceError, match=name):
        Player(speech, still=str(still)).source.open()


def test_a_file_with_nothing_that_is_wanted_is_refused(speech: Path) -> None:
    """Sound alone is of no use where only the picture was asked for."""
    source = MediaSource(str(speech), sound=None, vision=Seeing(), now=None, speed="max")
    with pytest.raises(SourceError, match="has no vision"):
        source.open()


@contextmanager
def web(folder: Path, asked: list[str] | None = None, moved: str | None = None) -> Iterator[str]:
    """Serve a folder on the loopback; note what is asked for, or send everybody elsewhere."""

    class Quiet(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            if moved is None:
                super().do_GET()
            else:
                self.send_response(302)
                self.send_header("Location", moved)
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5.0)


def test_a_file_from_a_server_ends_like_a_file(clip: Path, tmp_path: Path) -> None:
    """Its known length tells an end from a loss."""
    made(tmp_path / "film.mp4", "-i", clip, "-movflags", "faststart")
    with web(tmp_path) as address:
        player = Player(f"{address}/film.mp4").play()
    assert len(player.seeing.frames) == 30


def test_a_stream_that_breaks_off_is_lost(clip: Path) -> None:
    """A live stream has no end: when its server dies the source is lost, within 3 s."""
    need(CAMERA)
    url = f"http://127.0.0.1:{free_port()}/live.ts"
    command = ["ffmpeg", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(clip)]
    command += ["-f", "mpegts", "-listen", "1", url]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        player = Player(url, clock())
        wait_for(lambda: opens(player.source), 10.0, "the stream opens")
        threading.Timer(1.0, server.kill).start()
        began = time.monotonic()
        with pytest.raises(SourceLost) as caught:
            player.source.run(player.items.append, threading.Event())
    finally:
        end(server)
    assert caught.value.reason == "source_lost"
    assert time.monotonic() - began < 1.0 + 6.0
    assert player.seeing.frames


def opens(source: MediaSource) -> bool:
    try:
        source.open()
    except SourceError:
        return False
    return True


def test_a_stream_whose_clock_jumps_goes_on(data: Path, tmp_path: Path) -> None:
    """A server that starts over at another time is no wait without end; the same end twice is one.

    An end that nothing announced is a loss at first, as of a live stream.
    """
    clip = data / "clips" / "bbaf2n.mpg"
    need(CAMERA)
    made(tmp_path / "a.ts", "-i", clip, "-c", "copy")
    made(tmp_path / "b.ts", "-i", clip, "-c", "copy", "-output_ts_offset", "1000")
    joined = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "live.ts").write_bytes(joined)
    with web(tmp_path) as address:
        player = Player(f"{address}/live.ts")
        with pytest.raises(SourceLost, match="ended unexpectedly"):
            player.play()
        assert 5.5 < max(time for time, _ in player.seeing.frames) < 6.5
        assert player.source.jumps == 1
        player.play()


@pytest.mark.parametrize("kind", ["playlist", "url"])
def test_the_network_reads_no_local_file(speech: Path, tmp_path: Path, kind: str) -> None:
    """A playlist on a server, or a file:// address, cannot make the program read this machine."""
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nfile://{speech}\n#EXT-X-ENDLIST\n"
    )
    with web(tmp_path) as address:
        path = f"{address}/list.m3u8" if kind == "playlist" else f"file://{speech}"
        with pytest.raises(SourceError, match="cannot be read"):
            Player(path).source.open()


@pytest.mark.parametrize("name", ["a.ffconcat", "a.m3u8", "a.sdp"])
def test_a_file_reaches_no_network_and_no_other_file(
    speech: Path, tmp_path: Path, name: str
) -> None:
    """Files that are lists of other media, or of ports, are refused before anything is fetched."""
    asked: list[str] = []
    with web(tmp_path, asked) as address:
        lists = {
            "a.ffconcat": "ffconcat version 1.0\nfile speech.wav\n",
            "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\n{address}/speech.wav\n",
            "a.sdp": "v=0\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        }
        (tmp_path / "speech.wav").write_bytes(speech.read_bytes())
        (tmp_path / name).write_text(lists[name])
        with pytest.raises(SourceError, match="cannot be read"):
            Player(tmp_path / name).source.open()
        assert asked == []
        if name != "a.m3u8":  # streams of many cameras are such playlists
            with pytest.raises(SourceError, match="cannot be read"):
                Player(f"{address}/{name}").source.open()
            assert asked == [f"/{name}"]


@pytest.mark.parametrize(
    "wrap", ["concat:{}", "subfile,,start,0,end,9,,:{}", "cache:{}", "pipe:{}"]
)
def test_other_protocols_are_refused(speech: Path, wrap: str) -> None:
    """Nothing is joined, cut, copied or read from another place by a trick of the address."""
    with pytest.raises(SourceError, match="give an address of http, https, rtsp"):
        Player(wrap.format(f"file://{speech}")).source.open()


def test_a_server_cannot_send_us_to_our_own_files(speech: Path, tmp_path: Path) -> None:
    """A redirection to file:// is refused."""
    with web(tmp_path, moved=f"file://{speech}") as address, pytest.raises(SourceError):
        Player(f"{address}/a.wav").source.open()


def test_secrets_of_an_address_stay_out_of_messages() -> None:
    """User and password are not repeated."""
    with pytest.raises(SourceError) as caught:
        Player("http://me:secret@127.0.0.1:9/x").source.open()
    assert "secret" not in str(caught.value)
