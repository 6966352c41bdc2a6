"""Sessions that wait in a folder for the server that goes on with them.

Knows files and keys. Knows nothing of what a session is.

A file is named by a digest of its key, so that who can list the folder cannot take a session.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import TamulagError

logger = logging.getLogger("tamulag.serve")

PATIENCE = 60.0
"""Seconds after which nobody goes on with a session: its window is over many times."""

_SUFFIX = ".session"

StoredSnapshot = tuple[dict[str, Any], bytes, float]
"""What JSON held about a session, its bytes, and how many seconds ago it was kept."""


class SnapshotStoreError(TamulagError):
    """The folder cannot be used."""


class SnapshotStore:
    """A folder of sessions.

    Args:
        folder: Made, for its owner alone, if it is not there.
        wall: Seconds since 1970.

    Raises:
        KeptError: If the folder cannot be made, or nothing can be written there.
    """

    def __init__(self, folder: Path, wall: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._wall = wall
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            trial = folder / f"{os.getpid()}.partial"
            trial.touch(mode=0o600)
            trial.unlink()
            self.sweep()
        except OSError as error:
            raise SnapshotStoreError(
                f"--handover {folder} cannot be used ({error.strerror}): choose another folder"
            ) from error

    def put(self, key: str, about: Mapping[str, Any], packed: bytes) -> None:
        """Keep a session.

        Args:
            key: Opens it again.
            about: What JSON can hold.
            packed: From `handover.pack`.

        Raises:
            OSError: If it cannot be written.
        """
        head = json.dumps({"at": self._wall(), "about": about}).encode()
        path = self._path(key)
        partial = path.with_suffix(".partial")
        with os.fdopen(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            file.write(len(head).to_bytes(4, "big") + head + packed)
        partial.replace(path)

    def look(self, key: str) -> StoredSnapshot | None:
        """Return what is kept under a key, and how many seconds it has been.

        None: there is nothing, or it is too old or damaged. It stays until `drop`.
        """
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read (%s): that session begins anew", path, error)
            return None
        size = int.from_bytes(data[:4], "big")
        try:
            head = json.loads(data[4 : 4 + size])
            age, about = self._wall() - head["at"], dict(head["about"])
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged (%s): that session begins anew", path, error)
            return None
        return (about, data[4 + size :], age) if 0 <= age <= PATIENCE else None

    def drop(self, key: str) -> None:
        """Forget a session: it goes on, so nobody else can take it."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be deleted: %s", self._path(key), error)

    def sweep(self) -> int:
        """Delete what nobody has taken in time; return how many that were."""
        gone = 0
        for path in [*self._folder.glob(f"*{_SUFFIX}"), *self._folder.glob("*.partial")]:
            if self._wall() - path.stat().st_mtime > PATIENCE:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{_SUFFIX}"
