"""What the README and the docs say, compared with the tree, the code and the checkpoint."""

import ast
import hashlib
import importlib
import json
import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from test_architecture import FOLDERS
from typer.main import get_command

from tamulag.models.evaluation.evaluate import evaluate_texts
from tamulag.models.runtime.checkpoint import load, resolve
from tamulag.streamer.cli.main import app
from tamulag.streamer.config.loader import load as load_config
from tamulag.streamer.protocol import messages
from tools import reference_pages

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SHELVES = ("guide", "reference", "explanation")
README = (ROOT / "README.md").read_text()
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
]
MESSAGE = (DOCS / "reference" / "message.md").read_text()
ARCHITECTURE = (DOCS / "explanation" / "architecture.md").read_text()
CARD_PAGE = (DOCS / "explanation" / "checkpoint.md").read_text()
METRICS = ("MAE", "Corr", "Acc2_has0", "Acc2_non0", "F1_has0", "F1_non0", "Acc7")
PROJECT = r"\b(?:streamer|models|tests|configs|scripts|examples|docs)/[\w./-]*\w"
GONE = {"examples/seat.py"}
"""What CHANGELOG.md says is gone."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def blocks(language: str, text: str = README) -> list[str]:
    """Return the code blocks of a language, "" for those without one."""
    found = [block.partition("\n") for block in text.split("\n```")[1::2]]
    return [text for name, _, text in found if name == language]


def code() -> Iterator[Path]:
    """Yield every file that may name a page: code, settings, examples, scripts."""
    for folder in ("streamer", "models", "tests", "configs", "examples", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".html", ".js", ".mjs", ".service", ".sh", ""):
                yield from [path] if path.is_file() else []


def test_the_readme_takes_five_minutes() -> None:
    """Nobody reads more before trying something."""
    assert len(README.splitlines()) <= 150
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 40


def test_there_are_two_commands_and_both_can_be_run() -> None:
    """The demo, which installs, and the first camera: the first block of the README."""
    commands = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert commands == ["scripts/demo", "tamulag-stream --camera 0"]
    assert os.access(ROOT / "scripts" / "demo", os.X_OK)


def test_the_message_shown_fits_the_schema() -> None:
    """The example is what a subscriber gets, not what it once was."""
    (example,) = blocks("json")
    jsonschema.validate(json.loads(example), messages.schema())
    assert messages.decode(example).type == "sentiment"


def test_the_programs_shown_are_short_python() -> None:
    """The agent and the subscriber of the README can be pasted; ten lines each."""
    programs = blocks("python")
    assert len(programs) == 2
    assert all(len([line for line in one.splitlines() if line]) <= 10 for one in programs)
    for program in programs:
        compile(program, "README.md", "exec")


@every_page
def test_every_import_shown_works(page: Path) -> None:
    """What a page imports from this project is there, in blocks as in commands."""
    shown = re.findall(r"from (tamulag[\w.]*) import ([\w, ]+)", page.read_text())
    for module, names in shown:
        found = importlib.import_module(module)
        assert [name for name in re.split(r", *", names.strip()) if not hasattr(found, name)] == []


@every_page
def test_every_verb_named_exists(page: Path) -> None:
    """`tamulag VERB` in code is a verb of the command line."""
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"(?:`|^ *)tamulag ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named <= set(verbs)


@every_page
def test_every_option_shown_exists(page: Path) -> None:
    """An option in a line of a shell block can be typed with its verb."""
    known = {
        name: {one for parameter in parameters for one in parameter.opts}
        for name, _, parameters in reference_pages.verbs()
    }
    for line in chain.from_iterable(block.splitlines() for block in blocks("sh", page.read_text())):
        typed = line.split(" #")[0].split(" | ")[0].replace("tamulag-stream", "tamulag stream")
        for command in re.findall(r"\btamulag ([a-z]+(?: [a-z]+)?[^;&]*)", typed):
            first, second = [*command.split(), ""][:2]
            options = known.get(f"{first} {second}", known.get(first, set()))
            assert {w for w in command.split() if w[:2] == "--"} <= options | {"--help"}, line


@every_page
def test_the_settings_shown_can_be_used(page: Path, tmp_path: Path) -> None:
    """A block of TOML is a whole settings file, unless it is a training file."""
    for number, block in enumerate(blocks("toml", page.read_text())):
        if "kind = " not in block:
            path = tmp_path / f"{number}.toml"
            path.write_text(block)
            load_config(path, {})


@pytest.mark.parametrize("page", list(reference_pages.PAGES))
def test_the_reference_is_that_of_the_code(page: str) -> None:
    """cli.md has every verb with its options, configuration.md every key with its range."""
    _, mark, shown = (DOCS / "reference" / page).read_text().partition(reference_pages.MARK)
    assert mark
    remedy = "python -m tests.tools.reference_pages"
    assert shown.strip() == reference_pages.PAGES[page]().strip(), remedy


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links to files of the project exist, and so do the headings behind their #."""
    text = re.sub(r"`[^`\n]*`(?!\])", "", page.read_text())
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if re.match(r"https?://|ws://", link):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles]
            assert heading in anchors, link


