"""Damaged input for every parser that meets bytes from outside: it is told, and nothing else.

Each test damages something real, so that the parser gets far. TAMULAG_FUZZ is the number of
examples of each (default 60, the same ones each time); with another number they are new ones.
"""

import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.recordings import file_of, written
from tamulag.models import ModelConfig, TamUlag
from tamulag.models.data.clips import (
    Clip,
    DataError,
    is_media,
    read_clips,
    read_labelled,
    write_clips,
)
from tamulag.models.data.mmsa_pickle import read_packed
from tamulag.models.data.safe_pickle import UnsafePickle, unpickle
from tamulag.models.nn.tam_ulag import BranchConfig
from tamulag.models.runtime.checkpoint import (
    Card,
    CheckpointError,
    dump_state,
    load,
    load_state,
    save,
)
from tamulag.models.training.joint_recipe import read_joint
from tamulag.streamer.config.loader import ConfigError
from tamulag.streamer.config.loader import load as load_config
from tamulag.streamer.config.secret_file import SecretError, read_secret
from tamulag.streamer.protocol import messages
from tamulag.streamer.storage.arrow_file import Recording
from tamulag.streamer.storage.recording import KINDS, RecordingError

ROOT = Path(__file__).parent.parent
EXAMPLES = int(os.environ.get("TAMULAG_FUZZ", "60"))

fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="TAMULAG_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Draw what happens to a file: bytes overwritten, mostly near its start; then cut or grown."""
    edits = draw(
        st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6)
    )
    near = draw(st.booleans())
    kept = draw(st.one_of(st.just(1.0), st.floats(0, 1)))
    tail = draw(st.one_of(st.just(b""), st.binary(max_size=20)))

    def apply(content: bytes) -> bytes:
        spoilt = bytearray(content)
        span = min(len(spoilt), 600) if near else len(spoilt)
        for place, piece in edits:
            at = int(place * max(span - 1, 0))
            spoilt[at : at + len(piece)] = piece
        return bytes(spoilt[: int(kept * len(spoilt))]) + tail

    return apply


