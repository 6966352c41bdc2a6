"""The grid of options: each cell once, and what is done stays done."""

import csv
import json
from pathlib import Path

import pytest

from support.learnable_data import quiet, recipe, toml, write
from tamulag.models.data.clips import DataError
from tamulag.models.training.ablation import ablate, cells
from tamulag.models.training.joint_recipe import model_config
from tamulag.models.training.run_folder import LAST

GRID = 'ablate = { fusion = ["concat", "hadamard"], labels = ["none", "both"] }'


def written(folder: Path, packed: Path, *lines: str, epochs: int = 2) -> Path:
    path = folder / "grid.toml"
    path.write_text(toml(packed, *lines, seeds="[1, 2]", epochs=epochs), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("ablate"), rows={"train": 24, "valid": 12})


def test_each_cell_is_in_the_table_once_and_goes_on(packed: Path, tmp_path: Path) -> None:
    """Stopped in the second cell; the second run trains what is left and the table is whole."""
    path = written(tmp_path, packed, GRID)
    lines: list[str] = []

    def stop(line: str) -> None:
        if "cell 2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(path, tmp_path / "out", log=stop, progress=quiet)
    rows = ablate(path, tmp_path / "out", log=lines.append, progress=quiet)
    assert [line for line in lines if line.startswith("cell")] == [
        "cell 2 of 4: softmax-concat-both-plain",
        "cell 3 of 4: softmax-hadamard-none-plain",
        "cell 4 of 4: softmax-hadamard-both-plain",
    ]
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["fusion"], row["labels"]) for row in found] == [
        ("concat", "none"),
        ("concat", "both"),
        ("hadamard", "none"),
        ("hadamard", "both"),
    ]
    assert float(found[0]["valid.MAE"]) == rows[0][1]["valid.MAE"]
    assert float(found[0]["valid.MAE.interval"]) > 0
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert len(table) == 2 + 4
    assert table[2].startswith("| softmax | concat | none | plain | ")
    assert "±" in table[2]
    assert not list((tmp_path / "out").rglob(LAST))


def test_cells_of_other_settings_are_refused(packed: Path, tmp_path: Path) -> None:
    """A table must not mix them."""
    one = 'ablate = { fusion = ["concat"] }'
    ablate(written(tmp_path, packed, one), tmp_path / "out", log=quiet, progress=quiet)
    with pytest.raises(DataError, match="other settings"):
        ablate(
            written(tmp_path, packed, one, epochs=3), tmp_path / "out", log=quiet, progress=quiet
        )
    (result,) = (tmp_path / "out").rglob("result.json")
    result.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        ablate(written(tmp_path, packed, one), tmp_path / "out", log=quiet, progress=quiet)


def test_file_without_a_grid_is_refused(packed: Path, tmp_path: Path) -> None:
    """One cell is not trained as if it were a comparison."""
    with pytest.raises(DataError, match=r"no table \[ablate\] with a list of tam, fusion"):
        ablate(written(tmp_path, packed), tmp_path / "out", log=quiet, progress=quiet)


def test_residual_is_asked_of_gates_alone() -> None:
    """Other forms of attention have no gate; what is not listed stays the model's."""
    grid = cells(
        recipe(
            Path("packed.pkl"),
            'ablate = { tam = ["softmax", "gate_last"], residual = [false, true] }',
        )
    )
    assert [list(cell.values()) for cell, _ in grid] == [
        ["softmax", "cross_sum", "both", "plain"],
        ["gate_last", "cross_sum", "both", "plain"],
        ["gate_last", "cross_sum", "both", "residual"],
    ]
    assert [chosen.model.residual for _, chosen in grid] == [False, False, True]


def test_finished_cell_names_its_settings(packed: Path, tmp_path: Path) -> None:
    """So that a table can be traced to what made it."""
    one = 'ablate = { tam = ["softmax"] }'
    ablate(written(tmp_path, packed, one), tmp_path / "out", log=quiet, progress=quiet)
    (path,) = (tmp_path / "out").rglob("result.json")
    found = json.loads(path.read_text())
    assert found["settings"]["seeds"] == [1, 2]
    assert found["settings"]["model"]["tam"] == "softmax"


def test_similarity_is_asked_of_the_release_alone() -> None:
    """Labels without it are one cell, in which it is unused."""
    lines = 'ablate = { labels = ["ulgm", "ulag", "ulag_release"], similarity = ["dot", "cosine"] }'
    grid = cells(recipe(Path("packed.pkl"), lines))
    assert [(cell["labels"], cell["similarity"]) for cell, _ in grid] == [
        ("ulgm", "unused"),
        ("ulag", "unused"),
        ("ulag_release", "dot"),
        ("ulag_release", "cosine"),
    ]
    assert [chosen.model.similarity for _, chosen in grid] == [None, None, "dot", "cosine"]


def test_sizes_are_those_of_every_recurrent_network() -> None:
    """The paper's text has none and stays; a branch's other sizes stay too."""
    grid = cells(recipe(Path("packed.pkl"), "ablate = { layers = [1, 2], hidden = [5] }"))
    assert [(cell["layers"], cell["hidden"]) for cell, _ in grid] == [("1", "5"), ("2", "5")]
    configs = [model_config(chosen, {}) for _, chosen in grid]
    assert [config.audio.layers for config in configs] == [1, 2]
    assert {(c.audio.hidden, c.vision.hidden, c.audio.out) for c in configs} == {(5, 5, 4)}
    assert len({config.text for config in configs}) == 1


def test_a_listed_size_is_a_column_of_the_table(packed: Path, tmp_path: Path) -> None:
    """And what is not listed is none."""
    path = written(tmp_path, packed, "ablate = { layers = [2] }", epochs=1)
    ablate(path, tmp_path / "out", log=quiet, progress=quiet)
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert table[0].startswith("| tam | fusion | labels | residual | layers | valid.MAE |")
    assert table[2].startswith("| softmax | cross_sum | both | plain | 2 | ")