def test_the_index_has_every_page_once() -> None:
    """Nothing lies outside the three shelves, and the index forgets none and names none twice."""
    index = re.findall(r"^\| \[[\w-]+\]\(([^)]+)\)", (DOCS / "index.md").read_text(), re.MULTILINE)
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(index) == sorted(there - {"index.md"})
    assert {path.parent.name for path in DOCS.rglob("*.md")} == {"docs", *SHELVES}


@every_page
def test_every_file_named_is_there(page: Path) -> None:
    """A path below a folder of the project is that of a file or folder, wherever it stands."""
    text = re.sub(r"\]\([^)]+\)|https?://\S+", "", page.read_text())
    named = set(re.findall(rf"(?<![\w/.-]){PROJECT}", text)) - GONE
    assert {name for name in named if "FOLDER" not in name and not (ROOT / name).exists()} == set()


def test_every_page_named_in_code_is_there() -> None:
    """An error, a comment or a setting that sends people to a page sends them to a real one."""
    lost = {
        (name_of(path), page)
        for path in code()
        for page in re.findall(r"\bdocs/[\w./-]*\.md\b", path.read_text(errors="ignore"))
        if not (ROOT / page).is_file()
    }
    assert lost == set()


def test_the_folders_of_the_architecture_are_those_of_the_code() -> None:
    """docs/explanation/architecture.md lists the folders of both packages in their order."""
    for package, order in FOLDERS.items():
        part = ARCHITECTURE.split(f"\n### {package}/\n")[1].split("\n#")[0]
        assert re.findall(r"^\| `(\w+)/` \|", part, re.MULTILINE) == list(order)


@pytest.mark.parametrize(
    ("question", "file"),
    [
        ("Which frame of a slow worker is dropped?", "frame_queue.py"),
        ("Where is the voice's clock fitted?", "clock_fit.py"),
        ("Who refuses a session?", "admission.py"),
    ],
)
def test_a_file_is_three_steps_from_the_index(question: str, file: str) -> None:
    """Index, architecture, file: by names alone."""
    assert "explanation/architecture.md" in (DOCS / "index.md").read_text()
    (row,) = [line for line in ARCHITECTURE.splitlines() if line.startswith(f"| {question} |")]
    assert file in row


def test_every_environment_variable_is_explained() -> None:
    """docs/reference/configuration.md names each variable of ours that the code reads."""
    page = (DOCS / "reference" / "configuration.md").read_text()
    text = "".join(path.read_text() for path in (ROOT / "streamer").rglob("*.py"))
    names = set(re.findall(r'"(TAMULAG_[A-Z_]+)"', text))
    assert names
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_message_field_and_status_is_explained() -> None:
    """docs/reference/message.md names each type, field, status and state of the schema."""
    parts: dict[str, dict[str, object]] = messages.schema()["$defs"]  # type: ignore[assignment]
    names = {name for part in parts.values() for name in part["properties"]}  # type: ignore[attr-defined]
    kinds = [kind.model_fields["type"].annotation for kind in get_args(messages.AnyMessage)]
    literals = [*kinds, messages.Status, messages.StateWord]
    words = names.union(*(get_args(literal) for literal in literals))
    assert {word for word in words if f"`{word}`" not in MESSAGE} == set()


def test_every_reason_in_the_code_is_explained() -> None:
    """A word in quotes that ends or begins like a reason has its row in the message's page."""
    # The benches send no message.
    files = (p for p in (ROOT / "streamer").rglob("*.py") if "bench" not in p.parts)
    text = "".join(path.read_text() for path in files)
    reasons = set(re.findall(r'"(no_[a-z]+|[a-z]+_lost|silence|head_untrained)"', text))
    assert len(reasons) > 5
    assert {reason for reason in reasons if f"`{reason}`" not in MESSAGE} == set()


