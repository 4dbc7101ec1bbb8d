"""What a model offers, and where it is searched: add and remove candidates, build an index."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sigmax.cli.app import command
from sigmax.cli.console import bar, out, print_json, quiet, say
from sigmax.cli.data import read
from sigmax.cli.options import AsJson, Columns, Folder, Reading, renamed
from sigmax.files import check_folder
from sigmax.training.option import Option

__all__ = ["candidates", "index", "push"]

#: What may be done with candidates.
ACTIONS = ("add", "remove", "list", "pack")
_SPLIT = Option(
    "Which queries of --data: {choices}; none that the model was trained on.",
    group="data",
    choices="sigmax.data.dataset:SPLITS",
    open=True,
)
MeasuredSplit = Annotated[str, _SPLIT]


@command("Use")
def candidates(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="What to do: add, remove, list or pack.")],
    folder: Folder,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Table with their ids and texts, for pack with queries: any that Sigmax reads, - or an https address.",
        ),
    ] = None,
    vectors: Annotated[
        str | None,
        Option(
            "How pack stores vectors: {choices}.", group="run", choices="sigmax.candidates.packed:PACKINGS", open=True
        ),
    ] = None,
    columns: Columns = "",
    as_json: AsJson = False,
) -> None:
    """Add, replace, remove, list or pack what a model offers, without training.

    *add* takes a table with a column text, and a column id where ids are not the texts; a candidate whose id is known
    is replaced. *remove* takes a table with a column id. Only what is new is encoded. The folder is the old one until
    the new one is whole, and `sigmax serve` takes over what changed. *list* prints a line of JSON for each, as *add*
    reads it.

    New candidates have calibrated presences at once: those of the curve that all share. What rules promise, they
    promise for the candidates that the model was calibrated with: sigmax calibrate DIR DATA makes that the new ones.

    *pack* stores the vectors of more than 10,000 candidates in half precision or in bytes, and says what is lost:
    which part of the best 10 stays among the best 10, and how far presences move. It asks the queries of FILE, or some
    candidates' own texts. Packed vectors stay on disk and are unpacked tile by tile as they are compared.

    Example: sigmax candidates add runs/faq new-answers.csv

    Example: sigmax candidates list runs/faq > answers.jsonl

    Example: sigmax candidates pack runs/products queries.csv --vectors int8
    """
    if action not in ACTIONS:
        raise typer.BadParameter(f"expected {', '.join(ACTIONS)}, got {action!r}", param_hint="ACTION")
    if (action == "pack") != (vectors is not None):
        raise typer.BadParameter(
            "expected for pack: how vectors are stored" if vectors is None else f"expected none for {action}",
            param_hint="--vectors",
        )
    if action != "pack" and (action == "list") != (source is None):
        raise typer.BadParameter(
            "expected none for list, which prints them" if source else f"expected a table of what to {action}",
            param_hint="FILE",
        )
    quiet()
    if vectors is not None:
        _pack(folder, vectors, source, columns, as_json)
        return
    if source is None:
        from sigmax.model import load

        model = load(folder)
        for key, text in zip(model.candidate_ids, model.candidates, strict=True):
            sys.stdout.write(json.dumps({"id": key, "text": text}, ensure_ascii=False) + "\n")
        return
    from sigmax.model.changes import add_candidates, remove_candidates

    with bar("reading") as advance:
        if action == "add":
            change = add_candidates(folder, source, columns=renamed(columns), advance=advance)
        else:
            change = remove_candidates(folder, source, columns=renamed(columns))
    if as_json:
        print_json(change.as_dict())
    counts = (
        (change.added, "added"),
        (change.replaced, "replaced"),
        (change.removed, "removed"),
        (change.same, "same"),
    )
    told = ", ".join(f"{number:,} {what}" for number, what in counts if number)
    say(f"{folder}: {told}; the model offers {change.candidates:,} candidates.")
    if change.index:
        say(f"The index was of the candidates before and is gone. Build it again: sigmax index {folder}")


def _pack(folder: Path, kind: str, source: str | None, columns: str, as_json: bool) -> None:
    from sigmax.model import load
    from sigmax.model.bulk import queries_of
    from sigmax.model.packing import pack_candidates

    with bar("reading") as advance:
        queries = None if source is None else queries_of(load(folder), source, renamed(columns))
        done = pack_candidates(folder, kind, queries=queries, advance=advance)
    if as_json:
        print_json(done.as_dict())
    error = "" if done.presence_error is None else f"; presences differ by {done.presence_error:.2g} at most"
    say(
        f"{folder}: vectors of {done.candidates:,} candidates as {kind}, {done.bytes_before / 1e6:,.1f} MB, then "
        f"{done.bytes_after / 1e6:,.1f} MB; {done.recall:.2%} of the best 10 by float32 stay among the best 10 "
        f"({done.queries:,} {done.what}){error}."
    )
    if done.index:
        say(f"The index was of the vectors before and is gone. Build it again: sigmax index {folder}")


@command("Use")
def index(
    folder: Folder,
    reading: Reading,
    data: Annotated[
        str | None,
        Option(
            "Measure on these queries, and let P(any) and rules know what the index misses: file, folder, hf:user/name "
            "or built-in set.",
            group="data",
            shown="DATA",
        ),
    ] = None,
    split: MeasuredSplit = "dev",
    kind: Annotated[
        str | None,
        Option(
            "What to build: {choices}. Default: by the number of candidates; below 50,000 nothing, for there the "
            "scan of all takes milliseconds.",
            group="run",
            choices="sigmax.candidates.faiss_index:KINDS",
            open=True,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build an index over a model's candidates, beside their vectors, and measure what it misses.

    `sigmax match` and `sigmax serve` then ask the index for the best 100 candidates of a query; --exact looks at all.
    What is found has its exact logit. Shares are parts of a sum that is exact over the best 100 and estimated for the
    rest from a random sample; their standard error is told. A presence that reads the share (`competition` above 0)
    has that error too.

    With --data, P(any) is fitted on what the index returns, and rules are chosen through it: what they promise holds
    with what it misses. Without, recall is measured, on texts of candidates.

    An index that was interrupted is gone on with. Kinds:

    {each sigmax.candidates.faiss_index:KINDS}

    Example: sigmax index runs/products --data clicks.parquet
    """
    check_folder(folder)
    quiet()
    from sigmax.candidates.faiss_index import FLAT_BELOW
    from sigmax.model import load
    from sigmax.model.index import build
    from sigmax.report.tables import index_table

    model = load(folder)
    dataset = None if data is None else read(data, reading)
    with bar("reading") as advance:
        built = build(folder, model, kind=kind, data=dataset, split=split, advance=advance)
    if built is None:
        size = len(model.candidates)
        if as_json:
            print_json({"index": None, "candidates": size})
        say(f"{folder}: {size:,} candidates need no index: below {FLAT_BELOW:,} the scan of all takes milliseconds.")
        return
    about, measured = built
    if as_json:
        print_json({"index": {key: value for key, value in about.items() if key != "calibrator"}})
    else:
        out.print(index_table(about, measured))
    say(f"Written: {folder / 'index'}")


