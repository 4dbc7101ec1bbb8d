import csv
import html
import io
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
from pyarrow import parquet
from safetensors.torch import load_file

from helpers.commands import jsonl, refused, rows
from sigmax.cli import main as cli
from sigmax.comparison.compare import compare
from sigmax.comparison.results import Budget
from sigmax.data.check import check
from sigmax.data.sources import load_data
from sigmax.evaluation import evaluate
from sigmax.explain import explain
from sigmax.model.dual_encoder import load
from sigmax.report.activations import explanation_words
from sigmax.training.settings import Settings

COMMANDS = typer.main.get_command(cli.app).commands
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def data(folder):
    return jsonl(folder / "things.jsonl", rows(unanswered=True))


@pytest.fixture(scope="module")
def model(folder, data):
    """A model that the command line trained, its exit code being checked in `test_train`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sigmax", "train", str(data), "-o", str(folder / "model"), "--loss", "sigmoid"])
        with pytest.raises(SystemExit):
            cli.main()
    return folder / "model"


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_argument(name, sigmax, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 160)
    done = sigmax(name, "--help")
    assert done.code == 0
    assert done.err == ""
    for parameter in COMMANDS[name].params:
        for word in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
            assert word in done.out
    assert (COMMANDS[name].help or "").split(".")[0].split("\n")[0][:40] in " ".join(done.out.split())


def test_help(sigmax):
    done = sigmax("--help")
    assert done.code == 0
    assert {"check", "compare", "evaluate", "match", "train"} <= COMMANDS.keys()
    for name in COMMANDS:
        assert f" {name} " in done.out
    assert "{formats}" not in sigmax("check", "--help").out
    assert "a BEIR folder" in " ".join(sigmax("check", "--help").out.split())


def test_no_command_is_help(sigmax):
    done = sigmax()
    assert done.code == 2
    assert "Usage" in done.out + done.err


# -- check ---------------------------------------------------------------------------------------


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


def write_labelled(path, table):
    return jsonl(
        path / "things.jsonl", [{"text": r["query"], "labels": r["answers"], "split": r["split"]} for r in table]
    )


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


# -- train, evaluate, match ----------------------------------------------------------------------


def test_train(sigmax, data, tmp_path):
    done = sigmax("train", data, "-o", tmp_path / "deep" / "model", "--epochs", "3", "--batch-size", "32", "--json")
    assert done.code == 0
    found = json.loads(done.out, parse_constant=pytest.fail)
    trained = load(tmp_path / "deep" / "model")
    assert found["facts"] == trained.facts
    assert found["model"] == str(tmp_path / "deep" / "model")
    assert found["evaluation"] == evaluate(trained, load_data(data), split="dev").as_dict()
    assert found["facts"]["settings"]["epochs"] == 3
    assert "81 training queries, 6 candidates, 9 steps." in done.words
    assert "18 of the training queries have no right answer: softmax-decoupled leaves them out" in done.words
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]  # the checkpoints are gone


def test_every_option_of_train_arrives(sigmax, data, tmp_path):
    options = (
        "--loss softmax-any --two-towers --epochs 2 --batch-size 16 --learning-rate 0.01 --logit-scale 7 --answers 2 "
        "--negatives 3 --none-candidate --mini-batch-size 5 --metric mrr --patience 5 --precision bfloat16 "
        "--seed 3 --encoder ngrams --head cosine --augment mirrored"
    )
    done = sigmax("train", data, "-o", tmp_path / "model", *options.split(), "--json")
    assert done.code == 0
    assert json.loads(done.out)["facts"]["settings"] == {
        "loss": "softmax-any",
        "encoder": "ngrams",
        "two_towers": True,
        "head": "cosine",
        "frozen": False,
        "augment": "mirrored",
        "epochs": 2,
        "steps": None,
        "batch_size": 16,
        "mini_batch_size": 5,
        "none_candidate": True,
        "learning_rate": 0.01,
        "logit_scale": 7,
        "answers": 2,
        "negatives": 3,
        "draw": "known-positives",
        "metric": "mrr",
        "patience": 5,
        "precision": "bfloat16",
        "seed": 3,
    }
    parameters = {parameter.name for parameter in COMMANDS["train"].params}
    others = {"data", "output", "resume", "fresh", "report_to", "columns", "as_json", "help", "model_license"}
    assert parameters - others <= json.loads(done.out)["facts"]["settings"].keys()


def test_train_writes_a_card(sigmax, data, tmp_path):
    sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1", "--license", "apache-2.0")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0\n" in card
    assert "On the dev split of things: 27 queries, 6 of them with no right answer" in card
    value = f"{evaluate(load(tmp_path / 'model'), load_data(data), split='dev')['map'].value:.3f}"
    assert f"| map | {value} |" in card
    sigmax("calibrate", tmp_path / "model", data, "--split", "test")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "## Measured\n\nNothing was measured on this model as it is." in card  # only before
    assert "license: apache-2.0\n" in card


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


def test_train_prints_a_table(sigmax, data, tmp_path):
    done = sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1")
    assert done.code == 0
    assert "things, dev: 27 queries, 6 with no answer" in done.out
    assert "MAP" in done.out
    assert f"Written: {tmp_path / 'model'}. Next: sigmax evaluate {tmp_path / 'model'} {data}" in done.words
    assert "Written" not in done.out


def test_evaluate(sigmax, model, data, tmp_path):
    for split in ("test", "dev", "train"):
        done = sigmax("evaluate", model, data, "--split", split, "--json")
        assert done.code == 0
        found = json.loads(done.out, parse_constant=pytest.fail)
        assert found == json.loads(json.dumps(evaluate(load(model), load_data(data), split=split).as_dict()))
        assert found["metrics"]["map"]["value"] > 0.9
    assert json.loads(sigmax("evaluate", model, data, "--json").out)["split"] == "test"
    picture = tmp_path / "deep" / "reliability.png"
    done = sigmax("evaluate", model, data, "--figure", picture)
    assert done.code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    plain = changed(model, tmp_path / "plain", calibrator=None)
    refused(sigmax("evaluate", plain, data, "--figure", picture), 1, "not calibrated")
    done = sigmax("evaluate", model, data)
    assert done.code == 0
    assert done.err == ""
    assert "things, test: 27 queries, 6 with no answer" in done.out
    for name in ("MAP", "log loss per query ↓", "AUROC, largest logit"):
        assert name in done.out


def test_match(sigmax, model):
    done = sigmax("match", model, "the lunar night", "sky", "--top-k", "3", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    expected = load(model).match(["the lunar night", "sky"], top_k=3)
    decision = expected[0].decision
    assert found == {
        "rule": json.loads(json.dumps(decision.as_dict())) | {"promise": decision.promise},
        "results": [
            {
                "query": one.query,
                "any": one.any,
                "accepted_count": len(one.accepted),
                "accepted": [match.as_dict() for match in one.accepted],
                "matches": [{**match.as_dict(), "accepted": match in one.accepted} for match in one],
            }
            for one in expected
        ],
    }
    assert [one["candidate"] for one in found["results"][1]["matches"] if one["accepted"]]
    done = sigmax("match", model, "the lunar night", "sky", "--top-k", "6")
    assert done.code == 0
    assert done.err == ""
    lines = [line.split("│")[1:-1] for line in done.out.splitlines() if line.startswith("│")]
    printed = [[cell.strip() for cell in line] for line in lines]
    matches = [(one, match) for one in load(model).match(["the lunar night", "sky"], top_k=6) for match in one]
    assert printed == [
        [
            "✓" if match in one.accepted else "",
            match.candidate,
            f"{match.logit:.2f}",
            f"{match.share:.3f}",
            f"{match.presence:.3f}",
        ]
        for one, match in matches
    ]
    assert 0 < sum(line[0] == "✓" for line in printed) < len(printed)
    assert "none of these" not in done.out


def changed(model, folder, **about):
    shutil.copytree(model, folder)
    text = json.loads((folder / "sigmax.json").read_text(encoding="utf-8")) | about
    (folder / "sigmax.json").write_text(json.dumps(text), encoding="utf-8")
    return folder


def test_none_of_these(sigmax, model, tmp_path):
    about = json.loads((model / "sigmax.json").read_text(encoding="utf-8"))
    strict = changed(model, tmp_path / "strict", calibrator=about["calibrator"] | {"threshold": 1.5})
    (strict / "dev.safetensors").unlink()
    done = sigmax("match", strict, "moon", "invoice")
    assert done.code == 0
    for matches in load(strict).match(["moon", "invoice"]):
        assert f"none of these (any right: {matches.any:.3f})" in done.out
    assert "✓" not in done.out
    assert not any(
        match["accepted"] for match in json.loads(sigmax("match", strict, "sky", "--json").out)["results"][0]["matches"]
    )


def test_match_without_calibration(sigmax, model, tmp_path):
    plain = changed(model, tmp_path / "plain", calibrator=None)
    done = sigmax("match", plain, "sky", "--top-k", "2")
    assert done.code == 0
    assert "–" in done.out
    assert "none of these" not in done.out
    done = sigmax("match", plain, "sky", "--top-k", "2", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["rule"] is found["results"][0]["accepted"] is found["results"][0]["accepted_count"] is None
    for match in found["results"][0]["matches"]:
        assert match["presence"] is None
        assert match["accepted"] is None


def test_rules(sigmax, model):
    promised = load(model).match("sky", rule="recall=0.3").decision
    assert promised.promised
    done = sigmax("match", model, "sky", "--rule", "recall=0.3")
    assert done.code == 0
    assert " ".join(promised.promise.split()) in " ".join(done.out.split())
    broken = load(model).match("sky", rule="precision=0.99", confidence=0.999).decision
    assert not broken.promised
    done = sigmax("match", model, "sky", "--rule", "precision=0.99", "--confidence", "0.999", "--json")
    assert done.code == 0
    assert broken.reason in done.err
    assert json.loads(done.out)["rule"] == json.loads(json.dumps(broken.as_dict())) | {"promise": None}
    done = sigmax("match", model, "sky", "--rule", "precison=0.9")
    assert done.code == 2
    assert "Did you mean 'precision'" in done.err
    done = sigmax("match", model, "sky", "--rule", "precision=1.5")
    assert done.code == 1
    assert "between 0 and 1" in done.err


def test_calibrate(sigmax, model, data, tmp_path):
    """Anew, by another method, for other candidates; the encoders stay."""
    folder = changed(model, tmp_path / "plain", calibrator=None)
    (folder / "dev.safetensors").unlink()
    done = sigmax("calibrate", folder, data, "--method", "isotonic")
    assert done.code == 0, done.err
    assert "isotonic" in done.out
    assert "unanswerable answered" in done.out
    again, before = load(folder), load(model)
    assert again.calibrator.about["method"] == "isotonic"
    assert again.candidates == before.candidates
    assert (again.logits(["sky"], again.candidates).values == before.logits(["sky"], before.candidates).values).all()
    done = sigmax("calibrate", folder, data, "--json")
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert set(found["about"]["log_loss"]) >= {"platt", "beta", "isotonic"}
    done = sigmax("calibrate", folder, data, "--method", "isotonik")
    assert done.code == 2
    assert "Did you mean 'isotonic'" in done.err


def test_none_candidate(sigmax, data, tmp_path):
    done = sigmax("train", data, "-o", tmp_path / "model", "--none-candidate", "--epochs", "2", "--json")
    assert done.code == 0, done.err
    assert load(tmp_path / "model").none_vector is not None
    assert (tmp_path / "model" / "none.safetensors").exists()
    assert sigmax("match", tmp_path / "model", "invoice").code == 0


BRACKETS = ["[red]night", "[/]", "[/b] sky", "a [bold]moon[/bold]"]


def test_texts_with_brackets(sigmax, model, tmp_path):
    """They mean nothing, however much they look like markup."""
    done = sigmax("match", model, *BRACKETS)
    assert done.code == 0
    for text in BRACKETS:
        assert text in done.out
    named = load(model)
    named.candidates = [f"{text} {name}" for text, name in zip(BRACKETS * 2, named.candidates, strict=False)]
    named.save(tmp_path / "model")
    done = sigmax("match", tmp_path / "model", "sky", "--top-k", "6")
    assert done.code == 0
    for name in named.candidates:
        assert name in done.out


def test_paths_with_brackets(sigmax, tmp_path):
    data = jsonl(tmp_path / "a[red]b.jsonl", rows(unanswered=True))
    output = tmp_path / "[bold]model"
    done = sigmax("train", data, "-o", output, "--epochs", "1")
    assert done.code == 0
    assert f"Written: {output}." in done.words
    assert "a[red]b, dev:" in done.out
    assert "a[red]b, test:" in sigmax("evaluate", output, data).out
    assert "a[red]b" in sigmax("check", data).out
    refused(sigmax("check", tmp_path / "[red]none"), 1, f"{tmp_path}/[red]none: no such file")
    small = "--contenders sigmoid --steps 1 --rates 1 --scales 1 --seeds 1"
    done = sigmax("compare", data, *small.split(), "-o", tmp_path / "[i]out")
    assert done.code == 0
    assert f"Written: {tmp_path}/[i]out/comparison.json" in done.words
    assert "a[red]b: test metrics" in done.out


# -- explain -------------------------------------------------------------------------------------

FIRST = "cat=0.02,dog=-2.49,plane=-1.75,fish=2.07,building=1.25"
SECOND = "cat=-1.43,dog=-3.94,plane=-3.20,fish=0.62,building=-0.20"


def test_explain_bare_activations(sigmax, tmp_path):
    picture = tmp_path / "deep" / "table.svg"
    done = sigmax("explain", "--logits", FIRST, "--logits", SECOND, "--figure", picture)
    assert done.code == 0
    assert done.words == f"Written: {picture}"
    assert "cat 0.02 1.02 0.080 0.505 perhaps -1.43 0.24 0.080 0.193 absent" in " ".join(done.out.split())
    assert "The activations of item 2 are those of item 1 shifted by −1.45." in done.out
    assert picture.read_bytes().rstrip().endswith(b"</svg>")
    assert [path.name for path in picture.parent.iterdir()] == ["table.svg"]
    done = sigmax("explain", "--logits", FIRST, "--logits", SECOND, "--json")
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert found["shift"] == [pytest.approx(-1.45)]
    assert [row["share"] for row in found["items"][0]["activations"]] == pytest.approx(
        [row["share"] for row in found["items"][1]["activations"]]
    )
    huge = json.loads(sigmax("explain", "--logits", "a=1000,b=0", "--json").out, parse_constant=pytest.fail)
    assert (huge["items"][0]["activations"][0]["exp"], huge["shift"]) == (None, None)
    assert "a, b" in sigmax("explain", "--logits", '{"a, b": 1.0}').out


def test_explain_a_model(sigmax, model, tmp_path):
    done = sigmax("explain", model, "the lunar night", "sky", "--json", "--figure", tmp_path / "table.png")
    assert done.code == 0, done.err
    found = json.loads(done.out, parse_constant=pytest.fail)
    trained = load(model)
    expected = explain(trained, ["the lunar night", "sky"])
    assert found["items"] == [one.as_dict() for one in expected]
    assert found["words"] == explanation_words(expected)
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    for one, item in zip(found["items"], trained.match(["the lunar night", "sky"], top_k=6), strict=True):
        assert one["any"] == item.any
        assert {row["candidate"]: row["presence"] for row in one["activations"]} == {
            m.candidate: m.presence for m in item
        }
    done = sigmax("explain", model, "sky", "--top-k", "2")
    assert done.code == 0
    assert done.err == ""
    assert "Shown: the 2 best of 6 candidates; shares and sums are over all 6." in done.out
    assert "presence" in done.out
    done = sigmax("explain", model, *BRACKETS)
    for text in BRACKETS:
        assert text in done.out


# -- compare -------------------------------------------------------------------------------------


def test_compare(sigmax, tmp_path):
    data = write_labelled(tmp_path, rows(unanswered=True))
    options = "--steps 4 --batch-size 32 --seeds 2 --rates 0.5,1 --scales 1 --seed 1 --metric mrr"
    names = ["sigmoid", "tfidf-lr"]
    out = tmp_path / "out"
    done = sigmax("compare", data, *options.split(), "--contenders", ",".join(names), "--json", "-o", out)
    assert done.code == 0
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert json.loads((out / "comparison.json").read_text(encoding="utf-8")) == found
    settings = Settings(steps=4, batch_size=32, seed=1, metric="mrr")
    budget = Budget((0.5, 1.0), (1.0,), 2)
    expected = compare(load_data(data), settings, contenders=names, budget=budget)
    expected = json.loads(json.dumps(expected.as_dict()))
    assert min(found.pop("peak_bytes"), expected.pop("peak_bytes")) > 2**20
    assert found.pop("verdict").splitlines()[0].endswith(".")
    for result in (*found["results"], *expected["results"]):
        assert result.pop("train_seconds") > 0
    assert found == expected


def test_compare_prints_a_table_and_the_verdict(sigmax, data, tmp_path):
    options = "--contenders sigmoid,softmax-average --steps 2 --rates 1 --scales 1 --seeds 1"
    done = sigmax("compare", data, *options.split(), "-o", tmp_path / "out")
    assert done.code == 0
    assert "things: test metrics" in done.out
    assert "• Ranking: " in done.out
    assert "Of softmax-average, the largest share" in done.out
    assert f"Written: {tmp_path / 'out' / 'comparison.json'}" in done.words
    assert f"Written: {tmp_path / 'out' / 'comparison.png'}" in done.words
    assert sigmax("compare", data, *options.split(), "--json").code == 0


def test_compare_writes_a_report(sigmax, data, tmp_path):
    options = "--contenders sigmoid,softmax-average --steps 2 --rates 1 --scales 1 --seeds 1"
    path = tmp_path / "new" / "report.html"
    done = sigmax("compare", data, *options.split(), "--report", path, "--json", "-o", tmp_path / "out")
    assert done.code == 0
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
    text = html.unescape(path.read_text(encoding="utf-8"))
    said = json.loads(done.out)
    assert said["verdict"].splitlines()[0] in text
    assert said["data"]["fingerprint"] in text
    assert all(example["query"] in text for example in said["examples"])
    assert f"sigmax compare {data} {options} --report {path}" in text


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_report_that_cannot_be_made_is_refused_before_training(missing, sigmax, data, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["sigmax.comparison.compare"], "compare", lambda *_, **__: pytest.fail("trained"))
    refused(sigmax("compare", data, "--report", tmp_path), 1, f"{tmp_path}: is a folder; --report needs a file")
    monkeypatch.setitem(sys.modules, missing, None)
    done = sigmax("compare", data, "--report", tmp_path / "report.html")
    refused(done, 1, f"{missing} is not installed. Try: pip install 'sigmax[report]'")
    assert list(tmp_path.iterdir()) == []


def test_compare_without_matplotlib(sigmax, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = "--contenders sigmoid --steps 1 --rates 1 --scales 1 --seeds 1"
    done = sigmax("compare", data, *options.split(), "-o", tmp_path / "out")
    assert done.code == 0
    assert "pip install 'sigmax[report]'" in done.words
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["comparison.json"]


# -- wrong usage, and work that fails ------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nothing", ["No such command 'nothing'"]),
        ("train DATA", ["Missing option '--output'"]),
        ("train -o OUT", ["Missing argument"]),
        ("train DATA -o OUT --epoch 3", ["No such option: --epoch"]),
        ("train DATA -o OUT --batch-size 0", ["--batch-size"]),
        ("train DATA -o OUT --batch-size many", ["--batch-size"]),
        ("train DATA -o OUT --patience 0", ["--patience"]),
        ("train DATA -o OUT --seed -1", ["--seed", "expected a number of at least 0, got -1"]),
        ("train DATA -o OUT --learning-rate -1", ["--learning-rate", "expected a number above 0, got -1"]),
        ("train DATA -o OUT --epochs inf", ["--epochs", "expected a number above 0, got inf"]),
        ("match MODEL moon --confidence 2", ["--confidence", "expected a number of at most 1, got 2"]),
        ("train DATA -o OUT --resume --fresh", ["--resume and --fresh exclude each other"]),
        ("train DATA -o OUT --loss sigmoids", ["--loss", "got 'sigmoids'", "Did you mean 'sigmoid'?"]),
        ("train DATA -o OUT --precision half", ["--precision", "got 'half'"]),
        ("train DATA -o OUT --metric mapp", ["--metric", "got 'mapp'", "Did you mean 'map'?"]),
        ("train DATA -o OUT --columns query", ["--columns", "expected ours=yours, got 'query'"]),
        ("train DATA -o OUT --columns qery=a", ["Did you mean 'query'?"]),
        ("evaluate MODEL", ["Missing argument"]),
        ("evaluate MODEL DATA --split tests", ["--split", "Did you mean 'test'?"]),
        ("match MODEL", ["Missing argument"]),
        ("encode MODEL DATA", ["Missing option '--output'"]),
        ("encode MODEL DATA -o OUT", ["--output", "expected a file ending in .parquet"]),
        ("encode MODEL DATA -o OUT.parquet --side document", ["--side", "got 'document'"]),
        ("match MODEL moon --top-k 0", ["--top-k"]),
        ("explain", ["DIR ITEM…", "--logits label=number"]),
        ("explain MODEL", ["at least one item"]),
        ("explain MODEL moon --logits a=1", ["either a model and items", "not both"]),
        ("explain MODEL moon --top-k 0", ["--top-k"]),
        ("explain MODEL moon --figure a.jpg", ["--figure", ".png, .svg, .pdf", "got 'a.jpg'"]),
        ("explain --logits a", ["--logits", "Expected label=number, got 'a'", "needs JSON"]),
        ("explain --logits a=", ["Expected a number for 'a', got ''"]),
        ("explain --logits a=1,a=2", ["Expected each label once, got 'a' twice"]),
        ("explain --logits a=nan", ["Expected a finite number for 'a', got nan"]),
        ("compare DATA --rates 1,x", ["--rates", "expected numbers separated by commas, got '1,x'"]),
        ("compare DATA --rates 1,", ["--rates"]),
        ("compare DATA --rates -1", ["--rates", "expected numbers above 0"]),
        ("compare DATA --scales 0", ["--scales", "expected numbers above 0, got '0'"]),
        ("compare DATA --scales nan", ["--scales"]),
        ("compare DATA --rates inf", ["--rates"]),
        ("compare DATA --seeds 0", ["--seeds"]),
        ("compare DATA --steps 0", ["--steps"]),
        ("compare DATA --contenders sigmoids", ["`contender`", "Did you mean 'sigmoid'?"]),
        ("compare DATA --metric mapp --steps 1", ["--metric", "Did you mean 'map'?"]),
    ],
)
def test_wrong_usage(words, said, sigmax, model, data, tmp_path):
    places = {"DATA": data, "MODEL": model, "OUT": tmp_path / "out"}
    refused(sigmax(*(places.get(word, word) for word in words.split())), 2, *said)
    assert list(tmp_path.iterdir()) == []


def broken(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("command", ["check DATA", "train DATA -o OUT", "evaluate MODEL DATA", "compare DATA"])
def test_data_that_cannot_be_read(command, sigmax, model, tmp_path):
    good = '{"query": "a", "answers": ["b"]}\n'
    for source, said in (
        (tmp_path / "none.jsonl", "none.jsonl: no such file or folder, and no built-in data set"),
        ("emojis", "Did you mean 'emoji'?"),
        (broken(tmp_path, "a.jsonl", good * 2 + '{"query": \n'), "a.jsonl, line 3: not JSON"),
        (broken(tmp_path, "b.csv", "query,answer\na,b\nc\n"), "b.csv, line 3: expected 2 fields"),
        (
            broken(tmp_path, "c.jsonl", good + '{"query": "", "answers": []}\n'),
            "c.jsonl, line 2: expected a text under",
        ),
        (broken(tmp_path, "d.txt", "a b\n"), "d.txt: expected a file ending in .jsonl"),
        (broken(tmp_path, "e.parquet", "PAR1"), "e.parquet: not a readable Parquet file"),
        (broken(tmp_path, "f.csv", "query,answer\n"), "f.csv: the file has no rows"),
    ):
        places = {"DATA": source, "MODEL": model, "OUT": tmp_path / "out"}
        refused(sigmax(*(places.get(word, word) for word in command.split())), 1, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        "evaluate MODEL DATA",
        "match MODEL moon",
        "match MODEL moon --json",
        "explain MODEL moon",
        "encode MODEL DATA -o a.parquet",
    ],
)
def test_models_that_cannot_be_read(command, sigmax, model, data, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(model, half)
    weights = half / "query_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for folder, said in (
        (tmp_path / "none", "got nothing"),
        (tmp_path, "got an empty or other folder"),
        (changed(model, tmp_path / "newer", format=99), "written in format 99"),
        (changed(model, tmp_path / "other", loss="hinge"), "damaged"),
        (half, "damaged"),
    ):
        places = {"DATA": data, "MODEL": folder}
        refused(sigmax(*(places.get(word, word) for word in command.split())), 1, str(folder), said)


def test_models_and_data_on_the_hub(sigmax, model, data, tmp_path, monkeypatch):
    """They are looked for; without a network neither is there."""
    monkeypatch.chdir(tmp_path)
    for words in (("match", "me/sky", "moon"), ("evaluate", "me/sky", data), ("explain", "me/sky", "moon")):
        refused(sigmax(*words), 1, "me/sky: no such folder. On the Hugging Face hub it could not be looked for")
    refused(sigmax("calibrate", "me/sky", data), 1, "me/sky: expected a folder")
    refused(sigmax("evaluate", model, "hf:me/things"), 1, "hf:me/things: expected a data set on the Hugging Face hub")
    assert list(tmp_path.iterdir()) == []


def test_work_that_fails(sigmax, data, model, tmp_path):
    refused(sigmax("match", model, " "), 1, "Expected a text to match")
    refused(sigmax("explain", model, " "), 1, "Expected a text to match")
    refused(sigmax("train", data, "-o", tmp_path / "a", "--encoder", "no/such-encoder"), 1, "no/such-encoder")
    refused(sigmax("train", data, "-o", tmp_path / "b", "--encoder", "ngrams-linear"), 1, "ngrams-linear")
    (tmp_path / "file").write_text("precious")
    refused(sigmax("train", data, "-o", tmp_path / "file" / "model"), 1, str(tmp_path / "file"))
    refused(sigmax("compare", data, "--steps", "1", "-o", tmp_path / "file"), 1, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


def test_other_labels_than_the_model_knows(sigmax, tmp_path):
    data = write_labelled(tmp_path, rows())
    other = jsonl(
        tmp_path / "other.jsonl",
        [{"text": row["query"], "labels": ["mooon"], "split": row["split"]} for row in rows()],
    )
    assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1").code == 0
    refused(sigmax("evaluate", tmp_path / "model", other), 1, "Label 'mooon' has no vector", "Did you mean 'moon'?")


@pytest.mark.parametrize("what", ["a file", "a folder", "here"])
def test_what_is_not_a_model_is_not_overwritten(what, sigmax, data, tmp_path, monkeypatch):
    precious = tmp_path / "thesis" / "chapter.txt"
    precious.parent.mkdir()
    precious.write_text("precious")
    monkeypatch.chdir(precious.parent)
    output = {"a file": precious, "a folder": precious.parent, "here": "."}[what]
    done = sigmax("train", data, "-o", output, "--epochs", "1")
    refused(done, 1, str(output))
    assert "PosixPath" not in done.err
    assert precious.read_text() == "precious"
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.txt"]


def test_what_else_lies_in_a_model_folder_is_not_lost(sigmax, data, model, tmp_path):
    """A second model inside the first, say: writing the first again would take the second away."""
    first = changed(model, tmp_path / "first")
    second = changed(model, first / "second")
    refused(sigmax("train", data, "-o", first, "--epochs", "1"), 1, str(first), "second")
    assert load(second).candidates == load(first).candidates
    assert sigmax("train", data, "-o", second, "--epochs", "1").code == 0


def test_a_model_is_overwritten(sigmax, data, tmp_path):
    (tmp_path / "model").mkdir()  # an empty folder will do as well
    for seed in ("0", "1"):
        done = sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1", "--seed", seed)
        assert done.code == 0
        assert load(tmp_path / "model").facts["settings"]["seed"] == int(seed)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_interrupted(sigmax, data, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["sigmax.training.train"], "calibrate", interrupt)
    refused(sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1"), 130, "Stopped.")
    assert not (tmp_path / "model").exists()
    refused(sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1"), 1, "--resume", "--fresh")


@posix
@pytest.mark.parametrize("size", [300, 3_000, 400_000])
def test_a_full_disk(size, sigmax, data, tmp_path):
    """Wherever it fills up: in the settings, the parameters, or the optimizer's state of a checkpoint."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        done = sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused(done, 1, "Error:")
    assert not (tmp_path / "model").exists()


