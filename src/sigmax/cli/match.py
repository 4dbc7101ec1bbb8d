"""Ask a model: the best candidates of a query, and what softmax and sigmoid make of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sigmax.cli.app import command
from sigmax.cli.console import bar, deliver, out, print_json, quiet, say
from sigmax.cli.options import AsJson, Model
from sigmax.files import check_file
from sigmax.training.option import Option

if TYPE_CHECKING:
    from sigmax.explain import Explanation

__all__ = ["explain", "match"]


@command("Use")
def match(
    folder: Model,
    queries: Annotated[list[str], typer.Argument(metavar="TEXT", help="What to match: texts, or picture files.")],
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
    as_json: AsJson = False,
) -> None:
    """Find the best candidates for each TEXT, or for each picture file.

    *share* is the softmax over all candidates: it adds up to 1 whether or not anything is right. *presence* is the
    probability that this one is right; ✓ marks those that the rule accepts. *any right* is the probability that at
    least one of all candidates is. Where the rule accepts nothing
    and *any right* is below one half, the answer is *none of these*.

    The rules:

    {each sigmax.calibration:RULES}

    Example: sigmax match runs/emoji/sigmoid "what's in the sky?" --rule precision=0.9
    """
    quiet()
    from sigmax.model import load
    from sigmax.model.matches import answer

    with bar("matching"):
        found = load(folder).match(queries, top_k=top_k, rule=rule, confidence=confidence, order=order)
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
    items: Annotated[list[str] | None, typer.Argument(metavar="ITEM", help="Texts, or picture files.")] = None,
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

    Example: sigmax explain --logits "cat=0.02,fish=2.07" --logits "cat=-1.43,fish=0.62"
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
    if folder is not None:
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


def _explained(text: str) -> Explanation:
    from sigmax.explain import explain_logits, parse_logits

    try:
        return explain_logits(parse_logits(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--logits") from None
