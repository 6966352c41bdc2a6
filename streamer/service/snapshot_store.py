"""Snapshots of sessions in a folder, for the server that resumes them.

Knows files, their times and the form of their content. Knows nothing of what the state holds.

A file is named and sealed by what is derived from its session's key (snapshot_seal.py): who has the
folder has no name, no word and no key.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from ..config.secret_file import SecretError, check_folder
from ..core.errors import TamulagError
from ..core.sample import Modality
from .snapshot_seal import SealError, name_of, seal, unseal

logger = logging.getLogger("tamulag.serve")

PATIENCE = 60.0
"""Seconds after which a snapshot is not resumed: its window is over many times."""

_SUFFIX = ".session"

_STARTING = 5.0
"""Limit for the start of the process that deletes, seconds."""

_SWEEPER = """
import os, sys, time
if os.fork():
    os._exit(0)
folder, suffix, patience = sys.argv[1], sys.argv[2], float(sys.argv[3])
time.sleep(patience + 1)
for file in os.scandir(folder):
    try:
        if file.name.endswith(suffix) and time.time() - file.stat().st_mtime > patience:
            os.unlink(file.path)
    except OSError:
        pass
"""
"""Program that does what `sweep` does, a little after the last file's time."""


@dataclass(frozen=True, kw_only=True)
class StoredSnapshot:
    """One session between two servers; times are seconds.

    Attributes:
        name: Of the session.
        key: Secret: a sender that has it resumes the session.
        seq: Number of its newest message.
        now: Session time when it was stored.
        reached: Session time of its newest input.
        utterance: Number of its next utterance.
        asked: Modalities.
        by_sender: Whether the sender's timestamps are the session's time.
        state: From `core.snapshot.dump`.
        hop: Seconds between two scores; None: an earlier version's, which had one length.
        age: Seconds since it was stored.
    """

    name: str
    key: str
    seq: int
    now: float
    reached: float
    utterance: int
    asked: tuple[Modality, ...]
    by_sender: bool
    state: bytes
    hop: float | None = None
    age: float = 0.0

    def head(self) -> dict[str, object]:
        """Return what JSON can hold, without the key: who resumes the session has it."""
        rest = ("key", "state", "age")
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in rest}


class SnapshotStoreError(TamulagError):
    """The folder cannot be used."""


class SnapshotStore:
    """A folder of sessions.

    Args:
        folder: Made, for its owner alone, if it is not there.
        wall: Seconds since 1970.

    Raises:
        SnapshotStoreError: If the folder cannot be made, or nothing can be written there.
    """

    def __init__(self, folder: Path, wall: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._wall = wall
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_folder(folder)
            trial = folder / f"{os.getpid()}.partial"
            trial.touch(mode=0o600)
            trial.unlink()
            self.sweep()
        except OSError as error:
            raise SnapshotStoreError(
                f"--handover {folder} cannot be used ({error.strerror}): choose another folder"
            ) from error
        except SecretError as error:
            raise SnapshotStoreError(f"--handover {error}") from None

    def put(self, snapshot: StoredSnapshot) -> None:
        """Store a session, sealed with its key.

        Raises:
            OSError: If it cannot be written.
        """
        head = json.dumps({"at": self._wall(), "about": snapshot.head()}).encode()
        path = self._path(snapshot.key)
        partial = path.with_suffix(".partial")
        with os.fdopen(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            size = len(head).to_bytes(4, "big")
            file.writelines(seal(snapshot.key, size + head, snapshot.state))
        partial.replace(path)

    def look(self, key: str) -> StoredSnapshot | None:
        """Return what is stored under a key; None: nothing, or it is too old or damaged.

        It stays until `drop`.
        """
        path = self._path(key)
        try:
            sealed = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read (%s): that session starts fresh", path, error)
            return None
        try:
            data = unseal(key, sealed)
            size = int.from_bytes(data[:4], "big")
            head = json.loads(data[4 : 4 + size])
            about = head["about"] | {"asked": tuple(head["about"]["asked"])}
            found = StoredSnapshot(
                **about,
                key=key,
                state=data[4 + size :],
                age=self._wall() - head["at"],
            )
        except (SealError, ValueError, KeyError, TypeError) as error:
            why = type(error).__name__  # its text may quote words
            logger.warning("%s is damaged (%s): that session starts fresh", path, why)
            return None
        return found if 0 <= found.age <= PATIENCE else None

    def drop(self, key: str) -> None:
        """Delete a snapshot: its session was resumed, so that no second one can be."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be deleted: %s", self._path(key), error)

    def sweep(self) -> int:
        """Delete snapshots that were not resumed in time; return how many."""
        gone = 0
        for path in [*self._folder.glob(f"*{_SUFFIX}"), *self._folder.glob("*.partial")]:
            with contextlib.suppress(FileNotFoundError):  # another server has resumed it meanwhile
                if self._wall() - path.stat().st_mtime > PATIENCE:
                    path.unlink()
                    gone += 1
        return gone

    def sweep_later(self) -> None:
        """Let what nobody resumes be deleted after its time, though this process ends before.

        It takes a small process of its own, which ends then; a service manager that ends it with
        this one needs a folder that it empties itself.
        """
        if os.name != "posix" or not any(self._folder.glob(f"*{_SUFFIX}")):
            return
        words = [str(self._folder.resolve()), _SUFFIX, str(PATIENCE)]
        try:
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", _SWEEPER, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                timeout=_STARTING,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            why = type(error).__name__
            logger.warning("delete the sessions in %s yourself (%s)", self._folder, why)

    def _path(self, key: str) -> Path:
        return self._folder / f"{name_of(key)}{_SUFFIX}"
