"""Train one model, or every contender alike."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmax.cli.app import command
from sigmax.cli.console import bar, deliver, out, print_json, quiet, say
from sigmax.cli.data import read
from sigmax.cli.options import AsJson, Data, Fields, Reading
from sigmax.cli.scores import (
    LowerIsBetter,
    Qrels,
    ScoreColumns,
    Unjudged,
    are_scores,
    compare_table,
    only_for_scores,
)
from sigmax.errors import DataError
from sigmax.files import check_file, check_folder, write_text
from sigmax.processes import is_first
from sigmax.training.option import Option
from sigmax.training.settings import Settings

if TYPE_CHECKING:
    from sigmax.comparison import Comparison

__all__ = ["compare", "train"]

#: What `compare` writes into its folder.
FILES = ("comparison.json", "comparison.png")


@command("Train")
def compare(
    reading: Reading,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="File, folder, hf:user/name or built-in set.")
    ] = "emoji-hidden",
    settings: Annotated[
        Settings,
        Fields("encoder head frozen augment epochs steps batch_size mini_batch_size metric seed"),
    ] = Settings(),  # noqa: B008, frozen
    contenders: Annotated[
        str | None,
        Option(
            "Contenders, separated by commas. Default: all that fit the data.",
            group="search",
            shown="NAMES",
            choices="sigmax.comparison.contenders:CONTENDERS",
            open=True,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        Option(
            "Runs of each contender's best setting. Default: 3; 1 for networks over pictures or tokens.",
            group="search",
            shown="N",
            least=1,
        ),
    ] = None,
    rates: Annotated[
        str | None,
        Option(
            "Learning rates tried, as multiples of the encoder's own. Default: 0.3,1; 1 for networks over pictures or "
            "tokens.",
            group="search",
            shown="X,…",
        ),
    ] = None,
    scales: Annotated[
        str | None,
        Option(
            "Initial logit scales tried, as multiples of the encoder's own. Default: 0.5,1; 1 for networks over "
            "pictures or tokens.",
            group="search",
            shown="X,…",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Option("Folder for comparison.json and comparison.png.", group="run", shown="DIR", flags=("--output", "-o")),
    ] = None,
    report: Annotated[
        Path | None, Option("Write everything as one self-contained HTML file.", group="run", shown="FILE")
    ] = None,
    scores: ScoreColumns = "",
    lower_is_better: LowerIsBetter = None,
    qrels: Qrels = None,
    unjudged: Unjudged = None,
    as_json: AsJson = False,
) -> None:
    """Train softmax, sigmoid and today's practice on DATA, print which it prefers.

    Every contender gets the same encoder, number of steps, search of rate and scale on dev, and seeds. Metrics are
    on test with 95% intervals over queries and seeds; differences are paired.

    The contenders:

    {each sigmax.comparison.contenders:CONTENDERS}

    Example: sigmax compare faq.csv --columns query=question,answer=reply -o runs/faq

    Of scores that others made, a table with query, candidate, columns of scores and right, or TREC runs with --qrels:
    which column, their reciprocal-rank fusion, or a weighted presence of all is best, on queries none was fitted on.

    Example: sigmax compare scores.csv --scores bm25,dense,rerank
    """
    if output is not None:
        if output.exists() and not output.is_dir():
            raise DataError(f"{output}: is a file; --output needs a folder.")
        for name in FILES:
            check_file(output / name)
    if report is not None:
        if report.is_dir():
            raise DataError(f"{report}: is a folder; --report needs a file, such as {report / 'report.html'}.")
        check_file(report)
    if scores or qrels is not None or are_scores(data, reading["columns"] or ""):
        quiet()
        compare_table(data, reading, scores, lower_is_better, qrels, unjudged, settings.seed, as_json)
        return
    only_for_scores(**{"--lower-is-better": lower_is_better, "--unjudged": unjudged})
    given: dict[str, Any] = {
        "rates": None if rates is None else _numbers(rates, "--rates"),
        "scales": None if scales is None else _numbers(scales, "--scales"),
        "seeds": seeds,
    }
    chosen = None if contenders is None else [name.strip() for name in contenders.split(",")]
    quiet()
    from sigmax.comparison import Budget
    from sigmax.comparison import compare as run
    from sigmax.report.tables import comparison_table
    from sigmax.report.words import verdict

    if report is not None:
        from sigmax.report.html import check_report

        check_report()
    dataset = read(data, reading)
    budget = replace(
        Budget.of(settings, dataset), **{name: value for name, value in given.items() if value is not None}
    )
    with bar() as advance, _frozen():
        comparison = run(dataset, settings, contenders=chosen, budget=budget, advance=advance)
    said = verdict(comparison)
    result = {**comparison.as_dict(), "verdict": said}

    def show() -> None:
        if as_json:
            print_json(result)
            return
        out.print(comparison_table(comparison))
        out.print(said, markup=False, soft_wrap=not out.is_terminal)

    deliver(
        show,
        *([partial(_write_comparison, comparison, result, output)] if output else []),
        *([partial(_write_report, comparison, report)] if report else []),
    )


@command("Train")
def train(
    data: Data,
    reading: Reading,
    settings: Annotated[
        Settings,
        Fields(
            "encoder head frozen two_towers lexical rerank rerank_depth augment loss none_candidate epochs batch_size "
            "mini_batch_size learning_rate logit_scale answers negatives metric patience precision seed"
        ),
    ] = Settings(),  # noqa: B008, frozen
    output: Annotated[Path, Option("Folder for the model.", group="run", shown="DIR", flags=("--output", "-o"))] = ...,  # type: ignore[assignment]
    resume: Annotated[bool, Option("Resume an interrupted run from its last checkpoint.", group="run")] = False,
    fresh: Annotated[bool, Option("Discard the checkpoints of an interrupted run.", group="run")] = False,
    report_to: Annotated[
        str, Option("Loggers of Hugging Face's Trainer, such as tensorboard or wandb.", group="run", shown="NAME")
    ] = "none",
    model_license: Annotated[
        str | None,
        Option(
            "License for the model card, such as apache-2.0. Default: left out.",
            group="run",
            shown="NAME",
            flags=("--license",),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train one model on DATA, calibrate it on dev, write it to a folder.

    README.md in it is the model's card: what it is, how to use it, what was measured on dev.

    Checkpoints go to DIR.checkpoints each epoch and are removed at the end. Runs under torchrun too.

    Example: sigmax train emoji --loss sigmoid -o runs/emoji/sigmoid
    """
    if resume and fresh:
        raise typer.BadParameter("--resume and --fresh exclude each other.")
    quiet()
    from sigmax.evaluation import evaluate as measure
    from sigmax.model import check_place
    from sigmax.training import train as run
    from sigmax.training.checkpoints import discard

    output = output if output.name else output.resolve()
    check_place(output)
    check_folder(output)
    dataset = read(data, reading)
    checkpoints = output.with_name(f"{output.name}.checkpoints")
    with bar() as advance:
        model = run(
            dataset,
            settings,
            checkpoints=checkpoints,
            resume=resume,
            fresh=fresh,
            progress=lambda at, of, latest: advance(at / of, _latest(latest, settings.metric)),
            report_to=report_to,
        )
    if not is_first():
        return
    if model_license:
        model.facts["license"] = model_license
    model.save(output)  # at once: measuring may fail, and what was trained is not to be lost
    with bar("measuring on dev"):
        evaluation = measure(model, dataset, split="dev")
    model.note(evaluation)
    model.save(output)
    discard(checkpoints)
    if as_json:
        print_json({"model": str(output), "facts": model.facts, "evaluation": evaluation.as_dict()})
        return
    from sigmax.report.tables import evaluation_table

    out.print(evaluation_table(evaluation))
    say(f"Written: {output}. Next: sigmax evaluate {output} {data}, or sigmax match {output} TEXT")


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"expected numbers separated by commas, got {text!r}", param_hint=option) from None
    if not all(0 < number < math.inf for number in numbers):
        raise typer.BadParameter(f"expected numbers above 0, got {text!r}", param_hint=option)
    return numbers


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Exempt what is imported from garbage collection: Trainer collects at each start, which takes 0.2 s with it.

    Undone at the end: Triton reports what is never collected as leaked.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _write_comparison(comparison: Comparison, result: dict[str, Any], folder: Path) -> None:
    from sigmax.report.figure import comparison_figure

    saved, picture = (folder / name for name in FILES)
    write_text(saved, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    say(f"Written: {saved}")
    try:
        comparison_figure(comparison, picture)
        say(f"Written: {picture}")
    except ImportError as error:
        say(f"No figure: {error}")


def _write_report(comparison: Comparison, path: Path) -> None:
    from sigmax.report.html import report_html

    write_text(path, report_html(comparison, command=shlex.join(["sigmax", *sys.argv[1:]])))
    say(f"Written: {path}")


def _latest(metrics: dict[str, float], metric: str) -> str:
    shown = {"loss": metrics.get("loss"), f"dev {metric}": metrics.get(f"eval_{metric}")}
    return "  ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
