"""Matching in bulk: queries from a table, answers to a table, in parts that a killed run does not lose."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sigmax.data.fetching import STDIN, downloaded, from_stdin, is_address
from sigmax.data.formats.cells import text_cell
from sigmax.data.formats.reader import Reading
from sigmax.data.formats.rows import Row
from sigmax.data.formats.tables import rows_by_split
from sigmax.data.pictures import Picture
from sigmax.errors import DataError, lookup
from sigmax.files import check_file, replace_file, write_bytes, write_text

if TYPE_CHECKING:
    from sigmax.data.pictures import Advance, Query
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.model.matches import Matches

__all__ = [
    "FORMATS",
    "Asked",
    "Format",
    "ending_of_answers",
    "match_rows",
    "match_stream",
    "match_table",
    "opened_table",
    "queries_of",
]

#: Queries per part: what a kill costs, at most.
PART = 4096
#: Queries matched at a time.
BLOCK = 256
#: Columns that hold queries, the first that is there: of a model of texts, and of one of pictures.
TEXTS, PICTURES = ("query", "text"), ("image", "file_name")


@dataclass(frozen=True)
class Asked:
    """One query of a table."""

    row: int  #: its place in the table, from 0
    id: str | None  #: what its column `id` or `_id` says
    query: Query


# -- answers as records ---------------------------------------------------------------------------


def _lines(asked: Asked, matches: Matches) -> Iterator[dict[str, Any]]:
    """One record per candidate."""
    for rank, match in enumerate(matches, start=1):
        yield {
            "row": asked.row,
            "id": asked.id,
            "query": str(asked.query),
            "rank": rank,
            **match.as_dict(),
            "accepted": matches.accepts(match),
            "any": matches.any,
            "outcome": matches.outcome,
            "unlike_training": matches.unlike_training,
        }


def _jsonl(answers: Iterable[tuple[Asked, Matches]]) -> bytes:
    records = ({"row": asked.row, "id": asked.id, **matches.as_dict()} for asked, matches in answers)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _csv(answers: Iterable[tuple[Asked, Matches]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(
        line for asked, matches in answers for line in _lines(asked, matches)
    )
    return text.getvalue().encode()


def _parquet(answers: Iterable[tuple[Asked, Matches]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    lines = [line for asked, matches in answers for line in _lines(asked, matches)]
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string(), bool: pyarrow.bool_()}
    schema = pyarrow.schema({name: kinds[kind] for name, kind in COLUMNS.items()})
    held = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(lines, schema=schema), held)
    return held.getvalue()


def _join_bytes(parts: Sequence[Path], file: IO[bytes]) -> None:
    for part in parts:
        with part.open("rb") as content:
            shutil.copyfileobj(content, file)


def _join_csv(parts: Sequence[Path], file: IO[bytes]) -> None:
    file.write((",".join(COLUMNS) + "\n").encode())
    _join_bytes(parts, file)


def _join_parquet(parts: Sequence[Path], file: IO[bytes]) -> None:
    from pyarrow import parquet

    with parquet.ParquetWriter(file, parquet.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part))


#: Columns of a table of answers, one line per query and candidate.
COLUMNS: dict[str, type] = {
    **{"row": int, "id": str, "query": str, "rank": int, "candidate": str, "candidate_id": str, "logit": float},
    **{"share": float, "presence": float, "accepted": bool, "any": float, "outcome": str, "unlike_training": bool},
}


@dataclass(frozen=True)
class Format:
    """How answers are written: a part, and all parts as one file."""

    part: Callable[[Iterable[tuple[Asked, Matches]]], bytes]
    join: Callable[[Sequence[Path], IO[bytes]], None]


#: Formats of answers by the ending of the file: CSV and Parquet have a line per candidate, JSONL one per query.
FORMATS: dict[str, Format] = {
    ".csv": Format(_csv, _join_csv),
    ".jsonl": Format(_jsonl, _join_bytes),
    ".parquet": Format(_parquet, _join_parquet),
}


def ending_of_answers(path: Path) -> str:
    """Return the ending that says how answers are written.

    Raises:
        DataError: another one.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: expected a file ending in {', '.join(FORMATS)}, got {path.suffix or 'no ending'!r}.")
    return path.suffix.lower()


