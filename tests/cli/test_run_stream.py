"""One run inside the process: exit codes, and what is printed where."""

import gc
import json
import threading
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.services import live
from tamulag.models import TamUlag
from tamulag.models.runtime.checkpoint import Card
from tamulag.models.runtime.torch_engine import TorchEngine
from tamulag.streamer.app.build_agent import HEADS, Built
from tamulag.streamer.cli import run_stream as module
from tamulag.streamer.cli.run_stream import run_stream
from tamulag.streamer.config.loader import Config
from tamulag.streamer.core.sample import Modality
from tamulag.streamer.core.session import Session
from tamulag.streamer.core.source import Put, SourceError
from tamulag.streamer.protocol.messages import Head
from tamulag.streamer.protocol.session_messages import RunInfo
from tamulag.streamer.publishers.publisher import PublisherError

QUIET = {"websocket.enabled": False}


class Failing:
    """A source that raises what the test says; None: it ends at once."""

    name = "failing"
    modalities: tuple[Modality, ...] = ("audio",)

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def losses(self) -> dict[str, int]:
        return {}

    def gauges(self) -> dict[str, float]:
        return {}

    def shed(self, steps: Collection[str]) -> None:
        pass

    def open(self) -> None:
        """Nothing needs opening."""

    def run(self, put: Put, stop: threading.Event) -> None:
        if self._error is not None:
            raise self._error


class Freed:
    """Whether the resources of a run were closed."""

    yes = False

    def set(self) -> None:
        self.yes = True


@pytest.fixture
def freed() -> Freed:
    return Freed()


def attempt(
    monkeypatch: pytest.MonkeyPatch,
    model: TamUlag,
    freed: Freed,
    error: Exception | None = None,
    settings: Mapping[str, object] | None = None,
    **trained: bool,
) -> int:
    """Run an agent whose source raises `error`; everything but the source is real."""
    heads = dict.fromkeys(HEADS, True) | trained

    def build(config: Config) -> Built:
        resources = ExitStack()
        resources.callback(freed.set)
        core = live(
            Session(TorchEngine(model), Card(trained=heads), ["audio"]),
            [Failing(error)],
            [],
            RunInfo(
                version="9.9",
                checkpoint="tiny",
                heads={name: Head(trained=there, data=None) for name, there in heads.items()},
                sources=["failing"],
            ),
        )
        return Built(core.service, core.feed, resources)

    monkeypatch.setattr(module, "build", build)
    given = QUIET | {"source.path": "made"} | dict(settings or {})
    return run_stream(None, given, demo=False, verbose=False)


def test_a_run_that_ends_by_itself_is_done(
    monkeypatch: pytest.MonkeyPatch,
    model: TamUlag,
    freed: Freed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Exit code 0; a person sees what runs, and that it has ended."""
    assert attempt(monkeypatch, model, freed) == 0
    out, err = capfd.readouterr()
    assert out.startswith("tamulag-stream 9.9: failing\n")
    assert "session ended (end)" in out
    assert err == ""
    assert freed.yes


def test_an_untrained_head_is_announced(
    monkeypatch: pytest.MonkeyPatch,
    model: TamUlag,
    freed: Freed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nobody waits for a number that cannot come."""
    attempt(monkeypatch, model, freed, vision=False)
    out = capfd.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("head")] == ["head vision: untrained"]


