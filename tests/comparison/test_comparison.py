import importlib
import json
import logging
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.data import things
from helpers.scripted import MEASURED
from sigmax import evaluation
from sigmax.calibration.curves import Platt
from sigmax.cli import main as cli
from sigmax.comparison.baselines import tfidf_regression, tfidf_svm, vectors_regression
from sigmax.comparison.compare import compare
from sigmax.comparison.contenders import CONTENDERS, contenders_for
from sigmax.comparison.results import Budget
from sigmax.data.batches import Batches
from sigmax.data.check import check
from sigmax.data.dataset import MatchDataset
from sigmax.errors import DataError, UnknownNameError
from sigmax.evaluation import calibrate, evaluate, quick_metrics
from sigmax.losses import make_loss
from sigmax.metrics.registry import METRICS
from sigmax.scan import Logits, scan
from sigmax.training import trainer
from sigmax.training.settings import Settings
from sigmax.training.train import build_model, loss_floor, train

comparing = importlib.import_module("sigmax.comparison.compare")  # its name is that of the function in the face

TRAINED = [name for name, entry in CONTENDERS.items() if entry.loss]
BUDGET = Budget(rates=(0.01, 0.5), scales=(0.5, 1.0), seeds=2)


@pytest.fixture(scope="module")
def data():
    return things(labels=True, unanswered=True)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def labelled(data, told):
    settings = Settings(encoder="ngrams", epochs=2, batch_size=32, seed=5)
    return compare(data, settings, budget=BUDGET, advance=lambda done, what: told.append((done, what)))


# -- everybody alike -----------------------------------------------------------------------------


def test_all_contenders_in_order(labelled):
    everybody = [name for name in CONTENDERS if name not in ("vectors-lr", "bm25")]
    assert [result.contender.name for result in labelled.results] == everybody
    answered = [name for name in TRAINED if name != "softmax-none"]
    assert contenders_for(things()) == [*answered, "bm25"]
    assert contenders_for(things(labels=True)) == [*answered, "tfidf-lr", "tfidf-svm"]
    assert contenders_for(things(labels=True, unanswered=True)) == everybody
    assert "vectors-lr" in contenders_for(things(labels=True), Settings(encoder="efficientnet-lite0"))


def test_same_budget_for_all(labelled):
    assert labelled.steps == 6  # 2 epochs of 81 queries in batches of 32
    for name in TRAINED:
        result = labelled[name]
        entry = CONTENDERS[name]
        assert (result.settings.steps, result.settings.batch_size) == (6, 32)
        assert (result.settings.loss, result.settings.draw) == (entry.loss, entry.draw)
        assert result.settings.encoder == labelled.encoder == "ngrams"
        assert [(trial.learning_rate, trial.logit_scale) for trial in result.trials] == [
            (0.05 * rate, 10 * scale) for rate in BUDGET.rates for scale in BUDGET.scales
        ]
        assert len(result.evaluations) == BUDGET.seeds
        assert result.train_seconds > 0
    assert labelled["tfidf-lr"].settings is None
    assert labelled["tfidf-lr"].trials == []


@pytest.mark.parametrize("name", TRAINED)
def test_the_best_setting_on_dev_is_chosen(name, labelled):
    result = labelled[name]
    best = max(trial.dev["map"] for trial in result.trials)
    chosen = (result.settings.learning_rate, result.settings.logit_scale)
    assert {(trial.learning_rate, trial.logit_scale): trial.dev["map"] for trial in result.trials}[chosen] == best
    assert min(trial.dev["map"] for trial in result.trials) < best


