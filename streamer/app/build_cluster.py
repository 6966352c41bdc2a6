"""The place of `tamulag serve --ray`: settings become a cluster of wings.

Knows which part of the settings concerns the cluster, and what a wing is made from.
"""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ..cluster.autoscaler import Autoscaler
from ..cluster.backend import ClusterBackend
from ..cluster.ray_workers import ray_workers
from ..cluster.session_worker import WorkerConfig
from ..config.loader import Config
from ..core.session_batch import SessionBatch
from ..core.snapshot import restore
from .build_agent import timing_of

LOCAL = "local"
"""Instead of an address: a Ray of this machine."""

TRIAL = "trial"


def cluster_of(
    config: Config, trial: SessionBatch, checkpoint: str, until: ExitStack
) -> ClusterBackend:
    """Join Ray and return the place; no wing is there yet.

    Args:
        config: With `serve.ray`.
        trial: A hall with a free seat in which sessions that were kept are tried: whether they can
            go on is to be known before a wing is asked.
        checkpoint: What identifies the weights.
        until: Takes the end of Ray.

    Raises:
        DataError: If Ray is not installed, or the cluster cannot be reached.
    """
    chosen, file = config.serve, Path(config.model.checkpoint)
    plan = WorkerConfig(
        # A wing has another working directory.
        str(file.resolve()) if file.is_file() else config.model.checkpoint,
        timing_of(config),
        seats=chosen.seats,
        names_words=config.session.privacy == "none",
    )
    address = None if chosen.ray == LOCAL else chosen.ray
    hired = until.enter_context(ray_workers(address, plan, checkpoint, most=chosen.max_actors))
    return ClusterBackend(
        hired,
        Autoscaler(chosen.min_actors, chosen.max_actors),
        seats=chosen.seats,
        hop=config.session.hop,
        check=partial(_check, trial, checkpoint),
    )


def _check(trial: SessionBatch, checkpoint: str, packed: bytes) -> None:
    restore(trial, TRIAL, packed, checkpoint)
    trial.remove(TRIAL)
