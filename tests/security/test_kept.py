"""What is kept is kept close: modes, cells, characters, errors, dumps."""

import asyncio
import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.certificates import authority
from support.waiting import until
from tamulag.streamer.core.plain_text import plain
from tamulag.streamer.core.snapshot import SnapshotError, dump, restore
from tamulag.streamer.protocol.ingest import IngestError, SenderHello, parse_frame
from tamulag.streamer.publishers.jsonl import JsonlPublisher
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.service import snapshot_store
from tamulag.streamer.service.snapshot_store import SnapshotStore, SnapshotStoreError
from tamulag.streamer.storage.history_export import _as_cells
from tamulag.streamer.webserver.access_control import AuthSettings, access

ATTACK = "\x1b]0;owned\x07\x1b[2Jso\x9b31m\u202egood\x00\x7f"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_json_lines_are_for_their_owner(tmp_path: Path) -> None:
    """Whatever the umask; words are in them."""
    path = tmp_path / "lines.jsonl"

    async def write() -> None:
        publisher = JsonlPublisher(str(path))
        await publisher.open()
        publisher.publish("text", "{}")
        await publisher.close()

    before = os.umask(0)
    try:
        asyncio.run(write())
    finally:
        os.umask(before)
    assert (mode(path), path.read_text()) == (0o600, "{}\n")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"])
def test_a_cell_is_no_formula(cell: str) -> None:
    """What people say stays what they say, behind an apostrophe."""
    row = {"attended": cell, "session": "so", "sentiment": -1.0}
    assert _as_cells(row) == {"attended": f"'{cell}", "session": "so", "sentiment": -1.0}


def test_nothing_acts_on_a_terminal() -> None:
    """Escape sequences, controls and turns of direction leave; letters of all scripts stay."""
    assert plain(ATTACK) == "sogood"
    assert plain("a\nb\tc\u2028d") == "a b c d"
    kept = "Grüße, \u4f60\u597d, \u0645\u06cc\u200c\u062e\u0648, \U0001f469\u200d\U0001f4bb"
    assert plain(kept) == kept
    assert plain("\x1b[") + plain("\x1b") + plain("\x9b") == ""


def words(text: str) -> bytes:
    word = {"text": text, "start": 0.1, "end": 0.2}
    header = {"kind": "words", "timestamp": 0.3, "utterance": 0, "words": [word], "final": True}
    data = json.dumps(header).encode()
    return len(data).to_bytes(4, "big") + data


def test_words_are_clean_at_the_door() -> None:
    """And a word of nothing is none."""
    hello = SenderHello(words=True)
    assert parse_frame(words(ATTACK), hello, {}).header.words[0].text == "sogood"  # type: ignore[union-attr]
    with pytest.raises(IngestError, match="nothing that can be read"):
        parse_frame(words("\x1b[2J\x00"), hello, {})


def test_a_wrong_kind_is_not_quoted() -> None:
    """The reason goes into a log."""
    data = json.dumps({"kind": "\x1b[2Jsecret", "timestamp": 0.0}).encode()
    with pytest.raises(IngestError) as refused:
        parse_frame(len(data).to_bytes(4, "big") + data, SenderHello(words=True), {})
    assert str(refused.value) == "no valid header: unknown kind"


def test_a_damaged_snapshot_is_not_quoted(tmp_path: Path) -> None:
    """Neither by the folder's log nor by the session's refusal."""
    from tamulag.streamer.core.commands import Push

    from ..core.test_session_batch import ASKED, small_batch
    from ..service.test_server_senders import SPOKEN, small

    model = small()
    one, other = small_batch(model), small_batch(model)
    one.open("x", ASKED)
    one.apply("x", Push(SPOKEN))
    packed = dump(one, "x", "w").replace(b'\\"start\\":1.0', b'\\"start\\":"so"')
    with pytest.raises(SnapshotError) as refused:
        restore(other, "x", packed, "w")
    assert str(refused.value) == "the session's snapshot is damaged (ValidationError)"


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """As a token's file is."""
    pair = authority(tmp_path).own
    auth = AuthSettings(certificate=str(pair.certificate), key=str(pair.key))
    assert access("127.0.0.1", auth).tls is not None
    pair.key.chmod(0o644)
    with pytest.raises(PublisherError, match=r"websocket.key: .*mode 0644.*chmod 600"):
        access("127.0.0.1", auth)


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    """Sessions with words lie in it."""
    folder = tmp_path / "sessions"
    SnapshotStore(folder)
    assert mode(folder) == 0o700
    folder.chmod(0o755)
    with pytest.raises(SnapshotStoreError, match=r"mode 0755.*chmod 700"):
        SnapshotStore(folder)


def test_nothing_is_left_of_a_last_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no server starts there any more: a file is deleted after its time."""
    monkeypatch.setattr(snapshot_store, "PATIENCE", 0.2)
    store = SnapshotStore(tmp_path / "sessions")
    store.sweep_later()  # nothing is there, nothing is started
    old = tmp_path / "sessions" / "a.session"
    old.touch()
    store.sweep_later()
    asyncio.run(until(lambda: not old.exists()))


def test_a_process_dumps_nothing_and_has_its_files() -> None:
    """Measured in one of its own: the limits cannot be raised again."""
    code = (
        "import resource; from tamulag.streamer.service.process_limits import *;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(7)[1]));"
        "prepare_process(); limit_growth(1 << 28);"
        "print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(7)[0]);"
        "bytearray(1 << 29)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert done.stdout == f"(0, 0) {min(most, 65536)}\n"
    assert "MemoryError" in done.stderr
