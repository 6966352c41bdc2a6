"""A program that is started without standard streams runs as with them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tamulag.streamer.app.build_agent import demo_files

PROBE = """
import os, socket, sys
from tamulag.streamer.cli.standard_streams import make_usable
make_usable()
print("told", "caf\\udce9", flush=True)
print("warned", file=sys.stderr, flush=True)
assert sys.stdin is not None
opened = socket.socket()
with open(sys.argv[1], "w") as out:
    out.write(f"{opened.fileno() > 2}")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_become_the_null_device(tmp_path: Path, closed: str) -> None:
    """No socket gets their numbers, and printing is no error."""
    out = tmp_path / "out"
    command = ["sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, PROBE, str(out)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert out.read_text() == "True"


def test_a_character_that_the_terminal_lacks_is_written_as_its_number(tmp_path: Path) -> None:
    """A file's name may hold bytes that are no text."""
    command = [sys.executable, "-c", PROBE, str(tmp_path / "out")]
    done = subprocess.run(command, timeout=60, check=True, capture_output=True, text=True)
    assert done.stdout == "told caf\\udce9\n"


@pytest.mark.parametrize("names", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_poor_surroundings_are_enough(tmp_path: Path, names: dict[str, str]) -> None:
    """No HOME, no locale, ASCII: a file is scored whose name is of other letters, or of none."""
    name = "日本 ".encode() + b"caf\xe9.wav"
    source, out = tmp_path / os.fsdecode(name), tmp_path / "out.jsonl"
    shutil.copy(demo_files()[1], source)
    foreign = ("HOME", "XDG_", "LC_", "LANG", "PYTHONIOENCODING", "PYTHONUTF8")
    bare = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    command = [sys.executable, "-m", "tamulag.streamer", "--source", str(source), "--speed", "max"]
    command += ["--asr", "none", "--duration", "2", "--websocket", "none", "--jsonl", str(out)]
    done = subprocess.run(
        [*command, "--verbose"], env=bare | names, timeout=100, check=False, capture_output=True
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    kinds = [json.loads(line)["type"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert "sentiment" in kinds
