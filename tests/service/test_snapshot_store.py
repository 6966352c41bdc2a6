"""Sessions that wait in a folder for the next server."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tamulag.streamer.service.snapshot_store import (
    PATIENCE,
    SnapshotStore,
    SnapshotStoreError,
    StoredSnapshot,
)


def snapshot(key: str = "key") -> StoredSnapshot:
    return StoredSnapshot(
        name="x",
        key=key,
        seq=3,
        now=2.5,
        reached=2.0,
        utterance=1,
        asked=("audio", "vision"),
        by_sender=True,
        state=b"state",
    )


def test_what_is_kept_goes_on_once(tmp_path: Path) -> None:
    """A second server does not get the same session."""
    store = SnapshotStore(tmp_path / "sessions", wall=lambda: 100.0)
    store.put(snapshot())
    later = SnapshotStore(tmp_path / "sessions", wall=lambda: 103.5)
    assert later.look("key") == replace(snapshot(), age=3.5)
    later.drop("key")
    assert later.look("key") is None


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """It holds words; its name does not tell the key."""
    folder = tmp_path / "sessions"
    SnapshotStore(folder).put(snapshot())
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o77 == 0
    assert folder.stat().st_mode & 0o77 == 0
    assert "key" not in path.name


def test_too_old_is_too_late(tmp_path: Path) -> None:
    """Its window is over many times: a new session begins."""
    SnapshotStore(tmp_path, wall=lambda: 0.0).put(snapshot())
    assert SnapshotStore(tmp_path, wall=lambda: PATIENCE + 1).look("key") is None


def test_damage_is_no_session(tmp_path: Path) -> None:
    """And no error: the sender begins a new session."""
    store = SnapshotStore(tmp_path)
    store.put(snapshot())
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"\0\0\0\5{}}}}")
    assert store.look("key") is None


def test_what_nobody_takes_is_swept(tmp_path: Path) -> None:
    """Nothing of people stays on the disk."""
    store = SnapshotStore(tmp_path)
    store.put(snapshot("old"))
    (path,) = tmp_path.iterdir()
    os.utime(path, (0, 0))
    store.put(snapshot("new"))
    assert store.sweep() == 1
    assert store.look("new") is not None


def test_the_next_server_sweeps_first(tmp_path: Path) -> None:
    """What lay there while none ran is gone."""
    SnapshotStore(tmp_path).put(snapshot("old"))
    (path,) = tmp_path.iterdir()
    os.utime(path, (0, 0))
    SnapshotStore(tmp_path)
    assert not path.exists()


def test_what_cannot_be_read_is_no_session(tmp_path: Path) -> None:
    """The server goes on, and that session begins again from nothing."""
    store = SnapshotStore(tmp_path)
    store.put(snapshot())
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.mkdir()
    assert store.look("key") is None


@pytest.mark.parametrize("place", ["file", "file/sessions"])
def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path, place: str) -> None:
    """Before anybody comes, not when all have to go."""
    (tmp_path / "file").touch()
    with pytest.raises(
        SnapshotStoreError, match=r"--handover .* cannot be used \(.*\): choose another"
    ):
        SnapshotStore(tmp_path / place)


def test_a_snapshot_that_another_server_takes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing of the folder and the look at a file, it may go."""
    store = SnapshotStore(tmp_path)
    store.put(snapshot("old"))
    stat = Path.stat

    def taken(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self.suffix == ".session":
            self.unlink(missing_ok=True)
        return stat(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", taken)
    assert store.sweep() == 0
