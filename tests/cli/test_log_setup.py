import json
import logging
import warnings

import pytest

from tamulag.streamer.cli.log_setup import Log


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str | None]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_has_time_logger_and_session(capsys: pytest.CaptureFixture[str]) -> None:
    """A collector finds the same five keys in every line; the session once there is one."""
    with Log("json", "info") as log:
        logging.getLogger("tamulag.mqtt").info("connected to %s", "a\nb")
        log.begin("k7")
        logging.getLogger("tamulag.agent").warning("late")
    first, second = lines(capsys)
    assert str(first.pop("time")).endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "tamulag.mqtt",
        "message": "connected to a\nb",
        "session": None,
    }
    assert (second["session"], second["level"]) == ("k7", "warning")


def test_an_exception_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback does not tear the lines."""
    with Log("json"):
        try:
            raise KeyError("x")
        except KeyError:
            logging.getLogger("tamulag.agent").exception("failed")
    (line,) = lines(capsys)
    assert str(line["exception"]).endswith("KeyError: 'x'")


def test_a_bug_is_a_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not hidden, and it is not a second form of line either."""
    with pytest.raises(SystemExit) as left, Log("json"):
        raise ZeroDivisionError("a bug")
    (line,) = lines(capsys)
    assert left.value.code == 1
    assert (line["level"], line["message"]) == ("critical", "ZeroDivisionError: a bug")
    assert "test_log_setup.py" in str(line["exception"])


def test_a_bug_keeps_its_traceback_in_text() -> None:
    """The interpreter prints it, as ever."""
    with pytest.raises(ZeroDivisionError), Log("text"):
        raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_libraries_never_tell_details(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At debug `websockets` writes every frame that it sends, words included; ours do not."""
    with Log("json", level):
        logging.getLogger("websockets.server").debug("> TEXT 'great'")
        logging.getLogger("websockets.server").info("connection open")
        logging.getLogger("tamulag.agent").log(logging.getLevelNamesMapping()[level.upper()], "x")
    assert [line["message"] for line in lines(capsys)] == ["x"]


def test_a_warning_of_python_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever libraries warn of reaches the collector in its form."""
    with Log("json"), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    assert "UserWarning: old" in str(lines(capsys)[0]["message"])


def test_what_a_person_can_mend_has_the_form_of_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For people the program's name and the problem; for a collector a line."""
    with Log("text") as log:
        log.report("port taken")
    assert capsys.readouterr().err == "tamulag-stream: port taken\n"
    with Log("json") as log:
        log.report("port taken")
    assert lines(capsys)[0]["message"] == "port taken"


def test_the_log_ends_with_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A second run in the same process does not say everything twice."""
    for _ in range(2):
        with Log("json", "info"):
            logging.getLogger("tamulag.agent").info("once")
    assert len(lines(capsys)) == 2
    assert logging.getLogger("tamulag").level == logging.NOTSET
