"""Both ways of `verify`, on real clips and on recordings."""

from pathlib import Path

import pytest

from support.recordings import inputs, record
from tamulag.models import TamUlag
from tamulag.streamer.config.loader import load
from tamulag.streamer.offline.verify import TOLERANCE, verify_file, verify_recording
from tamulag.streamer.storage.arrow_file import Recording, batch_of, schema_of


@pytest.mark.data
@pytest.mark.parametrize("name", ["bbaf2n.mpg", "pyfeat_no_face.mp4"])
def test_live_and_offline_path_of_a_clip_agree(data: Path, name: str) -> None:
    """Serving equals training: threads, inbox and steps against whole features and `forward`."""
    path = data / "clips" / name
    settings = {"source.path": str(path), "source.speed": "max", "websocket.enabled": False}
    found = verify_file(path, load(None, settings | {"asr.engine": "none"}))
    assert found.hops >= 6
    assert found.max_abs_diff <= TOLERANCE


def test_a_recording_agrees_with_its_replay_to_the_bit(tmp_path: Path, model: TamUlag) -> None:
    """Every number of every estimate."""
    record(tmp_path, model)
    found = verify_recording(tmp_path / "records", None)
    assert (found.max_abs_diff, found.hops) == (0.0, 12)


def test_a_changed_recording_does_not_agree(tmp_path: Path, model: TamUlag) -> None:
    """One changed number of one input shows."""
    record(tmp_path, model)
    recording = Recording(tmp_path / "records")
    rows = list(recording.rows())
    changed = next(row for row in rows if row.kind == "audio" and row.values is not None)
    assert changed.values is not None
    changed.values[0] += 0.5
    schema = schema_of(recording.header)
    data = b"".join(part.serialize().to_pybytes() for part in (schema, batch_of(rows, schema)))
    recording.files[0].write_bytes(data)
    assert verify_recording(tmp_path / "records", None).max_abs_diff > TOLERANCE


def test_a_missing_estimate_is_a_difference(tmp_path: Path, model: TamUlag) -> None:
    """A replay must not say more than was recorded, unless the recording was cut."""
    record(tmp_path, model)
    recording = Recording(tmp_path / "records")
    rows = list(recording.rows())
    del rows[[row.kind for row in rows].index("estimate")]
    schema = schema_of(recording.header)
    data = b"".join(part.serialize().to_pybytes() for part in (schema, batch_of(rows, schema)))
    recording.files[0].write_bytes(data)
    assert verify_recording(tmp_path / "records", None).max_abs_diff > TOLERANCE


def test_a_cut_recording_is_compared_as_far_as_it_goes(tmp_path: Path, model: TamUlag) -> None:
    """What was killed can still be explained."""
    record(tmp_path, model, inputs(20.0))
    (file,) = (tmp_path / "records").rglob("*.arrows")
    file.write_bytes(file.read_bytes()[:-20])
    assert verify_recording(tmp_path / "records", None).max_abs_diff == 0.0


def test_a_recording_that_ended_early_agrees(tmp_path: Path, model: TamUlag) -> None:
    """A full one has no session_end; where its last row lies does not matter."""
    record(tmp_path, model)
    recording = Recording(tmp_path / "records")
    rows, schema = list(recording.rows()), schema_of(recording.header)
    for kept in range(20, 140, 7):
        parts = (schema, batch_of(rows[:kept], schema))
        recording.files[0].write_bytes(b"".join(p.serialize().to_pybytes() for p in parts))
        assert verify_recording(tmp_path / "records", None).max_abs_diff == 0.0, kept
