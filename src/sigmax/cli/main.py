"""The command line: parse, call, print. Results go to stdout, progress and messages to stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sigmax.errors import DataError, UnknownNameError, extra
from sigmax.processes import is_first

app = typer.Typer(
    name="sigmax",
    help="Train models that match things to their right answers (several, one or none), and learn whether softmax or "
    "sigmoid suits your data.\n\nDATA is a file or folder (see `sigmax check --help`), a data set on the Hugging Face "
    "hub (hf:user/name), or a built-in set: emoji, emoji-hidden, digits (pictures).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
# A table is never narrower than this, so that output piped to a file reads as it does on a wide screen.
out = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
err = Console(stderr=True, highlight=False)

Data = Annotated[str, typer.Argument(metavar="DATA", help="File, folder, hf:user/name or built-in set.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Model folder, as `sigmax train` makes it.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="Model folder, as `sigmax train` makes it, or a model on the Hugging Face hub: user/name."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Columns = Annotated[
    str,
    typer.Option(
        help="Your column names, for example query=question,answer=reply. Ours: query, answer, answers, "
        "wrong, text, label, labels, image, file_name, split."
    ),
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        help="For texts: ngrams (trained from scratch; default), ngrams-linear (fixed labels), or a folder of static "
        "vectors. For pictures: convnet (trained from scratch; default) or efficientnet-lite0 (ImageNet). For both: a "
        "sentence-transformers model by name or path."
    ),
]
Head = Annotated[str, typer.Option(help="How labels are scored: cosine, or linear (weights and a bias a label).")]
Frozen = Annotated[
    bool, typer.Option("--frozen", help="Keep a pretrained encoder as it is; train only what comes after it.")
]
Augment = Annotated[
    str | None,
    typer.Option(
        help="What training does to pictures: none, upright (turned, zoomed, moved a little), or mirrored too (not for "
        "digits, letters, signs). Default: upright, for tiny pictures none."
    ),
]
Epochs = Annotated[float | None, typer.Option(help="Passes over the training queries. Default: suits the encoder.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Queries a batch. Default: suits the encoder.")]
MiniBatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Texts encoded at a time: a large batch in the memory of a small one, encoded twice."),
]
Metric = Annotated[str, typer.Option(help="Dev metric that chooses, such as map, mrr, ndcg@10, none_auroc_logit.")]
_SHORT = "; 1 for networks over pictures or tokens"
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Precision = Annotated[str, typer.Option(help="Of the products in training: float32, bfloat16 or float16.")]


@app.command()
def compare(
    data: Annotated[
        str, typer.Argument(metavar="[DATA]", help="File, folder, hf:user/name or built-in set.")
    ] = "emoji-hidden",
    encoder: EncoderName = None,
    head: Head = "cosine",
    frozen: Frozen = False,
    augment: Augment = None,
    contenders: Annotated[
        str | None,
        typer.Option(
            help="Which of softmax-average, softmax-decoupled, softmax-none (with a candidate *none of these*), "
            "sigmoid, one-positive (as in-batch losses are used today) and tfidf-lr (scikit-learn, fixed labels), "
            "separated by commas. Default: all that fit the data."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"Trainings of each contender's best setting. Default: 3{_SHORT}.")
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(help=f"Learning rates tried, as multiples of the encoder's own. Default: 0.3,1{_SHORT}."),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(help=f"Starting scales tried, as multiples of the encoder's own. Default: 0.5,1{_SHORT}."),
    ] = None,
    epochs: Epochs = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches a training, instead of epochs.")] = None,
    batch_size: BatchSize = None,
    mini_batch_size: MiniBatchSize = None,
    metric: Metric = "map",
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for comparison.json and comparison.png.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write everything as one self-contained HTML file.")] = None,
    columns: Columns = "",
    as_json: AsJson = False,
) -> None:
    """Train softmax, sigmoid and today's practice on DATA, print which it prefers.

    Every contender gets the same encoder, number of steps, search of rate and scale on dev, and seeds. Figures are
    on test with 95% intervals over queries and seeds; differences are paired.

    Example: sigmax compare faq.csv --columns query=question,answer=reply -o runs/faq
    """
    _quiet()
    from sigmax.comparison.compare import compare as run
    from sigmax.comparison.results import Budget
    from sigmax.report.tables import comparison_table
    from sigmax.report.words import verdict
    from sigmax.training.settings import Settings

    settings = Settings(
        encoder=encoder,
        head=head,
        frozen=frozen,
        augment=augment,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        mini_batch_size=mini_batch_size,
        metric=metric,
        seed=seed,
    )
    names = None if contenders is None else [name.strip() for name in contenders.split(",")]
    if output and output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; --output needs a folder.")
    given: dict[str, Any] = {
        "rates": None if rates is None else _numbers(rates, "--rates"),
        "scales": None if scales is None else _numbers(scales, "--scales"),
        "seeds": seeds,
    }
    if report is not None:
        from sigmax.report.html import check_report

        check_report()
        if report.is_dir():
            raise DataError(f"{report}: is a folder; --report needs a file, such as {report / 'report.html'}.")
    dataset = _read(data, columns)
    budget = replace(
        Budget.of(settings, dataset), **{name: value for name, value in given.items() if value is not None}
    )
    with _bar() as advance:
        comparison = run(dataset, settings, contenders=names, budget=budget, advance=advance)
    said = verdict(comparison)
    result = {**comparison.as_dict(), "verdict": said} if output or as_json else {}
    written = _write_comparison(comparison, result, output) if output else []
    if report is not None:
        from sigmax.files import write_text
        from sigmax.report.html import report_html

        write_text(report, report_html(comparison, command=shlex.join(["sigmax", *sys.argv[1:]])))
        written.append(report)
    if as_json:
        _print_json(result)
        return
    out.print(comparison_table(comparison))
    out.print(said, markup=False, soft_wrap=not out.is_terminal)
    for path in written:
        _say(f"Written: {path}")


@app.command()
def train(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model.")],
    loss: Annotated[
        str, typer.Option(help="softmax-average, softmax-decoupled, softmax-any or sigmoid.")
    ] = "softmax-decoupled",
    encoder: EncoderName = None,
    head: Head = "cosine",
    frozen: Frozen = False,
    augment: Augment = None,
    two_towers: Annotated[bool, typer.Option(help="Give candidates that are texts an encoder of their own.")] = False,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    mini_batch_size: MiniBatchSize = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest rate. Default: suits the encoder.")] = None,
    logit_scale: Annotated[float | None, typer.Option(help="Where the scale starts. Default: suits it.")] = None,
    answers: Annotated[int, typer.Option(min=1, help="Right answers drawn a query and batch, at most.")] = 4,
    negatives: Annotated[
        int | None, typer.Option(min=0, help="Candidates drawn at random beside them. Default: all, if few.")
    ] = None,
    none_candidate: Annotated[
        bool,
        typer.Option("--none-candidate", help="Train *none of these* as a candidate, right where nothing else is."),
    ] = False,
    metric: Metric = "map",
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better dev metric before it stops.")] = 3,
    precision: Precision = "float32",
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of a killed run.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw the checkpoints of a killed run away.")] = False,
    report_to: Annotated[str, typer.Option(help="Trainer's loggers: none, tensorboard, wandb, …")] = "none",
    model_license: Annotated[
        str | None, typer.Option("--license", help="Of the model, for its card, such as apache-2.0. Default: left out.")
    ] = None,
    columns: Columns = "",
    as_json: AsJson = False,
) -> None:
    """Train one model on DATA, calibrate it on dev, write it to a folder.

    README.md in it is the model's card: what it is, how to use it, what was measured on dev.

    Checkpoints go to DIR.checkpoints each epoch and are removed at the end. Runs under torchrun too.

    Example: sigmax train emoji --loss sigmoid -o runs/emoji/sigmoid
    """
    _quiet()
    from sigmax.evaluation import evaluate as measure
    from sigmax.model.folder import check_place
    from sigmax.training.settings import Settings
    from sigmax.training.train import train as run

    if resume and fresh:
        raise typer.BadParameter("--resume and --fresh exclude each other.")
    settings = Settings(
        loss=loss,
        encoder=encoder,
        head=head,
        frozen=frozen,
        augment=augment,
        two_towers=two_towers,
        epochs=epochs,
        batch_size=batch_size,
        mini_batch_size=mini_batch_size,
        learning_rate=learning_rate,
        logit_scale=logit_scale,
        answers=answers,
        negatives=negatives,
        none_candidate=none_candidate,
        metric=metric,
        patience=patience,
        precision=precision,
        seed=seed,
    )
    dataset = _read(data, columns)
    output = output if output.name else output.resolve()
    check_place(output)
    checkpoints = output.with_name(f"{output.name}.checkpoints")
    if checkpoints.exists() and not (checkpoints / "settings.json").exists():
        raise DataError(f"{checkpoints}: is there already and holds no checkpoints. Choose another folder, or move it.")
    first = is_first()
    if fresh and first:
        shutil.rmtree(checkpoints, ignore_errors=True)
    with _bar(enabled=first) as advance:
        model = run(
            dataset,
            settings,
            checkpoints=checkpoints,
            resume=resume,
            progress=lambda at, of, latest: advance(at / of, _latest(latest, metric)),
            report_to=report_to,
        )
    if not first:
        return
    evaluation = measure(model, dataset, split="dev")
    model.note(evaluation)
    if model_license:
        model.facts["license"] = model_license
    model.save(output)
    shutil.rmtree(checkpoints, ignore_errors=True)
    if as_json:
        _print_json({"model": str(output), "facts": model.facts, "evaluation": evaluation.as_dict()})
        return
    from sigmax.report.tables import evaluation_table

    out.print(evaluation_table(evaluation))
    _say(f"Written: {output}. Next: sigmax evaluate {output} {data}, or sigmax match {output} TEXT")


@app.command()
def evaluate(
    folder: Model,
    data: Data,
    split: Annotated[str, typer.Option(help="Which queries: train, dev or test.")] = "test",
    figure: Annotated[
        Path | None, typer.Option(help="Draw the reliability of presences here (.png, .svg or .pdf).")
    ] = None,
    columns: Columns = "",
    as_json: AsJson = False,
) -> None:
    """Print a model's metrics on DATA, each with its 95% interval.

    Ranking over all candidates of DATA; presence, calibrated on dev when the model was trained; none-of-these, if DATA
    has queries with no right answer.
    """
    _quiet()
    from sigmax.evaluation import evaluate as measure
    from sigmax.model.dual_encoder import load
    from sigmax.report.tables import evaluation_table

    model = load(folder)
    if figure is not None and model.calibrator is None:
        raise DataError(
            f"{folder}: the model was not calibrated, so there is no reliability to draw. Calibrate it first."
        )
    evaluation = measure(model, _read(data, columns), split=split)
    if figure is not None:
        from sigmax.report.figure import reliability_figure
        from sigmax.report.style import save_figure

        save_figure(reliability_figure({Path(folder).name: evaluation}), figure)
        _say(f"Written: {figure}")
    if as_json:
        _print_json(evaluation.as_dict())
    else:
        out.print(evaluation_table(evaluation))


@app.command()
def calibrate(
    folder: Folder,
    data: Data,
    split: Annotated[str, typer.Option(help="Which queries; none that the model was trained on.")] = "dev",
    method: Annotated[
        str,
        typer.Option(help="platt, beta, isotonic, platt-candidate, or auto: the lowest cross-validated log loss."),
    ] = "auto",
    columns: Columns = "",
    as_json: AsJson = False,
) -> None:
    """Fit a model's presences, P(any) and rules anew, on DATA and its candidates.

    For a model whose candidates or questions have changed since training, or that was saved without calibration. The
    model in DIR keeps its encoders and offers the candidates of DATA from now on.

    Example: sigmax calibrate runs/faq/sigmoid faq-of-this-year.csv
    """
    _quiet()
    from sigmax.evaluation import calibrate as fit
    from sigmax.model.dual_encoder import load
    from sigmax.report.tables import calibration_table, threshold_rows

    model, dataset = load(folder), _read(data, columns)
    calibrator = fit(model, dataset, split=split, method=method)
    model.candidates, model.candidate_ids = list(dataset.candidates), list(dataset.candidate_ids)
    model.save(folder)
    if as_json:
        _print_json({key: value for key, value in calibrator.as_dict().items() if key != "candidate_ids"})
        return
    out.print(calibration_table(calibrator))
    rows = threshold_rows(calibrator)
    if rows is not None:
        out.print(rows)
    _say(f"Written: {folder}")


@app.command()
def mine(
    folder: Folder,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the data with what was found.")],
    negatives: Annotated[int, typer.Option(min=1, help="Wrong answers a training query, at most.")] = 5,
    bound: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Presence from which an answer may be right and is left out.")
    ] = 0.5,
    columns: Columns = "",
    as_json: AsJson = False,
) -> None:
    """Find wrong answers near each training query of DATA, write DATA with them to a folder.

    For texts on both sides. The model in DIR compares every candidate; known right answers, and those that may be right
    by their presence, are left out. `sigmax train` then offers the wrong ones in its batches (a BEIR folder, score 0).

    Example: sigmax mine runs/faq faq.csv -o faq-mined && sigmax train faq-mined -o runs/faq-mined
    """
    _quiet()
    from sigmax.data.writers import write_beir
    from sigmax.mining import mine as run
    from sigmax.model.dual_encoder import load

    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise DataError(f"{output}: is there already. Choose another folder, or remove it.")
    model, dataset = load(folder), _read(data, columns)
    with _bar() as advance:
        mined = run(model, dataset, negatives=negatives, bound=bound, advance=advance)
    write_beir(mined, output)
    queries, found = len(dataset.split("train")), len(mined.wrong) - len(dataset.wrong)
    if as_json:
        _print_json({"data": str(output), "queries": queries, "mined": found, "wrong": len(mined.wrong)})
        return
    out.print(f"{found:,} wrong pairs found for {queries:,} training queries ({found / queries:.1f} each).")
    _say(f"Written: {output}. Next: sigmax train {output} -o DIR")


@app.command()
def match(
    folder: Model,
    queries: Annotated[list[str], typer.Argument(metavar="TEXT…", help="What to match: texts, or picture files.")],
    top_k: Annotated[int, typer.Option(min=1, help="Candidates shown.")] = 5,
    rule: Annotated[
        str,
        typer.Option(
            help="What is accepted: best-f1, precision=0.95, recall=0.9, false-claims=0.05 or contains=0.9; each level "
            "is a promise, chosen on dev."
        ),
    ] = "best-f1",
    confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With which the promise holds, over dev splits.")
    ] = 0.9,
    as_json: AsJson = False,
) -> None:
    """Find the best candidates for each TEXT, or for each picture file.

    *share* is the softmax over all candidates: it adds up to 1 whether or not anything is right. *presence* is the
    probability that this one is right; ✓ marks those that the rule accepts. *any right* is the probability that at
    least one of all candidates is. Where the rule accepts nothing, the answer is *none of these*.

    Example: sigmax match runs/emoji/sigmoid "what's in the sky?" --rule precision=0.9
    """
    _quiet()
    from sigmax.model.dual_encoder import load
    from sigmax.model.matches import answer

    model = load(folder)
    found = model.match(queries, top_k=top_k, rule=rule, confidence=confidence)
    decision = found[0].decision
    if decision is not None and decision.reason:
        _say(f"{decision.choice}: {decision.reason}")
    if as_json:
        _print_json(answer(found))
        return
    for matches in found:
        table = Table(title=Text(str(matches.query)), title_justify="left")
        for name in ("", "candidate", "logit", "share", "presence"):
            table.add_column(name, justify="left" if name in ("", "candidate") else "right")
        for one in matches:
            presence = "–" if one.presence is None else f"{one.presence:.3f}"
            mark = "✓" if matches.accepts(one) else ""
            table.add_row(mark, Text(one.candidate), f"{one.logit:.2f}", f"{one.share:.3f}", presence)
        out.print(table)
        if matches.any is None or matches.decision is None:
            continue
        if not matches.accepted:
            out.print(f"none of these (any right: {matches.any:.3f})")
            continue
        more = matches.accepted_count - sum(bool(matches.accepts(one)) for one in matches)
        out.print(f"any right: {matches.any:.3f}" + (f"; {more} more accepted (--top-k shows them)" if more else ""))
    if decision is not None and decision.promise:
        out.print(decision.promise, markup=False, soft_wrap=not out.is_terminal)


@app.command()
def encode(
    folder: Model,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Parquet file to write, ending in .parquet.")],
    side: Annotated[str, typer.Option(help="What of DATA is encoded: query or candidate.")] = "query",
    columns: Columns = "",
    as_json: AsJson = False,
) -> None:
    """Write the vectors of DATA's queries or candidates to a Parquet file.

    Columns: id, text (of pictures: picture, their name) and embedding, a list of float32 numbers. The logit of a pair
    is logit_scale × similarity + logit_bias; the three stand in the file's schema metadata under `sigmax`.

    Example: sigmax encode runs/emoji/sigmoid emoji --side candidate -o emoji.parquet
    """
    _quiet()
    from sigmax.embeddings import write_embeddings
    from sigmax.model.dual_encoder import load

    if output.suffix != ".parquet":
        raise typer.BadParameter(f"expected a file ending in .parquet, got {str(output)!r}", param_hint="--output")
    if output.is_dir():
        raise DataError(f"{output}: is a folder; --output needs a file.")
    model, dataset = load(folder), _read(data, columns)
    with _bar() as advance:
        rows, width = write_embeddings(model, dataset, output, side=side, advance=advance)
    if as_json:
        _print_json({"file": str(output), "side": side, "rows": rows, "width": width})
    _say(f"Written: {output}, {rows:,} vectors of {width:,} numbers")


@app.command()
def explain(
    folder: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="Model folder, or a model on the hub: user/name.")
    ] = None,
    items: Annotated[list[str] | None, typer.Argument(metavar="[ITEM…]", help="Texts, or picture files.")] = None,
    logits: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of a model: an item's activations, label=number,…; once for each item. Labels with a comma: "
            "'{\"a, b\": 1.0}'.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Candidates of each item that a model's table shows.")] = 10,
    figure: Annotated[Path | None, typer.Option(help="Draw the table here (.png, .svg or .pdf).")] = None,
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
    from sigmax.report.activations import activation_figure, activation_tables, explanation_words, shifts
    from sigmax.report.style import FORMATS, save_figure

    if logits and folder is not None:
        raise typer.BadParameter("give either a model and items, DIR ITEM…, or --logits, not both.")
    if not logits and not items:
        raise typer.BadParameter(
            "expected a model folder and at least one item, DIR ITEM…, or --logits label=number,… for each item."
        )
    if figure is not None and figure.suffix.lower() not in FORMATS:
        raise typer.BadParameter(
            f"expected a file ending in {', '.join(FORMATS)}, got {str(figure)!r}", param_hint="--figure"
        )
    explanations = [_explained(text) for text in logits or ()]
    if folder is not None:
        _quiet()
        from sigmax.explain import explain as run
        from sigmax.model.dual_encoder import load

        explanations = run(load(folder), items or [], top_k=top_k)
    if figure is not None:
        save_figure(activation_figure(explanations), figure)
        _say(f"Written: {figure}")
    words = explanation_words(explanations)
    if as_json:
        _print_json({"items": [one.as_dict() for one in explanations], "shift": shifts(explanations), "words": words})
        return
    for table in activation_tables(explanations, out):
        out.print(table)
        out.print()
    for sentence in words:
        out.print(f"• {sentence}", markup=False, soft_wrap=not out.is_terminal)


@app.command()
def serve(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR…", help="Model folders, as `sigmax train` makes them.")],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds that a request may take.")] = 10.0,
    max_queue: Annotated[int, typer.Option(min=64, help="Queries of a model that may wait; more are refused.")] = 1024,
    max_batch: Annotated[int, typer.Option(min=1, help="Queries that a model answers together.")] = 64,
) -> None:
    """Serve models: an HTTP API, and a page at / to try them.

    A model's name is that of its folder. When a folder changes, its new model takes over and no request is lost.
    Whoever can reach the server can use it: for a HOST that is not this machine alone, a key in the environment
    variable SIGMAX_API_KEY is required, and requests must bring it (Authorization: Bearer KEY). SIGTERM and Ctrl-C
    end it when what was begun is answered.

    Example: sigmax serve runs/emoji, then

    curl http://127.0.0.1:8000/match -H 'content-type: application/json' -d '{"query": "party", "top_k": 3}'

    Also POST /explain, GET /models, /health, /metrics (Prometheus) and /openapi.json.
    """
    _quiet()
    with extra("serve"):
        from sigmax.server.run import is_loopback
        from sigmax.server.run import serve as run

    key = os.environ.get("SIGMAX_API_KEY") or None
    if key is None and not is_loopback(host):
        raise typer.BadParameter(
            f"others can reach {host}, so a key is needed; set one: SIGMAX_API_KEY=… sigmax serve …",
            param_hint="--host",
        )
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise typer.BadParameter(
            f"a model's name is that of its folder; expected different ones, got {', '.join(names)}", param_hint="DIR"
        )
    run(
        dict(zip(names, folders, strict=True)),
        host=host,
        port=port,
        key=key,
        seconds=timeout,
        max_queue=max_queue,
        max_batch=max_batch,
        started=lambda url: _say(f"Serving {', '.join(names)} at {url}"),
    )


@app.command()
def check(data: Data, columns: Columns = "", as_json: AsJson = False) -> None:
    """Say what matters about DATA before training on it.

    Formats:
    {formats}
    """
    from sigmax.data.check import check as look

    found = look(_read(data, columns))
    if as_json:
        _print_json(found.as_dict())
        return
    table = Table(title=Text(found.name), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows: list[tuple[str, str]] = [
        ("queries (train / dev / test)", " / ".join(f"{count:,}" for count in found.splits.values())),
        ("of them with no right answer", " / ".join(f"{count:,}" for count in found.unanswered.values())),
        ("labels" if found.labels else "candidates", f"{found.candidates:,}"),
        ("of them right for no query", f"{found.unused_candidates:,}"),
        ("right pairs", f"{found.pairs:,}"),
        ("pairs known to be wrong", f"{found.wrong_pairs:,}"),
        (
            "right answers a query (mean, median, most)",
            f"{found.answers['mean']:.1f}, {found.answers['median']:.0f}, {found.answers['most']:.0f}",
        ),
        ("queries with several right answers", f"{found.answers['several']:.0%}"),
    ]
    if found.pictures:
        sides = " × ".join(_span(*found.pictures[side]) for side in ("width", "height"))
        rows += [
            ("size of the pictures (width × height)", sides),
            ("of them grey / in colour", f"{found.pictures['grey']:,} / {found.pictures['colour']:,}"),
        ]
    rows += [
        (f"in-batch false negatives at {size}", f"{share:.1%} of rows") for size, share in found.false_negatives.items()
    ]
    for name, value in rows:
        table.add_row(name, value)
    out.print(table)
    for finding in found.findings:
        out.print(f"• {finding}", markup=False, soft_wrap=not out.is_terminal)


def main() -> None:
    """Run the command line; exit 0 fine, 1 the work failed, 2 wrong usage."""
    try:
        code = app(standalone_mode=False)
    except UnknownNameError as error:
        _fail(str(error), 2)
    except (DataError, ValueError, ImportError) as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), 1)
    except typer.Abort:
        _fail("Stopped.", 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong usage, as the parser of the command line reports it
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        raise
    if code == 130:  # how the parser of the command line reports Ctrl-C
        _fail("Stopped.", 130)
    sys.exit(code if isinstance(code, int) else 0)


# -- shared by the commands ---------------------------------------------------------------------


def _fail(message: str, code: int) -> None:
    err.print("[bold red]Error:[/] ", end="")
    err.print(message, markup=False, soft_wrap=True)
    sys.exit(code)


def _say(message: str) -> None:
    err.print(message, markup=False, soft_wrap=True)


def _read(source: str, columns: str) -> Any:
    from sigmax.data.sources import load_data

    renamed = {}
    for item in filter(None, columns.split(",")):
        ours, equals, theirs = item.partition("=")
        if not equals:
            raise typer.BadParameter(
                f"expected ours=yours, got {item!r}; for example query=question", param_hint="--columns"
            )
        renamed[ours.strip()] = theirs.strip()
    with _bar(enabled=is_first()) as advance:
        return load_data(source, columns=renamed, advance=advance)


def _span(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least}–{most}"


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"expected numbers separated by commas, got {text!r}", param_hint=option) from None
    if not all(0 < number < math.inf for number in numbers):
        raise typer.BadParameter(f"expected numbers above 0, got {text!r}", param_hint=option)
    return numbers


def _explained(text: str) -> Any:
    from sigmax.explain import explain_logits, parse_logits

    try:
        return explain_logits(parse_logits(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--logits") from None


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _write_comparison(comparison: Any, result: dict[str, Any], folder: Path) -> list[Path]:
    from sigmax.files import write_text
    from sigmax.report.figure import comparison_figure

    written = [folder / "comparison.json"]
    write_text(written[0], json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    try:
        comparison_figure(comparison, folder / "comparison.png")
        written.append(folder / "comparison.png")
    except ImportError as error:
        err.print(f"No figure: {error}", markup=False)
    return written


def _latest(metrics: dict[str, float], metric: str) -> str:
    shown = {"loss": metrics.get("loss"), f"dev {metric}": metrics.get(f"eval_{metric}")}
    return "  ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)


@contextlib.contextmanager
def _bar(*, enabled: bool = True) -> Iterator[Callable[[float, str], None]]:
    """Show a progress bar on stderr."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=err,
        disable=not (enabled and err.is_terminal),
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda fraction, what: bar.update(task, completed=fraction, description=what)


def _quiet() -> None:
    """Let our own messages through and keep the libraries' to warnings."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # one bar is enough: ours
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read by transformers too
    from rich.logging import RichHandler

    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False)
    logger = logging.getLogger("sigmax")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if is_first() else logging.WARNING)


def _formats() -> str:
    from sigmax.data.formats.registry import READERS

    listed = "".join(f"\n    - {reader.describes}" for reader in READERS.values()).replace("*", r"\*")
    return f'{listed}\n\n    Tables are JSONL, CSV or Parquet; a list in a CSV cell: one|two or ["one", "two"].'


check.__doc__ = (check.__doc__ or "").replace("{formats}", _formats())
