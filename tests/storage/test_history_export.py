"""A past session as a file that another program reads."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.csv
import pyarrow.parquet
import pytest

from support.past_sessions import EPOCH, MISSING, OK, end, hello, score
from tamulag.streamer.storage import history_export
from tamulag.streamer.storage.history_db import HistoryDb, PastSession
from tamulag.streamer.storage.history_export import SCHEMA, write

LINES = [score(1, 1.5), score(2, None, vision=MISSING), end(3)]
PAST = PastSession(
    id="k7",
    started=EPOCH,
    ended=EPOCH + 1.5,
    seconds=1.5,
    mean_sentiment=1.5,
    reason="stopped",
    hello=json.loads(hello()),
)


def written(form: history_export.Form, lines: list[str] | None = None) -> io.BytesIO:
    out = io.BytesIO()
    write(form, PAST, LINES if lines is None else lines, out)
    out.seek(0)
    return out


def test_json_lines_are_the_messages_as_sent() -> None:
    """To the byte, all kinds."""
    assert written("jsonl").read().decode().splitlines() == LINES


def test_csv_has_a_row_for_each_score() -> None:
    """What is null is empty, and a reader finds the same numbers."""
    first, second = pyarrow.csv.read_csv(written("csv")).to_pylist()
    assert (first["sentiment"], first["low"], first["high"]) == (1.5, -0.5, 2.5)
    assert first["attended"] == "great so"
    assert second["sentiment"] is None
    assert (second["vision_status"], second["vision_reason"]) == ("missing", "no_face")


def test_parquet_has_the_same_rows_with_their_types() -> None:
    """Null stays null, and every column is there."""
    table = pyarrow.parquet.read_table(written("parquet"))
    assert table.schema.equals(SCHEMA)
    assert table["sentiment"].to_pylist() == [1.5, None]
    assert table["vision_sentiment"].to_pylist() == [0.5, None]


def test_emotionml_begins_at_the_sessions_start() -> None:
    """Its times are those of the wall clock."""
    root = ElementTree.fromstring(written("emotionml").read())
    assert root[1].attrib["start"] == str(round(1000 * EPOCH))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_long_session_is_written_in_pieces(
    form: history_export.Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is lost between two of them."""
    monkeypatch.setattr(history_export, "ROWS", 4)
    out = written(form, [score(n) for n in range(1, 12)])
    read = pyarrow.csv.read_csv if form == "csv" else pyarrow.parquet.read_table
    assert read(out)["seq"].to_pylist() == list(range(1, 12))


def test_a_session_without_scores_is_a_file_too() -> None:
    """It was killed at once; each file is valid, and has no row."""
    assert written("csv", []).read().decode().count("\n") == 1
    assert pyarrow.parquet.read_table(written("parquet", [])).num_rows == 0
    assert [child.tag for child in ElementTree.fromstring(written("emotionml", []).read())] == [
        "{http://www.w3.org/2009/10/emotionml}info"
    ]


def test_a_session_of_the_history_can_be_exported(tmp_path: Path) -> None:
    """What was kept is what is written."""
    with HistoryDb(tmp_path / "history.sqlite", create=True) as store:
        store.append(store.begin(hello()), LINES)
        out = io.BytesIO()
        write("jsonl", store.session("k7"), store.messages("k7"), out)
    assert out.getvalue().decode().splitlines() == LINES


def test_scales_are_the_last_columns() -> None:
    """Empty of a session that had none; the columns of before stay where they were."""
    sure = OK.model_copy(update={"scale": 0.25})
    rows = pyarrow.parquet.read_table(written("parquet", [score(1, vision=sure)])).to_pylist()
    assert list(rows[0])[-4:] == ["trend", "text_scale", "audio_scale", "vision_scale"]
    assert (rows[0]["text_scale"], rows[0]["vision_scale"]) == (None, 0.25)
