"""The verb export, and streaming with what it wrote, as people type it."""

import json
import wave
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.command_line import call, run
from tamulag.streamer.app.build_agent import demo_files

pytestmark = pytest.mark.timeout(300)

DEMO = ("stream", "--demo", "--speed", "max", "--websocket", "none", "--duration", "6")


VERIFY = "tamulag.streamer.offline.verify_onnx"

tamulag = partial(run, "tamulag")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped checkpoint's step, exported by the command."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    folder = tmp_path_factory.mktemp("onnx")
    out = folder / "default.onnx"
    portrait, speech = demo_files()
    begun = beginning(speech, folder / "speech.wav", seconds=6)
    with pytest.MonkeyPatch.context() as patch:
        # It takes a minute and a half to play all of it.
        patch.setattr(f"{VERIFY}.demo_files", lambda: (portrait, begun))
        done = call("tamulag", "export", "--onnx", out, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["max_abs_diff"] <= 1e-4
    assert found["hops"] > 10
    assert {"random states", "clip fused", "clip text"} <= set(found["differences"])
    assert [row["batch"] for row in found["speeds"][::2]] == [1, 4, 16, 64, 256]
    return out


def beginning(whole: Path, out: Path, *, seconds: int) -> Path:
    """Write the first seconds of a WAV file."""
    with wave.open(str(whole), "rb") as file, wave.open(str(out), "wb") as short:
        short.setparams(file.getparams())
        short.writeframes(file.readframes(seconds * file.getframerate()))
    return out


def scores(folder: Path, *options: str | Path) -> list[dict[str, Any]]:
    """Return the sentiment messages of the demo."""
    out = folder / "lines.jsonl"
    done = tamulag(*DEMO, "--asr", "none", "--jsonl", out, *options)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    out.unlink()
    return [line for line in lines if line["type"] == "sentiment"]


def test_a_stream_with_the_file_scores_the_same(file: Path, tmp_path: Path) -> None:
    """To 1e-4, voice and face; scores are rounded no further than that."""
    ours = scores(tmp_path)
    theirs = scores(tmp_path, "--engine", "onnxruntime", "--onnx", file)
    assert len(theirs) == len(ours) > 10
    for one, other in zip(ours, theirs, strict=True):
        assert other["sentiment"] == pytest.approx(one["sentiment"], abs=1e-4)


def test_another_window_is_one_line(file: Path, tmp_path: Path) -> None:
    """Exit code 1, with the command that makes the right file."""
    config = tmp_path / "my.toml"
    config.write_text("[session]\nwindow = 10.0\n")
    done = call("tamulag", *DEMO, "--asr", "none", "--config", config, "--onnx", file)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "--window 10" in done.stderr


def test_onnxruntime_without_a_file_is_wrong_use() -> None:
    """The message names the setting that is missing."""
    done = call("tamulag", *DEMO, "--engine", "onnxruntime")
    assert done.returncode == 2
    assert "model.onnx" in done.stderr


def test_another_suffix_is_wrong_use(tmp_path: Path) -> None:
    """Nothing is begun."""
    done = call("tamulag", "export", "--onnx", tmp_path / "default.bin")
    assert done.returncode == 2
    assert "give an .onnx file" in done.stderr
