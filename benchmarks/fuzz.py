"""Broken inputs by the hundred thousand: every one is read or refused in words, none crashes and none hangs.

    python benchmarks/fuzz.py --seconds 60 --seed 0

Inputs are good ones, broken: bytes are changed, removed, repeated or taken from another, and words that mean something
to a parser are put in; or, of tables and JSON, values that no reader hopes for. What comes of each may be a result or
an error that the library promises (`DataError` and `UnknownNameError` of readers and model folders, `ValueError` of
rules, a validation error of request bodies); a model that loads is asked. Anything else, or more than ten seconds, is
printed with what reproduces it, and the exit code is 1. Inputs are numbered, so that `--start` goes on where another
run stopped.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import csv
import datetime
import gzip
import io
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow
from PIL import Image
from pyarrow import parquet

from sigmax.calibration.rules import parse_rule
from sigmax.data.formats import read
from sigmax.data.pictures import Picture, check_pictures
from sigmax.errors import DataError, UnknownNameError

#: Seconds that one input may take.
LIMIT = 10
WORDS = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
    b"PK\x03\x04",
    b'"',
    b"[",
    b"{",
    b"[" * 2000,
    b"\r",
    b"|",
]
WORDS += [
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"7" * 5000,
    b"null",
    b"true",
    b"\\ud800",
    b"\xc3\x28",
    "é\u0301".encode(),
]
WORDS += [
    b",",
    b";",
    b"\t",
    b"\n",
    b"..",
    b"/",
    b"train",
    b"tset",
    b"labels",
    b"query",
    b"answers",
    b"text",
    b"0",
    b"1",
]

ROWS = [{"query": f"q{i}", "answers": ["a|b", f"c{i % 3}"], "wrong": ["d"], "split": None} for i in range(6)]
LABELLED = [{"text": f"t{i}", "label": f"l{i % 2}"} for i in range(6)]
HOT = [{"text": f"t{i}", "cat": i % 2, "dog": 1 - i % 2} for i in range(6)]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    lines = [",".join(rows[0])]
    lines += [
        ",".join("|".join(cell) if isinstance(cell, list) else str(cell or "") for cell in row.values()) for row in rows
    ]
    return "\n".join(lines).encode()


def _excel(rows: list[dict[str, Any]]) -> bytes:
    book = openpyxl.Workbook()
    for row in [list(rows[0]), *(list(row.values()) for row in rows)]:
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (4, 4), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, images=np.arange(96, dtype=np.uint8).reshape(6, 4, 4), labels=np.array([0, 1] * 3))
    return file.getvalue()


def _coco() -> bytes:
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
    annotations = [{"image_id": i, "category_id": i % 2} for i in range(4)]
    return json.dumps(
        {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]}
    ).encode()


PNG = {f"{i}.png": _picture(i) for i in range(4)}
JSONL = b"\n".join(json.dumps(row).encode() for row in ROWS)
#: Good inputs: files by name; the first is what is broken, and the path that is read is named last.
READERS: dict[str, tuple[dict[str, bytes], str]] = {
    "jsonl": ({"x.jsonl": JSONL}, "x.jsonl"),
    "json": ({"x.json": json.dumps(LABELLED).encode()}, "x.json"),
    "csv": ({"x.csv": _csv(ROWS)}, "x.csv"),
    "csv labelled": ({"x.csv": _csv(LABELLED)}, "x.csv"),
    "csv indicators": ({"x.csv": _csv(HOT)}, "x.csv"),
    "tsv": ({"x.tsv": _csv(ROWS).replace(b",", b"\t")}, "x.tsv"),
    "utf-16": ({"x.csv": _csv(ROWS).decode().encode("utf-16")}, "x.csv"),
    "gzip": ({"x.csv.gz": gzip.compress(_csv(ROWS))}, "x.csv.gz"),
    "zstd": ({"x.csv.zst": pyarrow.compress(_csv(ROWS), "zstd", asbytes=True)}, "x.csv.zst"),
    "parquet": ({"x.parquet": _parquet(LABELLED)}, "x.parquet"),
    "excel": ({"x.xlsx": _excel(LABELLED)}, "x.xlsx"),
    "npz": ({"x.npz": _npz()}, "x.npz"),
    "coco": ({"x.json": _coco(), **PNG}, "x.json"),
    "yolo": (
        {
            "data.yaml": b"names: [a, b]\n",
            **{f"labels/{i}.txt": b"%d .5 .5 .1 .1\n" % (i % 2) for i in range(4)},
            **{f"images/{name}": content for name, content in PNG.items()},
        },
        "",
    ),
    "yolo labels": (
        {
            "labels/0.txt": b"0 .5 .5 .1 .1\n1 .2 .2 .1 .1\n",
            "data.yaml": b"names: {0: a, 1: b}\n",
            **{f"images/{name}": content for name, content in PNG.items()},
        },
        "",
    ),
    "voc": (
        {
            "Annotations/0.xml": b"<annotation><object><name>a</name></object></annotation>",
            **{
                f"Annotations/{i}.xml": b"<annotation><object><name>b</name></object></annotation>" for i in range(1, 4)
            },
            **{f"JPEGImages/{name}": content for name, content in PNG.items()},
        },
        "",
    ),
    "picture": (
        {"cat/0.png": _picture(0), "cat/1.png": _picture(1), "dog/2.png": _picture(2), "dog/3.png": _picture(3)},
        "",
    ),
    "picture table": (
        {
            "metadata.csv": b"file_name,label,split\n0.png,a,train\n1.png,b,train\n2.png,a,dev\n3.png,b,test\n",
            **PNG,
        },
        "",
    ),
    "qrels": (
        {
            "qrels/test.tsv": b"".join(b"q%d\td\t1\n" % i for i in range(6)),
            "queries.jsonl": b"\n".join(b'{"_id": "q%d", "text": "t%d"}' % (i, i) for i in range(6)),
            "corpus.jsonl": b'{"_id": "d", "text": "d"}\n',
        },
        "",
    ),
    "queries": (
        {
            "queries.jsonl": b"\n".join(b'{"_id": "q%d", "text": "t%d"}' % (i, i) for i in range(6)),
            "qrels/test.tsv": b"".join(b"q%d\td\t1\n" % i for i in range(6)),
            "corpus.jsonl": b'{"_id": "d", "text": "d"}\n',
        },
        "",
    ),
}


def broken(good: bytes, chance: random.Random) -> bytes:
    """One to four changes of an input."""
    content = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randint(0, len(content)), chance.choice((0, 1, 1, 2, 8, 64))
        how = chance.randrange(6)
        if how == 0:
            content[at : at + length] = chance.randbytes(length)
        elif how == 1:
            del content[at : at + length]
        elif how == 2:
            content[at:at] = chance.choice(WORDS)
        elif how == 3:
            content[at : at + length] = chance.choice(WORDS)
        elif how == 4:
            content[at:at] = content[at : at + length] * chance.choice((1, 2, 100))
        else:
            content = content[:at] if chance.random() < 0.3 else content
    return bytes(content)


#: Values that a cell may hold though nobody hopes for them.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**70, 1.0, 0.5, -0.0, float("nan"), float("inf"), 1e300),
    *("", " ", "a", "b", "a|b", "[", '["a", "b"]', "['a' 'b']", "nan", "1", "1.0", "train", "dev", "test", "tset", "-"),
    *(
        "\0",
        "\ud800",
        "e\u0301",
        "\u00e9",
        "\u200b",
        "\u202e",
        "\U0001f600",
        "x" * 3000,
        "a,b",
        'a"b',
        "a\nb",
        "=1+1",
        "../x",
    ),
    *([], ["a"], ["a", None], [["a"]], {}, {"a": 1}, {"bytes": None, "path": "a"}, [1, 2.0], b"", b"a", b"\xff"),
    *(datetime.date(1, 1, 1), datetime.datetime(2026, 1, 1, 12), 10**400),
]
NAMES = ["query", "answer", "answers", "wrong", "text", "label", "labels", "split", "image", "file_name", "score", "id"]
NAMES += ["_id", "cat", "dog", "", " text", "Text", "\U0001f600", "a.b", "text\u200b"]


def odd(chance: random.Random) -> tuple[str, bytes]:
    """A table of a few odd values, well written: the ending of its name, and its bytes."""
    names = chance.sample(NAMES, chance.randint(1, 4))
    if chance.random() < 0.8:  # mostly what a reader claims
        names += [
            name
            for name in chance.choice((("query", "answers"), ("text", "label"), ("text", "cat", "dog")))
            if name not in names
        ]
    values, rare = chance.sample(VALUES, chance.randint(1, 6)), chance.choice((0.05, 0.3, 1.0))
    rows = [
        {name: chance.choice(values) if chance.random() < rare else _usual(name, i) for name in names}
        for i in range(chance.choice((1, 2, 6, 12)))
    ]
    ending = chance.choice((".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx"))
    if ending in (".jsonl", ".json"):
        texts = [json.dumps(row, default=str, ensure_ascii=chance.random() < 0.5) for row in rows]
        whole = "[" + ",".join(texts) + "]" if ending == ".json" else "\n".join(texts)
        return ending, whole.encode(errors="surrogatepass")
    if ending in (".csv", ".tsv"):
        file = io.StringIO(newline="")
        writer = csv.writer(file, delimiter="," if ending == ".csv" else "\t")
        writer.writerows([names, *([*row.values()] for row in rows)])
        return ending, file.getvalue().encode(errors="surrogatepass")
    if ending == ".parquet":
        sink = io.BytesIO()
        table = pyarrow.table({name: _column([row[name] for row in rows]) for name in names})
        try:
            parquet.write_table(table, sink)
        except pyarrow.ArrowException:  # what Parquet cannot hold
            return ending, b""
        return ending, sink.getvalue()
    book = openpyxl.Workbook()
    book.active.append(names)
    for row in rows:
        usable = [
            value if isinstance(value, str | bool | float | datetime.date) else str(value) for value in row.values()
        ]
        with contextlib.suppress(Exception):  # what Excel cannot hold
            book.active.append(usable)
    file_ = io.BytesIO()
    book.save(file_)
    return ending, file_.getvalue()


def _usual(name: str, i: int) -> Any:
    """What a reader hopes for in a column."""
    if name in ("cat", "dog", "score"):
        return i % 2
    return ["train", "dev", "test"][i % 3] if name == "split" else f"{name} {i if name in ('query', 'text') else i % 2}"


def odd_json(good: bytes, chance: random.Random) -> bytes:
    """JSON in which one to three values are replaced, or taken away, or have another name."""
    whole = json.loads(good)
    for _ in range(chance.randint(1, 3)):
        at = whole
        while isinstance(at, list | dict) and at:
            key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if isinstance(at[key], list | dict) and at[key] and chance.random() < 0.8:
                at = at[key]
                continue
            if chance.random() < 0.2:
                del at[key]
            elif isinstance(at, dict) and chance.random() < 0.1:
                at[chance.choice(NAMES)] = at.pop(key)
            else:
                at[key] = copy.deepcopy(chance.choice(VALUES))
            break
    return json.dumps(whole, default=str, ensure_ascii=False).encode(errors="surrogatepass")


def _column(values: list[Any]) -> Any:
    """As Arrow sees the values, or else their texts."""
    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
        return pyarrow.array([repr(value) for value in values])


def readers(scratch: Path) -> Callable[[random.Random], tuple[Any, str]]:
    """Files of every format; one of them is broken."""
    for name, (files, _) in READERS.items():
        for path, content in files.items():
            place = scratch / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    (scratch / "odd").mkdir()

    def strange(chance: random.Random) -> tuple[Any, str]:
        ending, content = odd(chance)
        file = scratch / "odd" / f"x{ending}"
        file.write_bytes(content)
        try:
            read(file)
            return f"odd {ending}: read", repr(content)
        except (DataError, UnknownNameError):
            return f"odd {ending}: refused", repr(content)

    def one(chance: random.Random) -> tuple[Any, str]:
        if chance.random() < 0.3:
            return strange(chance)
        name = chance.choice(list(READERS))
        files, source = READERS[name]
        path, good = chance.choice(list(files.items()))
        content = broken(good, chance)
        (scratch / name / path).write_bytes(content)
        try:
            data = read(scratch / name / source)
            check_pictures([query for query in data.queries if isinstance(query, Picture)])
            return (f"{name}: read", repr(content))
        except (DataError, UnknownNameError):
            return (f"{name}: refused", repr(content))
        finally:
            (scratch / name / path).write_bytes(good)

    return one


def rules(scratch: Path) -> Callable[[random.Random], tuple[Any, str]]:
    """Rules as people type them."""

    def one(chance: random.Random) -> tuple[Any, str]:
        text = broken(chance.choice([b"precision=0.9", b"best-f1", b"recall=0.5", b"false-claims=0.1"]), chance).decode(
            errors="replace"
        )
        try:
            parse_rule(text)
            return "read", text
        except ValueError:
            return "refused", text

    return one


def bodies(scratch: Path) -> Callable[[random.Random], tuple[Any, str]]:
    """Bodies of requests."""
    from pydantic import ValidationError

    from sigmax.server.api import ExplainRequest, MatchRequest
    from sigmax.server.items import queries_of

    picture = json.dumps({"query": {"picture": base64.b64encode(_picture(0)).decode()}}).encode()
    good = [
        b'{"query": "a", "top_k": 3, "rule": "precision=0.9"}',
        b'{"query": ["a", "b"], "confidence": 0.9}',
        picture,
    ]

    def one(chance: random.Random) -> tuple[Any, str]:
        content = chance.choice((broken, odd_json))(chance.choice(good), chance)
        try:
            asked = chance.choice((MatchRequest, ExplainRequest)).model_validate_json(content)
            queries_of(asked.query, pictures=isinstance(asked.query[0], dict))
            return "read", repr(content)
        except (ValidationError, ValueError):
            return "refused", repr(content)

    return one


def models(scratch: Path) -> Callable[[random.Random], tuple[Any, str]]:
    """Files of a model's folder."""
    from sigmax import MatchDataset, Settings, load, train

    data = MatchDataset(
        name="x",
        queries=[f"text {i}" for i in range(24)],
        candidates=["a", "b"],
        pairs=np.array([(i, i % 2) for i in range(24)]),
        splits={"train": [*range(16)], "dev": [*range(16, 24)]},
        labels=True,
    )
    folder = scratch / "model"
    train(data, Settings(encoder="ngrams", epochs=1), tell=False).save(folder)
    endings = (".json", ".jsonl", ".safetensors")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in endings)

    def one(chance: random.Random) -> tuple[Any, str]:
        path = chance.choice(files)
        good = path.read_bytes()
        content = (odd_json if path.suffix == ".json" and chance.random() < 0.5 else broken)(good, chance)
        path.write_bytes(content)
        try:
            load(folder).match("text 1", top_k=2)
            return f"{path.name}: read", repr(content[:300])
        except (DataError, UnknownNameError):
            return f"{path.name}: refused", repr(content[:300])
        except ValueError as error:
            if re.search(
                "logits are not finite|has no candidates", str(error)
            ):  # a good folder, with nothing good in it
                return f"{path.name}: refused", repr(content[:300])
            raise
        finally:
            path.write_bytes(good)

    return one


