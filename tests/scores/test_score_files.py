"""Tables, runs and predictions of scores, and what the command line makes of them."""

import csv
import gzip
import json
import math

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from helpers.commands import refused
from helpers.scored import lists, write_table
from sigmax.errors import DataError
from sigmax.scores import ScoreModel, blocks, calibrate_scores, read_scores
from sigmax.scores.read import are_scores
from sigmax.scores.stream import rate_table


def same(one, other):
    assert one.columns == other.columns
    assert one.queries.to_pylist() == other.queries.to_pylist()
    assert one.candidates.to_pylist() == other.candidates.to_pylist()
    assert one.values == pytest.approx(other.values, nan_ok=True)
    assert one.starts.tolist() == other.starts.tolist()
    assert (one.right is None) == (other.right is None)
    if one.right is not None:
        assert one.right.tolist() == other.right.tolist()
    for missing in (one.missing, other.missing):
        assert missing is None or missing.sum() > 0
    assert one.wanted.tolist() == other.wanted.tolist()


@pytest.fixture(scope="module")
def scores():
    return lists(120, missing=0.1)


@pytest.fixture(scope="module")
def table(scores, tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("scores") / "scores.csv", scores)


@pytest.fixture(scope="module")
def folder(scores, table):
    calibrate_scores(scores).save(table.parent / "calibrated")
    return table.parent / "calibrated"


# -- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "jsonl", "json", "xlsx", "utf-16", "in blocks"])
def test_every_table(kind, scores, table, tmp_path, monkeypatch):
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    typed = [
        {
            name: value if name in ("query", "candidate") else None if value == "" else float(value)
            for name, value in row.items()
        }
        for row in rows
    ]
    path = tmp_path / f"scores.{kind}"
    if kind == "csv.gz":
        path.write_bytes(gzip.compress(table.read_bytes()))
    elif kind == "tsv":
        path.write_text(table.read_text("utf-8").replace(",", "\t"), "utf-8")
    elif kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(typed), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in typed), "utf-8")
    elif kind == "json":
        path.write_text(json.dumps(typed), "utf-8")
    elif kind == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        for row in [list(rows[0]), *(list(row.values()) for row in typed)]:
            book.active.append(row)
        book.save(path)
    else:
        path = tmp_path / "scores.csv"
        path.write_text(table.read_text("utf-8"), "utf-16" if kind == "utf-16" else "utf-8")
    if kind == "in blocks":
        monkeypatch.setattr(blocks, "BYTES", 1000)
    same(read_scores(path), scores)


