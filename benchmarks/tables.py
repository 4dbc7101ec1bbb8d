"""Make one page of tables, docs/measured.md, from the newest raw results in benchmarks/results.

Usage: python benchmarks/tables.py [--check]

Nothing on that page is typed by hand: each table says from which file it comes, when and on which machine that was
measured. A test holds the page to the files. With --check nothing is written, and a page that differs ends in 1.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "measured.md"
HEAD = """# Measured

Tables of the newest raw results in `benchmarks/results`, made by `benchmarks/tables.py`; what each script does stands
in `benchmarks/README.md`. Ratios are of one run; seconds are medians, and of the processor where nothing else is said.
Where other work used the machine, seconds of the clock say little: look at the ratios.
"""

Rows = Iterable[list[str]]


@dataclass(frozen=True)
class Table:
    """A table of one file, the newest whose name without its date matches."""

    title: str
    stem: str  #: a pattern of names without date and ending; each match has a table of its own
    about: str  #: what the columns are
    head: list[str]
    rows: Callable[[dict[str, Any]], Rows]


def losses(record: dict[str, Any]) -> Rows:
    """Ratios to the bare products."""
    for row in record["rows"]:
        ratio = row["ratio"]
        mib = row.get("mib")
        yield [
            row["name"],
            f"{ratio['three products']:.2f}",
            f"{ratio['four products']:.2f}",
            "–" if mib is None else f"{mib:,.0f}",
        ]


def trainings(record: dict[str, Any]) -> Rows:
    """Seconds in all and by stage, the largest stages first."""
    for result in record["results"]:
        stages = sorted(result["seconds"].items(), key=lambda item: -item[1])
        told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages if seconds >= 0.02 * result["total"])
        short = f" ({result['steps']} steps alone)" if result.get("short") else ""
        test = [f"{result['test'][name]:.3f}" for name in ("map", "precision@1")]
        yield [f"{result['data']}, {result['encoder']}{short}", f"{result['total']:.2f}", told, *test]


def served(record: dict[str, Any]) -> Rows:
    """Medians over rounds."""
    for place, rounds in record["rounds"].items():
        middle = {name: statistics.median(one[name] for one in rounds) for name in ("per_second", "p50_ms", "p99_ms")}
        values = [f"{middle['per_second']:,.0f}", f"{middle['p50_ms']:.0f}", f"{middle['p99_ms']:.0f}"]
        yield [place.rpartition("/")[2], *values, str(len(rounds))]


def starts(record: dict[str, Any]) -> Rows:
    """Seconds until each is done."""
    for name, seconds in record["seconds"].items():
        yield [
            f"`{name}`",
            f"{seconds['processor']:.2f}",
            f"{seconds['clock']:.2f}",
            f"{record['times_torch'][name]:.2f}",
        ]


def fine_tuned(record: dict[str, Any]) -> Rows:
    """Seconds and dev metrics, in the order measured."""
    for row in record["rows"]:
        way = f"{row['precision']}, {'cut by length' if row['parts'] == 'parts' else 'whole batches'}"
        seconds = [f"{row['seconds'][name]:.1f}" for name in ("train", "dev")]
        dev = [f"{row['dev'][name]:.4f}" for name in ("map", "precision@1")]
        yield [row["data"], way, str(row["seed"]), str(row["steps"]), *seconds, *dev]


def steps_of(record: dict[str, Any]) -> Rows:
    """Milliseconds of a step, each way."""
    for row in record["rows"]:
        times = [f"{1e3 * seconds:.0f}" for seconds in row["seconds"].values()]
        yield [str(row["batch_size"]), row["instructions"], f"{row['tokens']} in {row['padded']}", *times]


def labelled(record: dict[str, Any]) -> Rows:
    """Seconds of fitting, and metrics on test."""
    for name, result in record["results"].items():
        seconds = result.get("processor_seconds", result.get("fit_processor_seconds"))
        test = [result["test"][metric]["value"] for metric in ("map", "precision@1", "log_loss")]
        yield [name, f"{seconds:.1f}", *(f"{value:.3f}" for value in test)]


def candidates(record: dict[str, Any]) -> Rows:
    """What so many candidates cost."""
    for row in record["rows"]:
        yield [
            f"{row['candidates']:,}",
            f"{row['encode_and_save_seconds']:.1f}",
            f"{row['vectors_bytes'] / 2**20:,.0f}",
        ]


_FIT = ["", "seconds of fitting", "MAP", "P@1", "log loss"]
TABLES = (
    Table(
        "Losses on a CPU",
        r"loss-cpu-n\d+-d\d+(-processor-time(-avx2)?)?",
        "Forward and backward, as multiples of three and of four bare products; memory above inputs and gradients.",
        ["", "× three", "× four", "MiB"],
        losses,
    ),
    Table(
        "Where the time of a training goes",
        r"train-time",
        "From the start of Python to a calibrated model, and the largest parts; ranking on test.",
        ["", "seconds", "of which", "MAP", "P@1"],
        trainings,
    ),
    Table(
        "Fine-tuning a transformer",
        r"transformer-dev",
        "So many steps; metrics on dev.",
        ["data", "", "seed", "steps", "training, seconds", "encoding dev, seconds", "MAP", "P@1"],
        fine_tuned,
    ),
    Table(
        "A step of fine-tuning",
        r"transformer",
        "Milliseconds of forward and backward by oneDNN's instructions; tokens without padding, and with it.",
        ["batch", "instructions", "tokens", "float32, whole", "float32, cut", "bfloat16, whole", "bfloat16, cut"],
        steps_of,
    ),
    Table(
        "Labelled texts, from scratch",
        r"labels-\w+",
        "Beside scikit-learn's linear models of tf-idf; all calibrated on dev.",
        _FIT,
        labelled,
    ),
    Table(
        "Labelled texts, a frozen encoder",
        r"frozen-\w+-\w+",
        "Beside scikit-learn's logistic regression on the same vectors, whose encoding is not counted.",
        _FIT,
        labelled,
    ),
    Table(
        "Serving",
        r"serve-in-turn",
        "The load of 32 connections comes from the same machine; milliseconds.",
        ["", "requests per second", "median", "99% within", "rounds"],
        served,
    ),
    Table(
        "Start-up",
        r"import-time(-[\w-]+)?",
        "Until the command is done.",
        ["", "seconds of the processor", "of the clock", "× `import torch`"],
        starts,
    ),
    Table(
        "Many candidates",
        r"candidates",
        "N-grams of 128 numbers.",
        ["candidates", "encode and save, seconds", "vectors, MiB"],
        candidates,
    ),
)


def newest(pattern: str) -> list[Path]:
    """The newest file of each name that matches, by name."""
    found: dict[str, Path] = {}
    for path in sorted(RESULTS.glob("*.json")):  # later dates come later
        stem = re.sub(r"^\d{4}-\d\d-\d\d-", "", path.stem)
        if re.fullmatch(pattern, stem):
            found[stem] = path
    return [found[stem] for stem in sorted(found)]


def machine(record: dict[str, Any]) -> str:
    """What a record says of where and how it was measured."""
    about = record.get("machine", {})
    if isinstance(about, str):
        return about
    parts = [str(about["processor"])] if about.get("processor") else []
    parts += [counted(about[key], key) for key in ("cores", "threads") if str(about.get(key)).isdigit()]
    parts += [f"{about['torch_instructions']}"] if "torch_instructions" in about else []
    parts += [counted(record["threads"], "threads")] if str(record.get("threads")).isdigit() else []
    load = next((record[key] for key in ("load", "load_average_after") if key in record), None)
    parts += [f"load {load:.1f}"] if load is not None else []
    parts += [record["note"]] if record.get("note") else []
    return ", ".join(parts) or "machine not recorded"


def counted(number: Any, what: str) -> str:
    """Such as "1 thread", "2 threads"."""
    return f"{number} {what.removesuffix('s') if str(number) == '1' else what}"


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for table in TABLES:
        files = newest(table.stem)
        if not files:
            continue
        parts.append(f"\n## {table.title}\n\n{table.about}\n")
        for path in files:
            record = json.loads(path.read_text(encoding="utf-8"))
            parts.append(f"\n`{path.name}`: {machine(record)}.\n\n{markdown(table.head, table.rows(record))}")
    return "".join(parts)


def markdown(head: list[str], rows: Rows) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    made = page()
    if given.check:
        sys.exit(0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == made else 1)
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
