"""Matching in bulk: the answers of `match`, in each format, in parts, resumed, told early when a row is broken."""

import csv
import io
import json

import pytest
from pyarrow import parquet

from helpers.data import things
from sigmax.errors import DataError
from sigmax.model import bulk
from sigmax.model.bulk import COLUMNS, match_stream, match_table
from sigmax.training import Settings, train

HOW = {"top_k": 3, "rule": "best-f1", "confidence": 0.9, "order": "presence"}


@pytest.fixture(scope="module")
def model():
    return train(things(unanswered=True), Settings(loss="sigmoid", epochs=2, batch_size=32))


@pytest.fixture(scope="module")
def queries():
    return [f'{word} {number}, "so"\nto say' for number, word in enumerate(things().queries[:23])]


@pytest.fixture
def table(queries, tmp_path):
    with (tmp_path / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["_id", "query", "more"])
        writer.writerows([f"q{number}", query, "x"] for number, query in enumerate(queries))
    return tmp_path / "questions.csv"


@pytest.fixture
def small(monkeypatch):
    """Parts and blocks so small that a table has several."""
    monkeypatch.setattr(bulk, "PART", 5)
    monkeypatch.setattr(bulk, "BLOCK", 2)


def expected(model, queries):
    """The answers as records, by `match`, one query at a time."""
    for row, query in enumerate(queries):
        matches = model.match(query, **HOW)
        for rank, match in enumerate(matches, start=1):
            yield {
                "row": row,
                "id": f"q{row}",
                "query": query,
                "rank": rank,
                "candidate": match.candidate,
                "candidate_id": match.candidate_id,
                "logit": pytest.approx(match.logit, abs=1e-5),
                "share": pytest.approx(match.share, abs=1e-5),
                "presence": pytest.approx(match.presence, abs=1e-5),
                "accepted": match.presence >= matches.decision.threshold,
                "any": pytest.approx(matches.any, abs=1e-5),
                "outcome": matches.outcome,
                "unlike_training": matches.unlike_training,
            }


def read_csv(path):
    kinds = {int: int, float: float, str: str, bool: lambda cell: cell == "True"}
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [{name: kinds[COLUMNS[name]](cell) for name, cell in row.items()} for row in rows]


@pytest.mark.usefixtures("small")
def test_answers_in_tables(model, queries, table, tmp_path):
    """CSV and Parquet hold a line per candidate, with what `match` says of it."""
    lines = list(expected(model, queries))
    assert match_table(model, table, tmp_path / "a.csv", **HOW) == len(queries)
    assert read_csv(tmp_path / "a.csv") == lines
    match_table(model, table, tmp_path / "a.parquet", **HOW)
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.parquet", "questions.csv"]


@pytest.mark.usefixtures("small")
def test_answers_in_lines(model, queries, table, tmp_path):
    """JSONL holds a record per query, as the command line prints one."""
    match_table(model, table, tmp_path / "a.jsonl", **HOW)
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert [record["query"] for record in records] == queries
    for number, record in enumerate(records):
        assert (record.pop("row"), record.pop("id")) == (number, f"q{number}")
        found = model.match(record["query"], **HOW)
        assert record["outcome"] == found.outcome
        assert [one["candidate"] for one in record["matches"]] == [one.candidate for one in found]
        assert [one["candidate"] for one in record["accepted"]] == [one.candidate for one in found.accepted[:3]]
        assert record["accepted_count"] == found.accepted_count
    stream = io.BytesIO()
    assert match_stream(model, table, stream, **HOW) == len(queries)
    assert stream.getvalue() == (tmp_path / "a.jsonl").read_bytes()


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("after", [0, 1, 6, 11])
def test_a_killed_run_goes_on(after, ending, model, table, tmp_path, monkeypatch):
    """After `after` blocks; what was written is not matched again, and the file is that of an unbroken run."""
    whole, output = tmp_path / f"whole{ending}", tmp_path / f"answers{ending}"
    match_table(model, table, whole, **HOW)
    asked = []

    def rate(rows, offer):
        if len(asked) == after:
            raise Killed
        asked.append(len(rows))
        return type(model).rate(model, rows, offer)

    with monkeypatch.context() as patch:
        patch.setattr(model, "rate", rate, raising=False)
        with pytest.raises(Killed):
            match_table(model, table, output, **HOW)
    assert not output.exists()
    kept = 5 * len(list((tmp_path / f"answers{ending}.parts").glob("part-*")))
    assert kept == 2 * after // 5 * 5
    asked.clear()
    with monkeypatch.context() as patch:
        after = None
        patch.setattr(model, "rate", rate, raising=False)
        match_table(model, table, output, **HOW)
    assert sum(asked) == 23 - kept
    assert output.read_bytes() == whole.read_bytes()
    assert not (tmp_path / f"answers{ending}.parts").exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("other", ["the table", "the question", "the model"])
def test_parts_of_another_run_are_not_taken(other, model, table, tmp_path, monkeypatch):
    output = tmp_path / "answers.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "replace_file", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            match_table(model, table, output, **HOW)
    assert len(list((tmp_path / "answers.jsonl.parts").glob("part-*"))) == 5
    how = dict(HOW)
    if other == "the table":
        table.write_text(table.read_text(encoding="utf-8").replace(" 0,", " zero,"), encoding="utf-8")
    if other == "the question":
        how["top_k"] = 2
    if other == "the model":
        monkeypatch.setattr(model, "candidate_ids", [f"{one}!" for one in model.candidate_ids])
    match_table(model, table, output, **how)
    match_table(model, table, tmp_path / "whole.jsonl", **how)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_is_no_part_is_left_alone(model, table, tmp_path):
    (tmp_path / "answers.csv.parts").mkdir()
    (tmp_path / "answers.csv.parts" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds no parts of answers"):
        match_table(model, table, tmp_path / "answers.csv", **HOW)
    assert (tmp_path / "answers.csv.parts" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('query\na\n""\nb\n', "line 3: expected a text under `query`"),
        ("question\na\n", r"line 2: expected a column query or text, got question. Say which .* query=question"),
        ("query\n", "no rows"),
    ],
)
def test_a_broken_row_is_told_before_the_first_match(text, said, model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "rate", lambda *_: pytest.fail("matched"), raising=False)
    (tmp_path / "questions.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        match_table(model, tmp_path / "questions.csv", tmp_path / "answers.csv", **HOW)
    assert [path.name for path in tmp_path.iterdir()] == ["questions.csv"]


def test_other_endings_and_no_file(model, table, tmp_path):
    with pytest.raises(DataError, match=r"expected a file ending in .csv, .jsonl, .parquet, got '.xml'"):
        match_table(model, table, tmp_path / "answers.xml")
    with pytest.raises(DataError, match="no such file"):
        match_table(model, tmp_path / "none.csv", tmp_path / "answers.csv")
