"""Ask a model: the best candidates of a query, and what softmax and sigmoid make of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmax.cli.app import command
from sigmax.cli.console import bar, deliver, out, print_json, quiet, say
from sigmax.cli.options import (
    AsJson,
    Columns,
    Database,
    Delimiter,
    Exact,
    Model,
    TableName,
    place_of_candidates,
    renamed,
)
from sigmax.cli.scores import explained_scores, is_score_folder, match_scores
from sigmax.cli.serve import without_caches
from sigmax.files import check_file
from sigmax.training.option import Option

if TYPE_CHECKING:
    from sigmax.explain import Explanation

__all__ = ["explain", "match"]


@command("Use")
def match(
    folder: Model,
    queries: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="What to match: texts, or picture files.")
    ] = None,
    source: Annotated[
        str | None,
        Option(
            "Match every query of this table instead: any table that `sigmax check --help` names, - for standard "
            "input, or an https address.",
            group="data",
            shown="FILE",
            flags=("--input",),
        ),
    ] = None,
    columns: Columns = "",
    delimiter: Delimiter = None,
    top_k: Annotated[int, Option("Candidates shown per query.", group="answer", shown="N", least=1)] = 5,
    rule: Annotated[
        str,
        Option(
            "What is accepted: {choices}; those with a level as in precision=0.95, a promise chosen on dev.",
            group="answer",
            shown="RULE",
            choices="sigmax.calibration:RULES",
            open=True,
        ),
    ] = "best-f1",
    confidence: Annotated[
        float,
        Option(
            "Confidence level of the promise, over repeated dev splits.",
            group="answer",
            shown="X",
            least=0.0,
            most=1.0,
        ),
    ] = 0.9,
    order: Annotated[
        str,
        Option(
            "What the candidates are ordered by: {choices}.",
            group="answer",
            shown="NAME",
            choices="sigmax.metrics.ranking:ORDERS",
        ),
    ] = "presence",
    exact: Exact = False,
    database: Database = "",
    table: TableName = "candidates",
    where: Annotated[
        list[str],
        Option(
            "With --candidates: only those whose metadata has this value; may be repeated.",
            group="answer",
            shown="NAME=VALUE",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    output: Annotated[
        str,
        Option(
            "File for the answers to --input, ending in {choices}; - for standard output, as JSONL.",
            group="run",
            shown="FILE",
            flags=("--output", "-o"),
            choices="sigmax.model.bulk:FORMATS",
            open=True,
        ),
    ] = "-",
    as_json: AsJson = False,
) -> None:
    """Find the best candidates for each TEXT, or for each picture file; or for every row of a table.

    *share* is the softmax over all candidates: it adds up to 1 whether or not anything is right. *presence* is the
    probability that this one is right; ✓ marks those that the rule accepts. *any right* is the probability that at
    least one of all candidates is. Where the rule accepts nothing
    and *any right* is below one half, the answer is *none of these*. Where DIR has an index (`sigmax index`), the best
    100 candidates come from it; with --candidates, from a database.

    The rules:

    {each sigmax.calibration:RULES}

    Example: sigmax match runs/emoji/sigmoid "what's in the sky?" --rule precision=0.9

    With --input, the answers to many queries go to a table: CSV and Parquet have a line per candidate, JSONL one per
    query. Memory stays flat; the same command goes on where a killed one stopped.

    Example: sigmax match runs/faq --input questions.csv --columns query=question -o answers.parquet

    DIR may hold calibrated scores (`sigmax calibrate SCORES -o DIR`); TEXT is then a table of scores. Each of its rows
    gets presence, any right and accepted; rows of a query stand together.

    Example: sigmax match runs/scores today.csv --rule precision=0.95 -o answers.csv
    """
    if is_score_folder(folder):
        quiet()
        sources = [*(queries or ()), *([source] if source else ())]
        told = {"columns": columns, "delimiter": delimiter}
        match_scores(folder, sources, output, told, rule, confidence, as_json)
        return
    if (source is None) == (not queries):
        raise typer.BadParameter("expected either TEXT… or --input FILE.")
    if source is None and output != "-":
        raise typer.BadParameter("expected --input FILE beside it; answers to TEXT are printed.", param_hint="--output")
    place = {"exact": exact, **place_of_candidates(database, table, where)}
    quiet()
    if source is not None:
        how = {"top_k": top_k, "rule": rule, "confidence": confidence, "order": order}
        reading = {"columns": renamed(columns), "delimiter": delimiter}
        _in_bulk(folder, place, source, output, reading, as_json, how)
        return
    from sigmax.model.index import matching
    from sigmax.model.matches import answer

    with bar("matching"), matching(folder, **place) as model:
        found = model.match(queries or [], top_k=top_k, rule=rule, confidence=confidence, order=order)
    decision = found[0].decision
    if decision is not None and decision.reason:
        say(f"{decision.choice}: {decision.reason}")
    if as_json:
        print_json(answer(found))
        return
    from sigmax.report.tables import matches_table
    from sigmax.report.words import matches_words

    for matches in found:
        out.print(matches_table(matches))
        words = matches_words(matches)
        if words is not None:
            out.print(words)
    if decision is not None and decision.promise:
        out.print(decision.promise, markup=False, soft_wrap=not out.is_terminal)


@command("Use")
def explain(
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="Model folder, or a model on the hub: user/name.")
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ITEM", help="Texts, or picture files; of calibrated scores a table, and which queries of it."
        ),
    ] = None,
    logits: Annotated[
        list[str] | None,
        Option(
            "Instead of a model: an item's activations, label=number,…; once for each item. Labels with a comma: "
            "'{\"a, b\": 1.0}'.",
            group="answer",
            shown="LOGITS",
        ),
    ] = None,
    top_k: Annotated[
        int, Option("Candidates that a model's table shows per item.", group="answer", shown="N", least=1)
    ] = 10,
    figure: Annotated[
        Path | None, Option("Draw the table to this .png, .svg or .pdf file.", group="run", shown="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the activation table: what softmax and sigmoid make of the same activations.

    For each ITEM and candidate: the activation (logit) s, its exp, *softmax* (adds up to 1 whether or not anything is
    there), *binary* (σ(s), each candidate alone), the calibrated *presence* where DIR has one, and a verdict: present,
    perhaps or absent. Several items stand side by side; a shift common to all activations is named, for the softmax
    cannot see it.

    Example: sigmax explain runs/emoji/sigmoid "what's in the sky?" pizza

    Of calibrated scores, a table of scored candidates stands in place of the first ITEM, and the others name queries of
    it; the first one is explained where none is named. The activation is then the weighted sum of the score columns.

    Example: sigmax explain --logits "cat=0.02,fish=2.07" --logits "cat=-1.43,fish=0.62"

    Example: sigmax explain runs/scores today.csv "where is my invoice?"
    """
    if logits and folder is not None:
        raise typer.BadParameter("give either a model and items, DIR ITEM…, or --logits, not both.")
    if not logits and not items:
        raise typer.BadParameter(
            "expected a model folder and at least one item, DIR ITEM…, or --logits label=number,… for each item."
        )
    quiet()
    from sigmax.report.activations import activation_figure, activation_tables, explanation_words, shifts
    from sigmax.report.style import FORMATS, save_figure

    if figure is not None and figure.suffix.lower() not in FORMATS:
        raise typer.BadParameter(
            f"expected a file ending in {', '.join(FORMATS)}, got {str(figure)!r}", param_hint="--figure"
        )
    if figure is not None:
        check_file(figure)
    explanations = [_explained(text) for text in logits or ()]
    if folder is not None and is_score_folder(folder):
        explanations = explained_scores(folder, *(items or []), top_k=top_k)
    elif folder is not None:
        from sigmax.explain import explain as run
        from sigmax.model import load

        with bar("explaining"):
            explanations = run(load(folder), items or [], top_k=top_k)
    words = explanation_words(explanations)

    def show() -> None:
        if as_json:
            items = [one.as_dict() for one in explanations]
            print_json({"items": items, "shift": shifts(explanations), "words": words})
            return
        for table in activation_tables(explanations, out):
            out.print(table)
            out.print()
        for sentence in words:
            out.print(f"• {sentence}", markup=False, soft_wrap=not out.is_terminal)

    def draw() -> None:
        if figure is not None:
            save_figure(activation_figure(explanations), figure)
            say(f"Written: {figure}")

    deliver(show, draw)


def _in_bulk(
    folder: str,
    place: dict[str, Any],
    source: str,
    output: str,
    reading: dict[str, Any],
    as_json: bool,
    how: dict[str, Any],
) -> None:
    """Match a table, to a file or to standard output."""
    from sigmax.model.bulk import ending_of_answers, match_stream, match_table
    from sigmax.model.index import matching

    if output != "-":
        ending_of_answers(Path(output))
        check_file(Path(output))
    with bar("reading") as advance, without_caches(), matching(folder, **place) as model:
        if output == "-":
            match_stream(model, source, sys.stdout.buffer, **reading, advance=advance, **how)
            return
        queries = match_table(model, source, output, **reading, advance=advance, **how)
    if as_json:
        print_json({"file": output, "queries": queries})
    say(f"Written: {output}, answers to {queries:,} queries")


def _explained(text: str) -> Explanation:
    from sigmax.explain import explain_logits, parse_logits

    try:
        return explain_logits(parse_logits(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--logits") from None
