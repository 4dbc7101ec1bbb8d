import csv
import gzip
import io
import json
import re
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from sigmax.data import BUILTIN, MatchDataset, load_data
from sigmax.data.formats.registry import read
from sigmax.data.sources import HIDDEN_GROUP
from sigmax.errors import DataError, UnknownNameError

FORMATS = ("jsonl", "csv", "parquet")

#: One right pair a row; "what's hot?" has two; "what's blue?" has none.
ROWS = [
    {"query": "what's in the sky?", "answer": "moon", "wrong": "fire"},
    {"query": "what's in the sky?", "answer": "sun", "wrong": None},
    {"query": "what appears at night?", "answer": "moon", "wrong": "sun"},
    {"query": "what's hot?", "answer": "sun", "wrong": None},
    {"query": "what's hot?", "answer": "fire", "wrong": "moon"},
    {"query": "what's blue?", "answer": None, "wrong": None},
]
RIGHT = {(row["query"], row["answer"]) for row in ROWS if row["answer"]}
WRONG = {(row["query"], row["wrong"]) for row in ROWS if row["wrong"]}
#: The same with one row a query and lists.
LISTS = [
    {
        "query": query,
        "answers": [row["answer"] for row in ROWS if row["query"] == query and row["answer"]],
        "wrong": [row["wrong"] for row in ROWS if row["query"] == query and row["wrong"]],
    }
    for query in dict.fromkeys(row["query"] for row in ROWS)
]
#: Labelled texts, one with none of the labels.
LABELLED = [
    {"text": "a kitten on a plane", "labels": ["plane", "cat"]},
    {"text": "a barking puppy", "labels": ["dog"]},
    {"text": "an empty street", "labels": []},
    {"text": "cats and dogs", "labels": ["cat", "dog"]},
]


# -- writing what is then read -------------------------------------------------------------------


