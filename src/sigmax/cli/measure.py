"""Measure a model on data, and fit its probabilities anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sigmax.cli.app import command
from sigmax.cli.console import bar, deliver, deliver_evaluation, out, print_json, quiet, say
from sigmax.cli.data import read
from sigmax.cli.options import AsJson, Data, Model, Reading
from sigmax.cli.scores import (
    LowerIsBetter,
    Qrels,
    ScoreColumns,
    Unjudged,
    calibrate_table,
    evaluate_scores,
    is_score_folder,
    only_for_scores,
)
from sigmax.errors import DataError
from sigmax.files import check_file, check_folder
from sigmax.training.option import Option

__all__ = ["calibrate", "evaluate"]


@command("Measure")
def evaluate(
    folder: Model,
    data: Data,
    reading: Reading,
    split: Annotated[
        str, Option("Which queries: {choices}.", group="data", choices="sigmax.data.dataset:SPLITS", open=True)
    ] = "test",
    qrels: Qrels = None,
    unjudged: Unjudged = None,
    figure: Annotated[
        Path | None,
        Option("Draw the reliability of presences to this .png, .svg or .pdf file.", group="run", shown="FILE"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a model's metrics on DATA, each with its 95% interval.

    Ranking over all candidates of DATA; presence, calibrated on dev when the model was trained; none-of-these, if DATA
    has queries with no right answer.

    DIR may hold calibrated scores (`sigmax calibrate SCORES -o DIR`); DATA is then a table of scores with their truth.

    Example: sigmax evaluate runs/scores test.csv
    """
    if figure is not None:
        check_file(figure)
    quiet()
    if is_score_folder(folder):
        evaluate_scores(folder, data, reading, qrels, unjudged, figure, as_json)
        return
    only_for_scores(**{"--qrels": qrels, "--unjudged": unjudged})
    from sigmax.evaluation import evaluate as measure
    from sigmax.model import load

    model = load(folder)
    if figure is not None and model.calibrator is None:
        raise DataError(
            f"{folder}: the model was not calibrated, so there is no reliability to draw. Calibrate it first."
        )
    dataset = read(data, reading)
    with bar("measuring"):
        evaluation = measure(model, dataset, split=split)

    deliver_evaluation(evaluation, Path(folder).name, figure, as_json)


@command("Measure")
def calibrate(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR|SCORES", help="Model folder, as `sigmax train` writes it; or, without DATA, a file of scores."
        ),
    ],
    reading: Reading,
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="File, folder, hf:user/name or built-in set.")
    ] = None,
    output: Annotated[
        Path | None,
        Option("Folder for calibrated scores.", group="run", shown="DIR", flags=("--output", "-o")),
    ] = None,
    scores: ScoreColumns = "",
    lower_is_better: LowerIsBetter = None,
    qrels: Qrels = None,
    unjudged: Unjudged = None,
    split: Annotated[
        str,
        Option(
            "Which queries: {choices}; none that the model was trained on.",
            group="data",
            choices="sigmax.data.dataset:SPLITS",
            open=True,
        ),
    ] = "dev",
    method: Annotated[
        str,
        Option(
            "Curve from logit to presence: {choices}, or auto: the lowest cross-validated log loss.",
            group="run",
            choices="sigmax.calibration:CALIBRATIONS",
            open=True,
        ),
    ] = "auto",
    held_out: Annotated[
        float,
        Option(
            "Part of the queries, such as 0.5, that nothing is fitted on and rules are decided by: promises then hold "
            "by construction, for fewer queries to fit and to promise on. 0: all queries serve both, with a margin.",
            group="run",
            shown="PART",
            least=0.0,
            most=0.99,
        ),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Fit a model's presences, P(any) and rules anew, on DATA and its candidates.

    For a model whose candidates or questions have changed since training, or that was saved without calibration. The
    model in DIR keeps its encoders and offers the candidates of DATA from now on.

    Example: sigmax calibrate runs/faq/sigmoid faq-of-this-year.csv

    SCORES instead of a model: what any scorer gave, a table with query, candidate, score (or several columns of scores)
    and right (1, 0, empty for unjudged); a TREC run, or several separated by commas, with --qrels; JSON of
    {query: {candidate: score}} with --qrels. The folder then rates other scores of the same scorer.

    Example: sigmax calibrate scores.csv --scores bm25,dense,rerank -o runs/scores
    """
    if data is None:
        quiet()
        calibrate_table(folder, reading, scores, lower_is_better, qrels, unjudged, method, held_out, output, as_json)
        return
    only_for_scores(
        **{
            "--output": output,
            "--scores": scores or None,
            "--lower-is-better": lower_is_better,
            "--qrels": qrels,
            "--unjudged": unjudged,
        }
    )
    check_folder(Path(folder))
    quiet()
    from sigmax.evaluation import calibrate as fit
    from sigmax.model import load
    from sigmax.model.remembered import remember, trained_on
    from sigmax.report.tables import calibration_table, threshold_rows

    model, dataset = load(Path(folder)), read(data, reading)
    with bar("calibrating"):
        if model.novelty is None and trained_on(model, dataset):  # saved before training queries were kept
            remember(model, dataset)
        calibrator = fit(model, dataset, split=split, method=method, held_out=held_out)
    model.candidates, model.candidate_ids = list(dataset.candidates), list(dataset.candidate_ids)

    def show() -> None:
        if as_json:
            print_json({key: value for key, value in calibrator.as_dict().items() if key != "candidate_ids"})
            return
        out.print(calibration_table(calibrator))
        rows = threshold_rows(calibrator)
        if rows is not None:
            out.print(rows)

    def save() -> None:
        index = (Path(folder) / "index").exists()
        model.save(Path(folder))
        say(f"Written: {folder}")
        if index:
            say(f"The index knew the calibration before and is gone. Build it again: sigmax index {folder}")

    deliver(show, save)
