"""The folder of a local Ray is nobody else's."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tamulag.streamer.cluster.ray_runtime import private_folder

LONGEST = 107
"""Bytes of the path of a Unix socket."""

SOCKET = "ray/session_2026-11-30_12-00-00_123456_4194304/sockets/plasma_store.1"


def test_the_folder_is_private_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the user's TMPDIR, and though Ray opens its own folder below to everybody."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = Path(private_folder())
    inner = folder / "ray"
    inner.mkdir()
    inner.chmod(0o777)
    try:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(str(folder / SOCKET).encode()) <= LONGEST
        if os.geteuid() == 0:  # as another user
            touch = ["touch", str(inner / "mine")]
            assert subprocess.run(touch, user=65534, stderr=-3, check=False).returncode != 0
            assert not list(inner.iterdir())
    finally:
        inner.rmdir()
        folder.rmdir()
