"""Every failure that a person can mend, as one tree; anything else that is raised is a bug.

Each class is defined where it is raised:

* TamulagError (models.nn.errors)
    * ConfigError (streamer.config.loader): a setting is unknown or has a value that is not allowed
    * SecretError (streamer.config.secret_file): a file of a secret cannot be read, or by others
    * CheckpointError (models.runtime.checkpoint): weights are missing, damaged or do not fit
    * TextEncoderError (models.nn.errors): the package of a text encoder is missing or damaged
    * AssetError (streamer.features.pretrained): a pretrained part is missing or damaged
    * DataError (models.data.clips): training or test data, a recipe, or Ray for them cannot be used
    * UnsafePickle (models.data.safe_pickle): a pickle holds more than data
    * SourceError (streamer.core.source): a camera, microphone or file cannot be opened
    * SourceLost (streamer.core.source): a source that worked has stopped; it is tried again
    * PublisherError (streamer.publishers.publisher): an output cannot be opened or is lost
    * BatchFull (streamer.core.session_batch): no further session has room
    * NotFinite (streamer.core.estimate): a session's inputs give a score that is no number
    * SessionFault (streamer.service.session_faults): one session cannot go on, the others do
    * SnapshotError (streamer.core.snapshot): a saved session is damaged or of another model
    * SnapshotStoreError (streamer.service.snapshot_store): the folder of snapshots cannot be used
    * SealError (streamer.service.snapshot_seal): a stored session is of another key, or changed
    * BadPicture (streamer.protocol.jpeg): bytes are no JPEG file that is decoded here
    * IngestError (streamer.protocol.ingest): a remote sender broke the protocol
    * PoolFull (streamer.service.feature_workers.pool): no feature worker has room for a session
    * BadAnswer (streamer.service.feature_workers.answers): what a worker answers is no answer
    * WorkerError (streamer.service.feature_workers.process): a feature worker did not start
    * WorkerLost (streamer.cluster.worker_pool): a session worker on Ray does not respond
    * RecordingError (streamer.storage.recording): a recording is missing or damaged
    * HistoryError (streamer.storage.history_db): the history cannot be read or written
        * HistoryFull (streamer.storage.history_db): running sessions alone are larger than allowed
    * StageError (streamer.bench.rig.processes): what a bench needs did not start or has ended
    * NodesError (streamer.bench.rig.ray_nodes): Ray did not start its nodes

Knows the root alone. Knows no torch, so that the command line can name it at once.
"""

from tamulag.models.nn.errors import TamulagError

__all__ = ["TamulagError"]