def test_columns_by_other_names(tmp_path, scores):
    path = tmp_path / "scores.csv"
    path.write_text("q;doc;bm25;rank;relevance\na;x;1.5;1;2\na;y;nan;2;no\nb;x;;1;\n", "utf-8")
    found = read_scores(path, columns={"query": "q", "candidate": "doc", "right": "relevance"})
    assert found.columns == ("bm25",)
    assert found.values[:, 0].tolist() == [1.5]
    assert found.right.tolist() == [1]
    assert found.queries.to_pylist() == ["a"]
    assert are_scores(path, {"query": "q", "candidate": "doc"})
    assert not are_scores(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,candidate,score\na,x,1\na,y,two\n", r"row 2: expected a number in column 'score', got 'two'"),
        ("query,candidate,score\na,x,1\na,y,-inf\n", "row 2: the score -inf of column 'score' is not finite"),
        ("query,candidate,score\na,x,1,7\n", "line 2: expected 3 fields"),
        ("query,doc,score\na,x,1\n", "no column 'candidate'; its columns are query, doc, score"),
        ("query,candidate,text\na,x,hello\n", "no column 'score' and no other of numbers"),
        ("query,candidate,score,right\na,x,1,perhaps\n", r"row 1: expected 1 \(right\), 0 \(wrong\)"),
        ("query,candidate,score\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_tables_that_cannot_be_read(text, message, tmp_path):
    (tmp_path / "scores.csv").write_text(text, "utf-8")
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path / "scores.csv")


def test_score_columns_are_chosen(table):
    assert read_scores(table, scores=["chance"]).columns == ("chance",)
    with pytest.raises(DataError, match=r"no score column 'chanse'.*Did you mean 'chance'"):
        read_scores(table, scores=["chanse"])
    with pytest.raises(DataError, match="no such file"):
        read_scores(table.parent / "nothing.csv")


# -- runs ----------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    """Two runs, and judgements of what they returned and of one more right answer."""
    (tmp_path / "one.run").write_text("1 Q0 d1 1 9.5 x\n1 Q0 d2 2 8 x\n2 Q0 d1 1 3 x\n", "utf-8")
    (tmp_path / "two.run").write_text("1 Q0 d2 1 0.9 y\n1 Q0 d3 2 0.5 y\n", "utf-8")
    (tmp_path / "qrels.txt").write_text("1 0 d2 1\n1 0 d9 2\n2 0 d1 0\n7 0 d1 1\n", "utf-8")
    return tmp_path


def test_runs_with_qrels(runs):
    found = read_scores(f"{runs / 'one.run'},{runs / 'two.run'}", qrels=runs / "qrels.txt")
    assert found.columns == ("one", "two")
    rows = {
        (found.queries[i].as_py(), one): tuple(values)
        for i, one, values in zip(found.rows.tolist(), found.candidates.to_pylist(), found.values.tolist(), strict=True)
    }
    assert rows.keys() == {("1", "d1"), ("1", "d2"), ("1", "d3"), ("2", "d1")}
    assert rows["1", "d2"] == (8, 0.9)
    assert rows["1", "d1"][0] == 9.5
    assert math.isnan(rows["1", "d1"][1])
    truth = dict(zip(rows, found.right.tolist(), strict=True))
    assert truth == {("1", "d1"): 0, ("1", "d2"): 1, ("1", "d3"): 0, ("2", "d1"): 0}
    assert dict(zip(found.queries.to_pylist(), found.missing.tolist(), strict=True)) == {"1": 1, "2": 0}


def test_other_qrels(runs):
    (runs / "beir.tsv").write_text("query-id\tcorpus-id\tscore\n1\td2\t1\n1\td9\t1\n", "utf-8")
    (runs / "table.csv").write_text("query,candidate,right\n1,d2,1\n1,d9,1\n", "utf-8")
    plain = read_scores(runs / "one.run", qrels=runs / "qrels.txt")
    for name in ("beir.tsv", "table.csv"):
        same(read_scores(runs / "one.run", qrels=runs / name), plain)
    (runs / "others.txt").write_text("x 0 y 1\n", "utf-8")
    with pytest.raises(DataError, match="names none of the queries that were scored"):
        read_scores(runs / "one.run", qrels=runs / "others.txt")
    (runs / "others.txt").write_text("x y\n", "utf-8")
    with pytest.raises(DataError, match="line 1: expected qrels"):
        read_scores(runs / "one.run", qrels=runs / "others.txt")
    (runs / "broken.run").write_text("1 Q0 d1 1 9.5 x\n1 Q0 d2\n", "utf-8")
    with pytest.raises(DataError, match="line 2: expected six fields"):
        read_scores(runs / "broken.run")


def test_predictions_as_mteb_writes_them(runs):
    plain = read_scores(runs / "one.run", qrels=runs / "qrels.txt")
    content = {"1": {"d1": 9.5, "d2": 8}, "2": {"d1": 3}}
    for text in (content, {"mteb_model_meta": {"model_name": "m", "revision": None}, "default": {"test": content}}):
        (runs / "one.json").write_text(json.dumps(text), "utf-8")
        same(read_scores(runs / "one.json", qrels=runs / "qrels.txt"), plain)
    (runs / "one.json").write_text(json.dumps({"a": {"test": content}, "b": {"test": content}}), "utf-8")
    with pytest.raises(DataError, match="several tables of scores, a/test, b/test"):
        read_scores(runs / "one.json")


# -- rating a table ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("size", [2**25, 700])
def test_rated_in_blocks_as_a_whole(ending, size, scores, table, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BYTES", size)
    model = ScoreModel.load(folder)
    done = rate_table(model, table, tmp_path / f"answers.{ending}", rule="precision=0.7")
    if ending == "parquet":
        rows = parquet.read_table(tmp_path / "answers.parquet").to_pylist()
    elif ending == "jsonl":
        rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()]
    else:
        with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    with table.open(newline="", encoding="utf-8") as file:
        given = list(csv.DictReader(file))
    assert [{name: row[name] for name in given[0]} for row in rows] == given
    _, presence, anything = model.read(scores)
    place = {name: i for i, name in enumerate(scores.queries.to_pylist())}
    listed = [row for row in rows if row["candidate"] != "gone0"]
    assert [float(row["presence"]) for row in listed] == pytest.approx(presence)
    assert [float(row["any_right"]) for row in rows] == pytest.approx([anything[place[row["query"]]] for row in rows])
    threshold = done.decision.threshold
    assert [str(row["accepted"]).lower() for row in listed] == [str(p >= threshold).lower() for p in presence]
    assert done.rows == len(rows)
    assert done.queries == len(scores.queries)
    assert all(row["presence"] in ("", None) for row in rows if row["candidate"] == "gone0")


def test_rows_that_stand_apart(folder, table, tmp_path, monkeypatch):
    """In one block they are brought together; in several they would get other shares."""
    head, *lines = table.read_text("utf-8").splitlines()
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("\n".join([head, *lines[::2], *lines[1::2]]) + "\n", "utf-8")
    model = ScoreModel.load(folder)
    rate_table(model, mixed, tmp_path / "a.csv")
    rate_table(model, table, tmp_path / "b.csv")
    one, other = ((tmp_path / name).read_text("utf-8").splitlines() for name in ("a.csv", "b.csv"))
    by_pair = [{tuple(row.split(",")[:2]): row.split(",")[6] for row in rows} for rows in (one, other)]
    assert by_pair[0].keys() == by_pair[1].keys()
    assert all(
        value == "" or float(value) == pytest.approx(float(by_pair[1][key]))
        for key, value in by_pair[0].items()
        if key[0] != "query"
    )
    monkeypatch.setattr(blocks, "BYTES", 700)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DataError, match="Sort the table by query"):
        rate_table(model, mixed, tmp_path / "c.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_texts_with_commas_stay(folder, table, tmp_path):
    text = table.read_text("utf-8").replace("q0,", '"what, exactly ""q0""?",')
    (tmp_path / "texts.csv").write_text(text, "utf-8")
    rate_table(ScoreModel.load(folder), tmp_path / "texts.csv", tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["query"] == 'what, exactly "q0"?'


# -- the command line ----------------------------------------------------------------------------


@pytest.mark.slow
def test_from_table_to_answers(sigmax, table, tmp_path):
    folder = tmp_path / "runs" / "scores"
    done = sigmax("calibrate", table, "-o", folder)
    assert done.code == 0, done.err
    assert "read as a distance" in done.words
    assert "rows have no score" in done.words
    assert "log odds" in done.out
    done = sigmax("match", folder, table, "--rule", "precision=0.7", "-o", tmp_path / "answers.csv")
    assert done.code == 0, done.err
    assert "at least 0.7 are right" in done.words
    done = sigmax("match", folder, table, "-o", tmp_path / "answers.csv", "--json")
    assert json.loads(done.out)["queries"] == 120
    done = sigmax("match", folder, table)
    assert done.out.splitlines()[0].endswith("presence,any_right,accepted")
    done = sigmax("evaluate", folder, table, "--figure", tmp_path / "reliability.png")
    assert done.code == 0, done.err
    assert "MAP" in done.out
    assert (tmp_path / "reliability.png").exists()
    found = json.loads(sigmax("evaluate", folder, table, "--json").out)
    assert found["queries"] == 120
    found = json.loads(sigmax("calibrate", table, "--json", "--lower-is-better", "distance", "-o", folder).out)
    assert found["combination"]["columns"][1]["lower"]
    done = sigmax("compare", table, "--scores", "logit,distance,chance")
    assert done.code == 0, done.err
    assert "rank fusion" in done.out
    assert "For ranking (MAP): weighted" in done.out
    assert "weighted" in json.loads(sigmax("compare", table, "--json").out)["contenders"]
    assert json.loads(sigmax("compare", table, "--scores", "logit", "--json").out)["contenders"].keys() == {"logit"}


def test_what_scores_say_of_a_query(sigmax, table, tmp_path):
    """The activation table of calibrated scores has the logits, shares and presences that they rate with."""
    folder = tmp_path / "scores"
    assert sigmax("calibrate", table, "-o", folder).code == 0
    model, scores = ScoreModel.load(folder), read_scores(table)
    asked = ["q7", "q3"]
    found = json.loads(sigmax("explain", folder, table, *asked, "--top-k", "3", "--json").out)["items"]
    names = scores.queries.to_pylist()
    for query, item in zip(asked, found, strict=True):
        (rated,) = model.rate(scores.take(np.array([names.index(query)])))
        assert (item["item"], item["offered"]) == (query, len(rated.logits))
        assert item["any"] == pytest.approx(rated.any)
        rows = {row["candidate"]: row for row in item["activations"]}
        for place in rated.best(3):
            row = rows[rated.candidates[place]]
            assert row["logit"] == pytest.approx(float(rated.logits[place]))
            assert row["presence"] == pytest.approx(float(rated.presence[place]))
            assert row["share"] == pytest.approx(float(rated.shares[place]))
    done = sigmax("explain", folder, table)
    assert done.code == 0, done.err
    assert "At least one of all" in done.words or "At least one of all" in " ".join(done.out.split())
    refused(sigmax("explain", folder, table, "q777777"), 1, "expected a query of the table, got 'q777777'")


def test_runs_on_the_command_line(sigmax, tmp_path):
    scores = lists(60)
    names, candidates = scores.queries.to_pylist(), scores.candidates.to_pylist()
    rows = [(names[i], candidates[row]) for row, i in enumerate(scores.rows)]
    (tmp_path / "a.run").write_text(
        "".join(f"{q} Q0 {c} 1 {x} a\n" for (q, c), x in zip(rows, scores.values[:, 0], strict=True)), "utf-8"
    )
    (tmp_path / "qrels").write_text(
        "".join(f"{q} 0 {c} {y}\n" for (q, c), y in zip(rows, scores.right, strict=True)), "utf-8"
    )
    done = sigmax("compare", tmp_path / "a.run", "--qrels", tmp_path / "qrels")
    assert done.code == 0, done.err
    done = sigmax("calibrate", tmp_path / "a.run", "--qrels", tmp_path / "qrels", "-o", tmp_path / "runs")
    assert done.code == 0, done.err
    done = sigmax("match", tmp_path / "runs", tmp_path / "a.run", "-o", tmp_path / "answers.parquet")
    assert done.code == 0, done.err
    assert np.isfinite(parquet.read_table(tmp_path / "answers.parquet").column("presence").to_numpy()).all()


def test_what_the_command_line_refuses(sigmax, table, folder, tmp_path):
    refused(sigmax("calibrate", table), 2, "-o DIR")
    refused(sigmax("calibrate", folder), 2, "is a folder")
    refused(sigmax("calibrate", table.parent / "nothing.csv", "-o", tmp_path / "x"), 1, "no such file")
    refused(sigmax("match", folder), 2, "expected one table of scores")
    refused(sigmax("match", folder, table, "-o", tmp_path / "x.txt"), 1, "ending in .csv, .parquet, .jsonl")
    refused(sigmax("match", folder, table, "--json"), 2, "--json give -o FILE")
    other = write_table(tmp_path / "other.csv", lists(30, several=1))
    refused(sigmax("match", folder, other, "-o", tmp_path / "x.csv"), 1, "no score column 'distance'")
    refused(sigmax("calibrate", table, "-o", table.parent), 1, "is there already")
    refused(sigmax("compare", "emoji", "--unjudged", "wrong"), 2, "is for scores that others made")
    assert not (tmp_path / "x.csv").exists()


def test_another_scorer_is_noticed(sigmax, folder, tmp_path):
    scores = lists(60, seed=9)
    scores.values[:, 0] = 100 + scores.values[:, 0]
    done = sigmax("match", folder, write_table(tmp_path / "other.csv", scores), "-o", tmp_path / "x.csv")
    assert done.code == 0
    assert "'logit' are unlike those calibrated on" in done.words