@command("Use")
def push(
    folder: Folder,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Database: postgresql://user@host/database.")],
    reading: Reading,
    table: Annotated[str, Option("Table to write.", group="run", shown="NAME")] = "candidates",
    metadata: Annotated[
        str,
        Option(
            "Table with a column id; its other columns are what `sigmax match --where` and requests may ask of a "
            "candidate.",
            group="data",
            shown="FILE",
        ),
    ] = "",
    data: Annotated[
        str | None,
        Option(
            "Measure on these queries, and let P(any) and rules know what the database misses: file, folder, "
            "hf:user/name or built-in set.",
            group="data",
            shown="DATA",
        ),
    ] = None,
    split: MeasuredSplit = "dev",
    as_json: AsJson = False,
) -> None:
    """Write a model's candidates to PostgreSQL with pgvector, and index them there.

    `sigmax match` and `sigmax serve` answer from there with --candidates ADDRESS, with the same presences. A push that
    was interrupted is gone on with; an older table answers until the new one is whole. With --data, P(any) is fitted on
    what the database returns, and rules are chosen through it; both lie in the folder. Leave the password out of the
    address: PGPASSWORD or ~/.pgpass hold it where no list of processes shows it.

    Example: sigmax push runs/products postgresql://shop@db/shop --metadata stock.csv
    """
    from sigmax.candidates.postgres import hidden, is_postgres

    if not is_postgres(address):
        raise typer.BadParameter("expected postgresql://user@host/database", param_hint="ADDRESS")
    quiet()
    from sigmax.model.database import push_candidates
    from sigmax.report.tables import index_table

    dataset = None if data is None else read(data, reading)
    with bar("reading") as advance:
        pushed = push_candidates(
            folder,
            address,
            table=table,
            metadata=metadata or None,
            columns=renamed(reading["columns"]),
            data=dataset,
            split=split,
            advance=advance,
        )
    size, measured = pushed.candidates, pushed.measured
    if as_json:
        told = {} if measured is None else {"measured": measured.as_dict()}
        print_json({"table": table, "candidates": size, "written": pushed.written, **told})
    elif measured is not None:
        out.print(index_table({"kind": "pgvector", "size": size}, measured))
    before = f", {size - pushed.written:,} of them by an earlier run" if pushed.written < size else ""
    say(f"Written: {size:,} candidates to {table} in {hidden(address)}{before}")
    if measured is not None:
        say(f"Written: {folder / 'database'}")
