"""match and explain."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.commands import BRACKETS, changed, jsonl, refused, rows
from sigmax.explain import explain
from sigmax.model.dual_encoder import load
from sigmax.report.activations import explanation_words


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
                "outcome": "accepted",
                "familiar_p": one.familiar_p,
                "unlike_training": one.unlike_training,
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


def test_order(sigmax, model):
    done = sigmax("match", model, "sky", "--order", "logit", "--top-k", "6", "--json")
    assert done.code == 0
    logits = [match["logit"] for match in json.loads(done.out)["results"][0]["matches"]]
    assert logits == sorted(logits, reverse=True)
    done = sigmax("match", model, "sky", "--order", "presense")
    assert done.code == 2
    assert "Did you mean 'presence'?" in done.err


def test_unlike_anything_in_training(sigmax, tmp_path):
    """From a file where every query has an answer to what is said of a query that is unlike dev's."""
    data = jsonl(tmp_path / "things.jsonl", rows())
    folder = tmp_path / "model"
    assert sigmax("train", data, "-o", folder, "--loss", "sigmoid", "--no-lexical", "--epochs", "2").code == 0
    kept = (folder / "novelty.safetensors").read_bytes()
    (folder / "novelty.safetensors").unlink()  # as of a model saved before training queries were kept
    (before,) = json.loads(sigmax("match", folder, "my sky", "--json").out)["results"]
    assert before["familiar_p"] is before["unlike_training"] is None
    done = sigmax("calibrate", folder, data)
    assert (folder / "novelty.safetensors").read_bytes() == kept, "the data are those it was trained on"
    assert "any right by succession: all 21 dev queries have a right answer" in " ".join(done.out.split())
    assert "false alarms" in sigmax("evaluate", folder, data).out
    words = "unlike anything in training (p = 0.0"
    for far in (False, True):
        if far:  # as if all dev queries had been far more familiar
            kept = load_file(folder / "dev.safetensors")
            dev = np.repeat(kept["familiar"], 10, axis=0) + 99
            save_file(kept | {"familiar": dev}, folder / "dev.safetensors")
        (found,) = json.loads(sigmax("match", folder, "my sky", "--json").out)["results"]
        assert found["unlike_training"] is (found["familiar_p"] <= 0.05) is far
        best = max(match["presence"] for match in found["matches"])
        assert found["any"] == pytest.approx(best) if far else found["any"] > best
        for said in (sigmax("match", folder, "my sky"), sigmax("explain", folder, "my sky")):
            assert (words in " ".join(said.out.split())) is far


def test_nothing_accepted(sigmax, model, tmp_path):
    about = json.loads((model / "sigmax.json").read_text(encoding="utf-8"))
    strict = changed(model, tmp_path / "strict", calibrator=about["calibrator"] | {"threshold": 1.5})
    (strict / "dev.safetensors").unlink()
    done = sigmax("match", strict, "moon", "invoice")
    assert done.code == 0
    sky, invoice = load(strict).match(["moon", "invoice"])
    assert invoice.any < 0.5 < sky.any
    assert f"nothing accepted (any right: {sky.any:.3f})" in done.out
    assert f"none of these (any right: {invoice.any:.3f})" in done.out
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


# -- in bulk -------------------------------------------------------------------------------------


def test_match_a_table(sigmax, model, tmp_path):
    questions = jsonl(
        tmp_path / "questions.jsonl", [{"question": text} for text in ("the lunar night", "sky", "[red]")]
    )
    output = tmp_path / "answers.jsonl"
    words = ("match", model, "--input", questions, "--columns", "query=question", "--top-k", "2")
    done = sigmax(*words, "-o", output)
    assert (done.code, done.out) == (0, "")
    assert f"Written: {output}, answers to 3 queries" in done.words
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [record["query"] for record in records] == ["the lunar night", "sky", "[red]"]
    for record in records:
        found = load(model).match(record["query"], top_k=2)
        assert [one["candidate"] for one in record["matches"]] == [one.candidate for one in found]
    done = sigmax(*words, "-o", tmp_path / "answers.parquet", "--json")
    assert json.loads(done.out) == {"file": str(tmp_path / "answers.parquet"), "queries": 3}


def test_a_table_keeps_no_cache(sigmax, model, tmp_path, monkeypatch):
    """Its queries are not kept, and afterwards the caches are as they were."""
    from sigmax.encoders import hashing

    before, seen = hashing.CACHED_BYTES, []
    monkeypatch.setattr("sigmax.model.bulk.match_table", lambda *_, **__: seen.append(hashing.CACHED_BYTES) or 1)
    questions = jsonl(tmp_path / "questions.jsonl", [{"query": "sky"}])
    assert sigmax("match", model, "--input", questions, "-o", tmp_path / "answers.csv").code == 0
    assert seen == [0]
    assert before == hashing.CACHED_BYTES > 0


@pytest.mark.slow
def test_match_in_a_pipe(model):
    command = [sys.executable, "-m", "sigmax", "match", str(model), "--input", "-", "--columns", "text=question"]
    given = "question\nsky\nthe lunar night\n"
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["query"] for line in done.stdout.splitlines()] == ["sky", "the lunar night"]


def test_match_a_table_that_is_wrong(sigmax, model, tmp_path):
    questions = jsonl(tmp_path / "questions.jsonl", [{"question": "sky"}])
    refused(sigmax("match", model), 2, "expected either TEXT… or --input FILE")
    refused(sigmax("match", model, "sky", "--input", questions), 2, "expected either TEXT… or --input FILE")
    refused(sigmax("match", model, "sky", "-o", "a.csv"), 2, "expected --input FILE beside it")
    refused(
        sigmax("match", model, "--input", questions, "-o", tmp_path / "a.xml"), 1, "ending in .csv, .jsonl, .parquet"
    )
    carets = tmp_path / "carets.csv"
    carets.write_text("query^note, if any\nparty^\n", encoding="utf-8")
    refused(sigmax("match", model, "--input", carets), 1, "expected 2 fields", "which --delimiter separates the fields")
    refused(sigmax("match", model, "--input", carets, "--delimiter", "^^"), 1, "one character")
    assert json.loads(sigmax("match", model, "--input", carets, "--delimiter", "^").out)["query"] == "party"
    refused(sigmax("match", model, "--input", questions), 1, "a column query or text, got question", "--columns")
    refused(sigmax("match", model, "--input", tmp_path / "none.csv", "-o", tmp_path / "a.csv"), 1, "no such file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["carets.csv", "questions.jsonl"]


def test_a_threshold_for_each_candidate(sigmax, model):
    done = sigmax("match", model, "what's in the sky?", "--rule", "label-precision=0.5", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    thresholds = found["rule"]["thresholds"]
    assert f"promised for {len(thresholds)} of " in done.err
    (result,) = found["results"]
    for match in result["matches"]:
        assert match["accepted"] == (match["presence"] >= thresholds.get(match["candidate_id"], 2.0))
    assert [one["candidate_id"] for one in result["accepted"]] == [
        one["candidate_id"] for one in result["matches"] if one["accepted"]
    ] or len(result["accepted"]) > len(result["matches"])
    assert sigmax("match", model, "what's in the sky?", "--rule", "macro-f1").code == 0
