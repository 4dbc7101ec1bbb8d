"""Watch over a model in use: verify its promises, compare its queries with those of dev, learn from feedback."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmax.cli.app import command
from sigmax.cli.console import bar, deliver, out, print_json, quiet, say
from sigmax.cli.data import read
from sigmax.cli.options import AsJson, Data, Folder, Model, Reading, renamed
from sigmax.cli.scores import Qrels, Unjudged, is_score_folder, only_for_scores, read_table
from sigmax.errors import DataError
from sigmax.files import check_file, check_folder, replace_folder, write_text
from sigmax.training.option import Option

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.scores import ScoreModel, Scores

__all__ = ["drift", "loaded", "recalibrate", "verify"]

Promises = Annotated[
    list[str],
    Option("A rule with its level, such as precision=0.95; may be repeated.", group="check", shown="RULE"),
]


@command("Measure")
def verify(
    folder: Model,
    data: Data,
    reading: Reading,
    promise: Promises = [],  # noqa: B006 - Typer copies it
    metric: Annotated[
        list[str],
        Option("A metric and its bound, such as 'map>=0.8'; may be repeated.", group="check", shown="BOUND"),
    ] = [],  # noqa: B006
    no_calibration: Annotated[
        bool,
        Option(
            "Leave out whether presences are calibrated: slope and expected over actual right pairs from 0.8 to 1.25.",
            group="check",
        ),
    ] = False,
    confidence: Annotated[
        float,
        Option("Confidence with which the promises were made.", group="check", shown="X", least=0.0, most=1.0),
    ] = 0.9,
    alpha: Annotated[
        float, Option("Probability of any false alarm, all checks together.", group="check", shown="X", above=0, most=1)
    ] = 0.05,
    strict: Annotated[bool, Option("Fail too where so few queries cannot tell.", group="check")] = False,
    qrels: Qrels = None,
    unjudged: Unjudged = None,
    junit: Annotated[
        Path | None, Option("Write the checks as JUnit XML, which CI systems show.", group="run", shown="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check on fresh labelled queries that promises, bounds of metrics and calibration still hold.

    Thresholds are those that the rules chose on dev. Chance is taken into account: a check is *broken* where what was
    seen would be rare if it held; *too few to tell* where even a promise broken by far, twice the loss allowed, would
    often go unseen, and then it says how many queries it takes; else *not shown to be broken*. DATA holds queries that
    neither training nor calibration saw, all of its splits; for calibrated scores it is a table of scores with their
    truth.

    Exit code 1 where anything is broken, so that a CI job or a nightly run fails.

    Example: sigmax verify runs/faq fresh.csv --promise precision=0.95 --promise false-claims=0.05 --metric 'map>=0.8'
    """
    if junit is not None:
        check_file(junit)
    quiet()
    from sigmax.report.watch_tables import verification_table
    from sigmax.watch.verify import summary
    from sigmax.watch.verify import verify as run

    model, fresh = loaded(folder, data, reading, qrels, unjudged)
    with bar("verifying"):
        found = run(model, fresh, promise, metric, confidence=confidence, alpha=alpha, calibration=not no_calibration)
    for note in found.notes:
        say(f"• {note}.")

    def show() -> None:
        if as_json:
            print_json(found.as_dict())
        else:
            out.print(verification_table(found))

    def write() -> None:
        if junit is not None:
            write_text(junit, found.junit(Path(folder).name))
            say(f"Written: {junit}")

    deliver(show, write)
    for check in found.broken:
        say(f"Broken: {summary(check)}")
    if found.broken or (strict and found.untold):
        raise typer.Exit(1)


def loaded(
    folder: str, data: str, reading: dict[str, Any], qrels: Path | None, unjudged: str | None
) -> tuple[DualEncoder, MatchDataset] | tuple[ScoreModel, Scores]:
    """A model and its data, or calibrated scores and others."""
    if is_score_folder(folder):
        from sigmax.scores import ScoreModel

        model = ScoreModel.load(folder)
        names = ",".join(column.name for column in model.combination.columns)
        return model, read_table(data, reading, names, qrels, unjudged)
    only_for_scores(**{"--qrels": qrels, "--unjudged": unjudged})
    from sigmax.model import load

    return load(folder), read(data, reading)


