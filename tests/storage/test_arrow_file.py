"""Files of recordings: read back, cut anywhere, damaged, packed, foreign."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.recordings import HEADER, ROWS, file_of, written
from tamulag.streamer.storage.arrow_file import END, Recording, batch_of, schema_of
from tamulag.streamer.storage.recording import RecordingError, Row


def plain(row: Row) -> tuple[object, ...]:
    values = None if row.values is None else row.values.tolist()
    return row.kind, row.arrived, row.at, values, row.text


def test_rows_come_back_in_order_over_all_files(tmp_path: Path) -> None:
    """A recording is one sequence, however many files hold it."""
    second = HEADER.model_copy(update={"part": 1})
    recording = Recording(written(tmp_path, file_of(batches=1), file_of(second, batches=1)))
    assert [plain(row) for row in recording.rows()] == [plain(row) for row in ROWS * 2]
    assert recording.cut is None


@given(kept=st.integers(0, len(file_of())))
def test_a_file_that_was_cut_anywhere_gives_its_whole_batches(
    kept: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A kill or a full disk costs the last batch alone; less than a header is an error."""
    folder = written(tmp_path_factory.mktemp("cut"), file_of()[:kept])
    head = len(schema_of(HEADER).serialize())
    if kept < head:
        with pytest.raises(RecordingError, match="damaged or no recording"):
            Recording(folder)
        return
    recording = Recording(folder)
    size = (len(file_of()) - len(END) - head) // 3
    assert len(list(recording.rows())) == (kept - head) // size * len(ROWS)


def test_a_packed_batch_is_not_unpacked(tmp_path: Path) -> None:
    """A small file cannot fill the memory."""
    schema, sink = schema_of(HEADER), pa.BufferOutputStream()
    rows = [Row("message", 0.0, text="0" * 10_000_000)]
    packed = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, schema, options=packed) as writer:
        writer.write_batch(batch_of(rows, schema))
    recording = Recording(written(tmp_path, sink.getvalue().to_pybytes()))
    assert list(recording.rows()) == []
    assert "does not write" in (recording.cut or "")


def test_another_format_is_refused_by_number(tmp_path: Path) -> None:
    """A later version's recording is not misread."""
    schema = schema_of(HEADER).with_metadata({"tamulag": '{"format": 2}'})
    with pytest.raises(RecordingError, match="format 2, expected 1: replay it with the version"):
        Recording(written(tmp_path, schema.serialize().to_pybytes()))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    """The header alone does not make a recording."""
    schema = pa.schema([("kind", pa.int8())], metadata=schema_of(HEADER).metadata)
    with pytest.raises(RecordingError, match="other columns"):
        Recording(written(tmp_path, schema.serialize().to_pybytes()))


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    """Rows are not joined over a hole."""
    third = HEADER.model_copy(update={"part": 2})
    recording = Recording(written(tmp_path, file_of(), file_of(third)))
    with pytest.raises(RecordingError, match="part 2 of session k7, expected part 1"):
        list(recording.rows())


def test_damage_before_the_last_file_is_an_error(tmp_path: Path) -> None:
    """Only the end of a recording may be torn."""
    second = HEADER.model_copy(update={"part": 1})
    recording = Recording(written(tmp_path, file_of()[:-100], file_of(second)))
    with pytest.raises(RecordingError, match="put the file back"):
        list(recording.rows())


def test_a_folder_of_sessions_stands_for_the_newest(tmp_path: Path) -> None:
    """What --record was given can be replayed, however many sessions it holds."""
    for count, name in enumerate(("20261124-100000-ff", "20261124-110000-aa"), 1):
        (tmp_path / name).mkdir()
        written(tmp_path / name, file_of())
        recording = Recording(tmp_path)
        assert (recording.folder, recording.sessions) == (tmp_path / name, count)


@pytest.mark.parametrize(("name", "problem"), [("", "holds no .arrows"), ("x", "not found")])
def test_a_folder_without_a_recording_is_reported(tmp_path: Path, name: str, problem: str) -> None:
    """The line names the folder and what to do."""
    with pytest.raises(RecordingError, match=problem):
        Recording(tmp_path / name)