def test_metrics_are_those_of_the_chosen_models(data, labelled):
    """Trained again by hand, each seed, they give the same metrics."""
    result = labelled["sigmoid"]
    models = [train(data, replace(result.settings, seed=seed), stop_early=False) for seed in (5, 6)]
    test = [evaluate(model, data) for model in models]
    for found, expected in zip(result.evaluations, test, strict=True):
        for name in METRICS:
            np.testing.assert_equal(found[name].value, expected[name].value)
    dev = [evaluate(model, data, split="dev", draws=0) for model in models]
    for name in METRICS:
        assert result[name].value == pytest.approx(np.mean([one[name].value for one in test]), nan_ok=True)
        assert result.dev[name] == pytest.approx(np.mean([one[name].value for one in dev]), nan_ok=True)
    assert quick_metrics(models[0], data) in [trial.dev for trial in result.trials]


def test_test_is_looked_at_last(data, monkeypatch):
    looks = []

    def seen(model, data, split):
        looks.append(split)
        return scan(model, data, split)

    monkeypatch.setattr(comparing, "scan", seen)
    monkeypatch.setattr(evaluation, "scan", seen)
    monkeypatch.setattr(trainer, "quick_metrics", pytest.fail)  # and nobody may stop at its best epoch
    compare(data, Settings(steps=1), contenders=["sigmoid"], budget=Budget((0.5, 1.0), (1.0,), 2))
    assert looks == ["dev", "dev", *["dev", "dev"], *["test", "test"]], "the search, the seeds, and test"


def test_what_is_promised_of_each_label(data, labelled):
    """Counted by loops, on the model of the first seed."""
    for name in ("sigmoid", "tfidf-lr"):
        found = labelled[name].label_promises
        assert (found.level, found.confidence, found.labels) == (0.9, 0.9, len(data.candidates))
        saved = {one["name"]: one["label_promises"] for one in labelled.as_dict()["results"]}
        assert found.as_dict() == saved[name]
    model = train(data, replace(labelled["sigmoid"].settings, seed=5), stop_early=False)
    decision = model.calibrator.decide("label-precision=0.9")
    rows, accepted, right = data.split("test"), [], []
    for i, matches in zip(rows, model.match([data.queries[i] for i in rows], top_k=len(data.candidates)), strict=True):
        true = set(data.graph[[i]].indices)
        for match in matches:
            if match.presence >= decision.threshold_of(match.candidate_id):
                accepted.append((i, match.candidate_id))
                right.append(data.candidate_ids.index(match.candidate_id) in true)
    found = labelled["sigmoid"].label_promises
    assert found.promised == len(decision.thresholds)
    assert (found.queries, found.claimed) == (len(rows), len({i for i, _ in accepted}))
    assert (found.accepted, found.right) == (len(accepted), sum(right))


def test_progress(told):
    done = [fraction for fraction, _ in told]
    assert done == sorted(done)
    assert done[0] < 0.02
    assert done[-1] == pytest.approx(1, abs=0.06)
    said = {what for _, what in told}
    assert {"sigmoid: search 1 of 4", "sigmoid: search 4 of 4", "sigmoid: seed 2 of 2", "tfidf-lr: fit"} <= said


def test_steps_rather_than_epochs(data):
    found = compare(data, Settings(steps=3), contenders=["sigmoid"], budget=Budget((1.0,), (1.0,), 1))
    assert found.steps == found["sigmoid"].settings.steps == 3


def test_unanswered_queries_are_told_once(data, caplog):
    with caplog.at_level(logging.INFO, logger="sigmax"):
        compare(data, Settings(steps=1), contenders=TRAINED[:2], budget=Budget((1.0,), (1.0,), 1))
    assert caplog.text.count("18 of 81 training queries have no right answer") == 1
    assert len(caplog.records) == 1


#: Not a number where a model tells right from wrong wholly, or so small that resampling adds noise to it.
UNCERTAIN = {"calibration_slope", "any_calibration_error", "calibration_error", "smooth_calibration_error"}


# -- intervals and differences -------------------------------------------------------------------


def test_intervals(labelled):
    for result in labelled.results:
        for name in labelled.metrics:
            value = result[name]
            if name not in UNCERTAIN:
                assert value.low <= value.value <= value.high, name
    assert labelled.metrics == MEASURED


