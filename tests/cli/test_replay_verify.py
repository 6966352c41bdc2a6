"""The verbs replay and verify as commands, and --privacy strict end to end."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from support.command_line import call, run
from support.recordings import inputs, record
from tamulag.models import TamUlag
from tamulag.streamer.app.build_agent import demo_files
from tamulag.streamer.cli.replay_verify import address

pytestmark = pytest.mark.timeout(300)

tamulag = partial(call, "tamulag")


@pytest.fixture(scope="module")
def speech() -> Path:
    """Return real speech, of which the recogniser gets `wisdom` and `foolishness` right."""
    return demo_files()[1]


def test_verify_prints_one_object(tmp_path: Path, model: TamUlag) -> None:
    """`max_abs_diff` and `hops`, exit code 0."""
    record(tmp_path, model)
    done = tamulag("verify", str(tmp_path / "records"), "--json")
    assert json.loads(done.stdout) == {"max_abs_diff": 0.0, "hops": 12}
    assert done.returncode == 0


def test_verify_fails_above_the_limit(tmp_path: Path, model: TamUlag) -> None:
    """Exit code 1, and still the number."""
    record(tmp_path, model, inputs(2.0))
    (file,) = (tmp_path / "records").rglob("*.arrows")
    data = file.read_bytes()
    found = re.search(rb'"sentiment": -?0\.(\d)', data)
    assert found
    place = found.start(1)
    digit = b"9" if data[place : place + 1] != b"9" else b"1"
    file.write_bytes(data[:place] + digit + data[place + 1 :])
    done = tamulag("verify", str(tmp_path / "records"), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["max_abs_diff"] > 1e-5


def test_a_missing_target_is_one_line(tmp_path: Path) -> None:
    """Of a file and of a folder, without a traceback."""
    for target in (tmp_path / "none.mp4", tmp_path):
        done = tamulag("verify", str(target))
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


def test_a_real_session_is_recorded_and_replayed(tmp_path: Path, speech: Path) -> None:
    """Words, voice and a portrait through the real recogniser; the same lines come back."""
    live, again = tmp_path / "live.jsonl", tmp_path / "again.jsonl"
    folder = tmp_path / "records"
    options = ["--speed", "max", "--websocket", "none", "--duration", "12"]
    record_it = ["--source", str(speech), "--record", str(folder), "--jsonl", str(live)]
    assert run("tamulag", "stream", *record_it, *options).returncode == 0
    done = tamulag("replay", str(folder), "--speed", "max", "--jsonl", str(again))
    assert done.returncode == 0, done.stderr
    assert plain(again) == plain(live)
    assert b"wisdom" in b"".join(f.read_bytes() for f in folder.rglob("*.arrows"))
    assert json.loads(tamulag("verify", str(folder), "--json").stdout)["max_abs_diff"] == 0.0


def test_strict_privacy_lets_no_word_out(tmp_path: Path, speech: Path) -> None:
    """Nowhere in what is printed, logged, sent or written; words are scored all the same."""
    lines, folder = tmp_path / "live.jsonl", tmp_path / "records"
    options = ["--speed", "max", "--websocket", "none", "--duration", "12", "--verbose"]
    out = ["--record", str(folder), "--jsonl", str(lines), "--privacy", "strict"]
    done = run("tamulag", "stream", "--source", str(speech), *out, *options)
    assert done.returncode == 0, done.stderr
    recorded = b"".join(f.read_bytes() for f in folder.rglob("*.arrows"))
    everything = recorded + lines.read_bytes() + (done.stdout + done.stderr).encode()
    for word in (b"wisdom", b"foolishness", b"times", b"worst"):
        assert word not in everything.lower()
    sent = plain(lines)
    assert any(m["type"] == "sentiment" and m["modalities"]["text"]["sentiment"] for m in sent)
    assert not [m for m in sent if m["type"] == "text"]
    assert {row[0] for m in sent if "attention" in m for row in m["attention"]["text"]} == {""}
    refused = tamulag("replay", str(folder), "--speed", "max")
    assert refused.returncode == 1
    assert "it can be read, but not replayed" in refused.stderr


def plain(path: Path) -> list[dict[str, Any]]:
    messages = [json.loads(line) for line in path.read_text().splitlines()]
    for message in messages:
        for key in ("session", "time", "latency"):
            message.pop(key, None)
    return messages


def test_an_address_opens_the_server() -> None:
    """Also where a file has closed it; `none` closes it."""
    assert address("[::1]:80") == {
        "websocket.enabled": True,
        "websocket.host": "::1",
        "websocket.port": 80,
    }
    assert address("none") == {"websocket.enabled": False}
    assert address(None) == {}
    with pytest.raises(typer.BadParameter, match="must be HOST:PORT or none"):
        address("8765")
