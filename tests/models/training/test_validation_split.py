"""Who is only validated: a share of the groups, or those that the file names."""

from pathlib import Path

import numpy as np
import pytest

from support.learnable_data import quiet
from tamulag.models.data.clips import Clip, DataError, write_clips
from tamulag.models.training.joint_recipe import DataTable
from tamulag.models.training.validation_split import split_clips


def file(folder: Path, groups: str, name: str = "mine") -> Path:
    """Write a clip of each letter's group, labelled by its place."""
    path = folder / f"{name}.safetensors"
    values, ticks = {"audio": np.ones((2, 3), np.float32)}, {"audio": np.arange(2)}
    clips = [Clip(place / 10, group, values, ticks) for place, group in enumerate(groups)]
    write_clips(path, clips, about="")
    return path


def table(path: Path, **more: object) -> DataTable:
    return DataTable.model_validate({"train": [path], "valid": [path], **more})


def test_a_fifth_of_the_groups_is_held_out(tmp_path: Path) -> None:
    """Of ten people two, with all their clips and in no training; the log names them."""
    lines: list[str] = []
    parts = split_clips(table(file(tmp_path, "abcdefghij" * 2)), lines.append)
    train, valid = ({clip.group for clip in parts[name]} for name in ("train", "valid"))
    assert (len(train), len(valid), len(parts["valid"])) == (8, 2, 4)
    assert train.isdisjoint(valid)
    assert f"4 of 20 clips, 2 of 10 groups ({', '.join(sorted(valid))})" in lines[0]


def test_the_seed_alone_decides_who(tmp_path: Path) -> None:
    """Twice the same, and others with other seeds."""
    path = file(tmp_path, "abcdefghij")
    held = [
        tuple(c.group for c in split_clips(table(path, valid_seed=seed), quiet)["valid"])
        for seed in (1, 1, 2, 3, 4)
    ]
    assert held[0] == held[1]
    assert len(set(held)) > 1


def test_of_one_group_clips_are_held_out(tmp_path: Path) -> None:
    """Each clip is in one part."""
    parts = split_clips(table(file(tmp_path, "aaaaa"), valid_share=0.4), quiet)
    labels = {name: {clip.label for clip in clips} for name, clips in parts.items()}
    assert (len(labels["train"]), len(labels["valid"])) == (3, 2)
    assert labels["train"].isdisjoint(labels["valid"])


def test_both_parts_have_something(tmp_path: Path) -> None:
    """Of two people one, whatever the share."""
    path = file(tmp_path, "ab")
    for share in (0.01, 0.99):
        parts = split_clips(table(path, valid_share=share), quiet)
        assert [len(clips) for clips in parts.values()] == [1, 1]


@pytest.mark.parametrize(
    ("groups", "held", "told"),
    [
        ("abc", ["anna"], r"valid_groups anna names no clip of .*mine.*; it has: a, b, c"),
        ("ab", ["a", "b"], "names every clip"),
        ("a", [], "2 or more are needed"),
    ],
)
def test_what_leaves_nothing_is_told(
    tmp_path: Path, groups: str, held: list[str], told: str
) -> None:
    """With what the file has."""
    with pytest.raises(DataError, match=told):
        split_clips(table(file(tmp_path, groups), valid_groups=held), quiet)


def test_files_of_their_own_are_taken_whole(tmp_path: Path) -> None:
    """Nothing is drawn where valid has other files; files in part the same are refused."""
    one, other = file(tmp_path, "abc"), file(tmp_path, "de", "other")
    parts = split_clips(table(one, valid=[other]), quiet)
    assert [len(clips) for clips in parts.values()] == [3, 2]
    with pytest.raises(DataError, match=r"share .*mine"):
        split_clips(table(one, valid=[one, other]), quiet)


def test_one_file_by_two_paths_is_one_file(tmp_path: Path) -> None:
    """A clip is not on both sides because a path was written in another way."""
    path = file(tmp_path, "abcde")
    again = tmp_path / ".." / tmp_path.name / path.name
    parts = split_clips(table(path, valid=[again]), quiet)
    assert [len(clips) for clips in parts.values()] == [4, 1]
