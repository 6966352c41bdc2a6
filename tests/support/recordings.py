"""A small session and its recording: scripted inputs, a real agent, a real recorder."""

import asyncio
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from support.services import Live, live
from tamulag.models import TamUlag
from tamulag.models.runtime.checkpoint import Card, save
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.app import build_recording
from tamulag.streamer.config.loader import load
from tamulag.streamer.core.sample import MODALITIES, Input, Modality, Notice, Phrase, Sample, Word
from tamulag.streamer.core.session import Session
from tamulag.streamer.core.source import Put
from tamulag.streamer.protocol import messages
from tamulag.streamer.protocol.session_messages import RunInfo
from tamulag.streamer.storage.arrow_file import END, Recording, batch_of, schema_of
from tamulag.streamer.storage.recording import Header, ModalityTimes, Row

CARD = Card(trained=dict.fromkeys(("sentiment", "text", "audio", "vision"), True))
ABOUT = RunInfo(version="9.9", checkpoint="tiny", heads={}, sources=["script"])
HEADER = Header(
    session="k7",
    version="9.9",
    torch="2",
    threads=1,
    checkpoint="tiny",
    sha256="0" * 64,
    asked=("text", "audio", "vision"),
    window=2.0,
    hop=0.5,
    lateness=0.3,
    stale_after=ModalityTimes(text=2.0, audio=0.5, vision=0.3),
    missing_after=ModalityTimes(text=2.0, audio=2.0, vision=1.0),
    epoch=1.7e9,
)


ROWS = [
    Row("audio", 0.1, 0.02, np.array([1, 2, 3], np.float32)),
    Row("vision", 0.1, 0.05, None, "no_face"),
    Row("close", 0.3),
    Row("message", 0.4, text="{}"),
]


def file_of(header: Header = HEADER, batches: int = 3) -> bytes:
    """Return a file of a recording."""
    schema = schema_of(header)
    parts = [schema, *[batch_of(ROWS, schema)] * batches]
    return b"".join(part.serialize().to_pybytes() for part in parts) + END


def written(folder: Path, *files: bytes) -> Path:
    """Write the files of a recording; return their folder."""
    for number, data in enumerate(files):
        (folder / f"{number:04}.arrows").write_bytes(data)
    return folder


class Script:
    """A source that puts what the test gives it and ends."""

    name = "script"
    modalities: tuple[Modality, ...] = ("audio", "vision")

    def __init__(self, items: Sequence[Input]) -> None:
        self._items = items

    def losses(self) -> dict[str, int]:
        return {"vision": 2}

    def gauges(self) -> dict[str, float]:
        return {}

    def shed(self, steps: Collection[str]) -> None:
        """Nothing can be given up."""

    def open(self) -> None:
        """Nothing needs opening."""

    def run(self, put: Put, stop: threading.Event) -> None:
        for item in self._items:
            put(item)


class Lines:
    """A publisher that keeps what it gets."""

    name = "lines"
    dropped = 0

    def __init__(self) -> None:
        self.all: list[str] = []

    async def open(self) -> None:
        """Nothing needs opening."""

    def publish(self, kind: str, payload: str) -> None:
        self.all.append(payload)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing needs closing."""

    def plain(self) -> list[messages.AnyMessage]:
        """Return the messages without what differs in each replay."""
        none = messages.Latency(align=None, features=None, model=0.0, total=None)
        return [
            m.model_copy(
                update={"session": "", "time": ""}
                | ({"latency": none} if m.type == "sentiment" else {})
            )
            for m in map(messages.decode, self.all)
        ]


def phrase(at: float, number: int, *words: str, final: bool = True) -> Phrase:
    """Return words that were spoken just before `at`; each is one token."""
    spoken = tuple(Word(w, at - 0.5 + i / 10, at - 0.4 + i / 10, 0.9) for i, w in enumerate(words))
    values = np.random.default_rng(len(words)).normal(size=(len(words), 5)).astype(np.float32)
    return Phrase(at, number, spoken, values, tuple(range(len(words))), final)


def inputs(seconds: float = 6.0) -> list[Input]:
    """Return voice with a pause, a face that goes, words that are revised, and a lost camera."""
    random = np.random.default_rng(1)
    items: list[Input] = []
    for tick in range(round(seconds * 50)):
        at = tick / 50
        silent = 1.0 < at < 1.5
        values = None if silent else random.normal(size=4).astype(np.float32)
        items.append(Sample("audio", at, values, "silence" if silent else None))
        if tick % 5 == 4 and at < 4:
            items.append(Sample("vision", at, random.normal(size=3).astype(np.float32)))
    items.insert(80, phrase(1.2, 0, "good", final=False))
    items.insert(130, phrase(2.0, 0, "good", "morning"))
    items.insert(240, Notice(4.0, "vision", "camera_lost", "camera 0 is gone"))
    return items


def checkpoint(folder: Path, model: TamUlag) -> Path:
    """Save the tiny model."""
    path = folder / "tiny.safetensors"
    save(model, CARD, path)
    return path


def agent_of(
    folder: Path, model: TamUlag, items: Sequence[Input], lines: Lines, **settings: object
) -> Live:
    """Return a service that records into `folder / "records"`."""
    path = str(checkpoint(folder, model))
    wanted = {"model.checkpoint": path, "record.path": str(folder / "records")}
    config = load(None, wanted | {k.replace("__", "."): v for k, v in settings.items()})
    is_strict = config.session.privacy == "strict"
    asked = MODALITIES
    session = Session(TorchEngine(model), CARD, asked, HEADER.timing, names_words=not is_strict)
    core = live(session, [Script(items)], [lines], ABOUT, paced=False, sends_words=not is_strict)
    recorder = build_recording.recorder_of(
        config, core.feed.messages, asked, session.timing, core.feed.clock
    )
    assert recorder is not None
    session.observer = recorder
    core.service.outputs.add(recorder)
    core.feed.recorder = recorder
    return core


def record(folder: Path, model: TamUlag, items: Sequence[Input] | None = None) -> Lines:
    """Record a session; return what it sent."""
    lines = Lines()
    asyncio.run(agent_of(folder, model, inputs() if items is None else items, lines).service.run())
    return lines


def kinds(folder: Path) -> Iterator[str]:
    """Yield the kind of each row of a recording."""
    yield from (row.kind for row in Recording(folder).rows())
