"""Rows: what goes in comes out with all its bits, and nothing else gets in."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from support.recordings import HEADER, phrase
from tamulag.streamer.core.commands import Push
from tamulag.streamer.core.estimate import Estimate, ModalityEstimate
from tamulag.streamer.core.sample import Input, Notice, Sample
from tamulag.streamer.storage.recording import (
    ESTIMATE,
    Header,
    Row,
    command_of,
    estimate_row,
    rows_of,
)


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(
            Sample("audio", 0.1 + 0.2, np.array([1 / 3, -0.0, 1e-40], np.float32)), id="audio"
        ),
        pytest.param(Sample("vision", 1.05, None, "no_face"), id="no-face"),
        pytest.param(Notice(3.0, "vision", "camera_lost", "camera 0"), id="notice"),
        pytest.param(Notice(4.0, "vision", None), id="back"),
        pytest.param(phrase(2.0, 7, "good", "morning"), id="phrase"),
        pytest.param(phrase(2.0, 8, final=False), id="no-words"),
    ],
)
def test_an_input_comes_back_as_it_was(item: Input) -> None:
    """Every number with all its bits, float32 and float64."""
    (row,) = rows_of(Push(item), 9.0)
    command = command_of(row)
    assert isinstance(command, Push)
    back = command.item
    for name in type(item).__slots__:
        one, other = getattr(item, name), getattr(back, name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert (one.shape, one.tobytes()) == (other.shape, other.tobytes())
        else:
            assert one == other


def test_an_estimate_comes_back_as_it_was() -> None:
    """JSON keeps all bits of a float64, and words and times of attention."""
    modality = ModalityEstimate(0.1 + 0.2, 1 / 3, "ok", None, 0.02)
    estimate = Estimate(
        start=0.0,
        end=0.5,
        warmup=True,
        sentiment=float(np.float32(0.1)),
        interval=(-1e-17, 3.0),
        modalities={"audio": modality},
        conflict=None,
        attention={"text": [("good", 0.1, 0.7)], "audio": [(0.02, 2 / 3)]},
        revision=1,
    )
    assert ESTIMATE.validate_json(estimate_row(estimate, 0.6).text or "") == estimate


def spoken(**changes: object) -> Row:
    (row,) = rows_of(Push(phrase(2.0, 0, "good", "day")), 2.0)
    values = row.values if changes.pop("values", True) else None
    text = json.dumps(json.loads(row.text or "") | changes)
    return Row("phrase", 2.0, 2.0, values, text)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(Row("audio", 0.0, None), id="no-time"),
        pytest.param(Row("audio", 0.0, 1e300), id="far-time"),
        pytest.param(Row("audio", 0.0, float("nan")), id="nan-time"),
        pytest.param(Row("notice", 0.0, 1.0, None, "[" * 100_000), id="deep-json"),
        pytest.param(Row("notice", 0.0, 1.0), id="no-json"),
        pytest.param(spoken(values=False), id="no-values"),
        pytest.param(spoken(size=2**31 - 1), id="size"),
        pytest.param(spoken(word_of_token=[0, 5]), id="token-beyond-words"),
        pytest.param(spoken(words=[["good", 0, 1e300, None], ["day", 0, 1, None]]), id="word-time"),
        pytest.param(spoken(extra=1), id="unknown-key"),
    ],
)
def test_a_row_that_cannot_have_been_written_is_refused(row: Row) -> None:
    """Nothing of it reaches the session."""
    with pytest.raises(ValueError, match=r"."):
        command_of(row)


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 0},
        {"window": 1e9},
        {"asked": ["smell"]},
        {"stale_after": {}},
        {"epoch": -1},
        {"x": 1},
    ],
)
def test_a_header_has_ranges(change: dict[str, object]) -> None:
    """No number of a foreign header sizes anything unchecked."""
    about = json.loads(HEADER.model_dump_json()) | change
    with pytest.raises(ValidationError):
        Header.model_validate_json(json.dumps(about))
