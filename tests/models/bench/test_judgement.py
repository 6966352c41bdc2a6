"""People's law, from their labels."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tamulag.models.bench.judgement import Law, judgements
from tamulag.models.data.clips import DataError

ALL, WORDS_FACE = torch.tensor([True, True, True]), torch.tensor([True, False, True])
HEADER = "text,label,label_T,label_A,label_V\n"


def write(path: Path, rows: Sequence[tuple[float, ...]]) -> Path:
    """Write a CSV of labels."""
    lines = [",".join(["so", *(f"{x:.4f}" for x in row)]) for row in rows]
    path.write_text(HEADER + "\n".join(lines), encoding="utf-8")
    return path


def test_the_weights_are_those_by_which_the_labels_were_made(tmp_path: Path) -> None:
    """And the labels of the modalities come in [-3, 3]."""
    parts = [(0.2, -0.4, 1.0), (0.0, 0.6, -0.2), (-1.0, 0.2, 0.4), (0.6, 0.6, -0.8), (0.1, 0, 0)]
    rows = [(0.3 * t + 0.1 * a + 0.5 * v, t, a, v) for t, a, v in parts]
    law, labels = judgements(write(tmp_path / "labels.csv", rows))
    assert law.weights == pytest.approx((0.3, 0.1, 0.5), abs=1e-3)
    assert law.fit == pytest.approx(1.0, abs=1e-6)
    assert law.clips == len(labels) == 5
    torch.testing.assert_close(labels, 3 * torch.tensor(parts))


def test_some_modalities_have_the_sum_of_all() -> None:
    """Two keep their ratio; one alone is what it says itself; nothing is beyond 3."""
    law, labels = Law((0.3, 0.3, 0.6), 1.0, 9), torch.tensor([[1.0, -2.0, -0.5], [3.0, 3.0, 3.0]])
    torch.testing.assert_close(law.of(labels, ALL), torch.tensor([-0.6, 3.0]))
    torch.testing.assert_close(law.of(labels, WORDS_FACE), torch.tensor([0.0, 3.0]))
    alone = torch.tensor([False, True, False])
    torch.testing.assert_close(law.of(labels, alone), labels[:, 1])


def test_labels_that_determine_nothing_are_refused(tmp_path: Path) -> None:
    """Of text alone, or where a modality is always as another."""
    plain = tmp_path / "plain.csv"
    plain.write_text("text,label\nso,0.5\n", encoding="utf-8")
    with pytest.raises(DataError, match="label_T, label_A, label_V determine no weights"):
        judgements(plain)
    with pytest.raises(DataError, match="determine no weights"):
        judgements(write(tmp_path / "same.csv", [(x / 9, x / 9, x / 9, 0.5) for x in range(9)]))


@pytest.mark.data
def test_the_law_of_ch_sims(data: Path) -> None:
    """The figures of docs/explanation/results.md; it holds on clips that did not fit it."""
    law, _ = judgements(data / "sims" / "train.csv")
    assert law.weights == pytest.approx((0.326, 0.356, 0.411), abs=5e-4)
    assert (law.clips, round(law.fit, 3)) == (1368, 0.914)
    assert judgements(data / "sims" / "valid.csv").law.fit > 0.92