# -- matching -------------------------------------------------------------------------------------


def match_table(
    model: DualEncoder,
    source: str | Path,
    output: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    advance: Advance | None = None,
    **how: Any,
) -> int:
    """Match every query of a table, write the answers to a file, and return how many queries there were.

    All rows are read once before the first is matched, so that a broken one is told at once. Answers are kept in a
    folder beside the file, in parts of `PART` queries; a run of the same model on the same table, asked in the same
    way, goes on after the last whole part, and the file is written when all are there. Memory does not grow with the
    table.

    Args:
        model: what matches.
        source: any table that Sigmax reads; "-" for standard input, or an https address.
        output: a file ending in one of `FORMATS`.
        columns: our column name (query, id; image for pictures) -> the table's.
        delimiter: between the fields of a CSV file, see `sigmax.data.formats.read`.
        advance: called with the share of queries that are matched.
        how: see `match_rows`.

    Raises:
        DataError: a table that cannot be read, a row without a query, another ending.
        OSError: the file cannot be written.
    """
    output = Path(output)
    form = lookup(FORMATS, ending_of_answers(output), "ending")
    check_file(output)
    reading = Reading(columns=dict(columns or {}), delimiter=delimiter)
    parts = output.with_name(f"{output.name}.parts")
    with opened_table(source) as path:
        total = sum(1 for _ in _asked(model, path, reading))
        done = _resumed(parts, _fingerprint(model, path, reading, how)) * PART
        rows = islice(_asked(model, path, reading), done, None)
        answers = match_rows(model, rows, **how)
        while done < total:
            held = list(islice(answers, PART))
            write_bytes(parts / f"part-{done // PART:06d}{output.suffix}", form.part(held))
            done += len(held)
            if advance is not None:
                advance(done / total, f"matching {total:,} queries")
    with replace_file(output) as file:
        form.join(sorted(parts.glob("part-*")), file)
    shutil.rmtree(parts)
    return total


def match_stream(
    model: DualEncoder,
    source: str | Path,
    stream: IO[bytes],
    *,
    columns: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    advance: Advance | None = None,
    **how: Any,
) -> int:
    """Match every query of a table and write the answers as JSONL, some at a time; return how many queries there were.

    Args:
        model: what matches.
        source: see `match_table`.
        stream: where the answers go.
        columns: see `match_table`.
        delimiter: see `match_table`.
        advance: called with the share of queries that are matched.
        how: see `match_rows`.

    Raises:
        DataError: a table that cannot be read, a row without a query.
    """
    reading = Reading(columns=dict(columns or {}), delimiter=delimiter)
    with opened_table(source) as path:
        total = sum(1 for _ in _asked(model, path, reading))
        answers = match_rows(model, _asked(model, path, reading), **how)
        done = 0
        while held := list(islice(answers, BLOCK)):
            stream.write(_jsonl(held))
            stream.flush()
            done += len(held)
            if advance is not None:
                advance(done / total, f"matching {total:,} queries")
    return total


def match_rows(
    model: DualEncoder,
    rows: Iterable[Asked],
    *,
    top_k: int = 5,
    rule: str = "best-f1",
    confidence: float = 0.9,
    order: str = "presence",
) -> Iterator[tuple[Asked, Matches]]:
    """Match queries as they come, `BLOCK` at a time; candidates are encoded once.

    Args:
        model: what matches.
        rows: the queries.
        top_k: candidates per query; of the accepted ones as many are listed.
        rule: see `DualEncoder.match`.
        confidence: see `DualEncoder.match`.
        order: see `DualEncoder.match`.
    """
    if model.searched is not None:
        model.searched.check(top_k)
    decision = model.decide(rule, confidence=confidence)
    offer = model.offer()
    rows = iter(rows)
    while block := list(islice(rows, BLOCK)):
        rated = model.rate(model.as_queries([asked.query for asked in block]), offer)
        for asked, one in zip(block, rated, strict=True):
            yield asked, one.matches(asked.query, top_k, decision, order=order, most_accepted=top_k)