def write(path: Path, rows: list[dict]) -> Path:
    """Rows as JSONL, CSV (lists as JSON) or Parquet, by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            for row in rows:
                table.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return path


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def beir(
    folder: Path,
    qrels: dict[str, str],
    queries: int | list[dict] = 30,
    corpus: int | list[dict] = 6,
    header: str = "query-id\tcorpus-id\tscore\n",
) -> Path:
    """A BEIR folder: queries q0, q1, …, documents d0, d1, …, and lines of qrels such as "q0 d0 1"."""
    if isinstance(queries, int):
        queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(queries)]
    if isinstance(corpus, int):
        corpus = [{"_id": f"d{j}", "title": "", "text": f"document {j}"} for j in range(corpus)]
    write(folder / "queries.jsonl", queries)
    write(folder / "corpus.jsonl", corpus)
    (folder / "qrels").mkdir()
    for name, lines in qrels.items():
        put(
            folder / "qrels" / f"{name}.tsv",
            header + "".join(f"{line}\n" for line in lines.split("\n")).replace(" ", "\t"),
        )
    return folder


def lines(queries: range) -> str:
    """Qrels in which query i has the answer i mod 6."""
    return "\n".join(f"q{i} d{i % 6} 1" for i in queries)


# -- looking at what was read --------------------------------------------------------------------


def pairs(data: MatchDataset, indices: np.ndarray) -> set[tuple[str, str]]:
    return {(data.queries[i], data.candidates[j]) for i, j in indices}


def parts(data: MatchDataset) -> dict[str, set[str]]:
    return {name: {data.queries[i] for i in indices} for name, indices in data.splits.items()}


def contents(data: MatchDataset) -> tuple:
    return (
        list(data.queries),
        list(data.candidates),
        data.pairs.tolist(),
        data.wrong.tolist(),
        {name: indices.tolist() for name, indices in data.splits.items()},
        data.labels,
    )


def assert_partition(data: MatchDataset) -> None:
    """Every query is in one split."""
    everything = np.concatenate(list(data.splits.values()))
    assert sorted(everything.tolist()) == list(range(len(data.queries)))


# -- tables of pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [ROWS, LISTS], ids=["one pair a row", "lists"])
@pytest.mark.parametrize("ending", FORMATS)
def test_pairs(tmp_path, ending, rows):
    data = read(write(tmp_path / f"sky.{ending}", rows))
    assert data.name == "sky"
    assert list(data.queries) == list(dict.fromkeys(row["query"] for row in ROWS))
    assert sorted(data.candidates) == ["fire", "moon", "sun"]
    assert pairs(data, data.pairs) == RIGHT
    assert pairs(data, data.wrong) == WRONG
    assert not data.labels
    assert data.answer_counts[data.queries.index("what's blue?")] == 0
    assert_partition(data)


@pytest.mark.parametrize("rows", [ROWS, LISTS, LABELLED], ids=["one pair a row", "lists", "labelled"])
def test_the_formats_agree(tmp_path, rows):
    jsonl, table, columnar = (contents(read(write(tmp_path / f"data.{ending}", rows))) for ending in FORMATS)
    assert jsonl == table == columnar


def test_a_missing_answer_may_be_left_out(tmp_path):
    rows = [{key: value for key, value in row.items() if value is not None} for row in ROWS]
    data = read(write(tmp_path / "sky.jsonl", rows))
    assert pairs(data, data.pairs) == RIGHT
    assert pairs(data, data.wrong) == WRONG


def test_the_first_row_may_lack_a_column(tmp_path):
    data = read(write(tmp_path / "sky.jsonl", [{"query": "what's blue?"}, *ROWS[:-1]]))
    assert pairs(data, data.pairs) == RIGHT
    assert "what's blue?" in data.queries


def test_a_repeated_pair_counts_once(tmp_path):
    data = read(write(tmp_path / "sky.csv", [*ROWS, *ROWS]))
    assert len(data.pairs) == len(RIGHT)
    assert len(data.queries) == 4


def test_one_answer_is_taken_as_it_is(tmp_path):
    rows = [{"query": f"q{i}", "answer": answer} for i, answer in enumerate(["a|b", "[1, 2]", '["x"]', "c, d"])]
    for ending in FORMATS:
        data = read(write(tmp_path / f"x.{ending}", rows))
        assert list(data.candidates) == ["a|b", "[1, 2]", '["x"]', "c, d"]


def test_spaces_around_texts_do_not_count(tmp_path):
    rows = [{"query": " a ", "answer": "x "}, {"query": "a", "answer": " y"}]
    rows += [{"query": query, "answer": "\tx"} for query in "bc"]
    data = read(write(tmp_path / "x.jsonl", rows))
    assert list(data.queries) == ["a", "b", "c"]
    assert list(data.candidates) == ["x", "y"]


def test_csv_lists(tmp_path):
    cells = {"bars": "sun| moon |", "JSON": '["sun", "moon"]', "one": "sun", "commas": '["a, b", "c|d"]', "none": ""}
    file = io.StringIO()
    csv.writer(file).writerows([("query", "answers"), *cells.items()])
    data = read(put(tmp_path / "x.csv", file.getvalue()))
    expected = {("bars", "sun"), ("bars", "moon"), ("JSON", "sun"), ("JSON", "moon"), ("one", "sun")}
    assert pairs(data, data.pairs) == expected | {("commas", "a, b"), ("commas", "c|d")}
    assert "none" in data.queries


def test_csv_quoting(tmp_path):
    text = 'query,answer\r\n"one, two","say ""three"""\r\nplain "quoted",b\r\n"two\nlines",c\r\n\r\nlast,d'
    data = read(put(tmp_path / "x.csv", text))
    assert list(data.queries) == ["one, two", 'plain "quoted"', "two\nlines", "last"]
    assert list(data.candidates) == ['say "three"', "b", "c", "d"]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_byte_order_mark(tmp_path, ending):
    path = write(tmp_path / f"sky.{ending}", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert pairs(read(path), read(path).pairs) == RIGHT


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_windows_line_ends_and_empty_lines(tmp_path, ending):
    path = write(tmp_path / f"sky.{ending}", ROWS)
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n\r\n"))
    assert pairs(read(path), read(path).pairs) == RIGHT


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n", "\n"])
def test_a_text_may_hold_any_line_end(tmp_path, ending, separator):
    rows = [{"query": f"one{separator}{query}", "answer": f"x{separator}y"} for query in "abc"]
    data = read(write(tmp_path / f"x.{ending}", rows))
    assert pairs(data, data.pairs) == {(row["query"], row["answer"]) for row in rows}


@pytest.mark.parametrize("ending", FORMATS)
def test_long_texts(tmp_path, ending):
    rows = [{"query": query, "answer": query * 140_000} for query in "abc"]
    assert [len(text) for text in read(write(tmp_path / f"x.{ending}", rows)).candidates] == [140_000] * 3


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.text(
    ",\"'|[]\n\r\t ;é\u2028🌙a", max_size=6
)
KEYS = TEXTS.map(str.strip).filter(bool)


@given(table=st.lists(st.tuples(KEYS, TEXTS), max_size=8))
def test_any_pairs_come_back(table):
    rows = [{"query": query, "answer": answer} for query, answer in [*table, ("a", "x"), ("b", "y"), ("c", "z")]]
    expected = {(row["query"], row["answer"].strip()) for row in rows if row["answer"].strip()}
    with tempfile.TemporaryDirectory() as folder:
        found = [read(write(Path(folder, f"data.{ending}"), rows)) for ending in FORMATS]
    assert pairs(found[0], found[0].pairs) == expected
    assert set(found[0].queries) == {row["query"] for row in rows}
    assert contents(found[0]) == contents(found[1]) == contents(found[2])


@given(table=st.lists(st.tuples(KEYS, st.lists(TEXTS, max_size=3)), max_size=6))
def test_any_lists_come_back(table):
    rows = [{"query": query, "answers": answers} for query, answers in [*table, ("a", ["x"]), ("b", ["y"]), ("c", [])]]
    expected = {(row["query"], text.strip()) for row in rows for text in row["answers"] if text.strip()}
    with tempfile.TemporaryDirectory() as folder:
        found = [read(write(Path(folder, f"data.{ending}"), rows)) for ending in FORMATS]
    assert pairs(found[0], found[0].pairs) == expected
    assert contents(found[0]) == contents(found[1]) == contents(found[2])


def test_renamed_columns(tmp_path):
    table = [{"question": row["query"], "reply": row["answer"], "query": "something else"} for row in ROWS]
    data = read(write(tmp_path / "x.csv", table), columns={"query": "question", "answer": "reply"})
    assert pairs(data, data.pairs) == RIGHT
    labelled = [{"headline": row["text"], "tags": row["labels"]} for row in LABELLED]
    data = read(write(tmp_path / "y.parquet", labelled), columns={"text": "headline", "labels": "tags"})
    assert list(data.candidates) == ["cat", "dog", "plane"]


# -- labelled texts ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_labelled(tmp_path, ending):
    data = read(write(tmp_path / f"pets.{ending}", LABELLED))
    assert data.labels
    assert list(data.queries) == [row["text"] for row in LABELLED]
    assert list(data.candidates) == ["cat", "dog", "plane"], "labels are sorted, whatever the order of the texts"
    assert pairs(data, data.pairs) == {(row["text"], label) for row in LABELLED for label in row["labels"]}
    assert data.answer_counts.tolist() == [2, 1, 0, 2]
    assert_partition(data)


def test_one_label_a_text(tmp_path):
    rows = [{"text": "meow", "label": "cat"}, {"text": "woof", "label": "dog"}, {"text": "…", "label": None}]
    for ending in FORMATS:
        data = read(write(tmp_path / f"pets.{ending}", rows))
        assert data.labels
        assert pairs(data, data.pairs) == {("meow", "cat"), ("woof", "dog")}


def test_labels_of_two_texts_that_are_equal_stay_apart(tmp_path):
    data = read(write(tmp_path / "pets.jsonl", [*LABELLED, {"text": LABELLED[0]["text"], "labels": ["dog"]}]))
    assert len(data.queries) == 5
    assert data.answer_counts.tolist() == [2, 1, 0, 2, 1]


# -- splits --------------------------------------------------------------------------------------

SPLIT = ["train", "train", "dev", "test", "validation", "val", "valid"]
GIVEN = [{"query": f"q{i}", "answer": f"a{i % 3}", "split": part} for i, part in enumerate(SPLIT)]


@pytest.mark.parametrize("ending", FORMATS)
def test_split_column(tmp_path, ending):
    data = read(write(tmp_path / f"x.{ending}", GIVEN))
    assert parts(data) == {"train": {"q0", "q1"}, "dev": {"q2", "q4", "q5", "q6"}, "test": {"q3"}}


@pytest.mark.parametrize("ending", FORMATS)
def test_a_split_for_some_rows(tmp_path, ending):
    rows = GIVEN + [{"query": f"free {i}", "answer": "a0", "split": None} for i in range(10)]
    data = read(write(tmp_path / f"x.{ending}", rows))
    found = parts(data)
    assert {"q0", "q1"} < found["train"]
    assert "q3" in found["test"]
    assert_partition(data)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("dev", ["dev", "valid", "val", "validation"])
def test_one_file_a_split(tmp_path, ending, dev):
    for name, query in (("train", "a"), (dev, "b"), ("test", "c"), ("notes", "d")):
        write(tmp_path / f"{name}.{ending}", [{"query": query, "answer": f"{query}1"}, {"query": query, "answer": "z"}])
    put(tmp_path / "README.md", "not a table")
    data = read(tmp_path)
    assert parts(data) == {"train": {"a"}, "dev": {"b"}, "test": {"c"}}
    assert pairs(data, data.pairs) == {(query, answer) for query in "abc" for answer in (f"{query}1", "z")}


def test_a_text_in_two_splits_is_two_queries(tmp_path):
    rows = [{"query": "same", "answer": part, "split": part} for part in ("train", "dev", "test")]
    data = read(write(tmp_path / "x.jsonl", rows))
    assert list(data.queries) == ["same"] * 3
    assert data.answer_counts.tolist() == [1, 1, 1]


def test_dev_is_made_from_train(tmp_path):
    for name, count in (("train", 200), ("test", 30)):
        write(tmp_path / f"{name}.jsonl", [{"query": f"{name} {i}", "answer": "x"} for i in range(count)])
    found = parts(read(tmp_path))
    assert found["test"] == {f"test {i}" for i in range(30)}
    assert found["train"] | found["dev"] == {f"train {i}" for i in range(200)}
    assert not found["train"] & found["dev"]
    assert 18 <= len(found["dev"]) <= 22, "a tenth"


@given(st.permutations([f"q{i}" for i in range(12)] + ["twice", "twice"]), st.integers(0, 3))
def test_the_made_split_depends_on_texts_alone(queries, seed):
    rows = [{"text": query, "labels": ["x"]} for query in queries]
    usual = [{"text": query, "labels": ["y"]} for query in sorted(queries)]
    with tempfile.TemporaryDirectory() as folder:
        found = read(write(Path(folder, "x.csv"), rows), seed=seed)
        assert parts(found) == parts(read(write(Path(folder, "y.parquet"), usual), seed=seed))
    assert_partition(found)
    assert sum(map(len, parts(found).values())) == 13, "equal texts stay together"


def test_another_seed_is_another_split(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"query": f"q{i}", "answer": "x"} for i in range(100)])
    assert parts(read(path, seed=1)) == parts(read(path, seed=1))
    assert parts(read(path, seed=1)) != parts(read(path, seed=2))
    assert [len(read(path).split(name)) for name in ("train", "dev", "test")] == [80, 10, 10]


