"""The commands as people type them: real processes, real clips, exit codes, what they print."""

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import jsonschema
import pytest
from websockets.sync.client import connect

from support.command_line import Done, call, run
from support.fork_server import Command
from tamulag.streamer.bench.rig.processes import free_port
from tamulag.streamer.bench.rig.ray_nodes import NodesError
from tamulag.streamer.cli.main import _run
from tamulag.streamer.cluster.worker_pool import WorkerLost
from tamulag.streamer.core.errors import TamulagError

tamulag = partial(run, "tamulag")


def stream(*arguments: str, run: Callable[..., Done] = run) -> Done:
    return run("tamulag-stream", *arguments, "--websocket", "none")


def scores(done: Done) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if line["type"] == "sentiment"]


def statuses(score: dict[str, object]) -> dict[str, str]:
    parts = score["modalities"]
    assert isinstance(parts, dict)
    return {name: part["status"] for name, part in parts.items()}


@pytest.mark.data
def test_a_talking_face_is_scored_from_all_three(data: Path) -> None:
    """At least ten scores; text, audio and vision are ok in the last."""
    clip = data / "clips" / "retalking_face_1.mp4"
    found = scores(
        stream("--source", str(clip), "--asr", "moonshine", "--speed", "max", "--jsonl", "-")
    )
    assert len(found) >= 10
    assert statuses(found[-1]) == {"text": "ok", "audio": "ok", "vision": "ok"}
    assert isinstance(found[-1]["sentiment"], float)


@pytest.mark.data
def test_a_file_scores_the_same_at_any_speed(data: Path) -> None:
    """Voice and face give the same hops in real time and as fast as it goes."""
    options = ("--source", str(data / "clips" / "lrwp9a.mpg"), "--asr", "none", "--jsonl", "-")
    paced, fast = (scores(stream(*options, "--speed", speed)) for speed in ("1", "max"))
    assert [s["window"] for s in paced] == [s["window"] for s in fast]
    for one, other in zip(paced, fast, strict=True):
        assert one["sentiment"] == pytest.approx(other["sentiment"], abs=1e-3)
        assert statuses(one) == statuses(other)


@pytest.mark.data
def test_no_face_is_missing_with_the_reason(data: Path) -> None:
    """A file without a face scores from the rest and says why."""
    clip = str(data / "clips" / "pyfeat_no_face.mp4")
    found = scores(stream("--source", clip, "--speed", "max", "--jsonl", "-"))
    vision = [score["modalities"]["vision"] for score in found]  # type: ignore[index]
    assert all((part["status"], part["reason"]) == ("missing", "no_face") for part in vision)
    assert all(part["sentiment"] is None for part in vision)


@pytest.mark.data
def test_a_face_that_leaves_becomes_stale_then_missing(data: Path) -> None:
    """The face is seen for 2.4 s of this clip, and not after that."""
    clip = str(data / "clips" / "pyfeat_face_noface.mov")
    found = scores(stream("--source", clip, "--speed", "max", "--asr", "none", "--jsonl", "-"))
    seen = {score["window"]["end"]: statuses(score)["vision"] for score in found}  # type: ignore[index]
    assert seen[2.0] == "ok"
    assert seen[3.0] == "stale"
    assert all(status == "missing" for end, status in seen.items() if end >= 3.5)


@pytest.mark.data
def test_a_silent_track_is_silence(data: Path) -> None:
    """A face that does not speak: vision ok, audio missing (silence), text missing (no words)."""
    clip = str(data / "clips" / "pyfeat_WolfgangLanger_silent.mp4")
    last = scores(stream("--source", clip, "--speed", "max", "--duration", "4", "--jsonl", "-"))[-1]
    assert statuses(last) == {"text": "missing", "audio": "missing", "vision": "ok"}
    assert last["modalities"]["audio"]["reason"] == "silence"  # type: ignore[index]


@contextmanager
def running(*arguments: str) -> Iterator[Command]:
    """Run tamulag-stream until the block ends."""
    pipe = subprocess.PIPE
    with Command(["tamulag-stream", *arguments], stdout=pipe, stderr=pipe) as process:
        yield process