def test_every_expected_error_of_a_group_is_reported(
    monkeypatch: pytest.MonkeyPatch,
    model: TamUlag,
    freed: Freed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Errors from inside task groups, however deep, are one line each; exit code 1."""
    inner = ExceptionGroup("inner", [PublisherError("port taken: choose another")])
    both = ExceptionGroup("both", [SourceError("camera away: plug it in"), inner])
    assert attempt(monkeypatch, model, freed, both) == 1
    assert capfd.readouterr().err.splitlines() == [
        "tamulag-stream: camera away: plug it in",
        "tamulag-stream: port taken: choose another",
    ]
    assert freed.yes


def test_a_bug_beside_an_expected_error_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
    model: TamUlag,
    freed: Freed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The expected one is told, the bug keeps its traceback."""
    both = ExceptionGroup("both", [SourceError("camera away"), ZeroDivisionError("a bug")])
    with pytest.raises(BaseExceptionGroup) as caught:
        attempt(monkeypatch, model, freed, both)
    assert caught.group_contains(ZeroDivisionError)
    assert not caught.group_contains(SourceError)
    assert "camera away" in capfd.readouterr().err
    assert freed.yes


def test_a_reader_that_has_left_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, model: TamUlag, freed: Freed
) -> None:
    """The reader of our lines may stop; exit code 0."""
    assert attempt(monkeypatch, model, freed, BrokenPipeError()) == 0
    assert freed.yes


def test_every_problem_of_a_file_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; nothing is loaded."""
    path = tmp_path / "mine.toml"
    path.write_text('[session]\nhop = "fast"\n[camera]\ncolour = 1\n')
    assert run_stream(path, {}, demo=False, verbose=False) == 1
    err = capfd.readouterr().err
    assert "session.hop" in err
    assert "camera.colour" in err


def test_an_employee_is_not_scored_without_a_reason(capfd: pytest.CaptureFixture[str]) -> None:
    """The run does not start; the line names the law and the key."""
    agent = {"session.subject": "agent", "source.path": "talk.wav"}
    assert run_stream(None, agent, demo=False, verbose=False) == 2
    assert "session.employee_scoring_is_lawful" in capfd.readouterr().err


def test_the_reason_to_score_an_employee_is_logged(
    monkeypatch: pytest.MonkeyPatch,
    model: TamUlag,
    freed: Freed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """At each start, at the usual level, in the form of the log and with the session's name."""
    about = {"subject": "agent", "employee_scoring_is_lawful": "pilots, for safety"}
    settings = {f"session.{key}": value for key, value in about.items()}
    attempt(monkeypatch, model, freed, settings=settings | {"log.format": "json"})
    line = json.loads(capfd.readouterr().err)
    assert line["message"].endswith("lawful: pilots, for safety")
    assert len(line["session"]) == 8


def test_what_a_person_can_mend_is_a_json_line_too(
    monkeypatch: pytest.MonkeyPatch,
    model: TamUlag,
    freed: Freed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A collector of logs sees why the program ended; exit code 1."""
    error = SourceError("camera away: plug it in")
    assert attempt(monkeypatch, model, freed, error, settings={"log.format": "json"}) == 1
    assert json.loads(capfd.readouterr().err)["message"] == "camera away: plug it in"


def test_a_wrong_option_is_wrong_use(capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 2; the command line is named as the place."""
    assert run_stream(None, {"source.speed": "fast"}, demo=False, verbose=False) == 2
    assert "command line: source.speed" in capfd.readouterr().err


def test_an_option_wins_over_the_demo() -> None:
    """`--demo --source FILE` plays the file; here it is missing, so exit code 1."""
    assert run_stream(None, QUIET | {"source.path": "no/such.wav"}, demo=True, verbose=False) == 1


def test_json_lines_on_standard_output_stand_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing but messages is printed there, so a program can read them."""
    settings = {"source.speed": "max", "session.duration": 1.0, "asr.engine": "none"}
    assert run_stream(None, QUIET | settings | {"jsonl.path": "-"}, demo=True, verbose=False) == 0
    lines = capfd.readouterr().out.splitlines()
    assert all(line.startswith('{"v":1,') for line in lines)
    assert '"type":"session_end"' in lines[-1]


def test_garbage_is_looked_for_again_after_a_failed_start(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Loading leaves the collector aside, but only loading."""

    def fail(config: Config) -> Built:
        assert not gc.isenabled()
        raise SourceError("no such clip")

    monkeypatch.setattr(module, "build", fail)
    assert run_stream(None, QUIET | {"source.path": "clip.mp4"}, demo=False, verbose=False) == 1
    assert gc.isenabled()
    assert "no such clip" in capfd.readouterr().err
