"""Wrong usage, and work that fails."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import broken, changed, jsonl, refused, rows, spawn
from sigmax.data.check import check
from sigmax.data.sources import load_data


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
        ("train DATA -o OUT --epochs inf", ["--epochs", "expected a number of at least 0, got inf"]),
        ("match MODEL moon --confidence 2", ["--confidence", "expected a number of at most 1, got 2"]),
        ("train DATA -o OUT --resume --fresh", ["--resume and --fresh exclude each other"]),
        ("train DATA -o OUT --loss sigmoids", ["--loss", "got 'sigmoids'", "Did you mean 'sigmoid'?"]),
        ("train DATA -o OUT --precision half", ["--precision", "got 'half'"]),
        ("train DATA -o OUT --metric mapp", ["--metric", "got 'mapp'", "Did you mean 'map'?"]),
        ("train DATA -o OUT --columns query", ["--columns", "expected ours=yours, got 'query'"]),
        ("train DATA -o OUT --columns qery=a", ["Did you mean 'query'?"]),
        ("evaluate MODEL", ["Missing argument"]),
        ("evaluate MODEL DATA --split tests", ["--split", "Did you mean 'test'?"]),
        ("match MODEL", ["expected either TEXT… or --input FILE"]),
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


@pytest.mark.slow
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
