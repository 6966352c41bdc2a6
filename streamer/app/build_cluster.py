"""Build the session backend of `tamulag serve --ray` from the settings.

Knows the settings of the cluster and the configuration of its workers.
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
    """Connect to Ray and return the backend; no worker has started yet.

    Args:
        config: With `serve.ray`.
        trial: Session batch with a free slot, in which snapshots are validated before a worker
            gets them.
        checkpoint: Identifies the weights.
        until: Disconnects from Ray, or stops it, at its exit.

    Raises:
        DataError: If Ray is not installed, or the cluster cannot be reached.
    """
    chosen, file = config.serve, Path(config.model.checkpoint)
    plan = WorkerConfig(
        # A worker has another working directory.
        str(file.resolve()) if file.is_file() else config.model.checkpoint,
        timing_of(config),
        seats=chosen.seats,
        names_words=config.session.privacy == "none",
    )
    address = None if chosen.ray == LOCAL else chosen.ray
    factory = until.enter_context(ray_workers(address, plan, checkpoint, most=chosen.max_actors))
    return ClusterBackend(
        factory,
        Autoscaler(chosen.min_actors, chosen.max_actors),
        seats=chosen.seats,
        hop=config.session.hop,
        check=partial(_check, trial, checkpoint),
    )


def _check(trial: SessionBatch, checkpoint: str, packed: bytes) -> None:
    restore(trial, TRIAL, packed, checkpoint)
    trial.remove(TRIAL)
