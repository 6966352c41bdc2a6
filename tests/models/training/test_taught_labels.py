"""Labels that are mixed with a checkpoint's scores."""

from dataclasses import replace

import numpy as np
import pytest

from tamulag.models.data.clips import DataError, TextRow
from tamulag.models.training.taught_labels import taught

ROWS = [
    TextRow(text, label, str(place))
    for place, (text, label) in enumerate(
        [
            ("I loved every minute of it.", 1.0),
            ("What a waste of time.", -0.5),
            ("It was on the table.", 0.0),
            ("Absolutely wonderful acting!", 0.5),
            ("I hated it.", -1.0),
        ]
    )
]


def labels(share: float, rows: list[TextRow] = ROWS) -> np.ndarray:
    """Return the mixed labels of sentences."""
    done: list[int] = []
    mixed = list(taught(rows, "default", share, done.append))
    assert [text for text, _ in mixed] == [row.text for row in rows]
    assert done == [len(rows)]
    return np.array([label for _, label in mixed])


def test_labels_are_between_people_and_teacher() -> None:
    """People's own with no share, the teacher's with all, their mean with half."""
    own = np.array([row.label for row in ROWS])
    teacher = labels(1.0)
    np.testing.assert_allclose(labels(0.0), own, atol=1e-6)
    np.testing.assert_allclose(labels(0.5), (own + teacher) / 2, atol=1e-6)
    assert np.corrcoef(own, teacher)[0, 1] > 0.8
    # A line that is fitted by least squares has the mean of what it is fitted to.
    assert teacher.mean() == pytest.approx(own.mean(), abs=1e-6)


def test_labels_of_another_scale_are_fitted() -> None:
    """Halved labels halve what the teacher adds."""
    halved = [replace(row, label=row.label / 2) for row in ROWS]
    np.testing.assert_allclose(labels(1.0, halved), labels(1.0) / 2, atol=1e-6)


def test_too_few_and_equal_sentences_are_refused() -> None:
    """With what to do."""
    with pytest.raises(DataError, match="2 sentences are too few"):
        list(taught(ROWS[:2], "default", 0.5, lambda _: None))
    with pytest.raises(DataError, match="gives all 3 sentences one score"):
        list(taught([ROWS[0]] * 3, "default", 0.5, lambda _: None))
