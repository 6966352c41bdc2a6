"""The verbs replay and verify as commands, and --privacy strict end to end."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from support.command_line import call
from support.demo_sessions import WORDS, kept_once
from support.recordings import inputs, record
from tamulag.models import TamUlag
from tamulag.streamer.cli.replay_verify import address

pytestmark = pytest.mark.timeout(300)

tamulag = partial(call, "tamulag")


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


def test_a_real_session_is_recorded_and_replayed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Words, voice and a portrait through the real recogniser; the same lines come back."""
    live, again = kept_once(tmp_path_factory, strict=False), tmp_path / "again.jsonl"
    done = tamulag("replay", str(live.records), "--speed", "max", "--jsonl", str(again))
    assert done.returncode == 0, done.stderr
    assert plain(again) == plain(live.lines)
    recorded = b"".join(f.read_bytes() for f in live.records.rglob("*.arrows"))
    assert all(word.encode() in recorded for word in WORDS)
    verified = tamulag("verify", str(live.records), "--json")
    assert json.loads(verified.stdout)["max_abs_diff"] == 0.0


def test_strict_privacy_lets_no_word_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nowhere in what is printed, logged, sent or written; words are scored all the same."""
    kept = kept_once(tmp_path_factory, strict=True)
    recorded = b"".join(f.read_bytes() for f in kept.records.rglob("*.arrows"))
    everything = recorded + kept.lines.read_bytes() + kept.printed.read_bytes()
    for word in (*WORDS, "times", "worst"):
        assert word.encode() not in everything.lower()
    sent = plain(kept.lines)
    assert any(m["type"] == "sentiment" and m["modalities"]["text"]["sentiment"] for m in sent)
    assert not [m for m in sent if m["type"] == "text"]
    assert {row[0] for m in sent if "attention" in m for row in m["attention"]["text"]} == {""}
    refused = tamulag("replay", str(kept.records), "--speed", "max")
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
