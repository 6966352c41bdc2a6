import os
from pathlib import Path

import pytest

from tamulag.streamer.config.secret_file import SecretError, read_secret


def written(path: Path, content: bytes = b"pass word \n", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_is_its_line(tmp_path: Path) -> None:
    """The end of the line, which editors add, is not part of it."""
    assert read_secret(written(tmp_path / "secret")) == "pass word"


@pytest.mark.skipif(os.name != "posix", reason="needs permission bits")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o660])
def test_a_file_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """The error has the command that repairs it, and not the secret."""
    path = written(tmp_path / "secret", mode=mode)
    with pytest.raises(SecretError, match=f"mode {mode:04o}.*chmod 600") as caught:
        read_secret(path)
    assert "pass word" not in str(caught.value)


def test_a_credential_of_systemd_may_show_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives files 0440 and closes their folder; 0444 is refused there too."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(written(tmp_path / "secret", mode=0o440)) == "pass word"
    with pytest.raises(SecretError, match="mode 0444"):
        read_secret(written(tmp_path / "other", mode=0o444))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b" \n", "holds no secret", id="empty"),
        pytest.param(b"one\ntwo\n", "holds no secret", id="two-lines"),
        pytest.param(b"x" * 5000, "holds no secret", id="too-long"),
        pytest.param(b"\xff\xfe", "no UTF-8 text", id="binary"),
    ],
)
def test_a_file_without_a_secret_is_reported(tmp_path: Path, content: bytes, problem: str) -> None:
    """What is no line of text is not tried as a password."""
    with pytest.raises(SecretError, match=problem):
        read_secret(written(tmp_path / "secret", content))


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_path_that_is_no_file_is_reported(tmp_path: Path, name: str) -> None:
    """The error names the path."""
    with pytest.raises(SecretError, match="cannot read"):
        read_secret(tmp_path / name)
