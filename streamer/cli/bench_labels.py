"""The verbs that compare generated labels: `tamulag bench labels` and `tamulag bench triples`.

Knows their options and their output. Parts are imported only when they run.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .bench import plain, table, within
from .data import Json, quiet_threads
from .train import show_progress

if TYPE_CHECKING:
    from tamulag.models.bench.label_agreement import LabelScore
    from tamulag.models.bench.label_proof import Proof, Span
    from tamulag.models.data.clips import Clip
    from tamulag.models.text.text_encoder import TextEncoder

Kind = Literal["ulag", "ulgm", "ulag_release", "both"]


def register(bench_app: typer.Typer) -> None:
    """Add the verbs of this file to `tamulag bench`."""
    bench_app.command("labels")(bench_labels)
    bench_app.command("triples")(bench_triples)


def bench_labels(
    data: Annotated[Path, typer.Option(help="CSV with text,label,label_T,label_A,label_V.")],
    valid: Annotated[
        Path | None, typer.Option(help="CSV that chooses the epoch. Default: valid.csv beside it.")
    ] = None,
    labels: Annotated[Kind | None, typer.Option(help="Generator. Default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per row.")] = 5,
    epochs: Annotated[int, typer.Option(min=2, help="At most.")] = 8,
    snr: Annotated[
        list[float] | None, typer.Option(help="Noise of simulated voice and face in dB.")
    ] = None,
    gradient: Annotated[
        Literal["full", "experts", "none"],
        typer.Option(help="Reach of the loss of a label of ulag_release."),
    ] = "full",
    as_json: Json = False,
) -> None:
    """Compare generated unimodal labels with those that people gave, on CH-SIMS.

    The training sees the clips' labels alone. Text is real. Voice and face do not exist for this
    corpus: they are SIMULATED from the human labels, with noise of `--snr` dB per clip. Then the
    gain of `ulag` over copies, and text heads by ridge that were trained on either, with the
    central 95 % over videos; and joint trainings with either.

    Example: tamulag bench labels --data data/sims/train.csv --labels ulag
    """
    quiet_threads()
    from tamulag.models.bench.label_agreement import KINDS, against
    from tamulag.models.bench.label_proof import prove
    from tamulag.models.runtime.checkpoint import MULTILINGUAL
    from tamulag.models.text.text_encoder import TextEncoder

    numbers = range(1, seeds + 1)
    with show_progress() as (log, progress):
        log("text is encoded")
        encoder = TextEncoder(name=MULTILINGUAL)
        clips = _clips(data, encoder), _clips(valid or data.parent / "valid.csv", encoder)
        rows = against(
            *clips,
            kinds=(labels,) if labels else KINDS,
            snrs=[0.0] if snr is None else snr,
            seeds=numbers,
            epochs=epochs,
            gradient=gradient,
            log=log,
            progress=progress,
        )
        proof = prove(*clips, numbers, progress, epochs=epochs)
    if as_json:
        shown = [plain(row._asdict()) for row in rows]
        print(json.dumps({"seeds": seeds, "rows": shown, "proof": _report(proof)}))
        return
    _show(rows)
    print("\n" + ", ".join(f"{key} {_span(span)}" for key, span in proof.gain.items()))
    print("is the gain of ulag over copies.\n")
    table(
        {"head trained on": head.trained_on, "measured on labels of": head.measured_on}
        | {key: f"{head.figures[key]:.3f}" for key in head.figures}
        | {f"{key} over copied": _span(span) for key, span in head.gain.items()}
        for head in proof.heads
    )
    print()
    table(
        {"joint training with": row.labels}
        | {key: _with(value, row.interval.get(key)) for key, value in row.figures.items()}
        for row in proof.joint
    )


def _show(rows: "list[LabelScore]") -> None:
    from tamulag.models.bench.label_agreement import KINDS, setting

    print("| labels | trained on | modality | Corr | MAE | sign | change |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [_with(value, row.interval.get(key)) for key, value in row.figures.items()]
        where = setting(row.snr) if row.labels in KINDS else "nothing"
        print(f"| {row.labels} | {where} | {row.modality} | {' | '.join(cells)} |")


def _with(value: float, interval: float | None) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if interval is None else f"{value:.3f} ± {interval:.3f}"


def _span(span: "Span") -> str:
    return within(*span)


def _report(proof: "Proof") -> dict[str, object]:
    return {
        "gain": _spans(proof.gain),
        "heads": [head._asdict() | {"gain": _spans(head.gain)} for head in proof.heads],
        "joint": [plain(row._asdict()) for row in proof.joint],
    }


def _spans(gain: "Mapping[str, Span]") -> dict[str, object]:
    return {key: plain(span._asdict()) for key, span in gain.items()}


def _clips(path: Path, encoder: "TextEncoder") -> "list[Clip]":
    from tamulag.models.data.clips import HUMAN, DataError, read_labelled
    from tamulag.models.data.text_csv import text_clips

    rows = [row for row in read_labelled(path, limit=1.0) if row.unimodal.keys() == HUMAN.keys()]
    if not rows:
        raise DataError(f"{path} has no row with {', '.join(HUMAN.values())}: use CH-SIMS's file")
    states = encoder.encode_batch([row.text for row in rows])
    return text_clips(rows, states)


def bench_triples(
    judgements: Annotated[
        Path, typer.Option(help="CSV with text,label,label_T,label_A,label_V in [-1, 1]: CH-SIMS.")
    ],
    texts: Annotated[list[Path], typer.Option(help="CSV of texts; several times.")],
    voices: Annotated[list[Path], typer.Option(help="Feature file with voices; several times.")],
    faces: Annotated[list[Path], typer.Option(help="Feature file with faces; several times.")],
    triples: Annotated[int, typer.Option(min=100, help="Drawn per seed.")] = 2000,
    seeds: Annotated[int, typer.Option(min=1, help="Draws.")] = 5,
    as_json: Json = False,
) -> None:
    """Compare labels that ULAG generates with copies where each modality's own label is known.

    Clips of different people are put together to triples whose labels come together as people's do;
    the label of a triple is people's law on the three, and all that the method sees. Then heads,
    trained on copied, generated or own labels, on clips of other people.

    Example: tamulag bench triples --judgements data/sims/train.csv --texts data/mosi/train.csv
    --voices features/ravdess.safetensors --faces features/faces-train.safetensors
    """
    quiet_threads()
    from tamulag.models.bench.judgement import judgements as read_judgements
    from tamulag.models.bench.triple_labels import compare_triples, of_features, of_texts
    from tamulag.models.text.text_encoder import TextEncoder

    people = read_judgements(judgements)
    with show_progress() as (log, _):
        log("text is encoded")
        clips = {
            "text": of_texts(texts, TextEncoder().encode_batch),
            "audio": of_features(voices, "audio"),
            "vision": of_features(faces, "vision"),
        }
        rows = compare_triples(clips, people, range(1, seeds + 1), triples=triples, log=log)
    if as_json:
        print(json.dumps({"law": people.law._asdict(), "rows": [plain(r._asdict()) for r in rows]}))
        return
    print(f"law: {', '.join(f'{weight:.3f}' for weight in people.law.weights)}")
    print("| what | labels | modality | Corr | MAE | sign | conflict |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [
            _with(row.figures[key], row.interval.get(key)) if key in row.figures else ""
            for key in ("Corr", "MAE", "sign", "conflict")
        ]
        print(f"| {row.what} | {row.labels} | {row.modality} | {' | '.join(cells)} |")