def test_differences(labelled):
    names = [result.contender.name for result in labelled.results]
    for a, b in zip(names, names[1:] + names[:1], strict=True):
        for metric in labelled.metrics:
            one, other = labelled.difference(a, b, metric), labelled.difference(b, a, metric)
            expected = labelled[a][metric].value - labelled[b][metric].value
            assert one.value == pytest.approx(expected, nan_ok=True)
            turned = (-other.value, -other.high, -other.low)
            assert (one.value, one.low, one.high) == pytest.approx(turned, nan_ok=True)
            if metric not in UNCERTAIN:
                assert one.low <= one.value <= one.high, metric
            assert one.significant == other.significant == (one.low > 0 or one.high < 0)


def test_differences_are_paired(labelled):
    """Queries that are hard are hard for both: the difference is surer than independent metrics would make it."""
    paired = labelled.difference("softmax-average", "softmax-decoupled", "log_loss")
    a, b = (labelled[name]["log_loss"] for name in ("softmax-average", "softmax-decoupled"))
    independent = np.hypot(a.high - a.low, b.high - b.low)
    assert paired.high - paired.low < 0.9 * independent
    itself = labelled.difference("sigmoid", "sigmoid", "log_loss")
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)


def test_as_dict(labelled):
    about = json.loads(json.dumps(labelled.as_dict(), allow_nan=False))
    assert about["budget"] == {"rates": [0.01, 0.5], "scales": [0.5, 1.0], "seeds": 2}
    assert about["data"]["unanswered"] == {"train": 18, "dev": 6, "test": 6}
    assert about["data"]["splits"] == {"train": 81, "dev": 27, "test": 27}
    assert {"python", "sigmax", "torch"} <= about["versions"].keys()
    assert [result["name"] for result in about["results"]] == [result.contender.name for result in labelled.results]
    for given, result in zip(about["results"], labelled.results, strict=True):
        assert given["test"]["map"] == result["map"].as_dict()
        assert [one["map"] for one in given["test_by_seed"]] == [one["map"].value for one in result.evaluations]
        assert len(given["trials"]) == len(result.trials)
    pairs = {(gap["a"], gap["b"]) for gap in about["differences"]}
    assert len(pairs) == len(labelled.results) * (len(labelled.results) - 1) / 2
    assert len(about["differences"]) == len(pairs) * len(MEASURED)


def test_what_the_report_needs(data, labelled):
    """Curves of the chosen setting's first seed, floors, sizes and examples, all of them in the dictionary."""
    about = json.loads(json.dumps(labelled.as_dict(), allow_nan=False))
    for given, result in zip(about["results"], labelled.results, strict=True):
        first = result.evaluations[0].as_dict()
        for name in ("reliability", "risk_coverage", "logits"):
            assert given[name] == json.loads(json.dumps(first[name])) != []
        if result.settings is None:
            assert given["training"] is result.training is None
            continue
        told = []
        settings = result.settings
        model = train(
            data, settings, stop_early=False, calibrated=False, logged=lambda *now, told=told: told.append(now)
        )
        curve = [(step, metrics["loss"]) for step, metrics in told if "loss" in metrics]
        assert list(result.training.curve) == curve
        assert given["training"]["curve"] == [list(point) for point in curve]
        assert result.training.floor == loss_floor(data, settings)
        size = 4 * sum(parameter.numel() for parameter in model.parameters())
        assert (result.training.parameter_bytes, result.training.optimizer_bytes) == (size, 2 * size)
    assert [example["query"] for example in about["examples"]] == [example.query for example in labelled.examples]
    best = {labelled.best(family, "map") for family in ("softmax", "sigmoid")}
    assert {name for example in labelled.examples for name in example.answers} == best
    assert about["data"]["fingerprint"] == data.fingerprint
    assert about["data"]["findings"] == check(data).findings
    assert about["peak_bytes"] > 2**20


