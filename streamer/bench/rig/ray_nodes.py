"""A Ray cluster of nodes on 127.0.0.1, to be broken on purpose: for the bench and the tests.

Knows Ray's own cluster of processes. It runs in a process of its own, so that its threads, sockets
and warnings are not ours. What uses the cluster needs `Nodes.environment`: Ray reads it once, when
it is imported.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from ...cluster.ray_runtime import private_folder
from ...core.errors import TamulagError

STORE = 80_000_000
"""Bytes of each node's object store; Ray takes no less."""

HEALTH = {"initial_delay_ms": 500, "period_ms": 500, "timeout_ms": 500, "failure_threshold": 4}
"""A frozen node counts as dead after about four seconds, a dead one at once."""

BARE = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
"""Nobody looks at the head's pages and logs, and no load starts or ends a node."""

ENDING = 20.0
"""Seconds in which the nodes end by themselves."""


class NodesError(TamulagError):
    """Ray did not start its nodes."""


@dataclass(kw_only=True)
class Nodes:
    """Where the cluster listens, and the processes of its nodes."""

    address: str
    environment: dict[str, str]
    """For programs that use it."""
    host: "subprocess.Popen[str]" = field(repr=False)
    raylets: list[int]
    """One process a node; the first is the head's."""

    def processes(self, number: int = 1) -> list[psutil.Process]:
        """Return the processes of a node."""
        raylet = psutil.Process(self.raylets[number])
        return [raylet, *raylet.children(recursive=True)]

    def kill(self, number: int = 1) -> list[int]:
        """Kill a node and all its workers, as if the power failed; return its processes."""
        processes = self.processes(number)
        _kill(processes)
        return [process.pid for process in processes]

    def add(self) -> None:
        """Start one more node; returns at once."""
        assert self.host.stdin is not None
        self.host.stdin.write("add\n")
        self.host.stdin.flush()


@contextmanager
def two_nodes(*, cpus: int = 1) -> Iterator[Nodes]:
    """Start a head and another node with so many CPUs each, and end all of it.

    Raises:
        NodesError: If Ray does not start.
    """
    folder = private_folder()  # Ray makes `ray` below it, open to everybody
    environment = os.environ | {
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(24),
        # Else Ray takes the machine's outer address in place of 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "OMP_NUM_THREADS": "1",
        **{f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()},
    }
    command = [sys.executable, "-m", __name__, str(cpus)]
    log = Path(folder, "host.log")
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, env=environment, stdin=-1, stdout=-1, stderr=errors, text=True
        ) as host,
    ):
        try:
            assert host.stdout is not None
            line = host.stdout.readline()
            if not line.startswith("{"):
                raise NodesError(f"Ray did not start its nodes: {_why(log)}")
            found = json.loads(line)
            yield Nodes(environment=environment, host=host, **found)
        finally:
            _end(host)
            shutil.rmtree(folder, ignore_errors=True)


def _why(log: Path) -> str:
    """Return the last line of a log, which is the exception that ended it."""
    lines = log.read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no reason was given")
    return f"{last[:300]}; is there memory for two, and does `ray start --head` work here?"


def _end(host: "subprocess.Popen[str]") -> None:
    """Let the host end its nodes; kill what is left of them."""
    process = psutil.Process(host.pid)
    started = process.children(recursive=True)
    assert host.stdin is not None
    host.stdin.close()
    try:
        host.wait(ENDING)
    except subprocess.TimeoutExpired:
        host.kill()
    _kill(started)
    _wait(started)


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _wait(processes: Sequence[psutil.Process]) -> None:
    """Wait until all have ended; a zombie counts as ended."""
    limit = time.monotonic() + 10
    while left := [one.pid for one in processes if _is_alive(one)]:
        if time.monotonic() > limit:
            raise NodesError(f"processes {left} do not end: end them by hand")
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _host(cpus: int) -> None:
    """Run the nodes until the standard input ends, or its other end is closed."""
    # Ray's own test cluster has no types.
    nodes: Any = import_module("ray.cluster_utils").Cluster()
    common = {"num_cpus": cpus, "node_ip_address": "127.0.0.1", "object_store_memory": STORE}
    try:
        nodes.add_node(**common, **BARE)
        nodes.add_node(**common)
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()]
        print(json.dumps({"address": nodes.address, "raylets": raylets}), flush=True)
        for _ in sys.stdin:
            nodes.add_node(**common)
    finally:
        nodes.shutdown()


if __name__ == "__main__":
    _host(int(sys.argv[1]))
