"""Connect to a Ray cluster, or start a Ray that only this machine reaches.

Knows Ray's addresses and tokens. Knows no sessions and no files.
"""

import importlib.util
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from tamulag.models.data.clips import DataError

REMEDY = "pip install 'tamulag-stream[ray]'"

CONNECT_TIME = 20.0
"""Seconds for a cluster to answer, including the start of the program that asks."""

STORE = 200_000_000
"""Bytes of a local Ray's object store; a minute of film needs 1 MB."""


def is_installed() -> bool:
    """Return whether the extra `ray` is installed, without importing it."""
    return importlib.util.find_spec("ray") is not None


@contextmanager
def connect(address: str | None, processors: int | None = None) -> Iterator[Any]:
    """Connect to a cluster, or start a local Ray; disconnect or stop it afterwards.

    Args:
        address: HOST:PORT, or None for a local Ray.
        processors: Of a local Ray; None = all.

    Yields:
        The module `ray`.

    Raises:
        DataError: If that is impossible; the message has the remedy.
    """
    if not is_installed():
        raise DataError(f"Ray is not installed: {REMEDY}, or take --engine processes")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        with _own(processors) as ray:
            yield ray
        return
    if _is_loopback(address):
        _stay_inside()
    _check(address)
    with _connected(address=address) as ray:
        yield ray


@contextmanager
def _own(processors: int | None) -> Iterator[Any]:
    """Start a Ray that no other machine and no other user reaches, and remove its files."""
    _stay_inside()
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(24))
    private = private_folder()
    try:
        with _connected(
            address="local",
            num_cpus=processors,
            object_store_memory=STORE,
            include_dashboard=False,
            _temp_dir=f"{private}/ray",
        ) as ray:
            yield ray
    finally:
        shutil.rmtree(private, ignore_errors=True)


def private_folder() -> str:
    """Make a folder that only we may enter, for a Ray to make its own below it.

    Ray makes its folder writable for everybody, one that exists already too. Ours is not below the
    user's TMPDIR: the path of a Unix socket may have 107 bytes, of which Ray takes some 70.
    """
    return tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.name == "posix" else None)


@contextmanager
def _connected(**settings: Any) -> Iterator[Any]:
    import ray

    # Ray reports each retry on the standard output, which belongs to the program.
    with redirect_stdout(sys.stderr):
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
        try:
            yield ray
        finally:
            ray.shutdown()


def _stay_inside() -> None:
    """Restrict Ray to 127.0.0.1; to be called before its import.

    On Linux it uses the machine's outer address even where 127.0.0.1 is requested, and listens on
    all of them. The variable is the one that macOS and Windows have by default.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host == "localhost" or host.startswith("127.")


def _check(address: str) -> None:
    """Check within a limit that a cluster answers: Ray's own attempt may take for ever."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CONNECT_TIME, check=False)
    except subprocess.TimeoutExpired:
        answers = False
    else:
        answers = done.returncode == 0
    if not answers:
        raise DataError(
            f"no Ray cluster answers at {address} within {CONNECT_TIME:g} s: take the HOST:PORT of "
            "`ray start --head`; if it has a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        )