TARGETS = {"readers": readers, "rules": rules, "bodies": bodies, "models": models}


def _late(*_: Any) -> None:
    raise TimeoutError(f"more than {LIMIT} seconds")


def main() -> int:
    """Break inputs of each target for some seconds; say how many, and what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--target", choices=TARGETS, action="append")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _late)
    failures: Counter[str] = Counter()
    for target in asked.target or TARGETS:
        memory = Path("/dev/shm")  # where a file is written in no time
        scratch = Path(tempfile.mkdtemp(prefix="sigmax-fuzz-", dir=memory if memory.is_dir() else None))
        one, outcomes, number, began = TARGETS[target](scratch), Counter[str](), asked.start, time.monotonic()
        while time.monotonic() - began < asked.seconds:
            chance = random.Random(f"{target} {asked.seed} {number}")
            signal.alarm(LIMIT)
            try:
                outcomes[one(chance)[0]] += 1
            except BaseException as error:  # a panic of Rust's is no Exception
                if isinstance(error, KeyboardInterrupt):
                    raise
                last = traceback.extract_tb(error.__traceback__)[-1]
                said = (
                    f"{target}: {type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error)[:200]}"
                )
                failures[said.partition(": ")[2][:60]] += 1
                if failures[said.partition(": ")[2][:60]] == 1:
                    print(f"FOUND with seed {asked.seed}, number {number}: {said}", flush=True)
                    traceback.print_exc()
            finally:
                signal.alarm(0)
            number += 1
        seconds = time.monotonic() - began
        print(
            f"{target}: {number - asked.start:,} inputs in {seconds:.0f} s; {dict(outcomes.most_common())}", flush=True
        )
        shutil.rmtree(scratch)
    print(f"{sum(failures.values()):,} failures of {len(failures)} kinds")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