@st.composite
def lies(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Draw how a well-formed safetensors file lies: tensors and notes are missing or others."""
    values = ("", "[]", "{}", "null", "7", '{"format": "tamulag-1"}', "[" * 5000)
    dice = draw(st.randoms(use_true_random=False))

    def apply(content: bytes) -> bytes:
        size = int.from_bytes(content[:8], "little")
        notes = dict(json.loads(content[8 : 8 + size]).get("__metadata__", {}))
        tensors = safetensors.numpy.load(content)
        for name in dice.sample(sorted(notes), dice.randint(0, len(notes))):
            notes[name] = dice.choice((*values, notes[name].replace('"', "1", 2)))
        for name in dice.sample(sorted(tensors), dice.randint(0, min(2, len(tensors)))):
            tensor = tensors.pop(name)
            kinds = (tensor[:0], tensor[..., None], tensor.astype(np.int64), tensor.ravel()[::-1])
            tensors[dice.choice((name, "other"))] = np.ascontiguousarray(dice.choice(kinds))
        return safetensors.numpy.save(tensors, notes)

    return apply


def attempt(
    read: Callable[[Path], object], content: bytes, expected: type[Exception], name: str = "x"
) -> None:
    """Let a parser read a file of these bytes; it may refuse, in its own words alone."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        path.chmod(0o600)
        with contextlib.suppress(expected):
            read(path)


def made(write: Callable[[Path], object], name: str = "x") -> bytes:
    """Return the bytes of a file that `write` writes."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


@cache
def tiny() -> TamUlag:
    torch.manual_seed(0)
    branch = partial(BranchConfig, hidden=2, layers=1, dropout=0.0)
    config = ModelConfig(
        text=branch(dim=2),
        audio=branch(dim=2),
        vision=branch(dim=2, period=5),
        semantic=2,
        head=2,
        dropout=0.0,
        window=10,
    )
    return TamUlag(config).eval()


@cache
def checkpoint() -> bytes:
    card = Card(trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True))
    return made(partial(save, tiny(), card), "x.safetensors")


@cache
def features() -> bytes:
    values = {"audio": np.ones((3, 2), np.float32)}
    clip = Clip(1.0, "a", values, {"audio": np.arange(3)}, {"audio": 0.5})
    return made(lambda path: write_clips(path, [clip, clip], about="made"), "x.safetensors")


@cache
def packed() -> bytes:
    count, steps = 2, 3
    split = {
        "text": np.ones((count, steps, 4), np.float32),
        "audio": np.ones((count, steps, 2), np.float32),
        "vision": np.ones((count, steps, 2), np.float32),
        "regression_labels": np.zeros(count, np.float32),
        "audio_lengths": [1, 2],
        "id": ["a$_$1", "b$_$2"],
        "raw_text": np.array(["a", "b"], object),
    }
    return pickle.dumps({"train": split, "valid": split, "test": split}, protocol=4)


@fuzzed
@given(damage())
def test_settings(spoil: Callable[[bytes], bytes]) -> None:
    """A file of settings is used or refused in lines that name it."""
    content = (ROOT / "configs" / "webcam.toml").read_bytes()
    attempt(lambda path: load_config(path, {}), spoil(content), ConfigError)


@fuzzed
@given(st.one_of(st.text(max_size=200), st.just("x = " + "[" * 5000)))
def test_settings_of_any_text(text: str) -> None:
    """So is any text at all, however deep."""
    attempt(lambda path: load_config(path, {}), text.encode("utf-8", "replace"), ConfigError)


@fuzzed
@given(damage())
def test_recordings(spoil: Callable[[bytes], bytes]) -> None:
    """A recording is read or refused; a torn end costs no more than itself."""

    def read(path: Path) -> None:
        recording = Recording(written(path.parent, path.read_bytes()))
        assert all(row.kind in KINDS for row in recording.rows())

    attempt(read, spoil(file_of()), RecordingError)


@fuzzed
@given(damage())
def test_training_files(spoil: Callable[[bytes], bytes]) -> None:
    """A training file is used or refused."""
    content = (ROOT / "configs" / "train" / "paper-mosi.toml").read_bytes()
    attempt(read_joint, spoil(content), DataError)
    attempt(read_joint, content + b"\nx = " + b"[" * 5000, DataError)


@fuzzed
@given(damage())
def test_messages(spoil: Callable[[bytes], bytes]) -> None:
    """A message fits the schema or is a ValueError; one that fits can be sent on."""
    line = messages.encode(
        messages.State(session="k", seq=1, time=messages.utc(0), state="online", notice="é")
    )
    with contextlib.suppress(ValueError):
        messages.encode(messages.decode(spoil(line.encode())))


@fuzzed
@given(damage())
def test_pickles(spoil: Callable[[bytes], bytes]) -> None:
    """A pickle is data or refused."""
    attempt(unpickle, spoil(packed()), UnsafePickle)


@fuzzed
@given(damage())
def test_packed_files(spoil: Callable[[bytes], bytes]) -> None:
    """A packed feature file is read or refused."""
    attempt(read_packed, spoil(packed()), DataError)


@fuzzed
@given(st.one_of(damage(), lies()))
def test_feature_files(spoil: Callable[[bytes], bytes]) -> None:
    """A feature file is read or refused."""
    attempt(read_clips, spoil(features()), DataError)


@fuzzed
@given(st.one_of(damage(), lies()))
def test_checkpoints(spoil: Callable[[bytes], bytes]) -> None:
    """A checkpoint is loaded or refused."""
    name = "x.safetensors"
    attempt(lambda path: load(str(path)), spoil(checkpoint()), CheckpointError, name)


@fuzzed
@given(st.one_of(damage(), lies()))
def test_states(spoil: Callable[[bytes], bytes]) -> None:
    """The state of a session is taken over or refused."""
    state = tiny().initial_state(1)
    with contextlib.suppress(CheckpointError):
        load_state(spoil(dump_state(state)), state)


@fuzzed
@given(damage())
def test_tables(spoil: Callable[[bytes], bytes]) -> None:
    """A CSV is read or refused."""
    content = b'text,label,mode\n"a, b",0.5,train\n"c\nd",-1,valid\n'
    attempt(read_labelled, spoil(content), DataError)
    attempt(is_media, spoil(content), DataError)


@fuzzed
@given(st.binary(max_size=60))
def test_secrets(content: bytes) -> None:
    """A secret is one line of text or refused, and never repeated."""
    attempt(read_secret, content, SecretError)


PLAYER = """
import sys, threading
import numpy as np
from tamulag.streamer.sources.media_file import MediaSource
from tamulag.streamer.core.sample import Sample
from tamulag.streamer.features.audio_pipeline import AudioPipeline
from tamulag.streamer.core.source import SourceError, SourceLost

class Deaf:
    def push(self, block, start):
        return []

class Blind:
    def push(self, image, timestamp):
        return Sample("vision", timestamp, np.ones(1, np.float32))

for path in sys.argv[1:]:
    sound = AudioPipeline(Deaf(), None, threaded=False)
    source = MediaSource(path, sound=sound, vision=Blind(), now=None, speed="max")
    try:
        source.open()
        source.run(lambda item: None, threading.Event())
        print("played", flush=True)
    except (SourceError, SourceLost) as error:
        print("refused", error, flush=True)
"""
"""In a process of its own: if a decoder crashes, the test fails and not the whole run."""


@pytest.mark.timeout(300)
@pytest.mark.data
@pytest.mark.parametrize("name", ["lbax4n.mpg", "retalking_face_1.mp4", "pyfeat_face_noface.mov"])
def test_media(data: Path, tmp_path: Path, name: str) -> None:
    """Of a damaged clip as much is played as can be, or it is refused; no crash, no hang."""
    whole = (data / "clips" / name).read_bytes()
    dice = np.random.default_rng(7 if EXAMPLES == 60 else None)
    paths = []
    for number in range(max(EXAMPLES // 5, 1)):
        content = np.frombuffer(whole, np.uint8).copy()
        # The head holds the structure, the rest pictures and sound.
        span = len(content) if number % 2 else min(2000, len(content))
        places = dice.integers(0, span, 1 + 2 ** (number % 8))
        content[places] = dice.integers(0, 256, len(places))
        cut = len(content) if number % 3 else int(dice.integers(1, len(content)))
        paths.append(tmp_path / f"{number}-{name}")
        paths[-1].write_bytes(content[:cut].tobytes())
    command = [sys.executable, "-W", "error", "-c", PLAYER, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == len(paths)