@command("Measure")
def drift(
    folder: Model,
    data: Annotated[
        str, typer.Argument(metavar="QUERIES", help="Table of queries as they came; of calibrated scores, of scores.")
    ],
    reading: Reading,
    alpha: Annotated[
        float,
        Option("Probability of a false alarm, however long one watches.", group="check", shown="X", above=0, most=1),
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Say without labels whether queries are still those of dev, and name those that are most unlike.

    Compared are the best logit of each query, the probability that any candidate is right, how many the default rule
    accepts, and, of a model that keeps what it was trained on, how familiar the query is. The alarm is a sequential
    test: bets against "drawn as dev's were", in the order of the table, which reach 1/ALPHA with a probability of at
    most ALPHA where nothing has changed, whenever one looks. Exit code 1 on an alarm.

    Example: sigmax drift runs/faq queries-of-this-week.jsonl --columns query=question
    """
    quiet()
    from sigmax.report.watch_tables import drift_table, unlike_table
    from sigmax.watch.drift import drift as run

    if is_score_folder(folder):
        scores = loaded(folder, data, reading, None, None)
        with bar("comparing with dev"):
            found = run(*scores, alpha=alpha)
    else:
        from sigmax.model import load
        from sigmax.model.bulk import queries_of

        model = load(folder)
        queries = queries_of(model, data, renamed(reading["columns"] or ""))
        with bar("comparing with dev"):
            found = run(model, queries, alpha=alpha)
    if as_json:
        print_json(found.as_dict())
    else:
        out.print(drift_table(found))
        out.print(unlike_table(found))
        out.print(found.words(), markup=False, soft_wrap=not out.is_terminal)
    if found.alarm is not None:
        raise typer.Exit(1)


@command("Measure")
def recalibrate(
    folder: Folder,
    feedback: Annotated[
        str,
        typer.Argument(
            metavar="FEEDBACK",
            help="Table with query, candidate and right (1, 0, empty for unjudged), and propensity where it is known.",
        ),
    ],
    reading: Reading,
    gathered: Annotated[
        str,
        Option("Which candidates were judged: {choices}.", group="check", choices="sigmax.watch:GATHERED"),
    ] = "all",
    old_weight: Annotated[
        float,
        Option(
            "What an old dev pair counts beside a new judgement; with --gathered accepted, the part of dev that is "
            "not replaced above the threshold.",
            group="check",
            shown="X",
            least=0.0,
        ),
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Move presences by feedback from use: fit them anew on dev and on what was judged, and say what moved.

    Of a model, FEEDBACK names its queries and candidates. Of calibrated scores it is the table that `sigmax match`
    wrote, with `right` filled in where people said so; where at least 50 lists are judged throughout, the weights of
    the columns, presences and any right are fitted anew on these and on the part OLD-WEIGHT of the dev lists. Where
    only accepted candidates were judged, say so (--gathered accepted): dev then stays what it is below the threshold.
    Each judgement weighs 1 / propensity where the table says with which chance it was asked for.

    It is refused where feedback that was not fitted on is not told better, beyond chance; the model then stays as it
    is. The old one is kept beside it, in DIR.before. Promises stay those of dev, but for whole lists: from 200 on they
    are made anew on the feedback. It says what they are about; `sigmax verify` says whether they hold.

    Example: sigmax recalibrate runs/faq feedback.csv --gathered accepted
    """
    before = folder.with_name(f"{folder.resolve().name}.before")
    check_folder(folder)
    quiet()
    from sigmax.report.watch_tables import moves_table, refit_table
    from sigmax.watch.recalibrate import Recalibration, read_feedback
    from sigmax.watch.recalibrate import recalibrate as run
    from sigmax.watch.refit import Refit, read_lists, refit

    columns = renamed(reading["columns"] or "")
    found: Recalibration | Refit
    new: ScoreModel | DualEncoder | None
    if is_score_folder(folder):
        from sigmax.scores import ScoreModel

        scores = ScoreModel.load(folder)
        lists = read_lists(scores, feedback, columns=columns) if gathered == "all" else None
        if lists is not None:
            with bar("fitting anew"):
                found = refit(scores, lists, old_weight=min(old_weight, 1.0))
            new = found.model
        else:
            with bar("reading feedback"):
                judged = read_feedback(scores, feedback, columns=columns)
            found = run(scores.calibrator, judged, gathered=gathered, old_weight=old_weight)
            new = None if found.calibrator is None else replace(scores, calibrator=found.calibrator)
    else:
        from sigmax.model import load

        new = model = load(folder)
        if model.calibrator is None:
            raise DataError(
                f"{folder}: was not calibrated, so there is nothing to move. Calibrate it: sigmax calibrate."
            )
        with bar("reading feedback"):
            judged = read_feedback(model, feedback, columns=columns)
        found = run(model.calibrator, judged, gathered=gathered, old_weight=old_weight)
        if found.calibrator is None:
            new = None
        else:
            model.calibrator = found.calibrator

    def show() -> None:
        if as_json:
            print_json(found.as_dict())
            return
        out.print(moves_table(found) if isinstance(found, Recalibration) else refit_table(found))
        said = f"{found.reason[0].upper()}{found.reason[1:]}. {found.promises[0].upper()}{found.promises[1:]}."
        out.print(said, markup=False, soft_wrap=not out.is_terminal)

    def save() -> None:
        if new is None:
            return
        with replace_folder(before) as fresh:
            shutil.copytree(folder, fresh, dirs_exist_ok=True)
        new.save(folder)
        say(f"Written: {folder}. The old one: {before}")

    deliver(show, save)