def test_a_curve_is_thinned(monkeypatch):
    monkeypatch.setattr(comparing, "POINTS", 3)
    found = compare(things(), Settings(steps=8), contenders=["sigmoid"], budget=Budget((1.0,), (1.0,), 1))
    steps = [step for step, _ in found["sigmoid"].training.curve]
    assert len(steps) == 3
    assert (steps[0], steps[-1]) == (1, 8)


# -- the contenders of today ---------------------------------------------------------------------


def test_tfidf_is_scikit_learns(data, labelled):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import FeatureUnion

    features = FeatureUnion(
        [
            ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)),
            ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)),
        ]
    )
    texts = {name: [data.queries[i] for i in data.split(name)] for name in ("train", "dev", "test")}
    right = {name: data.graph[data.split(name)].toarray().astype(bool) for name in texts}
    x = features.fit_transform(texts["train"])
    fits = [
        LogisticRegression(C=30.0, solver="liblinear", dual=True, random_state=0).fit(x, truth)
        for truth in right["train"].T
    ]
    logits = {
        name: np.stack([fit.decision_function(features.transform(texts[name])) for fit in fits], 1) for name in texts
    }

    class Direct:
        calibrator = None

        def logits(self, queries, candidates):
            return Logits(next(logits[name] for name in texts if texts[name] == list(queries)).astype(np.float32))

    direct = Direct()
    calibrate(direct, data)
    expected = evaluate(direct, data)
    result = labelled["tfidf-lr"]
    for name in MEASURED:
        assert result[name].value == pytest.approx(expected[name].value, abs=1e-6, nan_ok=True), name
        assert result[name].low == pytest.approx(expected[name].low, abs=1e-6, nan_ok=True), name
    assert len(result.evaluations) == 1


def test_tfidf_of_labels_without_two_sides():
    """A label that is never right in train, or always, has nothing to separate; two labels left are few."""
    data = things(labels=True)
    moon, sun, train_split = 0, 1, data.split("train")
    in_train = np.isin(data.pairs[:, 0], train_split)
    kept = data.pairs[~(in_train & np.isin(data.pairs[:, 1], [moon, sun, 2, 3]))]
    always = np.stack([train_split, np.full(len(train_split), sun)], 1)
    odd = MatchDataset("odd", data.queries, data.candidates, np.concatenate([kept, always]), data.splits, labels=True)
    baseline = tfidf_regression(odd)
    logits = baseline.logits(["one night", "a leaf"], odd.candidates).values
    assert (logits[:, moon] == -10).all()
    assert (logits[:, sun] == 10).all()
    assert logits[1, 4] > logits[0, 4]
    assert np.array_equal(baseline.logits(["one night"], ["tree", "sun"]).values, logits[:1, [4, 1]])


def test_the_svm_is_scikit_learns(data):
    from sklearn.svm import LinearSVC

    baseline = tfidf_svm(data)
    train, texts = data.split("train"), [data.queries[i] for i in data.split("test")]
    x = baseline.features([data.queries[i] for i in train])
    logits = baseline.logits(texts, data.candidates).values
    for j, truth in enumerate(data.graph[train].toarray().astype(bool).T):
        expected = LinearSVC(C=1.0, random_state=0).fit(x, truth).decision_function(baseline.features(texts))
        np.testing.assert_allclose(logits[:, j], expected, atol=1e-6)


