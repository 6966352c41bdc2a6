"""Checksums: right, computed once, and again where a file was changed."""

import hashlib
import os
from pathlib import Path

import pytest

from tamulag.models.runtime.checksums import sha256_of


def test_it_is_that_of_the_content(tmp_path: Path) -> None:
    """As hashlib has it."""
    path = tmp_path / "weights"
    path.write_bytes(b"weights" * 1000)
    assert sha256_of(path) == hashlib.sha256(b"weights" * 1000).hexdigest()


def test_it_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until anything about it has changed, be it a second name alone."""
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    found = sha256_of(path)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert sha256_of(path) == found
    (tmp_path / "other").hardlink_to(path)
    with pytest.raises(TypeError):
        sha256_of(tmp_path / "other")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Even if it has its old size and time."""
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    before = path.stat()
    assert sha256_of(path) == hashlib.sha256(b"weights").hexdigest()
    path.write_bytes(b"another")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert sha256_of(path) == hashlib.sha256(b"another").hexdigest()


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The caller knows the remedy."""
    with pytest.raises(OSError, match="nothing"):
        sha256_of(tmp_path / "nothing")
