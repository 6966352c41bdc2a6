"""Training files: which kind they are, and what is wrong with them."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from tamulag.models.data.clips import DataError
from tamulag.models.training.recipe_file import Table, checked, is_joint, parsed, unknown


class Inner(Table):
    """A table in the file."""

    rate: float = 0.1


class Outer(Table):
    """A file."""

    seed: int
    audio: Inner | None = None


def refused(values: dict[str, object], table: type[BaseModel] = Outer) -> str:
    with pytest.raises(DataError) as caught:
        checked(Path("mine.toml"), values, table)
    return str(caught.value)


def test_values_become_the_table() -> None:
    """Nothing is added or lost."""
    found = checked(Path("mine.toml"), {"seed": 3, "audio": {"rate": 0.5}}, Outer)
    assert found == Outer(seed=3, audio=Inner(rate=0.5))


def test_unknown_key_in_a_table_that_may_be_left_out() -> None:
    """Key, value, nearest name and all names."""
    message = refused({"seed": 3, "audio": {"raet": 0.5}})
    start = "mine.toml: audio.raet = 0.5: unknown key: did you mean rate?"
    assert message == f"{start} [audio] may have rate"


def test_missing_key_does_not_show_the_file() -> None:
    """Pydantic's input is the whole table there."""
    assert refused({}) == "mine.toml: seed is missing"


def test_long_value_is_cut() -> None:
    """One line stays one line."""
    assert len(refused({"seed": "x" * 500})) < 250


def test_nothing_is_guessed_without_a_close_name() -> None:
    """All names are listed."""
    assert unknown(["colour"], ["seed"]) == "unknown key: the file may have seed"


def test_deep_nesting_is_no_traceback(tmp_path: Path) -> None:
    """A file that the parser gives up on cannot be read."""
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as a training file"):
        parsed(path)


@pytest.mark.parametrize(("text", "joint"), [('kind = "joint"', True), ("seed = 1", False)])
def test_the_kind_decides_between_the_two_trainings(tmp_path: Path, text: str, joint: bool) -> None:
    """A file without a kind trains the heads apart."""
    path = tmp_path / "train.toml"
    path.write_text(text, encoding="utf-8")
    assert is_joint(path) is joint
