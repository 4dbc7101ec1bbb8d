"""check and encode, on every form of data."""

import csv
import io
import json

import pytest
import torch
from pyarrow import parquet

from helpers.commands import jsonl, refused, rows, write_labelled
from sigmax.data.check import check
from sigmax.data.sources import load_data
from sigmax.model.dual_encoder import load


def write_jsonl(path, table):
    return jsonl(path / "things.jsonl", table)


def write_csv(path, table):
    text = io.StringIO()
    writer = csv.DictWriter(text, ["query", "answers", "split"])
    writer.writeheader()
    writer.writerows({**row, "answers": "|".join(row["answers"])} for row in table)
    (path / "things.csv").write_text(text.getvalue(), encoding="utf-8")
    return path / "things.csv"


def write_parquet(path, table):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(table), path / "things.parquet")
    return path / "things.parquet"


def write_folder(path, table):
    for name in ("train", "dev", "test"):
        jsonl(path / "things" / f"{name}.jsonl", [row for row in table if row["split"] == name])
    return path / "things"


def write_beir(path, table):
    beir = path / "things"
    (beir / "qrels").mkdir(parents=True)
    answers = sorted({answer for row in table for answer in row["answers"]})
    jsonl(beir / "corpus.jsonl", [{"_id": f"c{j}", "text": answer} for j, answer in enumerate(answers)])
    queries = [{"_id": f"q{i}", "text": row["query"], "split": row["split"]} for i, row in enumerate(table)]
    jsonl(beir / "queries.jsonl", queries)
    for name in ("train", "dev", "test"):
        lines = [
            f"q{i}\tc{answers.index(answer)}\t1"
            for i, row in enumerate(table)
            for answer in row["answers"]
            if row["split"] == name
        ]
        (beir / "qrels" / f"{name}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return beir


WRITERS = (write_jsonl, write_csv, write_parquet, write_folder, write_beir, write_labelled)


@pytest.mark.parametrize("write", WRITERS, ids=[write.__name__.removeprefix("write_") for write in WRITERS])
def test_check(write, sigmax, tmp_path):
    path = write(tmp_path, rows(unanswered=True))
    done = sigmax("check", path, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found == json.loads(json.dumps(check(load_data(path)).as_dict()))
    assert found["name"] == "things"
    assert found["splits"] == {"train": 81, "dev": 27, "test": 27}
    assert found["unanswered"] == {"train": 18, "dev": 6, "test": 6}
    assert (found["queries"], found["candidates"], found["pairs"]) == (135, 6, 120)
    assert found["labels"] == (write is write_labelled)
    done = sigmax("check", path)
    assert done.code == 0
    assert "81 / 27 / 27" in done.out
    assert "18 / 6 / 6" in done.out
    assert ("labels" if write is write_labelled else "candidates") in done.out
    assert "• Queries with no right answer: 18 in train, 6 in dev, 6 in test." in done.out


@pytest.mark.parametrize("name", ["emoji", "emoji-hidden"])
def test_check_of_what_is_built_in(name, sigmax):
    found = json.loads(sigmax("check", name, "--json").out)
    assert found["name"] == name
    assert found["queries"] == 3936
    assert any(found["unanswered"].values()) == (name == "emoji-hidden")


def test_columns(sigmax, tmp_path):
    table = [{"question": row["query"], "reply": row["answers"], "split": row["split"]} for row in rows()]
    path = jsonl(tmp_path / "faq.jsonl", table)
    refused(sigmax("check", path), 1, "its columns are question, reply, split", "by columns query=question")
    found = json.loads(sigmax("check", path, "--columns", "query=question, answers=reply", "--json").out)
    assert (found["queries"], found["pairs"]) == (105, 120)
    refused(sigmax("check", path, "--columns", "query=qestion,answers=reply"), 1, "no column 'qestion'")
    refused(sigmax("check", path, "--columns", "question"), 2, "--columns", "expected ours=yours, got 'question'")
    refused(sigmax("check", path, "--columns", "qury=question"), 2, "got 'qury'", "Did you mean 'query'")


@pytest.mark.parametrize("side", ["query", "candidate"])
def test_encode(side, sigmax, model, data, tmp_path):
    file = tmp_path / "vectors.parquet"
    done = sigmax("encode", model, data, "-o", file, "--side", side, "--json")
    assert done.code == 0
    assert f"Written: {file}" in done.words
    found = json.loads(done.out)
    table = parquet.read_table(file)
    known = load_data(data)
    items = known.queries if side == "query" else known.candidates
    assert found == {"file": str(file), "side": side, "rows": len(items), "width": table.schema.field(2).type.list_size}
    vectors = torch.tensor(table["embedding"].to_pylist())
    assert torch.allclose(vectors, load(model).encode(items, side), atol=1e-6)
    assert sigmax("encode", model, data, "-o", file).out == ""
