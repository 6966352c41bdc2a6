"""Media files are played on a real Ray: of this machine, and of two nodes of which one dies."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from support.command_line import Done, call, run
from support.ray_cluster import marked, two_nodes, workers
from support.sound_files import tone
from tamulag.models.data.clips import DataError, read_clips
from tamulag.streamer.bench.rig.ray_nodes import Nodes
from tamulag.streamer.cluster import ray_runtime
from tamulag.streamer.offline import extract_ray

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Run two nodes with one CPU each; the last test kills the second."""
    with two_nodes() as nodes:
        yield nodes


def extract(
    videos: Path, out: Path, *options: str, environment: dict[str, str] | None = None
) -> Done:
    """Run the verb in a process of its own: Ray reads its settings once."""
    words = (videos, "--out", out, "--engine", "ray", *options)
    return run("tamulag", "extract", *words, **(environment or {}))


def table(folder: Path, *names: str) -> Path:
    """Write the labels of these files of a folder."""
    rows = [f"{name},{number}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    return folder


@pytest.mark.data
def test_ray_gives_what_processes_give(data: Path, tmp_path: Path) -> None:
    """The same arrays, from a Ray of this machine alone, of which nothing is left."""
    names = ("bbaf2n.mpg", "lbax4n.mpg")
    for name in names:
        shutil.copy(data / "clips" / name, tmp_path / name)
    table(tmp_path, *names)
    environment = {"TAMULAG_TEST_FLEET": "1"}
    out = tmp_path / "ray.safetensors"
    done = extract(tmp_path, out, "--workers", "2", environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{out}: 2 clips, 0 left out"
    assert "2/2" in done.stderr
    assert not marked("TAMULAG_TEST_FLEET")
    out = tmp_path / "processes.safetensors"
    again = call("tamulag", "extract", tmp_path, "--out", out, "--workers", "1")
    assert again.returncode == 0, again.stderr
    for one, other in zip(read_clips(out), read_clips(tmp_path / "ray.safetensors"), strict=True):
        assert one.values.keys() == other.values.keys()
        for name, values in one.values.items():
            # The speech detector's native code rounds the last bit as memory happens to lie.
            np.testing.assert_allclose(other.values[name], values, atol=1e-3, rtol=0)
            np.testing.assert_array_equal(other.ticks[name], one.ticks[name])


def test_unreadable_file_is_left_out_and_the_next_run_goes_on(
    cluster: Nodes, tmp_path: Path
) -> None:
    """What is done stays done, and only the rest is played, by whatever engine."""
    videos = table(tmp_path, "a.wav", "b.wav")
    tone(videos / "a.wav")
    (videos / "b.wav").write_text("no sound")
    out = tmp_path / "mine.safetensors"
    where = ("--ray", cluster.address)
    done = extract(videos, out, *where, environment=cluster.environment)
    assert done.stdout.strip() == f"{out}: 1 clips, 1 left out", done.stderr
    assert "b.wav" in done.stderr
    (kept,) = (tmp_path / "mine.safetensors.parts").iterdir()
    made = kept.stat().st_mtime_ns
    again = call("tamulag", "extract", videos, "--out", out, "--workers", "1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == f"{out}: 1 clips, 1 left out"
    assert kept.stat().st_mtime_ns == made


def test_no_cluster_is_reported_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray itself would try for minutes, and then end the process."""
    pytest.importorskip("ray", reason="needs ray: pip install 'tamulag-stream[ray]'")
    monkeypatch.setattr(ray_runtime, "CONNECT_TIME", 3.0)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    began = time.monotonic()
    with pytest.raises(DataError, match=r"answers at 127\.0\.0\.1:1 within 3 s.*ray start"):
        list(extract_ray.extract_on_ray([tmp_path], "none", workers=1, address="127.0.0.1:1"))
    assert time.monotonic() - began < 10


def test_missing_ray_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the command that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"Ray is not installed: pip install .*\[ray\]"):
        list(extract_ray.extract_on_ray([tmp_path], "none", workers=1, address=None))


def test_file_over_which_each_worker_dies_is_left_out(cluster: Nodes, tmp_path: Path) -> None:
    """After four attempts; the run goes on to its end."""
    tone(tmp_path / "bad.wav", seconds=20)
    table(tmp_path, "bad.wav")
    over = threading.Event()
    killed: list[int] = []

    def kill_all() -> None:
        limit = time.monotonic() + 100
        while not over.wait(0.1) and time.monotonic() < limit:
            for worker in (*workers(cluster, 0), *workers(cluster, 1)):
                worker.kill()
                killed.append(worker.pid)

    killer = threading.Thread(target=kill_all)
    killer.start()
    where = ("--ray", cluster.address)
    out = tmp_path / "mine.safetensors"
    done = extract(tmp_path, out, *where, environment=cluster.environment)
    over.set()
    killer.join(10)
    assert len(set(killed)) == 1 + extract_ray.RETRIES
    assert done.returncode == 1
    assert "bad.wav: 4 workers died over it: run the command again" in done.stderr
    assert "none of 1 files could be read" in done.stderr


def test_dead_node_costs_a_try_and_not_the_run(cluster: Nodes, tmp_path: Path) -> None:
    """Its files are played again by the other node."""
    names = [f"{number}.wav" for number in range(4)]
    for name in names:
        tone(tmp_path / name, seconds=20)
    table(tmp_path, *names)
    killed: list[int] = []

    def kill() -> None:
        busy = within(60, lambda: workers(cluster))
        cluster.kill()
        killed.extend(worker.pid for worker in busy)

    killer = threading.Thread(target=kill)
    killer.start()
    out = tmp_path / "mine.safetensors"
    done = extract(tmp_path, out, "--ray", cluster.address, environment=cluster.environment)
    killer.join(70)
    assert killed
    assert done.stdout.strip() == f"{out}: 4 clips, 0 left out", done.stderr
    assert not killer.is_alive()


def within(seconds: float, wanted: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Wait for something that is not empty; empty after the limit."""
    limit = time.monotonic() + seconds
    while not (found := wanted()) and time.monotonic() < limit:
        time.sleep(0.02)
    return found
