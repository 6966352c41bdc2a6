"""What the README and the docs say, compared with the tree, the code and the checkpoint."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from typer.main import get_command

from tamulag.models.evaluation.evaluate import evaluate_texts
from tamulag.models.runtime.checkpoint import load, resolve
from tamulag.streamer.cli.main import app
from tamulag.streamer.protocol import messages

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MESSAGE = (ROOT / "docs" / "message.md").read_text()
CARD_PAGE = (ROOT / "docs" / "checkpoint.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
FOLDERS = ("streamer", "models", "configs", "scripts", "docs", "examples", "tests")
METRICS = ("MAE", "Corr", "Acc2_has0", "Acc2_non0", "F1_has0", "F1_non0", "Acc7")


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language, "" for those without one."""
    found = [block.partition("\n") for block in README.split("\n```")[1::2]]
    return [text for name, _, text in found if name == language]


def mapped() -> Iterator[str]:
    """Yield the paths of the file map."""
    folder = ""
    (block,) = [block for block in blocks("") if block.startswith("streamer/")]
    for line in block.splitlines():
        if not line.startswith(" "):
            folder = line
        else:
            name, about = line.split(maxsplit=1)
            assert about
            yield folder + name


def tree() -> set[str]:
    """Return the files of the project's folders; all tests are one line of the map."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(ROOT).as_posix() for path in paths]
    kept = [name for name in names if not re.search(r"(^|/)(\.|__pycache__/)", name)]
    return {re.sub(r"^tests/test_\w+\.py$", "tests/test_*.py", name) for name in kept}


def test_the_file_map_is_the_tree() -> None:
    """Every file has its line, and every line its file."""
    listed = list(mapped())
    assert len(listed) == len(set(listed))
    assert set(listed) == tree()


def test_there_are_two_commands_and_both_can_be_run() -> None:
    """`scripts/demo` and `scripts/test`, executable, in the first block."""
    commands = [line.split()[0] for line in blocks("sh")[0].splitlines()]
    assert commands == ["scripts/demo", "scripts/test"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


def test_the_message_shown_fits_the_schema() -> None:
    """The example is what a subscriber gets, not what it once was."""
    (example,) = blocks("json")
    jsonschema.validate(json.loads(example), messages.schema())
    assert messages.decode(example).type == "sentiment"


def test_the_client_shown_is_python() -> None:
    """It can be pasted."""
    (client,) = blocks("python")
    compile(client, "README.md", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_named_exists(page: Path) -> None:
    """`tamulag VERB` in code is a verb of the command line."""
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"(?:`|^ *)tamulag ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named <= set(verbs)


def test_every_verb_is_explained() -> None:
    """The table of verbs forgets none, `models fetch` and `bench train` included."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"^\| `tamulag ([a-z ]+?)(?: NAME| ID)?` \|", README, re.MULTILINE))
    groups = ("models", "bench", "sessions")
    inner = {f"{group} {name}" for group in groups for name in commands[group].commands}
    # `bench` and `sessions` alone do nothing; `models` alone lists.
    assert named == set(commands) - {"bench", "sessions"} | inner


def test_every_option_named_exists() -> None:
    """An option of `tamulag-stream` in a block of the README can be typed."""
    known = get_command(app).commands["stream"].params  # type: ignore[attr-defined]
    options = {name for parameter in known for name in parameter.opts}
    lines = [line for block in blocks("sh") for line in block.splitlines() if "-stream" in line]
    named = {word for line in lines for word in line.split("#")[0].split() if word[:2] == "--"}
    assert named
    assert named <= options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links to files of the project exist, and so do the headings behind their #."""
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles]
            assert heading in anchors, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_named_is_there(page: Path) -> None:
    """A path below `examples/` is that of a file, wherever it stands."""
    named = set(re.findall(r"\bexamples/[\w./-]*\w", page.read_text()))
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_every_message_field_and_status_is_explained() -> None:
    """docs/message.md names each type, each field, each status and each state of the schema."""
    parts: dict[str, dict[str, object]] = messages.schema()["$defs"]  # type: ignore[assignment]
    names = {name for part in parts.values() for name in part["properties"]}  # type: ignore[attr-defined]
    kinds = [kind.model_fields["type"].annotation for kind in get_args(messages.AnyMessage)]
    literals = [*kinds, messages.Status, messages.StateWord]
    words = names.union(*(get_args(literal) for literal in literals))
    assert {word for word in words if f"`{word}`" not in MESSAGE} == set()


def test_every_reason_in_the_code_is_explained() -> None:
    """A word in quotes that ends or begins like a reason has its row in docs/message.md."""
    code = "".join(path.read_text() for path in (ROOT / "streamer").glob("*.py"))
    reasons = set(re.findall(r'"(no_[a-z]+|[a-z]+_lost|silence|head_untrained)"', code))
    assert len(reasons) > 5
    assert {reason for reason in reasons if f"`{reason}`" not in MESSAGE} == set()


def row(name: str, figures: dict[str, float], prefix: str = "") -> str:
    """Return the row of docs/checkpoint.md for a head or a file."""
    cells = [f"{figures[prefix + key]:.3f}" for key in METRICS]
    return f"| {name} | {figures[prefix + 'n']:.0f} | {' | '.join(cells)} |"


@pytest.mark.parametrize("head", ["text.mosi", "text.mosei", "audio", "vision"])
def test_the_figures_of_the_heads_are_those_of_the_card(head: str) -> None:
    """After a new training the table must be written anew; the wanted row is in the failure."""
    wanted = row(head, load("default")[1].figures, f"{head}.")
    assert wanted in CARD_PAGE.splitlines()
    assert wanted in RESULTS.splitlines()


def test_the_intervals_are_those_of_the_card() -> None:
    """The table has each set of present modalities, least heard first, and no other."""
    card = load("default")[1]
    wanted = []
    for name, half in card.interval.items():
        cells = [f"{width:.2f}" for width in (*card.begun.get(name, ()), half)]
        counts = [", ".join(map(str, card.clips[name]))] if name in card.clips else []
        wanted.append(f"| {' | '.join([name, *cells, *counts])} |")
    table = CARD_PAGE.split("\n## Intervals\n")[1].split("\n## ")[0]
    found = [line for line in table.splitlines() if re.match(r"\| [a-z+]+ \| \d", line)]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(
    ("checkpoint", "page", "again"),
    [
        ("default", "checkpoint.md", "measure `Everyday voices` and `crossval`"),
        ("default", "results.md", "run its commands"),
        ("zh", "checkpoint-zh.md", "run its commands"),
    ],
)
def test_the_page_speaks_of_the_checkpoint_that_is_shipped(
    checkpoint: str, page: str, again: str
) -> None:
    """Figures that are too slow to measure here belong to these very weights."""
    sha256 = hashlib.sha256(resolve(checkpoint).read_bytes()).hexdigest()
    told = f"{page}: {again} again, then write the sha256 {sha256[:12]}"
    assert f"`{sha256[:12]}`" in (ROOT / "docs" / page).read_text(), told


@pytest.mark.data
def test_the_figures_on_mosi_are_what_evaluate_gives(data: Path) -> None:
    """The row of mosi/valid.csv can be repeated."""
    figures = evaluate_texts(data / "mosi" / "valid.csv", "default", lambda _: None)
    assert row("mosi/valid.csv", figures) in CARD_PAGE.splitlines()