def test_regression_on_vectors_is_scikit_learns(static_folder, tmp_path, monkeypatch):
    from sklearn.linear_model import LogisticRegression

    from sigmax.encoders.pretrained import load_pretrained

    monkeypatch.setenv("SIGMAX_CACHE", str(tmp_path))
    data = things(labels=True)
    train, texts = data.split("train"), [data.queries[i] for i in data.split("test")]
    encoder = load_pretrained(str(static_folder))
    vectors = [
        encoder(encoder.preprocess(some))["sentence_embedding"].detach().numpy()
        for some in ([data.queries[i] for i in train], texts)
    ]
    logits = vectors_regression(data, str(static_folder)).logits(texts, data.candidates).values
    gaps = []
    for strength in (1.0, 10.0, 100.0):
        fits = [
            LogisticRegression(C=strength, max_iter=1000).fit(vectors[0], truth)
            for truth in data.graph[train].toarray().astype(bool).T
        ]
        gaps.append(np.abs(np.stack([fit.decision_function(vectors[1]) for fit in fits], 1) - logits).max())
    assert min(gaps) < 1e-3


def test_tfidf_needs_labels():
    with pytest.raises(DataError, match="needs fixed labels"):
        tfidf_regression(things())
    with pytest.raises(DataError, match="tfidf-lr needs texts with fixed labels"):
        compare(things(), Settings(steps=1), contenders=["tfidf-lr"])


