"""Read DATA; look at it, add wrong answers to it, write its vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sigmax.cli.app import command
from sigmax.cli.console import bar, out, print_json, quiet, say
from sigmax.cli.options import AsJson, Data, Folder, Model, Reading, renamed
from sigmax.errors import DataError
from sigmax.files import check_file, check_folder
from sigmax.training.option import Option

if TYPE_CHECKING:
    from sigmax.data import MatchDataset

__all__ = ["check", "encode", "mine", "read"]


def read(source: str, reading: dict[str, Any]) -> MatchDataset:
    """Load what DATA names, as the options of `READING` say."""
    named = renamed(reading["columns"])
    from sigmax.data import load_data

    with bar("reading data") as advance:
        return load_data(source, **{**reading, "columns": named}, advance=advance)


@command("Data")
def check(data: Data, reading: Reading, as_json: AsJson = False) -> None:
    """Say what matters about DATA before training on it.

    Formats:

    {list sigmax.data.formats.registry:READERS}

    Tables are JSON, CSV, TSV, Parquet or Excel; text also as .gz or .zst. A list in a CSV cell: one|two or
    ["one", "two"]. DATA may also be - (standard input) or an https address.
    """
    quiet()
    from sigmax.data.check import check as look
    from sigmax.report.tables import check_table

    dataset = read(data, reading)
    with bar("looking at the data"):
        found = look(dataset)
    if as_json:
        print_json(found.as_dict())
        return
    out.print(check_table(found))
    for finding in found.findings:
        out.print(f"• {finding}", markup=False, soft_wrap=not out.is_terminal)


@command("Data")
def mine(
    folder: Folder,
    data: Data,
    reading: Reading,
    negatives: Annotated[
        int, Option("Maximum wrong answers per training query.", group="search", shown="N", least=1)
    ] = 5,
    bound: Annotated[
        float,
        Option(
            "Presence from which a candidate may be right and is left out.",
            group="search",
            shown="X",
            above=0,
            most=1,
        ),
    ] = 0.5,
    output: Annotated[
        Path,
        Option("New folder for the data with what was found.", group="run", shown="DIR", flags=("--output", "-o")),
    ] = ...,  # type: ignore[assignment]
    as_json: AsJson = False,
) -> None:
    """Find wrong answers near each training query of DATA, write DATA with them to a folder.

    For texts on both sides. The model in DIR compares every candidate; known right answers, and those that may be right
    by their presence, are left out. `sigmax train` then offers the wrong ones in its batches (a BEIR folder, score 0).

    Example: sigmax mine runs/faq faq.csv -o faq-mined && sigmax train faq-mined -o runs/faq-mined
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise DataError(f"{output}: is there already. Choose another folder, or remove it.")
    check_folder(output)
    quiet()
    from sigmax.data.writers import write_beir
    from sigmax.mining import mine as run
    from sigmax.model import load

    model, dataset = load(folder), read(data, reading)
    with bar() as advance:
        mined = run(model, dataset, negatives=negatives, bound=bound, advance=advance)
    write_beir(mined, output)
    queries, found = len(dataset.split("train")), len(mined.wrong) - len(dataset.wrong)
    if as_json:
        print_json({"data": str(output), "queries": queries, "mined": found, "wrong": len(mined.wrong)})
        return
    out.print(f"{found:,} wrong pairs found for {queries:,} training queries ({found / queries:.1f} each).")
    say(f"Written: {output}. Next: sigmax train {output} -o DIR")


@command("Data")
def encode(
    folder: Model,
    data: Data,
    reading: Reading,
    side: Annotated[
        str,
        Option(
            "Which side of DATA to encode: {choices}.",
            group="data",
            shown="NAME",
            choices="sigmax.model.embeddings:SIDES",
        ),
    ] = "query",
    output: Annotated[
        Path,
        Option("Parquet file to write, ending in .parquet.", group="run", shown="FILE", flags=("--output", "-o")),
    ] = ...,  # type: ignore[assignment]
    as_json: AsJson = False,
) -> None:
    """Write the vectors of DATA's queries or candidates to a Parquet file.

    Columns: id, text (of pictures: picture, their name) and embedding, a list of float32 numbers. The logit of a pair
    is logit_scale × similarity + logit_bias; the three are in the file's schema metadata under `sigmax`.

    Example: sigmax encode runs/emoji/sigmoid emoji --side candidate -o emoji.parquet
    """
    if output.suffix != ".parquet":
        raise typer.BadParameter(f"expected a file ending in .parquet, got {str(output)!r}", param_hint="--output")
    if output.is_dir():
        raise DataError(f"{output}: is a folder; --output needs a file.")
    check_file(output)
    quiet()
    from sigmax.model import load
    from sigmax.model.embeddings import write_embeddings

    model, dataset = load(folder), read(data, reading)
    with bar() as advance:
        rows, width = write_embeddings(model, dataset, output, side=side, advance=advance)
    if as_json:
        print_json({"file": str(output), "side": side, "rows": rows, "width": width})
    say(f"Written: {output}, {rows:,} vectors of {width:,} numbers")