def test_every_gauge_is_explained() -> None:
    """docs/reference/metrics.md names the figures that agent, sources and server return."""
    page = (DOCS / "reference" / "metrics.md").read_text()
    rows = chain.from_iterable(re.findall(r"`([a-z_0-9*]+)`", line) for line in page.splitlines())
    known = re.compile("|".join(name.replace("*", r"\w+") for name in rows))
    names = set()
    for path in (ROOT / "streamer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "gauges":
                dicts = [one for one in ast.walk(node) if isinstance(one, ast.Dict)]
                keys = chain.from_iterable(one.keys for one in dicts)
                names |= {key.value for key in keys if isinstance(key, ast.Constant)}
    assert len(names) > 15
    assert {name for name in names if not known.fullmatch(str(name))} == set()


@pytest.mark.parametrize(
    ("figure", "page"),
    [
        ("0.28 core", "performance.md"),
        ("1129 MB", "performance.md"),
        ("2.5 s", "performance.md"),
        ("1,000", "performance.md"),
        ("87.0 %", "results.md"),
    ],
)
def test_the_figures_of_the_readme_are_those_of_their_pages(figure: str, page: str) -> None:
    """A figure that is measured again changes in both."""
    assert figure in README
    assert figure in (DOCS / "explanation" / page).read_text()


@every_page
def test_every_page_has_the_words_of_the_field(page: Path) -> None:
    """No name of the flat folders with their hotel is left."""
    old = r"hall|lobby|desk|crew|wings?|staff|guest|reception|teller|whoever"
    assert re.findall(rf"\b(?:{old})\b", page.read_text(), re.IGNORECASE) == []


def row(name: str, figures: dict[str, float], prefix: str = "") -> str:
    """Return the row of the checkpoint's page for a head or a file."""
    cells = [f"{figures[prefix + key]:.3f}" for key in METRICS]
    return f"| {name} | {figures[prefix + 'n']:.0f} | {' | '.join(cells)} |"


@pytest.mark.parametrize("head", ["text.mosi", "text.mosei", "audio", "vision"])
def test_the_figures_of_the_heads_are_those_of_the_card(head: str) -> None:
    """After a new training the table must be written again; the wanted row is in the failure."""
    assert CARD_PAGE.splitlines().count(row(head, load("default")[1].figures, f"{head}.")) == 1


def test_every_row_of_a_table_has_the_cells_of_its_header() -> None:
    """A row of another table that was pasted over one is found."""
    for page in DOCS.rglob("*.md"):
        width = 0
        for line in page.read_text().splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not width or not cells or cells == width, f"{page.name}: {line}"
            width = cells


def test_the_intervals_are_those_of_the_card() -> None:
    """The table has each set of present modalities, the least content first, and no other."""
    card = load("default")[1]
    wanted = []
    for name, half in card.interval.items():
        cells = [f"{width:.2f}" for width in (*card.begun.get(name, ()), half)]
        counts = [", ".join(map(str, card.clips[name]))] if name in card.clips else []
        wanted.append(f"| {' | '.join([name, *cells, *counts])} |")
    for name, quantile in card.quantile.items():
        wanted.append(f"| {name} | {quantile:.2f} | {card.clips[name][0]} |")
    table = CARD_PAGE.split("\n## Intervals\n")[1].split("\n## ")[0]
    found = [line for line in table.splitlines() if re.match(r"\| [a-z+]+ \| \d", line)]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(
    ("checkpoint", "page", "again"),
    [
        ("default", "checkpoint.md", "measure `Everyday voices` and `crossval`"),
        ("default", "results.md", "run its commands"),
        ("large", "checkpoint-large.md", "run its commands"),
        ("zh", "checkpoint-zh.md", "run its commands"),
    ],
)
def test_the_page_speaks_of_the_checkpoint_that_is_shipped(
    checkpoint: str, page: str, again: str
) -> None:
    """Figures that are too slow to measure here belong to these very weights."""
    sha256 = hashlib.sha256(resolve(checkpoint).read_bytes()).hexdigest()
    remedy = f"{page}: {again} again, then write the sha256 {sha256[:12]}"
    assert f"`{sha256[:12]}`" in (DOCS / "explanation" / page).read_text(), remedy


@pytest.mark.data
def test_the_figures_on_mosi_are_what_evaluate_gives(data: Path) -> None:
    """The row of mosi/valid.csv can be repeated."""
    figures = evaluate_texts(data / "mosi" / "valid.csv", "default", lambda _: None)
    assert row("mosi/valid.csv", figures) in CARD_PAGE.splitlines()
