"""The front end over media files on a Ray cluster, or on a Ray of this machine.

Knows Ray and `extract.play`. Knows no parts, no labels and no model. Where the work runs, which
node is alive and what is tried again is Ray's.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tamulag.models.data.clips import DataError

from ..cluster.ray_runtime import joined
from ..core.source import SourceError, SourceLost
from .extract import Part, Speech, part_of, play

RETRIES = 3
"""How often a file is tried again after its worker or node died."""

LOOK = 10.0
"""Seconds without a finished file after which the driver looks whether a processor is left."""


def played(
    files: Sequence[Path], speech: Speech, *, workers: int | None, address: str | None
) -> Iterator[tuple[Path, Part | str]]:
    """Yield each file when it is finished, with what was found in it or what is wrong with it.

    A worker or a node that dies costs its files another try, `RETRIES` times; a file that is not
    finished then is told and left out. All nodes must see the files at the same path.

    Args:
        files: Each once.
        speech: Who recognises words.
        workers: Files at a time; None = as many as there are processors.
        address: HOST:PORT of a cluster of which this machine is a node; None starts a Ray that only
            this machine reaches, and ends it.

    Raises:
        DataError: If Ray is not installed, or the cluster cannot be reached or has no processor.
    """
    with joined(address, workers) as ray:
        look = ray.remote(num_cpus=1, max_retries=RETRIES)(_look)
        waiting = list(reversed(files))
        running: dict[Any, Path] = {}
        # Twice as many as can run: none waits for this process, and an autoscaler sees the need.
        limit = workers or 2 * _processors(ray)
        while waiting or running:
            while waiting and len(running) < limit:
                file = waiting.pop()
                running[look.remote(file, speech)] = file
            done, _ = ray.wait(list(running), timeout=LOOK)
            if not done:
                _processors(ray)
            for reference in done:
                file = running.pop(reference)
                yield file, _found(ray, file, reference)


def _processors(ray: Any) -> int:
    count = int(ray.cluster_resources().get("CPU", 0))
    if count == 0:
        raise DataError("the Ray cluster has no processor: start a node with --num-cpus 1 or more")
    return count


def _look(file: Path, speech: Speech) -> Part | str:
    """Play a file in a worker; one thread, as each worker has one processor."""
    import torch

    torch.set_num_threads(1)
    try:
        return part_of(play(file, speech))
    except (SourceError, SourceLost) as error:
        return str(error)


def _found(ray: Any, file: Path, reference: Any) -> Part | str:
    """Return what a worker found, or that it died each time; what is a bug is raised."""
    try:
        found: Part | str = ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        why = str(error).strip().partition("\n")[0]
        return f"{file}: {1 + RETRIES} workers died over it: run the command again ({why})"
    return found
