"""train: what arrives, what is written, what is not overwritten."""

import json

import pytest

from helpers.commands import COMMANDS, changed, refused
from helpers.readers import save_reader
from sigmax.cli.options import READING
from sigmax.data.sources import load_data
from sigmax.evaluation import evaluate
from sigmax.model.dual_encoder import load


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


def test_a_second_look(sigmax, data, tmp_path):
    words = {word for one in load_data(data).queries for word in one.split()}
    reader = save_reader(tmp_path / "reader", sorted(words))
    options = ["--epochs", "1", "--loss", "sigmoid", "--rerank-depth", "3"]
    done = sigmax("train", data, "-o", tmp_path / "model", "--rerank", reader, *options, "--json")
    assert done.code == 0
    settings = json.loads(done.out)["facts"]["settings"]
    assert (settings["rerank"], settings["rerank_depth"]) == ("reader", 3)
    assert "pairs of 162 queries are trained on, then the 3 best candidates" in done.words
    found = json.loads(sigmax("match", tmp_path / "model", "my sky", "--json").out)["results"][0]
    assert [one["accepted"] for one in found["matches"]] and 0 <= found["any"] <= 1
    shown = sigmax("explain", tmp_path / "model", "the sun")
    assert "words shared with “the sun” make up" in " ".join(shown.out.split())
    for name, said in (("nowhere/at-all", "did not load"), (str(tmp_path / "model"), "did not load")):
        refused(sigmax("train", data, "-o", tmp_path / "other", "--rerank", name, *options), 1, said)
    assert not (tmp_path / "other").exists()


def test_every_option_of_train_arrives(sigmax, data, tmp_path):
    options = (
        "--loss softmax-any --two-towers --epochs 2 --batch-size 16 --learning-rate 0.01 --logit-scale 7 --answers 2 "
        "--negatives 3 --none-candidate --mini-batch-size 5 --metric mrr --patience 5 --precision bfloat16 "
        "--seed 3 --encoder ngrams --head cosine --augment mirrored --no-lexical "
        "--rerank-depth 9"
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
        "lexical": False,
        "rerank": None,
        "rerank_depth": 9,
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
    others = {"data", "output", "resume", "fresh", "report_to", "as_json", "help", "model_license", *READING}
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


def test_train_prints_a_table(sigmax, data, tmp_path):
    done = sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1")
    assert done.code == 0
    assert "things, dev: 27 queries, 6 with no answer" in done.out
    assert "MAP" in done.out
    assert f"Written: {tmp_path / 'model'}. Next: sigmax evaluate {tmp_path / 'model'} {data}" in done.words
    assert "Written" not in done.out


def test_none_candidate(sigmax, data, tmp_path):
    done = sigmax("train", data, "-o", tmp_path / "model", "--none-candidate", "--epochs", "2", "--json")
    assert done.code == 0, done.err
    assert load(tmp_path / "model").none_vector is not None
    assert (tmp_path / "model" / "none.safetensors").exists()
    assert sigmax("match", tmp_path / "model", "invoice").code == 0


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