# -- killed, and gone on with --------------------------------------------------------------------


def spawn(*words, **given):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-m", *map(str, words)], env=environment, text=True, **given)


def weights(folder):
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{path.relative_to(folder)} {name}": t for path in files for name, t in load_file(path).items()}


#: 25 epochs of 6 steps: long enough to be killed in the middle, and so slow that the best epoch comes late.
LONG = (
    "--loss sigmoid --two-towers --batch-size 16 --answers 1 --negatives 1 --epochs 25 --patience 1000 "
    "--learning-rate 0.0003"
)


@posix
@pytest.mark.slow
def test_a_killed_run_goes_on(sigmax, data, tmp_path):
    options = LONG.split()
    killed, checkpoints = tmp_path / "killed", tmp_path / "killed.checkpoints"
    with spawn("sigmax", "train", data, "-o", killed, *options, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 120
        while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not killed.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["killed.checkpoints"]
    reached = max(int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*"))
    assert reached < 150

    then = load_file(checkpoints / f"checkpoint-{reached}" / "model.safetensors")["query_encoder.table.weight"]
    before = sorted(checkpoints.rglob("*"))
    refused(sigmax("train", data, "-o", killed, *options), 1, str(checkpoints), "(--resume)", "(--fresh)")
    done = sigmax("train", data, "-o", killed, *options, "--resume", "--seed", "1")
    refused(done, 1, "seed 0 → 1", "(--fresh)")
    assert sorted(checkpoints.rglob("*")) == before

    part = checkpoints / "checkpoint-9999"  # as if killed while one more was written
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"\x10\x00")

    whole = json.loads(sigmax("train", data, "-o", tmp_path / "whole", *options, "--json").out)
    done = sigmax("train", data, "-o", killed, *options, "--resume", "--json")
    assert done.code == 0
    assert json.loads(done.out) == whole | {"model": str(killed)}
    one, other = weights(tmp_path / "whole"), weights(killed)
    assert one.keys() == other.keys()
    assert len(one) == 11  # of each tower: n-grams, their idf, their vectors; of dev: what rules decide from
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(other["query_encoder/model.safetensors table.weight"], then)  # it learnt more after the kill
    assert (killed / "sigmax.json").read_bytes() == (tmp_path / "whole" / "sigmax.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_fresh_throws_checkpoints_away(sigmax, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            sys.modules["sigmax.training.train"], "calibrate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1").code == 130
    assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1", "--fresh", "--seed", "1").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1", "--fresh").code == 0
    assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1", "--resume").code == 0


TORCHRUN = "torch.distributed.run --standalone --nproc-per-node=2 -m sigmax train"


@pytest.mark.slow
def test_two_processes(sigmax, data, tmp_path):
    """They train one model; the first of them alone writes and prints."""
    words = [*TORCHRUN.split(), data, "-o", tmp_path / "model", "--loss", "sigmoid", "--epochs", "4", "--json"]
    with spawn(*words, "--batch-size", "16", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    found = json.loads(out)
    trained = load(tmp_path / "model")
    assert found["facts"] == trained.facts
    assert found["facts"]["steps"] == 12  # 4 epochs of 81 queries, 32 a step
    assert found["evaluation"]["metrics"]["map"]["value"] > 0.8
    assert found["evaluation"] == evaluate(trained, load_data(data), split="dev").as_dict()
    assert err.count("81 training queries") == 1
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # The model that one process with twice the batch size trains, but for the order in which floats are added.
    alone = sigmax("train", data, "-o", tmp_path / "alone", "--loss", "sigmoid", "--epochs", "4", "--batch-size", "32")
    assert alone.code == 0
    for name, weights in load(tmp_path / "alone").state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], weights, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_as_a_program(data, tmp_path):
    """Results to stdout, errors to stderr, as an exit code."""
    program = Path(sys.executable).with_name("sigmax")
    start = [program] if program.exists() else [sys.executable, "-m", "sigmax"]
    done = subprocess.run([*start, "check", data, "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(check(load_data(data)).as_dict()))
    with spawn("sigmax", "check", tmp_path / "none", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert err.startswith("Error: ")
    assert "no such file or folder" in err


def test_a_file_is_no_folder_for_results(sigmax, tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = sigmax("compare", "emoji", "-o", tmp_path / "taken")
    assert done.code == 1
    assert "needs a folder" in done.err
    assert (tmp_path / "taken").read_text() == "mine"


def test_what_is_no_checkpoint_is_left_alone(sigmax, tmp_path):
    (tmp_path / "model.checkpoints").mkdir()
    (tmp_path / "model.checkpoints" / "mine.txt").write_text("mine")
    for flags in ((), ("--fresh",), ("--resume",)):
        done = sigmax("train", "emoji", "-o", tmp_path / "model", *flags)
        assert done.code == 1
        assert "holds no checkpoints" in done.err
    assert (tmp_path / "model.checkpoints" / "mine.txt").read_text() == "mine"


def shown(done):
    """Help without frames and line breaks, which fall anywhere in a name."""
    return "".join(done.out.replace("│", " ").split())


#: Where help names a registry: command -> module:REGISTRY.
NAMED = {
    "train": [
        "sigmax.families:OBJECTIVES",
        "sigmax.encoders:ENCODERS",
        "sigmax.encoders:HEADS",
        "sigmax.encoders:AUGMENTATIONS",
    ],
    "compare": ["sigmax.comparison:CONTENDERS", "sigmax.encoders:ENCODERS"],
    "match": ["sigmax.calibration:RULES"],
    "calibrate": ["sigmax.calibration:CALIBRATIONS"],
    "encode": ["sigmax.embeddings:SIDES"],
    "": ["sigmax.data:BUILTIN"],
}


@pytest.mark.parametrize(("command", "registry"), [(one, place) for one, places in NAMED.items() for place in places])
def test_help_names_what_is_registered(command, registry, sigmax, monkeypatch):
    """All there is, and what is added from outside while the process runs."""
    entries = pkgutil.resolve_name(registry)
    words = [command, "--help"] if command else ["--help"]
    text = shown(sigmax(*words))
    assert all(name in text for name in entries)
    assert "zebra" not in text
    monkeypatch.setitem(entries, "zebra", next(iter(entries.values())))
    assert "zebra" in shown(sigmax(*words))
    monkeypatch.delitem(entries, "zebra")
    assert shown(sigmax(*words)) == text


def test_help_names_formats_and_their_columns(sigmax):
    from sigmax.data.formats.registry import READERS, known_columns

    text = shown(sigmax("check", "--help"))
    for reader in READERS.values():
        assert "".join(reader.describes.split()) in text
    text = shown(sigmax("train", "--help"))
    assert all(name in text for name in known_columns())


def test_every_option_says_what_it_is_and_its_default():
    for name, command in COMMANDS.items():
        command.fill_help()
        for option in command.params:
            assert option.help[0].isupper(), (name, option.name)
            assert option.help.endswith((".", "'{\"a, b\": 1.0}'.")), (name, option.name)
            assert "{" not in option.help.replace('{"a', ""), (name, option.name)
            said = option.help.partition("Default: ")[2]
            if option.param_type_name == "option" and type(option.default) in (int, float, str):
                assert said == f"{option.default}." or option.default == ""


def test_settings_are_the_options_of_training():
    """Each field of Settings that `train` offers has the field's default and goes where it is said."""
    from sigmax.training.settings import options

    offered = {option.name: option for option in COMMANDS["train"].params}
    assert set(options()) - set(offered) == {"steps", "draw"}  # a comparison's
    for field, option in options().items():
        if field in offered:
            assert offered[field].default == getattr(Settings, field)
            assert offered[field].rich_help_panel == f"Options: {option.group}"
