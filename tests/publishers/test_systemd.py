"""Against a real datagram socket, as the service manager holds one."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command

from tamulag.streamer.cli.main import app
from tamulag.streamer.publishers.publisher import PublisherError
from tamulag.streamer.publishers.systemd import SystemdPublisher

UNIT = Path(__file__).parents[2] / "configs" / "tamulag-stream.service"
ONLINE = json.dumps({"state": "online", "lost": {}})
DEGRADED = json.dumps({"state": "degraded", "lost": {"vision": "camera_lost"}})


class Manager:
    """What systemd holds: the socket that NOTIFY_SOCKET names."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)

    def told(self) -> list[str]:
        """Return the datagrams that have come."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def play(
    manager: Manager, *messages: tuple[str, str], environment: dict[str, str] | None = None
) -> SystemdPublisher:
    """Publish messages through a service publisher, from open to close."""
    given = {"NOTIFY_SOCKET": manager.address} | (environment or {})
    publisher = SystemdPublisher(given, hop=0.5, process=7)

    async def scenario() -> None:
        await publisher.open()
        for message in messages:
            publisher.publish(*message)
        await publisher.close()

    asyncio.run(scenario())
    return publisher


def test_ready_goes_with_the_first_status(manager: Manager) -> None:
    """Sources are open by then; later statuses tell the state alone."""
    play(manager, ("session_start", ""), ("status", ONLINE), ("status", DEGRADED))
    assert manager.told() == [
        "STATUS=online\nREADY=1",
        "STATUS=degraded: vision camera_lost",
    ]


def test_the_end_of_the_session_is_reported(manager: Manager) -> None:
    """The manager does not take an orderly end for a hang."""
    play(manager, ("status", ONLINE), ("session_end", "{}"))
    assert manager.told()[-1] == "STOPPING=1"


def test_scores_and_nothing_else_feed_the_watchdog(manager: Manager) -> None:
    """A run that heartbeats and reports but closes no hops is restarted."""
    others = [(kind, "{}") for kind in ("heartbeat", "text", "event")]
    environment = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}
    play(manager, *others, ("sentiment", "{}"), environment=environment)
    assert manager.told() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="none"),
        pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, id="our-parents"),
    ],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(
    manager: Manager, environment: dict[str, str]
) -> None:
    """A wrapper that is watched must not be kept alive by us."""
    play(manager, ("sentiment", "{}"), environment=environment)
    assert manager.told() == []


def test_a_watchdog_shorter_than_the_hop_is_refused() -> None:
    """Else a healthy run is killed again and again; the error names the least that works."""
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}
    with pytest.raises(PublisherError, match="WatchdogSec=42 or more"):
        SystemdPublisher(environment, hop=10.0)


def test_a_manager_that_does_not_read_costs_nothing(manager: Manager) -> None:
    """A full socket drops and counts; nobody waits."""
    publisher = play(manager, *[("status", ONLINE)] * 5000)
    assert publisher.dropped > 0


def test_a_manager_that_has_gone_is_no_failure(manager: Manager) -> None:
    """Scores matter more than the report of them."""
    publisher = SystemdPublisher({"NOTIFY_SOCKET": manager.address}, hop=0.5)

    async def scenario() -> None:
        await publisher.open()
        manager.close()
        publisher.publish("status", ONLINE)
        await publisher.close()

    asyncio.run(scenario())
    assert publisher.dropped == 1


def test_an_address_outside_of_the_file_system(tmp_path: Path) -> None:
    """Containers and older managers give one that begins with @."""
    manager = Manager(f"@{tmp_path.name}-tamulag")
    play(manager, ("status", ONLINE))
    assert manager.told() == ["STATUS=online\nREADY=1"]
    manager.close()


def test_a_missing_manager_is_reported(tmp_path: Path) -> None:
    """The variable, its value and the remedy; nothing stays open."""
    publisher = SystemdPublisher({"NOTIFY_SOCKET": str(tmp_path / "absent")}, hop=0.5)
    with pytest.raises(PublisherError, match=r"NOTIFY_SOCKET .*absent.*Type=notify"):
        asyncio.run(publisher.open())


class Run(NamedTuple):
    """What a whole run said: to the manager, on standard error, and as messages."""

    datagrams: list[str]
    log: list[str]
    output: str
    words: set[str]
    scores: int


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the demo under a manager with a watchdog, logging JSON at the finest level."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "x.toml").write_text('[log]\nlevel = "debug"\nformat = "json"\n')
    manager = Manager(str(folder / "notify"))
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000000"}
    options = ("--demo", "--duration", "6", "--config", str(folder / "x.toml"))
    command = [sys.executable, "-m", "tamulag.streamer", *options, "--websocket", "127.0.0.1:0"]
    datagrams, end = [], time.monotonic() + 120
    with (folder / "log").open("w+") as log, (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            [*command, "--jsonl", str(folder / "messages")],
            env=os.environ | environment,
            stdout=output,
            stderr=log,
        )
        while process.poll() is None:
            if time.monotonic() > end:
                process.kill()
            datagrams += manager.told()
            time.sleep(0.05)
        datagrams += manager.told()
        manager.close()
        assert process.returncode == 0
        messages = [json.loads(line) for line in (folder / "messages").read_text().splitlines()]
        texts = [message for message in messages if message["type"] == "text"]
        return Run(
            datagrams,
            (folder / "log").read_text().splitlines(),
            (folder / "output").read_text(),
            words={word["text"] for text in texts for word in text["words"]},
            scores=sum(message["type"] == "sentiment" for message in messages),
        )


def test_a_run_is_ready_once_alive_with_every_score_and_stops(run: Run) -> None:
    """The manager sees the life of a real run, from open sources to its end."""
    assert run.datagrams[0] == "STATUS=online\nREADY=1"
    assert run.datagrams.count("WATCHDOG=1") == run.scores > 0
    assert run.datagrams[-1] == "STOPPING=1"
    assert sum("READY=1" in datagram for datagram in run.datagrams) == 1


def test_the_log_of_a_run_holds_no_words(run: Run) -> None:
    """Even at the finest level: its lines are JSON, and none has a word that was recognised.

    Standard output is part of a service's log as well, so the lines for people are not printed.
    """
    told = [json.loads(line) for line in run.log if line.startswith("{")]
    assert any(line["logger"] == "tamulag.websocket" for line in told)
    # Short words are in any text.
    spoken = {word.strip(".,").lower() for word in run.words if len(word.strip(".,")) >= 5}
    assert spoken
    text = " ".join([*run.log, run.output]).lower()
    assert {word for word in spoken if word in text} == set()


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    """Every key is known and the program is where it says; here that is this very program."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt install systemd")
    program = Path(sys.executable).parent / "tamulag-stream"
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={program}", UNIT.read_text()))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_options_of_the_unit_exist() -> None:
    """What it starts can be typed, and its watchdog leaves room for hops of 7 seconds."""
    text = UNIT.read_text()
    options = get_command(app).commands["stream"].params  # type: ignore[attr-defined]
    known = {name for parameter in options for name in parameter.opts}
    assert set(re.findall(r" (--[a-z]+)", text)) <= known
    limit = re.search(r"^WatchdogSec=(\d+)$", text, re.MULTILINE)
    assert limit
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": f"{limit[1]}000000"}
    SystemdPublisher(environment, hop=7.0)
