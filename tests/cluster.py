"""A real Ray cluster for tests: two nodes on 127.0.0.1, ended to the last process.

Ray runs in a process of its own, so that its threads, sockets and warnings are not the test's. What
uses the cluster is a process too, with `Cluster.environment`: Ray reads it when it is imported.
"""

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

STORE = 80_000_000
"""Bytes of each node's object store; Ray takes no less."""

HEALTH = {"initial_delay_ms": 500, "period_ms": 500, "timeout_ms": 500, "failure_threshold": 4}
"""A frozen node counts as dead after about four seconds, a dead one at once."""

IDLE = {"IDLE", "DashboardAgent", "RuntimeEnvAgent"}
"""What Ray calls processes of a node that run nothing of a user."""


@dataclass(frozen=True)
class Cluster:
    """Where it listens, and the processes of its nodes."""

    address: str
    environment: dict[str, str]
    """For programs that use it."""
    raylets: tuple[int, ...]
    """One process a node; the first is the head's."""

    def kill_node(self, number: int = 1) -> None:
        """Kill a node and all its workers, as if the power failed."""
        raylet = psutil.Process(self.raylets[number])
        _kill([raylet, *raylet.children(recursive=True)])

    def workers(self, number: int = 1) -> list[psutil.Process]:
        """Return the processes in which a node runs something of a user, idle ones left out."""
        children = psutil.Process(self.raylets[number]).children()
        return [child for child in children if _is_busy(child)]


@contextmanager
def two_nodes(*, cpus: int = 1) -> Iterator[Cluster]:
    """Start a head and another node with so many CPUs each, or skip where there is no Ray."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray: pip install 'tamulag-stream[ray]'")
    # Not pytest's folder: the path of a Unix socket may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-")
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
    command = [sys.executable, __file__, str(cpus)]
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
            assert line.startswith("{"), f"Ray did not start: {log.read_text()[-2000:]}"
            found = json.loads(line)
            yield Cluster(found["address"], environment, tuple(found["raylets"]))
        finally:
            _end(host)
            shutil.rmtree(folder, ignore_errors=True)


def _end(host: subprocess.Popen[str]) -> None:
    """Let the host end its nodes; kill what is left of them."""
    process = psutil.Process(host.pid)
    started = process.children(recursive=True)
    assert host.stdin is not None
    host.stdin.close()
    try:
        host.wait(20)
    except subprocess.TimeoutExpired:
        host.kill()
    _kill(started)


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE], alive


def _is_busy(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline()).strip()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    return title.startswith("ray::") and title.removeprefix("ray::") not in IDLE


def _host(cpus: int) -> None:
    """Run the nodes until the standard input ends, or nobody reads it any more."""
    # Ray's own test cluster has no types.
    nodes: Any = import_module("ray.cluster_utils").Cluster()
    common = {"num_cpus": cpus, "node_ip_address": "127.0.0.1", "object_store_memory": STORE}
    try:
        nodes.add_node(**common, include_dashboard=False, include_log_monitor=False)
        nodes.add_node(**common)
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()]
        print(json.dumps({"address": nodes.address, "raylets": raylets}), flush=True)
        sys.stdin.read()
    finally:
        nodes.shutdown()


if __name__ == "__main__":
    _host(int(sys.argv[1]))