def wait_for(process: Command, text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"{text!r} was never printed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_serves_and_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    """Subscribers get hello, valid messages, and a session_end; the exit code is 0."""
    port = free_port()
    schema = json.loads(tamulag("schema").stdout)
    with running("--demo", "--websocket", f"127.0.0.1:{port}") as process:
        wait_for(process, "text")
        with connect(f"ws://127.0.0.1:{port}/") as socket:
            messages = [json.loads(socket.recv(timeout=10)) for _ in range(4)]
            process.send_signal(number)
            messages += [json.loads(line) for line in socket]
        assert process.wait(timeout=5) == 0
    assert messages[0]["type"] == "hello"
    assert messages[-1]["type"] == "session_end"
    ends = [sent["window"]["end"] for sent in messages if sent["type"] == "sentiment"]
    assert max(ends) <= messages[-1]["at"]
    for sent in messages:
        jsonschema.validate(sent, schema)


def test_a_reader_that_ends_stops_the_stream_quietly() -> None:
    """`tamulag-stream --jsonl - | head -1` leaves no traceback."""
    with running("--demo", "--jsonl", "-", "--websocket", "none") as process:
        wait_for(process, "session_start")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def lines(done: Done) -> list[str]:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--camera", "99", "--microphone", "none"], "camera 99", id="camera"),
        pytest.param(["--source", "no/such.mp4"], "no/such.mp4", id="file"),
        pytest.param(["--asr", "vosk", "--asr-model", "nowhere", "--demo"], "nowhere", id="model"),
        pytest.param(["--demo", "--mqtt", "mqtt://127.0.0.1:1"], "127.0.0.1:1", id="broker"),
        pytest.param(["--demo", "--checkpoint", "best"], "best", id="checkpoint"),
        pytest.param(["--demo", "--jsonl", "no/such/dir/x"], "no/such/dir/x", id="jsonl"),
        pytest.param(["--config", "no.toml"], "no.toml", id="config"),
    ],
)
def test_what_is_missing_is_reported_in_two_lines(arguments: list[str], said: str) -> None:
    """Exit code 1, the value is named, and nothing is left running."""
    native = said in ("camera 99", "nowhere")  # their libraries have lines of their own
    done = stream(*arguments, run=run if native else call)
    assert done.returncode == 1
    assert len(lines(done)) <= 2
    assert said in done.stderr


def test_a_file_that_is_no_media_is_reported(tmp_path: Path) -> None:
    """Text in a .mp4 is unreadable, not a crash."""
    path = tmp_path / "text.mp4"
    path.write_text("hello")
    done = stream("--source", str(path))
    assert (done.returncode, len(lines(done))) == (1, 1)


def test_a_busy_port_is_reported() -> None:
    """The port is named, and the option that mends it."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = call("tamulag-stream", "--demo", "--websocket", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "--websocket" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--hop", "1"], id="option"),
        pytest.param(["--speed", "fast", "--demo"], id="value"),
        pytest.param(["--websocket", "x", "--demo"], id="address"),
        pytest.param([], id="nothing to capture"),
        pytest.param(["--camera", "none"], id="no camera"),
    ],
)
def test_wrong_use_is_exit_code_2(arguments: list[str]) -> None:
    """Wrong options are not failures of the machine."""
    assert call("tamulag-stream", *arguments).returncode == 2


def test_a_malformed_config_names_file_key_and_value(tmp_path: Path) -> None:
    """One line, exit code 1."""
    path = tmp_path / "mine.toml"
    path.write_text('[session]\nhop = "fast"\n')
    done = stream("--config", str(path), run=call)
    assert done.returncode == 1
    assert len(lines(done)) == 1
    for part in ("mine.toml", "session.hop", '"fast"'):
        assert part in done.stderr


def test_schema_is_a_json_schema() -> None:
    """What `tamulag schema` prints is itself valid."""
    schema = json.loads(tamulag("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)


def test_models_lists_what_is_here_and_what_is_missing(tmp_path: Path) -> None:
    """Bundled parts are installed; a Vosk model is missing, with its remedy."""
    done = tamulag("models", "--json", XDG_CACHE_HOME=str(tmp_path))
    states = {m["name"]: m for m in json.loads(done.stdout.splitlines()[-1])["models"]}
    assert states["face-landmarker"]["state"] == "installed"
    missing = states["vosk-model-small-en-us-0.15"]
    assert missing["state"] == "missing"
    assert missing["remedy"] == "tamulag models fetch vosk-model-small-en-us-0.15"


def test_models_fetch_brings_a_model_from_its_server(tmp_path: Path) -> None:
    """A model fetched over HTTP is there afterwards, with its checksum."""
    name = "vosk-model-small-test-0.1"
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / f"{name}.zip", "w") as archive:
        archive.writestr(f"{name}/am/final.mdl", b"model")
    handler = partial(SimpleHTTPRequestHandler, directory=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = tamulag("models", "fetch", name, "--url", url, XDG_CACHE_HOME=str(tmp_path))
        refused = tamulag(
            "models", "fetch", "vosk-model-none", "--url", url, XDG_CACHE_HOME=str(tmp_path)
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "sha256" in done.stdout
    assert refused.returncode == 1
    assert "404" in refused.stderr


def test_devices_and_doctor_tell_what_is_here() -> None:
    """Both answer on a machine without camera and microphone."""
    assert tamulag("devices").returncode == 0
    checks = json.loads(tamulag("doctor", "--json").stdout.splitlines()[-1])["checks"]
    assert any(check["name"] == "python" and check["ok"] for check in checks)


def test_doctor_checks_what_a_config_names(tmp_path: Path) -> None:
    """A kiosk checks its own port and its own broker; one that is away is a failure."""
    config = tmp_path / "kiosk.toml"
    config.write_text('[websocket]\nport = 0\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n')
    done = tamulag("doctor", "--config", str(config))
    assert done.returncode == 1
    assert "port 0 is free" in done.stdout
    assert "127.0.0.1:1: " in done.stdout


def test_a_file_on_the_command_line_replaces_the_devices_of_a_config() -> None:
    """Options win over the config; here the file is missing, which is told, and not the camera."""
    root = Path(__file__).parents[2]
    done = stream(
        "--config", str(root / "configs" / "webcam.toml"), "--source", "no/such.mp4", run=call
    )
    assert done.returncode == 1
    assert "no/such.mp4" in done.stderr
    assert "camera" not in done.stderr


@pytest.mark.parametrize("kind", [NodesError, WorkerLost])
def test_an_error_of_the_tree_is_one_line(
    kind: type[TamulagError], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever verb it ends: exit code 1, and no traceback."""

    def fail() -> None:
        raise kind("node 2 is gone: start it again")

    assert _run("tamulag", fail) == 1
    assert capsys.readouterr().err == "tamulag: node 2 is gone: start it again\n"


def test_a_ray_that_does_not_start_is_reported(tmp_path: Path) -> None:
    """`bench cluster` with a damaged installation of Ray: why, in one line."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("tamulag", "bench", "cluster", "--seconds", "6", PYTHONPATH=path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tamulag: Ray did not start its nodes: ModuleNotFoundError")


def test_the_command_line_loads_no_network() -> None:
    """`--help` is quick: neither torch nor numpy is imported for it."""
    code = "import sys, tamulag.streamer.cli.main as m; print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"
