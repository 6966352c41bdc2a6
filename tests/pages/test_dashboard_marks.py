"""What the dashboard's timeline leaves out while it draws, in the Chromium that runs it."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, Page

from support.browser import aside
from support.dashboard import server, shown


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with aside(server) as running, shown(browser, running) as page:
        yield page


THIN = """async ({xs, values, ratio}) => {
    const { thin } = await import("/marks.js");
    const bars = xs.map((x, i) => ({ x: x ?? NaN, i }));
    return thin(bars, (bar) => values[bar.i], ratio).map((bar) => bar.i);
}"""


def test_extremes_and_ends_of_a_column_are_kept(page: Page) -> None:
    """Of seven in one column of pixels the first, lowest, highest and last, in their order."""
    crowd = {"xs": [3 + i / 10 for i in range(7)], "values": [0, 1, 9, 2, -5, 3, 1], "ratio": 1}
    assert page.evaluate(THIN, crowd) == [0, 2, 4, 6]


def test_what_has_a_column_of_its_own_is_kept(page: Page) -> None:
    """Nothing is lost at a bar per pixel, with two device pixels in one, and out of sight."""
    assert page.evaluate(THIN, {"xs": [0, 1, 2], "values": [1, 1, 1], "ratio": 1}) == [0, 1, 2]
    fine = {"xs": [0, 0.5, 1, 1.5], "values": [1, 1, 1, 1], "ratio": 2}
    assert page.evaluate(THIN, fine) == [0, 1, 2, 3]
    assert page.evaluate(THIN, {"xs": [None, None, 4], "values": [0] * 3, "ratio": 1}) == [0, 1, 2]


RUNS = """async (times) => {
    const { runs } = await import("/marks.js");
    const bars = times.map((time) => ({ time }));
    const found = runs(bars, { from: 0, to: bars.length });
    return found.map((piece) => [piece[0].time, piece.at(-1).time]);
}"""


def test_a_gap_parts_and_a_long_stretch_is_whole(page: Page) -> None:
    """The pieces of a stretch share their ends, so that its line has no hole."""
    assert page.evaluate(RUNS, [0, 1, 5, 9, 10]) == [[0, 1], [5, 5], [9, 10]]
    pieces = page.evaluate(RUNS, list(range(200)))
    assert len(pieces) > 1
    assert [pieces[0][0], pieces[-1][1]] == [0, 199]
    assert all(left[1] == right[0] for left, right in pairwise(pieces))


LATE = """async (bars) => {
    const { Timeline } = await import("/chart.js");
    chart.replaceChildren();
    const made = new Timeline(chart, () => {});
    const points = Array.from({ length: bars }, (_, i) => ({ at: (i + 1) / 2, score: 0 }));
    made.set(points.slice(0, -1), [], 0.5);
    made.show(1e9);
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    made.add(points.at(-1));
    const count = () => made.series.score.data().length;
    const before = count();
    made.choose(bars / 2);
    return [before, count()];
}"""


def test_only_a_score_that_moves_the_picture_is_drawn_at_once(page: Page) -> None:
    """Where many share a pixel it waits for the next, but not when its moment is chosen."""
    assert page.evaluate(LATE, 100) == [100, 100]
    assert page.evaluate(LATE, 20_000) == [19_999, 20_000]


def test_the_words_before_a_moment_are_those_of_its_span(page: Page) -> None:
    """Of utterances before, across and in the span only the words in it."""
    found = page.evaluate(
        """async () => {
            const { Store } = await import("/store.js");
            const store = new Store();
            const said = [[1, 2], [8, 9, 10, 11, 12], [], [13, 31]];
            said.forEach((starts, utterance) => store.add({ type: "text", utterance,
                words: starts.map((start) => ({ start })), tail: "so", final: utterance < 3 }));
            const { words, tail } = store.wordsBefore(30, 20);
            return [words.map(({ start }) => start), tail];
        }"""
    )
    assert found == [[11, 12, 13], "so"]
