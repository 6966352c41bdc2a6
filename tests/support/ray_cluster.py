"""A real Ray of two nodes on 127.0.0.1 for tests, or a skip where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tamulag.streamer.bench.rig import ray_nodes
from tamulag.streamer.bench.rig.ray_nodes import Nodes
from tamulag.streamer.cluster.ray_runtime import is_installed

IDLE = {"IDLE", "DashboardAgent", "RuntimeEnvAgent"}
"""What Ray calls processes of a node that run nothing of a user."""


def need_ray() -> None:
    """Skip where there is no Ray."""
    if not is_installed():
        pytest.skip("needs ray: pip install 'tamulag-stream[ray]'")


@contextmanager
def two_nodes(*, cpus: int = 1) -> Iterator[Nodes]:
    """Start a head and another node with so many CPUs each."""
    need_ray()
    with ray_nodes.two_nodes(cpus=cpus) as cluster:
        yield cluster


def workers(cluster: Nodes, number: int = 1) -> list[psutil.Process]:
    """Return the processes in which a node runs something of a user, idle ones left out."""
    return [one for one in cluster.processes(number)[1:] if is_busy(one)]


def is_busy(process: psutil.Process) -> bool:
    """Return whether a process of Ray runs something of a user."""
    try:
        title = " ".join(process.cmdline()).strip()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    return title.startswith("ray::") and title.removeprefix("ray::") not in IDLE


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that have a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in process.environ():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found
