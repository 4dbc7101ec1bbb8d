"""Scores that others made: what calibrate, evaluate, match and compare do with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmax.cli.console import bar, deliver, deliver_evaluation, out, print_json, say
from sigmax.cli.options import renamed
from sigmax.errors import DataError, nearest
from sigmax.files import check_file, check_folder
from sigmax.scores.folder import check_score_place, is_score_folder
from sigmax.training.option import Option

if TYPE_CHECKING:
    from sigmax.explain import Explanation
    from sigmax.scores.table import Scores

__all__ = [
    "LowerIsBetter",
    "Qrels",
    "ScoreColumns",
    "Unjudged",
    "are_scores",
    "calibrate_table",
    "compare_table",
    "evaluate_scores",
    "explained_scores",
    "is_score_folder",
    "match_scores",
    "only_for_scores",
    "read_table",
]

ScoreColumns = Annotated[
    str,
    Option(
        "Of scores: the columns, separated by commas. Default: score, or else all of numbers.",
        group="scores",
        shown="NAMES",
    ),
]
LowerIsBetter = Annotated[
    str | None,
    Option(
        "Of scores: columns that are distances, separated by commas; none: no column is. Default: found out, and told.",
        group="scores",
        shown="NAMES",
    ),
]
Qrels = Annotated[
    Path | None,
    Option(
        "Of scores: file that says which candidates are right: TREC's, BEIR's, or a table (query, candidate, right).",
        group="scores",
        shown="FILE",
    ),
]
Unjudged = Annotated[
    str | None,
    Option(
        "Of scores: what unjudged candidates are: {choices}. Default: ignored; wrong with --qrels.",
        group="scores",
        shown="NAME",
        choices="sigmax.scores.table:UNJUDGED",
    ),
]


def are_scores(source: str, columns: str) -> bool:
    """Whether a text names scores: TREC runs, predictions, or a table with the columns query and candidate."""
    parts = [Path(source)] if Path(source).exists() else [Path(part.strip()) for part in source.split(",")]
    if not all(path.is_file() for path in parts):
        return False
    from sigmax.scores.read import are_scores

    return are_scores(source, renamed(columns))


def only_for_scores(**given: Any) -> None:
    """Refuse options of scores where there are none.

    Raises:
        typer.BadParameter: one is given.
    """
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter("is for scores that others made, and DIR or DATA is none.", param_hint=name)


def read_table(source: str, reading: dict[str, Any], scores: str, qrels: Path | None, unjudged: str | None) -> Scores:
    """Read scores as the options say, and tell what was mended."""
    from sigmax.scores import read_scores

    with bar("reading scores"):
        found = read_scores(
            source,
            scores=_names(scores) or (),
            columns=renamed(reading["columns"] or ""),
            qrels=qrels,
            unjudged=unjudged,
            delimiter=reading["delimiter"],
        )
    for note in found.notes:
        say(f"• {note}.")
    return found


def calibrate_table(
    source: str,
    reading: dict[str, Any],
    columns: str,
    lower_is_better: str | None,
    qrels: Path | None,
    unjudged: str | None,
    method: str,
    held_out: float,
    output: Path | None,
    as_json: bool,
) -> None:
    """Calibrate a table of scores, write the folder."""
    if Path(source).is_dir():
        raise typer.BadParameter(
            f"{source} is a folder; expected DIR DATA, a model and the data to calibrate it on, or a file of scores."
        )
    if output is None:
        raise typer.BadParameter("calibrated scores need a folder of their own: -o DIR.", param_hint="--output")
    check_score_place(output)
    check_folder(output)
    scores = read_table(source, reading, columns, qrels, unjudged)
    from sigmax.report.score_tables import weights_table
    from sigmax.report.tables import calibration_table, threshold_rows
    from sigmax.scores import calibrate_scores

    with bar("calibrating"):
        model = calibrate_scores(scores, method=method, lower_is_better=_names(lower_is_better), held_out=held_out)
    for note in model.facts["notes"]:
        if note not in scores.notes:
            say(f"• {note}.")

    def show() -> None:
        if as_json:
            saved = {key: value for key, value in model.calibrator.as_dict().items() if key != "candidate_ids"}
            print_json({**saved, "combination": model.combination.as_dict(), "facts": dict(model.facts)})
            return
        out.print(weights_table(model))
        out.print(calibration_table(model.calibrator))
        rows = threshold_rows(model.calibrator)
        if rows is not None:
            out.print(rows)

    def save() -> None:
        model.save(output)
        say(f"Written: {output}. Next: sigmax match {output} OTHER-SCORES -o answers.csv")

    deliver(show, save)


def evaluate_scores(
    folder: str,
    source: str,
    reading: dict[str, Any],
    qrels: Path | None,
    unjudged: str | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Measure calibrated scores on a table with its truth."""
    from sigmax.scores import ScoreModel

    model = ScoreModel.load(folder)
    names = ",".join(column.name for column in model.combination.columns)
    scores = read_table(source, reading, names, qrels, unjudged)
    for note in model.fingerprint.unlike(scores):
        say(f"• {note}.")
    with bar("measuring"):
        evaluation = model.evaluate(scores)

    deliver_evaluation(evaluation, Path(folder).name, figure, as_json)


