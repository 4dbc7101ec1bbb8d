"""One throw-away entry of each kind from outside the package: it trains, saves, loads and is listed."""

import json

import pytest
import torch
from torch import nn

from helpers.commands import jsonl, rows
from sigmax import load
from sigmax.calibration import RULES, Rule
from sigmax.comparison import CONTENDERS, Contender
from sigmax.encoders import ENCODERS, Defaults, Encoder, Module, Towers
from sigmax.families import LOGSUMEXP, OBJECTIVES, Objective, sum_by_row
from sigmax.kernels import ENGINES
from sigmax.kernels.tiled import Tiled


class Letters(Module):
    """Texts to counts of their letters, through one linear layer."""

    def __init__(self, dimension: int = 16) -> None:
        super().__init__()
        self.dimension = dimension
        self.layer = nn.Linear(26, dimension, bias=False)

    def config(self):
        return {"dimension": self.dimension}

    def preprocess(self, texts):
        counts = [[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        return {"counts": torch.tensor(counts, dtype=torch.float32)}

    def forward(self, features):
        return features | {"sentence_embedding": self.layer(features["counts"])}

    def get_embedding_dimension(self):
        return self.dimension


ENTRIES = {
    "loss": (
        OBJECTIVES,
        "softmax-largest-wrong",
        Objective(
            name="softmax-largest-wrong",
            family="softmax",
            formula="Lᵢ = |Pᵢ| A(wrong) − Σ_{p∈Pᵢ} sᵢₚ, softened",
            partition=LOGSUMEXP,
            against="all",
            row_loss=lambda total, s, rows, counts: total - sum_by_row(s, rows, len(total)) / counts,
            floor=lambda counts: counts.log(),
            summary="a loss from outside",
        ),
    ),
    "encoder": (
        ENCODERS,
        "letters",
        Encoder(
            name="letters",
            describes="counts of letters, from outside",
            build=lambda data, plan: Towers(Letters(), None, "cosine"),
            labels=Defaults(epochs=2, learning_rate=0.01, logit_scale=10.0),
            texts=Defaults(epochs=2, learning_rate=0.01, logit_scale=10.0),
        ),
    ),
    "rule": (
        RULES,
        "timid",
        Rule(name="timid", summary="the best F1, timidly; promises nothing", chosen="as best-f1"),
    ),
    "contender": (
        CONTENDERS,
        "outsider",
        Contender(
            name="outsider", family="softmax", describes="a contender from outside", loss="softmax-largest-wrong"
        ),
    ),
}


@pytest.fixture
def outside(monkeypatch):
    for registry, name, entry in ENTRIES.values():
        monkeypatch.setitem(registry, name, entry)
    engine = Tiled()
    engine.name = "outsider"
    monkeypatch.setattr("sigmax.kernels.dispatch.ENGINES", [engine, *ENGINES])
    return engine


@pytest.fixture
def data(tmp_path):
    return jsonl(tmp_path / "things.jsonl", rows(unanswered=True))


@pytest.mark.usefixtures("outside")
def test_trains_saves_loads_and_matches(sigmax, data, tmp_path):
    folder = tmp_path / "model"
    done = sigmax("train", data, "-o", folder, "--loss", "softmax-largest-wrong", "--encoder", "letters", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["facts"]["settings"]["encoder"] == "letters"
    model = load(folder)
    assert isinstance(model.query_encoder, Letters)
    assert model.loss.objective.name == "softmax-largest-wrong"
    assert sigmax("match", folder, "moon", "--rule", "timid").code == 0


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("command", "shown"),
    [("train", "softmax-largest-wrong"), ("train", "letters"), ("compare", "outsider"), ("match", "timid")],
)
def test_help(sigmax, command, shown, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)
    done = sigmax(command, "--help")
    assert done.code == 0
    assert shown in done.out


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train", "DATA", "-o", "OUT", "--loss", "softmax-largest-wrng"], "softmax-largest-wrong"),
        (["train", "DATA", "-o", "OUT", "--encoder", "lettrs"], "letters"),
        (["compare", "DATA", "--contenders", "outsidr"], "outsider"),
    ],
)
def test_messages(sigmax, data, tmp_path, words, shown):
    places = {"DATA": data, "OUT": tmp_path / "out"}
    done = sigmax(*(places.get(word, word) for word in words))
    assert done.code in (1, 2)
    assert shown in done.words


@pytest.mark.usefixtures("outside")
def test_compared(sigmax, data):
    options = ("--seeds", "1", "--rates", "1", "--scales", "1", "--steps", "5", "--json")
    done = sigmax("compare", data, "--contenders", "outsider,sigmoid", "--encoder", "letters", *options)
    assert done.code == 0, done.err
    assert [result["name"] for result in json.loads(done.out)["results"]] == ["outsider", "sigmoid"]


def test_an_engine_computes_the_loss(outside, monkeypatch):
    from sigmax import Positives, SigmoidLoss

    seen = []
    reduce = Tiled.reduce
    monkeypatch.setattr(Tiled, "reduce", lambda self, *given: seen.append(self.name) or reduce(self, *given))
    monkeypatch.setattr(Tiled, "weighted_loss", lambda *_: None)
    vectors = torch.eye(4, 8)
    positives = Positives(range(4), range(4), shape=(4, 4))
    value = SigmoidLoss(kernel="outsider")(vectors, vectors, positives)
    assert seen == ["outsider"]
    torch.testing.assert_close(value, SigmoidLoss(kernel="dense")(vectors, vectors, positives))


def test_nothing_stays():
    assert not any(name in registry for registry, name, _ in ENTRIES.values())
