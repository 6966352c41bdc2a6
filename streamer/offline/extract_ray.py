"""Extract features of media files on a Ray cluster, or on a local Ray.

Knows Ray and `extract.play`. Knows no stored results, no labels and no model. Placement, node
failures and retries are Ray's.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tamulag.models.data.clips import DataError

from ..cluster.ray_runtime import connect
from ..core.source import SourceError, SourceLost
from .extract import MediaFeatures, Speech, play, stack_inputs

RETRIES = 3
"""Retries of a file after its worker or node died."""

CHECK_INTERVAL = 10.0
"""Seconds without a finished file after which the driver checks that a processor is left."""


def extract_on_ray(
    files: Sequence[Path], speech: Speech, *, workers: int | None, address: str | None
) -> Iterator[tuple[Path, MediaFeatures | str]]:
    """Yield each finished file, with its result or its problem.

    The death of a worker or node costs its files a retry, up to `RETRIES` times; then the file is
    reported and skipped. All nodes must see the files at the same path.

    Args:
        files: Each once.
        speech: Recogniser of the words.
        workers: Files at a time; None = as many as there are processors.
        address: HOST:PORT of a cluster of which this machine is a node; None starts a local Ray and
            stops it afterwards.

    Raises:
        DataError: If Ray is not installed, or the cluster cannot be reached or has no processor.
    """
    with connect(address, workers) as ray:
        extract = ray.remote(num_cpus=1, max_retries=RETRIES)(_extract)
        waiting = list(reversed(files))
        running: dict[Any, Path] = {}
        # Twice as many as can run: no worker waits for this process, and an autoscaler sees demand.
        limit = workers or 2 * _processors(ray)
        while waiting or running:
            while waiting and len(running) < limit:
                file = waiting.pop()
                running[extract.remote(file, speech)] = file
            done, _ = ray.wait(list(running), timeout=CHECK_INTERVAL)
            if not done:
                _processors(ray)
            for reference in done:
                file = running.pop(reference)
                yield file, _result(ray, file, reference)


def _processors(ray: Any) -> int:
    count = int(ray.cluster_resources().get("CPU", 0))
    if count == 0:
        raise DataError("the Ray cluster has no processor: start a node with --num-cpus 1 or more")
    return count


def _extract(file: Path, speech: Speech) -> MediaFeatures | str:
    """Play a file in a worker."""
    try:
        return stack_inputs(play(file, speech))
    except (SourceError, SourceLost) as error:
        return str(error)


def _result(ray: Any, file: Path, reference: Any) -> MediaFeatures | str:
    """Return a worker's result, or that it died each time; a bug is raised."""
    try:
        found: MediaFeatures | str = ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        why = str(error).strip().partition("\n")[0]
        return f"{file}: {1 + RETRIES} workers died over it: run the command again ({why})"
    return found