def match_scores(
    folder: str,
    sources: list[str],
    output: str,
    reading: dict[str, Any],
    rule: str,
    confidence: float,
    as_json: bool,
) -> None:
    """Rate the rows of a table of scores."""
    if len(sources) != 1:
        raise typer.BadParameter(
            f"{folder} holds calibrated scores: expected one table of scores, got {len(sources) or 'none'}."
        )
    if as_json and output == "-":
        raise typer.BadParameter("rows go to standard output as CSV; with --json give -o FILE.", param_hint="--json")
    if output != "-":
        check_file(Path(output))
    from sigmax.scores import ScoreModel
    from sigmax.scores.stream import rate_table

    model = ScoreModel.load(folder)
    with bar("rating"):
        done = rate_table(
            model,
            sources[0],
            output,
            columns=renamed(reading["columns"]),
            delimiter=reading["delimiter"],
            rule=rule,
            confidence=confidence,
        )
    for note in done.notes:
        say(f"• {note}.")
    decision = done.decision
    if decision.reason:
        say(f"{decision.choice}: {decision.reason}")
    if decision.promise:
        say(decision.promise)
    counts = {
        "rows": done.rows,
        "queries": done.queries,
        "accepted": done.accepted,
        "queries_with_any": done.answered,
    }
    if as_json:
        rule_ = {**decision.as_dict(), "promise": decision.promise}
        print_json({"file": output, **counts, "rule": rule_, "notes": list(done.notes)})
    if output != "-":
        say(
            f"Written: {output}, {done.rows:,} rows of {done.queries:,} queries; {done.accepted:,} accepted, "
            f"{done.answered:,} queries got any"
        )


def compare_table(
    source: str,
    reading: dict[str, Any],
    columns: str,
    lower_is_better: str | None,
    qrels: Path | None,
    unjudged: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Compare the columns of a table of scores, their fusion and their weighted sum."""
    from sigmax.report.score_tables import score_comparison_table
    from sigmax.scores import compare_scores

    scores = read_table(source, reading, columns, qrels, unjudged)
    with bar("comparing"):
        comparison = compare_scores(scores, lower_is_better=_names(lower_is_better), seed=seed)
    if as_json:
        print_json(comparison.as_dict())
        return
    for note in comparison.notes:
        if note not in scores.notes:
            say(f"• {note}.")
    out.print(score_comparison_table(comparison))
    for line in comparison.verdict():
        out.print(line, markup=False, soft_wrap=not out.is_terminal)


def _names(text: str | None) -> list[str] | None:
    """Names separated by commas; "none": none of them; None where nothing was said."""
    if text is None or not text.strip():
        return None
    return [] if text.strip() == "none" else [part.strip() for part in text.split(",") if part.strip()]


def explained_scores(folder: str, table: str, *wanted: str, top_k: int) -> list[Explanation]:
    """Explain what calibrated scores make of some queries' candidates in a table; of the first, if none is named.

    Raises:
        DataError: a query that the table does not hold.
    """
    import numpy as np

    from sigmax.explain import explain_rated
    from sigmax.scores import ScoreModel

    model = ScoreModel.load(folder)
    names = ",".join(column.name for column in model.combination.columns)
    scores = read_table(table, {"columns": "", "delimiter": None}, names, None, None)
    place = {query: at for at, query in enumerate(scores.queries.to_pylist())}
    asked = wanted or tuple(place)[:1]
    for query in asked:
        if query not in place:
            close = nearest(query, place) if len(place) <= 10_000 else ""
            raise DataError(f"{table}: expected a query of the table, got {query!r}.{close}")
    chosen = scores.take(np.array([place[query] for query in asked]))
    rated = model.rate(chosen)
    return [explain_rated([query], [one], model, top_k=top_k)[0] for query, one in zip(asked, rated, strict=True)]
