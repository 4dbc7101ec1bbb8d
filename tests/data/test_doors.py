"""Tables as people have them: every way in gives the same data set, and nothing is split, merged or lost on the way."""

import csv
import gzip
import http.server
import io
import json
import re
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import numpy as np
import openpyxl
import pandas
import polars
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from sigmax.data import MatchDataset, fetching, load_data
from sigmax.data.check import check
from sigmax.data.formats import read
from sigmax.data.normal import likeness, normal
from sigmax.errors import DataError, UnknownNameError

ROWS = [
    {"query": f"q{i}", "answer": answer, "split": part}
    for i, (answer, part) in enumerate(
        (answer, part) for part in ("train", "dev", "test") for answer in ("C|C++", "[1, 2]", '["x"]', "a, b", "é|")
    )
]
ANSWERS = ["C|C++", "[1, 2]", '["x"]', "a, b", "é|"]


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_csv(rows: list[dict], delimiter: str = ",") -> str:
    file = io.StringIO()
    table = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    table.writeheader()
    table.writerows(rows)
    return file.getvalue()


def as_jsonl(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_excel(sheets: dict[str, list[dict]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        if rows:
            sheet.append(list(rows[0]))
        for row in rows:
            sheet.append(list(row.values()))
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def zstd(content: str) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content.encode())
    return sink.getvalue().to_pybytes()


def contents(data: MatchDataset) -> tuple:
    splits = {name: indices.tolist() for name, indices in data.splits.items()}
    return list(data.queries), list(data.candidates), data.pairs.tolist(), data.wrong.tolist(), splits, data.labels


def labels_of(data: MatchDataset) -> list[list[str]]:
    return [[data.candidates[j] for j in row] for row in data.graph.tolil().rows]


DOORS = {
    "x.csv": as_csv(ROWS),
    "x.CSV": as_csv(ROWS),
    "semicolons.csv": as_csv(ROWS, ";"),
    "tabs.csv": as_csv(ROWS, "\t"),
    "bars.csv": as_csv(ROWS, "|"),
    "x.tsv": as_csv(ROWS, "\t"),
    "mark.csv": b"\xef\xbb\xbf" + as_csv(ROWS).encode(),
    "wide.csv": as_csv(ROWS).encode("utf-16"),
    "widetoo.tsv": "\ufeff".encode("utf-16be") + as_csv(ROWS, "\t").encode("utf-16be"),
    "x.csv.gz": gzip.compress(as_csv(ROWS).encode()),
    "named wrongly.csv": gzip.compress(as_csv(ROWS).encode()),
    "x.tsv.zst": zstd(as_csv(ROWS, "\t")),
    "x.jsonl.gz": gzip.compress(as_jsonl(ROWS).encode()),
    "x.jsonl": as_jsonl(ROWS),
    "x.ndjson": as_jsonl(ROWS),
    "lines.json": as_jsonl(ROWS),
    "array.json": "\n " + json.dumps(ROWS),
    "indented.json": json.dumps(ROWS, indent=4),
    "x.json.zst": zstd(json.dumps(ROWS)),
    "x.xlsx": as_excel({"Sheet1": ROWS, "Sheet2": []}),
}


@pytest.mark.parametrize("name", DOORS)
def test_every_door_leads_to_the_same_data(tmp_path, name):
    data = read(put(tmp_path / name, DOORS[name]))
    assert data.name == name.partition(".")[0]
    assert list(data.queries) == [f"q{i}" for i in range(15)]
    assert list(data.candidates) == ANSWERS, "one answer is one text, whatever is in it"
    assert data.pairs.tolist() == [[i, i % 5] for i in range(15)]
    assert [data.splits[part].tolist() for part in ("train", "dev", "test")] == [[*range(k, k + 5)] for k in (0, 5, 10)]


def test_another_delimiter(tmp_path):
    path = put(tmp_path / "x.csv", as_csv(ROWS, "^"))
    assert list(read(path, delimiter="^").candidates) == ANSWERS
    with pytest.raises(DataError, match="say which `delimiter` separates the fields"):
        read(path)
    for wrong in ("", "ab", '"', "\n"):
        with pytest.raises(ValueError, match="Expected `delimiter` to be one character"):
            read(path, delimiter=wrong)
    both = put(tmp_path / "both.csv", "query;answer, or none\na;b\n")
    with pytest.raises(DataError, match=r"line 2: expected 2 fields \(query;answer, or none\), got 1\..*`delimiter`"):
        read(both)


SPLITS = {
    "Train.csv": ["Train.csv", "Valid.csv", "TEST.csv"],
    "words": ["faq_train.csv", "faq-dev.csv", "test_set.csv"],
    "training": ["training.csv", "validation.csv", "testing.csv"],
    "shards": ["train-00000-of-00001.csv", "val.csv", "test.csv"],
}


@pytest.mark.parametrize("names", SPLITS.values(), ids=SPLITS)
def test_files_are_splits(tmp_path, names):
    for name, k in zip(names, (0, 5, 10), strict=True):
        rows = [{"query": row["query"], "answer": row["answer"]} for row in ROWS[k : k + 5]]
        put(tmp_path / name, as_csv(rows))
    put(tmp_path / "notes.csv", "anything\nelse\n")
    data = read(tmp_path)
    assert {name: len(indices) for name, indices in data.splits.items()} == {"train": 5, "dev": 5, "test": 5}
    assert {data.queries[i] for i in data.split("test")} == {f"q{i}" for i in range(10, 15)}


def test_sheets_are_splits(tmp_path):
    rows = [{"query": row["query"], "answer": row["answer"]} for row in ROWS]
    sheets = {"Train": rows[:5], "dev set": rows[5:10], "test": rows[10:], "notes": [{"a": 1}]}
    data = read(put(tmp_path / "faq.xlsx", as_excel(sheets)))
    assert {name: len(indices) for name, indices in data.splits.items()} == {"train": 5, "dev": 5, "test": 5}
    with pytest.raises(DataError, match=r"expected one sheet, or sheets named after splits .* got one, two"):
        read(put(tmp_path / "two.xlsx", as_excel({"one": rows, "two": rows})))
    with pytest.raises(DataError, match=r"two\.xlsx, sheet 'one', row 2: 'x' stands under no name"):
        read(put(tmp_path / "two.xlsx", as_excel({"one": [{"query": "a", "answer": "b", "": "x"}]})))


def test_excel_numbers_and_lists(tmp_path):
    rows = [{"text": 2024, "labels": "one|two"}, {"text": 1.5, "labels": None}, {"text": True, "labels": 3}]
    data = read(put(tmp_path / "x.xlsx", as_excel({"s": rows})))
    assert list(data.queries) == ["2024", "1.5", "True"]
    assert labels_of(data) == [["one", "two"], [], ["3"]]


def test_a_split_in_any_case(tmp_path):
    rows = [{**row, "split": row["split"].upper()} for row in ROWS]
    assert contents(read(put(tmp_path / "x.csv", as_csv(rows)))) == contents(
        read(put(tmp_path / "y.csv", as_csv(ROWS)))
    )


# -- lists, and what is none ---------------------------------------------------------------------


def test_only_a_list_column_of_csv_is_split(tmp_path):
    rows = [{"query": "a", "answer": "C|C++", "wrong": "Ctrl|Alt"}, {"query": "b", "answer": "x", "wrong": ""}]
    rows += [{"query": "c", "answer": "[x] [y]", "wrong": ""}]
    flat = put(tmp_path / "x.csv", as_csv(rows))
    assert list(read(flat).candidates) == ["C|C++", "Ctrl", "Alt", "x", "[x] [y]"]
    assert list(read(flat, separator="").candidates) == ["C|C++", "Ctrl|Alt", "x", "[x] [y]"]
    assert list(read(flat, separator="t").candidates) == ["C|C++", "C", "rl|Al", "x", "[x] [y]"]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    for path in (put(tmp_path / "x.jsonl", as_jsonl(rows)), tmp_path / "x.parquet"):
        assert list(read(path).candidates) == ["C|C++", "Ctrl|Alt", "x", "[x] [y]"]


@pytest.mark.parametrize("column", ["answers", "labels"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_string_is_one_text_where_lists_can_be(tmp_path, column, ending):
    key = "query" if column == "answers" else "text"
    rows = [{key: f"q{i}", column: text} for i, text in enumerate(ANSWERS)]
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        put(path, as_jsonl(rows))
    assert sorted(read(path).candidates) == sorted(ANSWERS)


CELLS = {
    "one|two": ["one", "two"],
    '["a", "b|c"]': ["a", "b|c"],
    "['a', \"b's\"]": ["a", "b's"],  # as pandas writes a list
    "[1, 2.0]": ["1", "2"],
    "[]": [],
    "[WIP] a|b": ["[WIP] a", "b"],
    "[draft]": ["[draft]"],
    "": [],
    "| a ||": ["a"],
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_of_a_list_column(tmp_path, cell):
    rows = [{"text": "t", "labels": cell}, *({"text": f"{i}", "labels": "z"} for i in range(5))]
    assert labels_of(read(put(tmp_path / "x.csv", as_csv(rows))))[0] == sorted(CELLS[cell])


def test_class_names_are_texts(tmp_path):
    """Names of a ClassLabel with a bar or a bracket are not split either."""
    names = ["C|C++", "[none]"]
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    table = pyarrow.table({"text": [f"t{i}" for i in range(6)], "label": [0, 1] * 3})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert list(read(tmp_path / "x.parquet").candidates) == names


# -- numbers, and a column for each label --------------------------------------------------------


@pytest.mark.parametrize("labels", [[1, 0, 1.0], ["1", "0.0", "1.0"], [1.0, 0.0, 1.0]])
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_one_and_one_point_nought_are_one_label(tmp_path, labels, ending):
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels * 3)]
    data = read(put(tmp_path / f"x.{ending}", as_csv(rows) if ending == "csv" else as_jsonl(rows)))
    assert labels_of(data) == [["1"], ["0"], ["1"]] * 3


def test_versions_are_no_whole_numbers(tmp_path):
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(["1.0", "1.1", "2.0"] * 2)]
    assert list(read(put(tmp_path / "x.csv", as_csv(rows))).candidates) == ["1.0", "1.1", "2.0"]


def test_a_label_per_column(tmp_path):
    rows = [{"id": i, "text": f"t{i}", "cat": i % 2, "dog": [1, 0, 0][i % 3], "split": ""} for i in range(6)]
    expected = [["cat"] * (i % 2) + ["dog"] * (i % 3 == 0) for i in range(6)]
    for name, content in (("x.csv", as_csv(rows)), ("x.jsonl", as_jsonl(rows)), ("x.xlsx", as_excel({"a": rows}))):
        data = read(put(tmp_path / name, content))
        assert list(data.candidates) == ["cat", "dog"]
        assert data.labels
        assert labels_of(data) == expected
    truths = [{"text": row["text"], "cat": bool(row["cat"]), "dog": float(row["dog"])} for row in rows]
    assert labels_of(read(put(tmp_path / "y.csv", as_csv(truths)))) == expected


def test_a_label_per_column_of_pictures(tmp_path):
    for i in range(6):
        Image.new("L", (2, 2), i).save(tmp_path / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "cat": i % 2, "dog": 1 - i % 2} for i in range(6)]
    data = read(put(tmp_path / "metadata.csv", as_csv(rows)).parent)
    assert labels_of(data) == [["dog"], ["cat"]] * 3


# -- right and wrong at once ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["right", "wrong", "drop"])
def test_conflicts(tmp_path, how):
    rows = [{"query": f"q{i}", "answer": "a", "wrong": "b"} for i in range(4)] + [
        {"query": "q0", "answer": "b", "wrong": "c"},
        {"query": "q0", "answer": " b", "wrong": ""},  # the same pair again
    ]
    data = read(put(tmp_path / "x.csv", as_csv(rows)), conflicts=how)
    place = {text: j for j, text in enumerate(data.candidates)}
    assert ([0, place["b"]] in data.pairs.tolist()) == (how == "right")
    assert ([0, place["b"]] in data.wrong.tolist()) == (how == "wrong")
    assert (len(data.pairs), len(data.wrong)) == (4 + (how == "right"), 4 + (how == "wrong"))
    found = check(data)
    assert found.conflicts == 1
    assert any(line.startswith("1 pairs are right and wrong at once; for each of them") for line in found.findings)


def test_conflicts_of_qrels_and_another_word(tmp_path):
    put(tmp_path / "queries.jsonl", as_jsonl([{"_id": f"q{i}", "text": f"t{i}"} for i in range(3)]))
    put(tmp_path / "corpus.jsonl", as_jsonl([{"_id": "d", "text": "d"}]))
    for i, name in enumerate(("train", "dev", "test")):
        put(tmp_path / "qrels" / f"{name}.tsv", f"q{i}\td\t1\nq{i}\td\t0\n")
    assert len(read(tmp_path).pairs) == 3
    data = read(tmp_path, conflicts="wrong")
    assert (len(data.pairs), len(data.wrong), data.conflicts) == (0, 3, 3)
    with pytest.raises(UnknownNameError, match="Expected `conflicts` to be one of drop, right, wrong, got 'left'"):
        read(tmp_path, conflicts="left")


# -- equal to the eye ----------------------------------------------------------------------------

SAME = [
    ("é", "e\u0301"),
    ("Å", "\u212b"),
    ("a b", "a\u00a0b"),
    ("a b", "a\u202fb"),
    ("ab", "a\u200bb"),
    ("ab", "\ufeffab"),
    ("a", "a \u200b "),
    ("soft", "so\u00adft"),
    ("한", unicodedata.normalize("NFD", "한")),
]
DIFFERENT = [("👩\u200d🚀", "👩🚀"), ("a", "A"), ("²", "2"), ("می\u200cخواهم", "میخواهم"), ("a b", "a  b"), ("а", "a")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_texts_that_are_the_same(tmp_path, one, other):
    assert normal(one) == normal(other) == normal(normal(other))
    rows = [{"text": f"t{i}", "label": one if i % 2 else other} for i in range(6)]
    rows += [{"text": f"t{i}", "label": "z"} for i in range(2)]
    data = read(put(tmp_path / "x.jsonl", as_jsonl(rows)))
    assert len(data.candidates) == 2
    pairs = [{"query": one, "answer": one, "wrong": ["w"]}, {"query": other, "answer": other}]
    pairs += [{"query": f"{i}", "answer": "z"} for i in range(4)]
    data = read(put(tmp_path / "y.jsonl", as_jsonl(pairs)))
    assert len(data.queries) == 5
    assert len(data.candidates) == 3
    assert data.queries[0] == one.strip(), "shown as it came first"


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_texts_that_are_not_the_same(one, other):
    assert normal(one) != normal(other)


@pytest.mark.parametrize("text", ["", " ", "plain", "👩\u200d🚀", "e\u0301\u00a0\u200b", "\ufb01"])
def test_normal_forms_are_their_own(text):
    assert normal(normal(text)) == normal(text)
    assert likeness(normal(text)) == likeness(text)


def test_the_built_in_sets_are_in_normal_form():
    for name in ("emoji", "emoji-hidden"):
        data = load_data(name)
        assert all(normal(text) == text for text in [*data.queries, *data.candidates])


def test_leaks_and_lookalikes_are_found(tmp_path):
    rows = [
        {"text": "caf\u00e9", "label": "Cat", "split": "train"},
        {"text": "cafe\u0301", "label": "cat", "split": "dev"},
    ]
    rows += [{"text": "x", "label": "c\u0430t", "split": "test"}, {"text": "y", "label": "\ufb01", "split": "test"}]
    found = check(read(put(tmp_path / "x.jsonl", as_jsonl(rows))))
    assert found.leaked_queries == 1
    assert found.lookalikes == 2
    assert any("easily taken for an earlier one, such as 'Cat' and 'cat'" in line for line in found.findings)


def test_a_model_reads_what_looks_the_same_as_the_same(frozen_free_model):
    for one, other in SAME:
        same = frozen_free_model.encode([f"{one} day", f"{other.strip()} day"])
        np.testing.assert_array_equal(*same.numpy())


@pytest.fixture(scope="module")
def frozen_free_model():
    from sigmax import Settings, train

    texts = ["é day", "a b day", "ab day", "soft day", "한 day", "Å day"] * 3
    n = len(texts)
    data = MatchDataset(
        name="x",
        queries=[f"{text} {i}" for i, text in enumerate(texts)],
        candidates=["one", "two"],
        pairs=np.array([(i, i % 2) for i in range(n)]),
        splits={"train": [*range(0, n, 2), *range(1, n, 4)], "dev": [*range(3, n, 4)]},
    )
    return train(data, Settings(epochs=1), tell=False)


# -- data sets in memory -------------------------------------------------------------------------


def test_what_a_data_set_is_made_of():
    def make(**given):
        usual = {"queries": ["a", "b", "c"], "candidates": ["x", "y"], "pairs": [(0, 0), (1, 1), (2, 0)]}
        return MatchDataset(name="d", **{**usual, "splits": {"train": [0], "dev": (1,), "test": range(2, 3)}, **given})

    data = make()
    assert [data.split(name).dtype for name in ("train", "dev", "test")] == [np.int64] * 3
    assert data.unanswered("test") == 0
    for message, given in {
        "expected a text or a picture at 1 of `queries`, got None": {"queries": ["a", None, "c"]},
        "expected a text at 0 of `candidates`, got 7": {"candidates": [7, "y"]},
        "expected `queries` to be a list, got one text: 'abc'": {"queries": "abc"},
        "the train split: expected the numbers of queries, got <U1": {"splits": {"train": ["0"], "dev": [1]}},
        "the dev split: expected the numbers of queries, got float64": {"splits": {"train": [0], "dev": [1.5]}},
    }.items():
        with pytest.raises(DataError, match=re.escape(message)):
            make(**given)


def test_datasets_in_memory():
    datasets = pytest.importorskip("datasets")
    rows = [{"query": row["query"], "answer": row["answer"]} for row in ROWS]
    parts = {
        name: datasets.Dataset.from_list(rows[k : k + 5]) for name, k in (("train", 0), ("validation", 5), ("test", 10))
    }
    data = load_data(datasets.DatasetDict(parts))
    assert {name: len(indices) for name, indices in data.splits.items()} == {"train": 5, "dev": 5, "test": 5}
    assert sorted(data.candidates) == sorted(ANSWERS)
    assert len(load_data(datasets.Dataset.from_list(rows)).queries) == 15
    for other in (rows, None, 7, {}, {"train": rows}):
        with pytest.raises(TypeError, match="Expected `source` to be a name, a path, an address, or a Dataset"):
            load_data(other)


# -- standard input and the web ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.tsv.zst", "array.json", "x.jsonl", "x.xlsx"])
def test_standard_input(name, monkeypatch):
    content = DOORS[name]
    content = content if isinstance(content, bytes) else content.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert len(load_data("-").queries) == 15


def test_standard_input_of_a_process():
    content = DOORS["x.csv.gz"]
    assert isinstance(content, bytes)
    done = subprocess.run(
        [sys.executable, "-m", "sigmax", "check", "-", "--json"], input=content, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["queries"] == 15


def test_nothing_on_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(DataError, match="standard input: nothing came"):
        load_data("-")


@pytest.fixture
def web():
    """A server of this machine: files by path, and some that misbehave."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("location", "file:///etc/passwd")
                self.end_headers()
                return
            found = self.server.files.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {
        f"/{name}": content if isinstance(content, bytes) else content.encode() for name, content in DOORS.items()
    }
    server.files["/export?format=csv"] = as_csv(ROWS).encode()
    server.files["/page"] = b"<!DOCTYPE html><p>Download"
    server.files["/empty.csv"] = b""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "array.json", "x.xlsx", "export?format=csv"])
def test_the_web(web, name):
    data = load_data(f"{web}/{name}")
    assert list(data.candidates) == ANSWERS
    assert len(data.queries) == 15


def test_what_the_web_refuses(web, monkeypatch):
    for address, message in {
        f"{web}/none.csv": "the server answers 404",
        f"{web}/page": "a web page and not a table",
        f"{web}/empty.csv": "nothing came",
        f"{web}/elsewhere": "is not allowed",
        "http://example.com/x.csv": "expected https; over http anyone on the way could change the data",
        "https://": "expected an address such as",
        "http://127.0.0.1:1/x.csv": "cannot be downloaded",
    }.items():
        with pytest.raises(DataError, match=message):
            load_data(address)
    monkeypatch.setattr(fetching, "MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"more than 100 bytes\. Save it as a file"):
        load_data(f"{web}/x.csv")


FRAMES = {"pandas": pandas.DataFrame, "polars": polars.DataFrame, "pyarrow": pyarrow.Table.from_pylist}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_in_memory(kind):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(12)]
    whole = load_data(FRAMES[kind](rows))
    assert (len(whole.queries), list(whole.candidates)) == (12, ["a", "b"])
    split = load_data({"train": FRAMES[kind](rows[:8]), "test": FRAMES[kind](rows[8:])})
    assert sorted(split.queries[i] for i in split.split("test")) == [f"text {i}" for i in range(10, 12)] + [
        "text 8",
        "text 9",
    ]


def test_frames_of_pandas():
    rows = [{"text": f"text {i}", "cat": i % 2, "dog": 1 - i % 2} for i in range(12)]
    frame = pandas.DataFrame(rows, index=[i % 2 for i in range(12)])
    assert list(load_data(frame).candidates) == ["cat", "dog"]  # the index is no label
    with pytest.raises(DataError, match=r"the DataFrame: expected values of one kind in each column:.*'a'"):
        load_data(frame.assign(label=[1, "a"] * 6))
    with pytest.raises(DataError, match=r"^the DataFrame, row 2: expected a text under `text`, got None"):
        load_data(pandas.DataFrame({"text": ["a", None], "label": ["x", "y"]}))
    with pytest.raises(TypeError, match=r"of pandas, polars or pyarrow, .* got Series"):
        load_data(frame["text"])


def test_judgements_beside_the_splits(tmp_path):
    """qrels of a name that is no split's are left out, and said to be."""
    put(tmp_path / "corpus.jsonl", '{"_id": "d", "text": "d"}\n{"_id": "e", "text": "e"}\n')
    put(tmp_path / "queries.jsonl", "".join(f'{{"_id": "q{i}", "text": "text {i}"}}\n' for i in range(4)))
    for i, name in enumerate(("train", "dev", "test", "crowd")):
        put(tmp_path / "qrels" / f"{name}.tsv", f"q{i}\td\t1\n")
    data = read(tmp_path)
    assert [len(data.split(part)) for part in ("train", "dev", "test")] == [1, 1, 1]
    assert data.notes[0].startswith("qrels/crowd.tsv: left out, for the name is no split's (train, training, dev")
    names = ("train", "dev", "test", "crowd")
    rows = [f'{{"_id": "q{i}", "text": "text {i}", "split": "{name}"}}' for i, name in enumerate(names)]
    put(tmp_path / "queries.jsonl", "\n".join(rows) + "\n")
    assert read(tmp_path).queries == ["text 0", "text 1", "text 2"], "queries of that name go with it"
    put(tmp_path / "queries.jsonl", rows[0].replace("train", "crowds") + "\n" + "\n".join(rows[1:]) + "\n")
    assert read(tmp_path).queries == ["text 0", "text 1", "text 2"], "judgements say more than the field"
    put(tmp_path / "queries.jsonl", "\n".join(rows).replace('"crowd"', '"crowds"') + "\n")
    with pytest.raises(DataError, match=r"expected split to be one of train, .*got 'crowds'"):
        read(tmp_path)
    put(tmp_path / "queries.jsonl", "\n".join(rows) + "\n")
    for name in ("train", "dev", "test"):
        (tmp_path / "qrels" / f"{name}.tsv").unlink()
    with pytest.raises(DataError, match=r"crowd\.tsv: expected split to be one of train"):
        read(tmp_path)


def test_one_split_alone_is_split(tmp_path):
    for name in ("train", "test", "dev"):
        rows = [{"text": f"text {i}", "label": "ab"[i % 2], "split": name} for i in range(20)]
        data = read(put(tmp_path / f"{name}.csv", as_csv(rows)))
        assert [len(data.split(part)) for part in ("train", "dev", "test")] == [16, 2, 2]


@pytest.mark.parametrize(("rows", "different"), [(["a"], 1), (["a", "b"], 2), (["same", "same "] * 20, 1)])
def test_too_few_to_split(tmp_path, rows, different):
    path = put(tmp_path / "x.csv", as_csv([{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(rows)]))
    message = (
        f"x: expected at least 3 different queries, one each for train, dev, test, got {different} in {len(rows)} rows"
    )
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        (["TEXT", "Label"], "by columns text=TEXT,label=Label"),
        (["Query", "n", "Answers"], "by columns query=Query,answers=Answers"),
        (
            ["\U0001f600", "\U0001f3f7"],
            "query=\U0001f600,answer=\U0001f3f7, or text=\U0001f600,label=\U0001f3f7 for labels",
        ),
    ],
)
def test_columns_that_are_called_otherwise(tmp_path, columns, advice):
    path = put(tmp_path / "x.csv", as_csv([dict.fromkeys(columns, "a")]))
    with pytest.raises(DataError, match=advice):
        read(path)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([{"text": f"t{i}", "label": "x"} for i in range(9)], "every candidate is right for every train query"),
        ([{"query": f"q{i}", "answer": "", "wrong": "a"} for i in range(9)], "no train query has a right answer"),
    ],
)
def test_check_says_what_training_refuses(tmp_path, rows, found):
    findings = check(read(put(tmp_path / "x.csv", as_csv(rows)))).findings
    assert any(found in finding for finding in findings)
