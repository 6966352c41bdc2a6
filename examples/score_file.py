"""Score a media file into a table: one row for each half second, ready for pandas.

    python examples/score_file.py talk.mp4 [picture.jpg]

In a notebook: rows = await score("talk.mp4"); pandas.DataFrame(rows).plot("end", "sentiment")
"""

import asyncio
import csv
import sys

from tamulag.streamer import Agent, Estimate, MediaFile, TamulagError


def row(estimate: Estimate) -> dict[str, object]:
    """Return an estimate as one flat row; a number that is not there is None."""
    low, high = estimate.interval or (None, None)
    parts = estimate.modalities.items()
    return {
        "start": estimate.start,
        "end": estimate.end,
        "sentiment": estimate.sentiment,
        "low": low,
        "high": high,
        **{name: part.sentiment for name, part in parts},
        **{f"{name}_status": part.status for name, part in parts},
    }


async def score(path: str, still: str | None = None) -> list[dict[str, object]]:
    """Return a row for each half second of a file, as fast as the machine goes.

    Args:
        path: Of a film or sound.
        still: A picture of the face, for sound alone.
    """
    async with Agent([MediaFile(path, speed="max", still=still)]) as agent:
        return [row(estimate) async for estimate in agent.estimates()]


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: score_file.py FILE [PICTURE]")
    try:
        rows = asyncio.run(score(*sys.argv[1:]))
    except TamulagError as error:
        sys.exit(str(error))
    if rows:
        table = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