def test_one_positive_is_multiple_negatives_ranking_loss():
    """What the contender trains on is what sentence-transformers would compute on the same batch."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    data = things(unanswered=True)
    entry = CONTENDERS["one-positive"]
    batches = Batches(data, batch_size=16, draw=entry.draw)
    model = build_model(data, Settings(loss=entry.loss, draw=entry.draw), batches)
    loss = make_loss(entry.loss, logit_scale=20.0, logit_bias=0.0)
    theirs = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=20.0)
    repeated = 0
    for number in range(4):
        batch = batches[number]
        n = len(batch.queries)
        assert batch.positives.shape == (n, n)
        assert torch.equal(batch.positives.to_dense(), torch.eye(n, dtype=torch.bool))
        assert data.graph[batch.queries, batch.candidates].all()
        queries = model.encode([data.queries[i] for i in batch.queries])
        candidates = model.encode([data.candidates[j] for j in batch.candidates], "candidate")
        expected = theirs.compute_loss_from_embeddings([queries, candidates], labels=None)
        torch.testing.assert_close(loss(queries, candidates, batch.positives), expected)
        repeated += n - len(set(batch.candidates.tolist()))
    assert repeated > 0  # the same answer twice counts as wrong there, and only there


# -- what is refused -----------------------------------------------------------------------------


def test_unknown_contender(data, labelled):
    with pytest.raises(UnknownNameError, match=r"`contender`.*'sigmoids'.* Did you mean 'sigmoid'"):
        compare(data, contenders=["softmax-average", "sigmoids"])
    with pytest.raises(UnknownNameError, match=r"`contender`.*'softmax'"):
        labelled["softmax"]


@pytest.mark.parametrize("given", [{"rates": ()}, {"scales": ()}, {"seeds": 0}])
def test_a_budget_for_nothing(given):
    with pytest.raises(ValueError, match="at least one rate, one scale and one seed"):
        Budget(**given)


def test_runs():
    assert Budget((0.3, 1.0), (0.5, 1.0), 3).runs == 6
    assert Budget((1.0,), (1.0,), 1).runs == 1


@pytest.mark.parametrize("budget", [Budget((1.0,), (1.0,), 1), Budget((0.5, 1.0), (1.0,), 1)])
def test_unknown_metric(budget):
    with pytest.raises(UnknownNameError, match=r"`metric`.*'mapp'"):
        compare(things(), Settings(metric="mapp", steps=1), contenders=["sigmoid"], budget=budget)
    with pytest.raises(ValueError, match=r"`metric`.*'none_auroc_logit'"):
        compare(things(), Settings(metric="none_auroc_logit", steps=1), contenders=["sigmoid"], budget=budget)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_split_without_answers(split):
    data = things()
    gone = np.isin(data.pairs[:, 0], data.split(split))
    empty = MatchDataset("empty", data.queries, data.candidates, data.pairs[~gone], data.splits)
    with pytest.raises(DataError, match=f"empty: no {split} query has a right answer"):
        compare(empty, Settings(steps=1), contenders=["sigmoid"], budget=Budget((1.0,), (1.0,), 1))


# -- the built-in set, from the command line -----------------------------------------------------


@pytest.mark.slow
def test_emoji(tmp_path, capsys, monkeypatch):
    from PIL import Image

    options = "--steps 10 --seeds 2 --rates 1 --scales 1 --json"
    monkeypatch.setattr(sys, "argv", ["sigmax", "compare", "emoji-hidden", *options.split(), "-o", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    printed, _ = capsys.readouterr()
    found = json.loads(printed, parse_constant=pytest.fail)
    assert json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8")) == found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.json", "comparison.png"]
    with Image.open(tmp_path / "comparison.png") as image:
        image.verify()
    assert (tmp_path / "comparison.png").stat().st_size > 10_000

    assert (found["data"]["name"], found["data"]["candidates"], found["steps"]) == ("emoji-hidden", 1792, 10)
    assert [result["name"] for result in found["results"]] == [*TRAINED, "bm25"]
    values = {}
    for result in found["results"]:
        assert list(result["test"]) == (MEASURED if result["name"] == "bm25" else list(METRICS))
        assert len(result["test_by_seed"]) == (1 if result["name"] == "bm25" else 2)
        for metric, value in result["test"].items():
            if metric not in UNCERTAIN:
                assert value["low"] <= value["value"] <= value["high"], metric
            assert value["value"] == pytest.approx(np.mean([seed[metric] for seed in result["test_by_seed"]]))
            values[result["name"], metric] = value["value"]
        assert values[result["name"], "map"] > 0.2
        if result["name"] == "bm25":
            continue
        assert result["settings"]["steps"] == 10
        (trial,) = result["trials"]
        chosen = result["settings"]["learning_rate"], result["settings"]["logit_scale"]
        assert (trial["learning_rate"], trial["logit_scale"]) == chosen == (0.03, 10.0)
    for gap in found["differences"]:
        expected = values[gap["a"], gap["metric"]] - values[gap["b"], gap["metric"]]
        assert gap["value"] == pytest.approx(expected, abs=1e-9)
        if gap["metric"] not in UNCERTAIN:
            assert gap["low"] <= gap["value"] <= gap["high"], gap
        assert gap["significant"] == (gap["low"] > 0 or gap["high"] < 0)
    for start in ("• Ranking: ", "• Presences: ", "• “None of these”: "):
        assert start in found["verdict"]
    assert "with one positive per row" in found["verdict"]


def test_platt_of_a_baseline(data):
    baseline = tfidf_regression(data)
    assert baseline.calibrator is None
    calibrate(baseline, data, method="platt")
    assert isinstance(baseline.calibrator.calibration, Platt)
    assert baseline.calibrator.calibration.scale > 0


def test_the_baseline_takes_more_labels_than_a_byte_counts():
    """Binarised labels in 8 bits overflow beyond 127 columns."""
    names = [f"label{j:03}" for j in range(140)]
    rows = list(range(140)) * 2 + [0, 1]
    splits = {"train": np.arange(280), "dev": np.array([280]), "test": np.array([281])}
    data = MatchDataset(
        "many", [names[j] for j in rows], names, np.array([[i, j] for i, j in enumerate(rows)]), splits, labels=True
    )
    logits = tfidf_regression(data).logits(names, names).values
    assert (logits.argmax(1) == np.arange(140)).all()


def test_a_baseline_with_nothing_to_separate():
    """One training query: each label is always right there, or never."""
    data = things(labels=True)
    train = data.split("train")
    baseline = tfidf_regression(replace(data, splits={**data.splits, "train": train[:1]}))
    right = data.graph[train[:1]].toarray()[0] > 0
    logits = baseline.logits([data.queries[i] for i in train[:3]], data.candidates).values
    assert (logits == np.where(right, 10, -10)).all()
