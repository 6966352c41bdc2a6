"""Which clips are only validated: a share of the groups, or those that are named; and folds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from support.learnable_data import quiet
from tamulag.models.data.clips import Clip, DataError, write_clips
from tamulag.models.data.validation_split import folds, quarters, refuse_shared, split_clips
from tamulag.models.training.progress import Log


def file(folder: Path, groups: str, name: str = "mine") -> Path:
    """Write a clip of each letter's group, labelled by its place."""
    path = folder / f"{name}.safetensors"
    values, ticks = {"audio": np.ones((2, 3), np.float32)}, {"audio": np.arange(2)}
    clips = [Clip(place / 10, group, values, ticks) for place, group in enumerate(groups)]
    write_clips(path, clips, about="")
    return path


def parts_of(
    path: Path, groups: Sequence[str] = (), *, share: float = 0.2, seed: int = 1, log: Log = quiet
) -> dict[str, list[Clip]]:
    """Split a file that is given for both."""
    return split_clips([path], [path], groups, share=share, seed=seed, log=log)


def test_a_fifth_of_the_groups_is_only_validated(tmp_path: Path) -> None:
    """Of ten people two, with all their clips and in no training; the log names them."""
    lines: list[str] = []
    parts = parts_of(file(tmp_path, "abcdefghij" * 2), log=lines.append)
    train, valid = ({clip.group for clip in parts[name]} for name in ("train", "valid"))
    assert (len(train), len(valid), len(parts["valid"])) == (8, 2, 4)
    assert train.isdisjoint(valid)
    assert f"4 of 20 clips, 2 of 10 groups ({', '.join(sorted(valid))})" in lines[0]


def test_the_seed_alone_decides_who(tmp_path: Path) -> None:
    """Twice the same, and others with other seeds."""
    path = file(tmp_path, "abcdefghij")
    drawn = [tuple(c.group for c in parts_of(path, seed=seed)["valid"]) for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_of_one_group_clips_are_drawn(tmp_path: Path) -> None:
    """Each clip is in one part."""
    parts = parts_of(file(tmp_path, "aaaaa"), share=0.4)
    labels = {name: {clip.label for clip in clips} for name, clips in parts.items()}
    assert (len(labels["train"]), len(labels["valid"])) == (3, 2)
    assert labels["train"].isdisjoint(labels["valid"])


def test_both_parts_have_something(tmp_path: Path) -> None:
    """Of two people one, whatever the share."""
    path = file(tmp_path, "ab")
    for share in (0.01, 0.99):
        parts = parts_of(path, share=share)
        assert [len(clips) for clips in parts.values()] == [1, 1]


@pytest.mark.parametrize(
    ("groups", "named", "message"),
    [
        ("abc", ["anna"], r"valid_groups anna names no clip of .*mine.*; it has: a, b, c"),
        ("ab", ["a", "b"], "names every clip"),
        ("a", [], "2 or more are needed"),
    ],
)
def test_what_leaves_nothing_is_refused(
    tmp_path: Path, groups: str, named: list[str], message: str
) -> None:
    """With what the file has."""
    with pytest.raises(DataError, match=message):
        parts_of(file(tmp_path, groups), named)


def test_files_of_their_own_are_taken_whole(tmp_path: Path) -> None:
    """Nothing is drawn where valid has other files; files in part the same are refused."""
    one, other = file(tmp_path, "abc"), file(tmp_path, "de", "other")
    parts = split_clips([one], [other])
    assert [len(clips) for clips in parts.values()] == [3, 2]
    with pytest.raises(DataError, match=r"share .*mine"):
        split_clips([one], [one, other], share=0.2)


def test_one_file_by_two_paths_is_one_file(tmp_path: Path) -> None:
    """A clip is not on both sides because a path was written in another way."""
    path = file(tmp_path, "abcde")
    again = tmp_path / ".." / tmp_path.name / path.name
    parts = split_clips([path], [again], share=0.2)
    assert [len(clips) for clips in parts.values()] == [4, 1]


def test_a_file_for_both_needs_a_rule(tmp_path: Path) -> None:
    """Groups, a share, or rows that are split by themselves."""
    path = file(tmp_path, "ab")
    with pytest.raises(DataError, match="give two files, or valid_groups"):
        split_clips([path], [path])
    with pytest.raises(DataError, match="give two files, or a column"):
        refuse_shared([path], [path], "a column")
    refuse_shared([path], [path], "a column", lambda _: True)


def test_every_group_is_left_out_once() -> None:
    """In their order, in parts that differ by one group at most; names may come many times."""
    groups = [f"{n:02}" for n in range(7)]
    split = folds(groups[::-1] * 2, 3)
    assert [name for part in split for name in part] == groups
    assert sorted(map(len, split)) == [2, 2, 3]
    assert folds(groups, 7) == [[name] for name in groups]


def test_more_folds_than_groups_are_refused() -> None:
    """The message says how many there are."""
    with pytest.raises(DataError, match="folds = 5: there are 2 groups"):
        folds(["a", "b"], 5)


def test_no_person_is_in_two_quarters() -> None:
    """Each corpus is in all of them, with about as many clips, and the same again."""
    groups = [f"{corpus}{n % 8}" for corpus in "ab" for n in range(80)] + ["c0"] * 40
    corpora = [group[0] for group in groups]
    found = quarters(groups, corpora)
    for group in set(groups) - {"c0"}:
        assert len({part for part, one in zip(found, groups, strict=True) if one == group}) == 1
    for corpus in "abc":
        here = [part for part, one in zip(found, corpora, strict=True) if one == corpus]
        assert np.bincount(here).tolist() == [len(here) // 4] * 4
    assert found.tolist() == quarters(groups, corpora).tolist()


@pytest.mark.parametrize("people", [2, 3])
def test_of_a_few_people_each_half_has_one(people: int) -> None:
    """Whatever chance says."""
    for corpus in "abcdefgh":
        found = quarters([str(n) for n in range(people)], [corpus] * people)
        assert {part // 2 for part in found} == {0, 1}
