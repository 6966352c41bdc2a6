"""What lies between two servers is sealed: only the key of its session opens it."""

import asyncio
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tamulag.streamer.service.snapshot_seal import SealError, name_of, seal, unseal
from tamulag.streamer.service.snapshot_store import SnapshotStore, StoredSnapshot

from ..service.test_server_senders import (
    VOICE,
    ServerUnderTest,
    closed,
    greeted,
    run_with,
    scores,
    voice,
)

KEY, OTHER = "kX3kX3kX3kX3kX3kX3kX3w", "kX3kX3kX3kX3kX3kX3kX3x"
KEPT = StoredSnapshot(
    name="seat-rumpel",
    key=KEY,
    seq=3,
    now=2.5,
    reached=2.0,
    utterance=1,
    asked=("audio", "text"),
    by_sender=True,
    state=b"stiltskin" * 1000,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file of `KEPT`."""
    SnapshotStore(tmp_path / "sessions").put(KEPT)
    (found,) = (tmp_path / "sessions").iterdir()
    return found


def test_who_has_the_folder_has_nothing(file: Path) -> None:
    """Neither words nor name, form or key; and nobody else has the folder."""
    found = file.name.encode() + file.read_bytes()
    for secret in (b"stiltskin", b"rumpel", b"utterance", b"audio", KEY.encode()):
        assert secret not in found
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_only_its_key_opens_it(file: Path) -> None:
    """Though it is put where another key would look."""
    store = SnapshotStore(file.parent)
    assert store.look(OTHER) is None
    found = store.look(KEY)
    assert found is not None
    assert replace(found, age=0.0) == KEPT
    file.rename(file.with_stem(name_of(OTHER)))
    assert store.look(OTHER) is None


@pytest.mark.parametrize("place", [0, 17, 18, 25, 40, 9000, -1])
def test_what_was_changed_is_not_opened(
    file: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One bit anywhere: form, nonce, content, seal; the log says so without the key."""
    changed = bytearray(file.read_bytes())
    changed[place] ^= 1
    file.write_bytes(changed)
    assert SnapshotStore(file.parent).look(KEY) is None
    assert "is damaged (SealError)" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("size", [0, 5, 18, 20, 30, 45])
def test_what_was_cut_off_is_not_opened(size: int) -> None:
    """At each boundary, and between them."""
    with pytest.raises(SealError):
        unseal(KEY, b"".join(seal(KEY, b"wo", b"rds"))[:size])


def test_the_same_is_sealed_differently() -> None:
    """A session that is handed over twice has its key both times."""
    one, other = (b"".join(seal(KEY, b"wo", b"rds")) for _ in range(2))
    assert one != other
    assert unseal(KEY, one) == unseal(KEY, other) == b"words"


def test_a_drained_session_is_sealed_and_goes_on(tmp_path: Path) -> None:
    """A real sender over a real port: at the next server its key opens what the first one left."""
    ready: dict[str, str] = {}

    async def leave(url: str) -> None:
        async with connect(url) as socket:
            ready.update(await greeted(socket))
            await socket.send(voice(0.0))
            await scores(socket, 1)
            leaving = asyncio.create_task(closed(socket))
            await first.senders.drain()
            assert (await leaving)[0] == 1012

    async def come(url: str) -> None:
        async with connect(url) as socket:
            again = await greeted(socket, VOICE.model_copy(update={"resume": ready["resume"]}))
            assert (again["session"], again["resumed"]) == (ready["session"], True)

    first = ServerUnderTest(store=SnapshotStore(tmp_path / "sessions"))
    run_with(first, leave)
    (file,) = (tmp_path / "sessions").iterdir()
    found = file.name.encode() + file.read_bytes()
    for secret in (ready["resume"], ready["session"], "safetensors", "__metadata__"):
        assert secret.encode() not in found
    run_with(ServerUnderTest(store=SnapshotStore(tmp_path / "sessions")), come)
    assert os.listdir(tmp_path / "sessions") == []