# -- BEIR folders --------------------------------------------------------------------------------


def test_beir(tmp_path):
    qrels = {"train": "q0 d0 1\nq0 d1 2\nq0 d2 0", "dev": "q1 d1 1", "test": "q2 d2 1\nq2 d0 -1"}
    corpus = [
        {"_id": "d0", "title": "Moon", "text": "It is round."},
        {"_id": "d1", "text": "Sun"},
        {"_id": "d2", "title": "", "text": " Fire "},
    ]
    data = read(beir(tmp_path / "sky", qrels, queries=3, corpus=corpus))
    assert data.name == "sky"
    assert list(data.candidates) == ["Moon It is round.", "Sun", "Fire"]
    assert list(data.query_ids) == ["q0", "q1", "q2"]
    assert list(data.candidate_ids) == ["d0", "d1", "d2"]
    assert data.pairs.tolist() == [[0, 0], [0, 1], [1, 1], [2, 2]]
    assert data.wrong.tolist() == [[0, 2], [2, 0]]
    assert parts(data) == {"train": {"query 0"}, "dev": {"query 1"}, "test": {"query 2"}}
    assert not data.labels


def test_beir_without_header(tmp_path):
    qrels = {"train": lines(range(10)), "valid": lines(range(10, 12)), "test": lines(range(12, 15))}
    data = read(beir(tmp_path / "x", qrels, queries=15, header=""))
    assert [len(data.split(name)) for name in ("train", "dev", "test")] == [10, 2, 3]
    assert len(data.pairs) == 15