def queries_of(model: DualEncoder, source: str | Path, columns: Mapping[str, str] | None = None) -> list[Query]:
    """Read the queries of a table, in their order; see `match_table`.

    Raises:
        DataError: a table that cannot be read, a row without a query.
    """
    with opened_table(source) as path:
        return [asked.query for asked in _asked(model, path, Reading(columns=dict(columns or {})))]


@contextlib.contextmanager
def opened_table(source: str | Path) -> Iterator[Path]:
    """Give the path of a table: a file's own, or that of what standard input ("-") or an https address holds.

    Raises:
        DataError: no such file, or one that cannot be fetched.
    """
    with contextlib.ExitStack() as stack:
        if str(source) == STDIN:
            yield stack.enter_context(from_stdin())
        elif is_address(str(source)):
            yield stack.enter_context(downloaded(str(source)))
        elif Path(source).exists():
            yield Path(source)
        else:
            raise DataError(f"{source}: no such file.")


def _asked(model: DualEncoder, path: Path, reading: Reading) -> Iterator[Asked]:
    names = (*PICTURES, *TEXTS) if model.pictures else TEXTS
    number = 0
    for number, (row, _) in enumerate(rows_by_split(path, reading), start=1):
        name = next((name for name in names if name in row.values), None)
        if name is None:
            raise DataError(
                f"{row.where}: expected a column {' or '.join(names)}, got {', '.join(row.values)}. Say which it is by "
                f"`columns` {names[0]}={next(iter(row.values))}."
            )
        key = next((row.values[key] for key in ("id", "_id") if row.values.get(key) is not None), None)
        query = _picture(row, name, path) if model.pictures else text_cell(row, name)
        yield Asked(number - 1, None if key is None else str(key), query)
    if not number:
        raise DataError(f"{path}: expected a table of queries, got none.")


def _picture(row: Row, name: str, path: Path) -> Picture:
    """A path from the table's folder on, a file's bytes, or Hugging Face's {bytes, path}."""
    value = row.values[name]
    label = None
    if isinstance(value, Mapping):
        label, value = value.get("path"), value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return Picture(str(label or row.where), value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{row.where}: expected a picture under `{name}`, got {str(value)[:60]!r}.")
    return Picture(value, (path if path.is_dir() else path.parent) / value)


# -- going on where a killed run stopped ----------------------------------------------------------


def _resumed(parts: Path, fingerprint: str) -> int:
    """Ready the folder of parts; return how many whole ones of the same run it holds."""
    about = parts / "run.json"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads(about.read_text(encoding="utf-8")).get("fingerprint") == fingerprint:
            return len(list(parts.glob("part-*")))
    if parts.exists() and not about.exists():
        raise DataError(f"{parts}: is there already and holds no parts of answers. Move it, or choose another file.")
    shutil.rmtree(parts, ignore_errors=True)
    write_text(about, json.dumps({"fingerprint": fingerprint}) + "\n")
    return 0


def _fingerprint(model: DualEncoder, path: Path, reading: Reading, how: Mapping[str, Any]) -> str:
    """A hash of all that makes answers what they are."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        hashed.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    if model.searched is not None:
        hashed.update(f"{model.searched.store.fingerprint} {model.searched.store.describe()}".encode())
    for key, text in zip(model.candidate_ids, model.candidates, strict=True):
        hashed.update(f"{key}\0{text}\n".encode())
    for name, array in ({} if model.novelty is None else model.novelty.as_tensors()).items():
        hashed.update(name.encode() + array.tobytes())
    calibrator = None if model.calibrator is None else model.calibrator.as_dict()
    hashed.update(
        json.dumps([calibrator, dict(reading.columns), reading.delimiter, dict(how), PART], sort_keys=True).encode()
    )
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb") as content:
                while block := content.read(2**20):
                    hashed.update(block)
    return hashed.hexdigest()
