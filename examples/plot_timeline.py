"""Draw a session over time: words, voice and face, the fused score in its interval, the trend.

    tamulag-stream --demo --speed max --websocket none --duration 44 --jsonl demo.jsonl
    python examples/plot_timeline.py demo.jsonl demo.png

A past session: `tamulag sessions export ID --format jsonl --out past.jsonl`. Of a file with several
sessions the last one is drawn; the ending says what is written: .png, .svg or .pdf.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any

from matplotlib.figure import Figure

PARTS = {"text": "words", "audio": "voice", "vision": "face"}
LIMIT = 3.0


def scores(path: str) -> list[dict[str, Any]]:
    """Return the scores of the last session in a file of messages, one a line."""
    with open(path, encoding="utf-8") as file:
        messages = [json.loads(line) for line in file if line.strip()]
    found = [message for message in messages if message["type"] == "sentiment"]
    return [message for message in found if message["session"] == found[-1]["session"]]


def number(message: Mapping[str, Any], key: str) -> float:
    """Return a number of a message; what is not there leaves a gap."""
    value = message.get(key)
    return nan if value is None else float(value)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw scores, oldest first."""
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    axes = figure.subplots()
    ends = [row["window"]["end"] for row in rows]
    bounds = [row["interval"] or (nan, nan) for row in rows]
    low, high = zip(*bounds, strict=True)
    axes.fill_between(ends, low, high, color="0.9", label="90 % interval")
    for part, name in PARTS.items():
        line = [number(row["modalities"][part], "sentiment") for row in rows]
        if not all(map(isnan, line)):
            axes.plot(ends, line, linewidth=1, label=name)
    axes.plot(ends, [number(row, "sentiment") for row in rows], color="0.4", label="fused")
    axes.plot(ends, [number(row, "trend") for row in rows], "k", linewidth=2, label="trend")
    axes.axhline(0, color="0.6", linewidth=0.5)
    axes.set(xlabel="seconds", ylabel="sentiment", ylim=(-LIMIT, LIMIT), xlim=(0, ends[-1]))
    axes.legend(ncols=3, fontsize="small", loc="lower right")
    return figure


def main(path: str, picture: str) -> None:
    """Read messages, write a picture, and say what it shows."""
    rows = scores(path)
    if not rows:
        raise ValueError("no score in it")
    draw(rows).savefig(picture, dpi=100)
    print(f"{picture}: {len(rows)} scores, {rows[-1]['window']['end']:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: plot_timeline.py MESSAGES.jsonl PICTURE.png")
    try:
        main(*sys.argv[1:])
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(
            f"{' '.join(sys.argv[1:])}: {error!r}: give a file of --jsonl or of `tamulag sessions "
            "export --format jsonl`, and a picture to write"
        )