def test_a_document_may_be_a_title_alone(tmp_path):
    corpus = [{"_id": "d0", "title": "Moon", "text": ""}, {"_id": "d1", "title": None, "text": "Sun"}]
    qrels = {"train": "q0 d0 1", "dev": "q1 d1 1", "test": "q2 d1 1"}
    assert list(read(beir(tmp_path / "x", qrels, queries=3, corpus=corpus)).candidates) == ["Moon", "Sun"]


def test_test_alone_is_split(tmp_path):
    data = read(beir(tmp_path / "x", {"test": lines(range(30))}))
    assert [len(data.split(name)) for name in ("train", "dev", "test")] == [24, 3, 3]
    assert_partition(data)


def test_beir_dev_is_made_from_train(tmp_path):
    data = read(beir(tmp_path / "x", {"train": lines(range(20)), "test": lines(range(20, 30))}))
    assert parts(data)["test"] == {f"query {i}" for i in range(20, 30)}
    assert 2 <= len(data.split("dev")) <= 3
    assert_partition(data)


def test_queries_that_were_not_judged_are_left_out(tmp_path):
    """Unjudged is not unanswered; whose split is given has no right answer, and so has one judged wrong alone."""
    qrels = {"train": lines(range(10)), "dev": lines(range(10, 15)), "test": lines(range(15, 19)) + "\nq19 d0 0"}
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(30)]
    queries += [{"_id": "none", "text": "query none", "split": "test"}]
    data = read(beir(tmp_path / "x", qrels, queries=queries))
    assert_partition(data)
    assert list(data.queries) == [f"query {i}" for i in range(20)] + ["query none"]
    assert list(data.query_ids) == [f"q{i}" for i in range(20)] + ["none"]
    assert data.answer_counts.tolist() == [1] * 19 + [0, 0]
    assert data.pairs.tolist() == [[i, i % 6] for i in range(19)]
    assert data.wrong.tolist() == [[19, 0]]
    assert parts(data)["test"] == {f"query {i}" for i in range(15, 20)} | {"query none"}
    assert data.notes[0].startswith("10 of 31 queries are in no file of qrels: they were not judged and are left out.")


