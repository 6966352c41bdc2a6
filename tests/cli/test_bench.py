"""The verbs that measure, as people type them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner, Result

from tamulag.streamer.bench.rig.processes import wait_for
from tamulag.streamer.cli.main import app


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_bench_prints_the_keys() -> None:
    """One JSON object with the keys that others rely on."""
    done = run("bench", "train", "--fast", "--samples", "2", "--threads", "1", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {"preset", "samples", "seconds_per_epoch", "peak_rss_mb", "rows"} <= report.keys()
    assert (report["preset"], report["samples"]) == ("paper-mosi", 2)
    assert [row["variant"] for row in report["rows"]] == ["fast"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("verb", "number", "child"),
    [
        ("train --fast --samples 1284 --epochs 9 --threads 1", signal.SIGKILL, "spawn_main"),
        ("soak --minutes 9", signal.SIGTERM, "tamulag.streamer"),
    ],
)
def test_no_child_outlives_its_parent(verb: str, number: signal.Signals, child: str) -> None:
    """Neither one that computes for minutes nor an agent: killed, or ended by a service manager."""
    program = "import sys; from tamulag.streamer.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "bench", *verb.split()]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as parent:
        found: list[psutil.Process] = []

        def is_working() -> bool:
            assert parent.poll() is None, "the bench has ended"
            children = psutil.Process(parent.pid).children(recursive=True)
            found[:] = [one for one in children if child in " ".join(one.cmdline())]
            # Past the imports, as far as that can be seen from outside.
            return any(one.cpu_times().user > 3.0 for one in found)

        wait_for(is_working, 240.0, "a child works")
        parent.send_signal(number)
    _, alive = psutil.wait_procs(found, timeout=10)
    for left in alive:
        left.kill()
    assert not alive


def test_text_updates_are_timed_by_length() -> None:
    """As JSON for programs, as a table for people."""
    report = json.loads(run("bench", "text", "--updates", "2", "--json").stdout)
    assert (report["checkpoint"], report["updates"]) == ("default", 2)
    assert [row["tokens"] for row in report["rows"]] == [5, 10, 17, 33, 64]
    shown = run("bench", "text", "--updates", "1").stdout
    assert shown.startswith("| tokens | median_ms | p95_ms | cpu_ms |")


@pytest.mark.data
def test_a_real_clip_keeps_its_score(data: Path) -> None:
    """Three minutes of a looped clip: voice and face within the law."""
    clip = data / "clips" / "bbaf2n.mpg"
    done = run("bench", "long", "--data", clip, "--duration", "180", "--json")
    report = json.loads(done.stdout.splitlines()[-1])
    assert [row["modality"] for row in report["rows"]] == ["audio", "vision", "sentiment"]
    assert report["broken"] == any(row["mean"] > 0.1 for row in report["rows"][:2])
    assert done.exit_code == report["broken"]


@pytest.mark.data
def test_labels_are_compared_with_people(data: Path, tmp_path: Path) -> None:
    """On the first rows of CH-SIMS: baselines, then each generator; nan is null."""
    for name in ("train", "valid"):
        lines = (data / "sims" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        (tmp_path / f"{name}.csv").write_text("\n".join(lines[:25]), encoding="utf-8")
    short = ("--seeds", "1", "--epochs", "2", "--json")
    done = run("bench", "labels", "--data", tmp_path / "train.csv", *short)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row["labels"] for row in rows[:3]] == ["copied", "zero", "bounded"]
    assert rows[0]["figures"]["change"] is None
    assert {row["labels"] for row in rows[9:]} == {"ulag", "ulgm", "ulag_release", "both"}
    done = run("bench", "labels", "--data", tmp_path / "train.csv", "--labels", "ulag", *short[:-1])
    assert done.exit_code == 0, done.output
    assert "is the gain of ulag over copies." in done.stdout
    assert "| human | text |" in done.stdout


def test_fanout_prints_the_keys() -> None:
    """One JSON object with the keys that others rely on; every message arrived."""
    few = ("--subscribers", "5", "--stalled", "1", "--seconds", "5")
    report = json.loads(run("bench", "fanout", *few, "--json").stdout)
    assert {"subscribers", "stalled", "p50_ms", "p99_ms", "stalled_gone_s"} <= report.keys()
    assert report["received"] == report["expected"] == 50
    assert report["stalled_gone_s"] < 5.0