def test_a_query_may_name_its_split(tmp_path):
    queries = [{"_id": f"q{i}", "text": f"query {i}", "split": part} for i, part in enumerate(SPLIT)]
    qrels = {"train": "q0 d0 1", "dev": "q2 d0 1", "test": "q3 d0 1"}
    data = read(beir(tmp_path / "x", qrels, queries=queries))
    assert parts(data)["train"] == {"query 0", "query 1"}
    assert parts(data)["test"] == {"query 3"}


def test_dev_is_made_from_train_beside_queries_without_qrels(tmp_path):
    data = read(beir(tmp_path / "x", {"train": lines(range(100)), "test": lines(range(100, 110))}, queries=112))
    assert data.answer_counts[data.split("dev")].sum() >= 10, "a tenth of train, not the two queries alone"


def test_graded_and_repeated_qrels(tmp_path):
    data = read(beir(tmp_path / "x", {"train": "q0 d0 1\nq0 d0 3\nq0 d1 0.5", "dev": "q1 d0 1", "test": "q2 d0 1"}, 3))
    assert data.pairs.tolist() == [[0, 0], [0, 1], [1, 0], [2, 0]]


# -- what is wrong with the files ----------------------------------------------------------------

OK = '{"query": "a", "answer": "b"}\n'

BAD_FILES = {
    "broken JSON": (
        "x.jsonl",
        OK + '{"query": "a", "answer" "b"}\n',
        [", line 2", "not JSON", "column 25", '"answer"'],
    ),
    "half a line": ("x.jsonl", OK + OK + '{"query": "a', [", line 3", "not JSON"]),
    "a list": ("x.jsonl", OK + "\n[1, 2]\n", [", line 3", "expected a JSON object", "got list"]),
    "a number": ("x.jsonl", "7\n", [", line 1", "got int"]),
    "other columns": (
        "x.csv",
        "question,reply\na,b\n",
        [
            "its columns are question, reply",
            "by columns query=question,answer=reply",
            "BEIR folder",
            "columns text and",
        ],
    ),
    "a column twice": ("x.csv", "query,answer,answer\na,b,c\n", ["x.csv: two columns are called 'answer'. Rename"]),
    "a key twice": ("x.jsonl", OK + '{"query": "a", "query": "b"}\n', [", line 2", "'query' is given twice"]),
    "deep JSON": ("x.jsonl", "[" * 100_000, [", line 1", "nested too deeply"]),
    "a long number": (
        "x.jsonl",
        OK + '{"query": ' + "7" * 5000 + "}",
        [", line 2", "a number with thousands of digits"],
    ),
    "UTF-16 without a mark": ("x.csv", "query,answer".encode("utf-16le"), ["not UTF-8", "utf-16le"]),
    "half of UTF-16": ("x.csv", "query,answer\na,b".encode("utf-16")[:-1], ["starts as UTF-16", "truncated"]),
    "half a gzip": ("x.csv.gz", gzip.compress(b"query,answer\na,b\n")[:-9], ["the compressed file is broken"]),
    "a workbook": ("x.csv", b"PK\3\4", ["an Excel workbook", "name the workbook .xlsx"]),
    "no text": ("x.jsonl", OK + '{"query": null, "answer": "b"}\n', [", line 2", "text under `query`", "got None"]),
    "no query": ("x.jsonl", OK + '{"answer": "b"}\n', [", line 2", "text under `query`", "got None"]),
    "empty query": ("x.csv", "query,answer\na,b\n  ,c\n", [", line 3", "text under `query`", "got '  '"]),
    "no finite number": ("x.jsonl", OK + '{"query": Infinity, "answer": "b"}\n', [", line 2", "`query`", "got inf"]),
    "a list in a list": (
        "x.jsonl",
        '{"query": "a", "answers": ["b", ["c"]]}\n',
        [", line 1", "`answers`", "list ['c']"],
    ),
    "not a list": ("x.csv", 'query,answers\na,"[""b"", "\n', [", line 2", "`answers`", "JSON list", "one|two"]),
    "labels are objects": ("x.jsonl", '{"text": "a", "labels": [{"b": 1}]}\n', [", line 1", "`labels`", "dict"]),
    "labels are an object": ("x.jsonl", '{"text": "a", "labels": {"b": 1}}\n', [", line 1", "`labels`", "dict"]),
    "no labels": (
        "x.jsonl",
        '{"text": "a", "labels": []}\n{"text": "b"}\n',
        [", line 2", "under `labels`", "empty for none"],
    ),
    "unknown split": (
        "x.csv",
        "query,answer,split\na,b,train\nc,d,tset\n",
        [
            ", line 3",
            "train, training, dev, valid, val, validation, test, testing",
            "got 'tset'",
            "Did you mean 'test'?",
        ],
    ),
    "a list of splits": ("x.jsonl", '{"query": "a", "answer": "b", "split": ["train"]}\n', [", line 1", "split"]),
    "long row": ("x.csv", "query,answer\na,b\nc,d,e\n", [", line 3", "expected 2 fields (query, answer)", "got 3"]),
    "short row": ("x.csv", "query,answer,split\na\n", [", line 2", "expected 3 fields", "got 1", "double quotes"]),
    "open quote": ("x.csv", 'query,answer\n"a,b\n', [", line 2", "not CSV"]),
    "Latin-1": ("x.csv", "query,answer\na,b\nà,b\n".encode("latin1"), [", line 3", "not UTF-8", "0xe0", "iconv"]),
    "Latin-1 JSON": ("x.jsonl", OK.encode() + OK.replace("a", "é").encode("latin1"), [", line 2", "not UTF-8"]),
    "not Parquet": ("x.parquet", "query,answer\n", ["x.parquet", "not a readable Parquet file"]),
    "empty Parquet": ("x.parquet", "", ["x.parquet", "not a readable Parquet file"]),
    "empty": ("x.jsonl", "", ["x.jsonl", "no rows"]),
    "empty lines": ("x.jsonl", "\n\n", ["x.jsonl", "no rows"]),
    "header alone": ("x.csv", "query,answer\n", ["x.csv", "no rows"]),
    "empty CSV": ("x.csv", "", ["x.csv", "no rows"]),
    "other ending": ("x.ods", "", ["x.ods", ".jsonl, .ndjson, .csv, .tsv, .parquet", "got '.ods'"]),
    "no ending": ("x", "", [".jsonl, .ndjson, .csv", "no ending"]),
    "no workbook": ("x.xlsx", "", ["x.xlsx: not a readable Excel workbook"]),
    "NumPy's list": ("x.csv", "query,answers\na,\"['b' 'c']\"\n", [", line 2", "JSON list", "empty `separator`"]),
    "not only 0 and 1": (
        "x.csv",
        "text,cat,dog\na,1,0\nb,0,2\n",
        [", line 3", "0 or 1 under `dog`", "got '2'", "columns labels=dog"],
    ),
    "an empty split": (
        "x.csv",
        "query,answer,split\na,b,train\nc,d,test\n",
        ["expected at least 3 different queries", "got 2 in 2 rows"],
    ),
    "too few queries": ("x.jsonl", OK, ["expected at least 3 different queries", "got 1 in 1 rows"]),
    "half a character": ("x.jsonl", OK + '{"query": "\\ud83d", "answer": "b"}\n', [", line 2"]),
    "no label at all": ("x.jsonl", "".join(f'{{"text": "{i}", "labels": []}}\n' for i in range(9)), ["label"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path, case):
    name, content, expected = BAD_FILES[case]
    with pytest.raises(DataError) as caught:
        read(put(tmp_path / name, content))
    for part in expected:
        assert part in str(caught.value)
    if any(part.startswith(", line") for part in expected):
        assert str(tmp_path / name) in str(caught.value)


def test_parquet_whose_names_are_not_utf8(tmp_path):
    path = write(tmp_path / "x.parquet", [{"text": "a", "label": "b"}])
    path.write_bytes(path.read_bytes().replace(b"text", b"t\xffxt"))
    with pytest.raises(DataError, match=r"x\.parquet: not a readable Parquet file"):
        read(path)


BAD_QRELS = {
    "no such document": (
        "q0 d0 1\nq1 doc 1",
        ["train.tsv, line 3", "id 'doc' does not exist in", "corpus.jsonl"],
    ),
    "no such query": ("q99 d0 1", ["train.tsv, line 2", "id 'q99' does not exist in", "queries.jsonl", "mean 'q9'"]),
    "no score": ("q0 d0", ["train.tsv, line 2", "query-id, corpus-id and a number, separated by tabs", r"'q0\td0'"]),
    "a word for a score": ("q0 d0 1\nq1 d0 yes", ["train.tsv, line 3", "a number"]),
    "no number for a score": ("q0 d0 nan", ["train.tsv, line 2", "a number"]),
    "four columns": ("q0 d1 d0 1", ["train.tsv, line 2", "TREC's query-id, 0, corpus-id"]),
}


@pytest.mark.parametrize("case", BAD_QRELS)
def test_bad_qrels(tmp_path, case):
    text, expected = BAD_QRELS[case]
    folder = beir(tmp_path / "x", {"train": text})
    with pytest.raises(DataError) as caught:
        read(folder)
    for part in [str(folder / "qrels"), *expected]:
        assert part in str(caught.value)


@pytest.mark.parametrize(("wrong", "nearest"), [("DOC-1O", "DOC-10"), ("doc-10", "DOC-10"), ("Doc-2x", "DOC-20")])
def test_the_nearest_id_is_found_in_any_case(tmp_path, wrong, nearest):
    corpus = [{"_id": name, "text": name} for name in ("DOC-10", "DOC-20")]
    with pytest.raises(DataError, match=f"'{wrong}' does not exist.*Did you mean '{nearest}'"):
        read(beir(tmp_path / "x", {"train": f"q0 {wrong} 1"}, corpus=corpus))


def test_a_query_in_two_splits(tmp_path):
    folder = beir(tmp_path / "x", {"train": lines(range(10)), "test": "q12 d0 1\nq3 d0 1"})
    with pytest.raises(DataError, match=r"(test|train)\.tsv, line \d+: query 'q3' is in the \w+ split already\. Each "):
        read(folder)


def test_the_same_id_twice(tmp_path):
    corpus = [{"_id": key, "text": "x"} for key in ("d0", "d1", "d0")]
    with pytest.raises(DataError, match=r"corpus\.jsonl, line 3: id 'd0' was given before, in .*corpus\.jsonl, line 1"):
        read(beir(tmp_path / "x", {"train": "q0 d0 1"}, corpus=corpus))


@pytest.mark.parametrize("key", [None, 1.5, "", " ", ["d0"], True])
def test_ids_are_texts_or_whole_numbers(tmp_path, key):
    with pytest.raises(DataError, match=r'corpus\.jsonl, line 1: expected an id under "_id", got'):
        read(beir(tmp_path / "x", {"train": "q0 d0 1"}, corpus=[{"_id": key, "text": "x"}]))


def test_numbers_for_ids_and_documents_without_text(tmp_path):
    corpus = [{"_id": 0, "text": "x", "title": 1984}, {"_id": 1, "text": " "}, {"_id": 2}]
    queries = [{"_id": i, "text": f"query {i}"} for i in range(3)]
    data = read(beir(tmp_path / "x", {"train": "0 0 1", "dev": "1 1 1", "test": "2 2 1"}, queries, corpus))
    assert list(data.candidates) == ["1984 x", "", ""]
    assert list(data.candidate_ids) == ["0", "1", "2"]
    assert data.pairs.tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("mark", ["\t", "   "])
def test_trec_qrels(tmp_path, mark):
    folder = beir(tmp_path / "x", {}, queries=3)
    for i, name in enumerate(("train.qrels", "dev.txt", "test.tsv")):
        put(folder / "qrels" / name, f"q{i}{mark}0{mark}d{i}{mark}2\nq{i}{mark}Q0{mark}d5{mark}0\n")
    data = read(folder)
    assert data.pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert data.wrong.tolist() == [[0, 5], [1, 5], [2, 5]]


def test_other_files_among_qrels(tmp_path):
    folder = beir(tmp_path / "x", {"train": lines(range(10))})
    put(folder / "qrels" / "test.csv", "q1,d1,1")
    with pytest.raises(DataError, match=r"test\.csv: expected qrels in a file ending in \.tsv"):
        read(folder)


def test_a_beir_folder_without_its_corpus(tmp_path):
    folder = beir(tmp_path / "x", {"train": "q0 d0 1"})
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"corpus\.jsonl: no such file"):
        read(folder)


def test_qrels_that_are_not_utf8(tmp_path):
    folder = beir(tmp_path / "x", {"train": "q0 d0 1"})
    put(folder / "qrels" / "train.tsv", "q0\td0\t1\né\td0\t1\n".encode("latin1"))
    with pytest.raises(DataError, match=r"train\.tsv, line 2: not UTF-8"):
        read(folder)


def test_qrels_with_a_byte_order_mark(tmp_path):
    folder = beir(tmp_path / "x", {"test": lines(range(30))}, header="\ufeff")
    assert len(read(folder).pairs) == 30


def test_a_folder_with_one_table_or_several(tmp_path):
    write(tmp_path / "faq.csv", ROWS)
    assert pairs(read(tmp_path), read(tmp_path).pairs) == RIGHT
    write(tmp_path / "more.csv", ROWS)
    with pytest.raises(
        DataError, match=r"no known format; its tables are faq\.csv, more\.csv\. Expected one of"
    ) as caught:
        read(tmp_path)
    assert "Name the tables after splits (train.csv, test.csv)" in str(caught.value)


def test_unknown_column_names(tmp_path):
    path = write(tmp_path / "x.csv", ROWS)
    with pytest.raises(
        UnknownNameError, match=r"answer, answers, file_name, image, .*got 'anwser'\. Did you mean 'answer'\?"
    ):
        read(path, columns={"anwser": "reply"})
    with pytest.raises(DataError, match=r"x\.csv: no column 'qurey'; its columns are query, answer, wrong\. .*'query'"):
        read(path, columns={"text": "qurey"})


def test_no_such_path(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.csv: no such file or folder\."):
        read(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match=r"emojis: no such .* \(built in: .*emoji-hidden.*\)\. Did you mean 'emoji'\?"):
        load_data("emojis")
    with pytest.raises(DataError, match="no such file or folder, and no built-in data set of that name"):
        load_data(tmp_path / "nothing.csv")


def test_a_path_is_read(tmp_path):
    path = write(tmp_path / "sky.csv", ROWS)
    assert contents(load_data(path, seed=3)) == contents(load_data(str(path), seed=3)) == contents(read(path, seed=3))
    path = write(tmp_path / "sun.csv", [{"q": row["query"], "a": row["answer"]} for row in ROWS])
    assert load_data(path, columns={"query": "q", "answer": "a"}).queries == read(tmp_path / "sky.csv").queries


# -- built in ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emoji() -> MatchDataset:
    return load_data("emoji")


def test_emoji(emoji):
    assert (len(emoji.queries), len(emoji.candidates), len(emoji.pairs)) == (3936, 1923, 10726)
    assert_partition(emoji)
    assert len(set(emoji.queries)) == 3936
    assert (emoji.answer_counts > 0).all()
    assert "3,936" in BUILTIN["emoji"].describes
    assert "1,923" in BUILTIN["emoji"].describes
    party = {emoji.candidates[j] for i, j in emoji.pairs if emoji.queries[i] == "party"}
    assert "party popper" in party


def test_emoji_hidden(emoji):
    hidden = load_data("emoji-hidden")
    corpus = resources.files("sigmax.data") / "builtin" / "emoji" / "corpus.jsonl"
    group = {row["_id"]: row["group"] for row in map(json.loads, corpus.read_text(encoding="utf-8").splitlines())}
    gone = {key for key, name in group.items() if name == HIDDEN_GROUP}
    assert len(gone) == 131
    assert set(hidden.candidate_ids) == set(emoji.candidate_ids) - gone
    assert hidden.name == "emoji-hidden"
    assert list(hidden.queries) == list(emoji.queries)
    assert parts(hidden) == parts(emoji)

    def by_id(data: MatchDataset) -> set[tuple[str, str]]:
        return {(data.query_ids[i], data.candidate_ids[j]) for i, j in data.pairs}

    assert by_id(hidden) == {(query, key) for query, key in by_id(emoji) if key not in gone}
    for name in ("train", "dev", "test"):
        assert (hidden.answer_counts[hidden.split(name)] == 0).any()
    text = dict(zip(emoji.candidate_ids, emoji.candidates, strict=True))
    assert list(hidden.candidates) == [text[key] for key in hidden.candidate_ids]


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_set_loads(name):
    data = load_data(name)
    assert data.name == name
    assert len(data.pairs)


def test_the_licences_come_with_the_data():
    folder = resources.files("sigmax.data") / "builtin" / "emoji"
    assert "MIT" in (folder / "EMOJIBASE-LICENSE").read_text(encoding="utf-8")
    assert re.search("unicode", (folder / "CLDR-LICENSE").read_text(encoding="utf-8"), re.IGNORECASE)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "EMOJIBASE-LICENSE" in readme
    assert "CLDR-LICENSE" in readme


def test_a_built_in_set_has_no_columns_to_rename():
    with pytest.raises(DataError, match="no columns to rename"):
        load_data("emoji", columns={"query": "question"})
