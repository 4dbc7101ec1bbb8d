from dataclasses import replace

import numpy as np
import pytest

from helpers.data import things
from helpers.models import calibrated, tiny
from helpers.scripted import Scripted, numbered
from sigmax import scan as scanning
from sigmax.errors import UnknownNameError
from sigmax.evaluation import calibrate, calibrate_logits, evaluate, evaluate_logits, quick_metrics
from sigmax.scan import Logits, scan


@pytest.mark.parametrize("none_candidate", [False, True])
def test_a_split_beside_its_truth(none_candidate):
    data = things(unanswered=True)
    model = tiny(none_vector=tiny().encode(["carpet"])[0] if none_candidate else None)
    found = scan(model, data, "dev")
    queries = [data.queries[i] for i in data.split("dev")]
    asked, offered = model.encode(queries), model.encode(data.candidates, "candidate")
    assert found.logits == pytest.approx(model.loss.logits(asked, offered).detach().numpy(), abs=1e-5)
    for row, i in enumerate(data.split("dev").tolist()):
        assert set(np.flatnonzero(found.right[row])) == {j for k, j in data.pairs.tolist() if k == i}
    assert found.candidate_ids == data.candidate_ids
    assert (found.data, found.split) == (data.name, "dev")
    if not none_candidate:
        assert found.none is None
        return
    assert found.none == pytest.approx(
        model.loss.logits(asked, model.none_vector[None])[:, 0].detach().numpy(), abs=1e-5
    )


@pytest.mark.parametrize("look", [evaluate, quick_metrics, calibrate])
def test_queries_are_encoded_once(look, monkeypatch):
    """The logits of a none-candidate are made of the same vectors."""
    data = things(unanswered=True)
    model = calibrated(none_vector=tiny().encode(["carpet"])[0])
    encoded = []
    vectors = model.vectors
    monkeypatch.setattr(model, "vectors", lambda items, side="query": encoded.append(side) or vectors(items, side))
    look(model, data, split="dev")
    assert encoded == ["query", "candidate"]


def test_unknown_split():
    with pytest.raises(UnknownNameError, match="Did you mean 'dev'"):
        scan(tiny(), things(), "dve")


# -- very many candidates ------------------------------------------------------------------------


class InBlocks(Scripted):
    def logit_blocks(self, queries, candidates, *, height):
        whole = self.logits(queries, candidates).values
        for top in range(0, len(queries), height):
            block = whole[top : top + height].copy()
            yield slice(top, top + len(block)), Logits(block)
            block[:] = np.nan


@pytest.fixture(scope="module")
def many():
    """150 queries over 12,000 candidates: one in ten without an answer, the others with up to three."""
    random = np.random.default_rng(0)
    right = np.zeros((150, 12_000), bool)
    for row in right:
        row[random.choice(12_000, random.integers(1, 4), replace=False)] = random.random() < 0.9
    logits = random.normal(size=right.shape) * 2 - 6 + right * random.normal(9, 3, size=right.shape)
    return InBlocks(logits.astype(np.float32)), numbered(right)


def condensed(monkeypatch, model, data, split):
    with monkeypatch.context() as patch:
        patch.setattr(scanning, "WHOLE", 0)
        patch.setattr(scanning, "BLOCK", 7 * 12_000)
        patch.setattr(scanning, "QUERIES", 1)
        return scan(model, data, split)


@pytest.mark.slow
def test_condensed_metrics_are_those_of_all_pairs(many, monkeypatch):
    model, data = many
    calibrator = calibrate_logits(scan(model, data, "dev"))
    whole = evaluate_logits(scan(model, data, "test"), calibrator=calibrator, draws=20)
    split = condensed(monkeypatch, model, data, "test")
    assert split.logits.shape[1] < 6000
    assert (split.weights.sum(1) == 12_000).all()
    found = evaluate_logits(split, calibrator=calibrator, draws=20)
    assert list(found.draws) == list(whole.draws)
    for name, values in whole.draws.items():
        # Ranks are counted over all candidates, claims are kept one by one; sums over pooled pairs are off by a part
        # (h · scale)² / 8 of what is pooled, h being the width of a bin: a range of about 30 in 4,096 parts.
        exact = name in ("map", "mrr", "ndcg@10", "micro_f1", "macro_f1") or name.startswith(("recall", "precision"))
        assert found.draws[name] == pytest.approx(values, rel=1e-12 if exact else 1e-5, abs=1e-7, nan_ok=True), name
    assert sum(one.pairs for one in found.reliability) == sum(one.pairs for one in whole.reliability)
    assert found.logits.right.tolist() == whole.logits.right.tolist()
    assert found.logits.wrong.sum() == whole.logits.wrong.sum()


@pytest.mark.slow
def test_condensed_metrics_where_nothing_is_claimed(many, monkeypatch):
    """Candidates that are claimed, right, or both are other ones, and few of all."""
    model, data = many
    calibrator = replace(calibrate_logits(scan(model, data, "dev")), record=None, threshold=0.999)
    whole = evaluate_logits(scan(model, data, "test"), calibrator=calibrator, draws=20)
    found = evaluate_logits(condensed(monkeypatch, model, data, "test"), calibrator=calibrator, draws=20)
    for name in ("micro_f1", "macro_f1"):
        assert found.draws[name] == pytest.approx(whole.draws[name], nan_ok=True), name


def test_condensed_calibration_is_that_of_all_pairs(many, monkeypatch):
    model, data = many
    whole = calibrate_logits(scan(model, data, "dev"), method="platt")
    found = calibrate_logits(condensed(monkeypatch, model, data, "dev"), method="platt")
    assert found.calibration.scale == pytest.approx(whole.calibration.scale, rel=1e-4)
    assert found.calibration.bias == pytest.approx(whole.calibration.bias, rel=1e-4)
    assert found.threshold == pytest.approx(whole.threshold, rel=1e-3)
    assert found.any_fit.method == whole.any_fit.method
    assert found.record.floor == pytest.approx(whole.record.floor)
    for rule in ("precision=0.5", "recall=0.3", "contains=0.3"):
        ours, theirs = found.decide(rule), whole.decide(rule)
        assert ours.promised == theirs.promised
        assert ours.threshold == pytest.approx(theirs.threshold, rel=1e-3)


def test_blocks_are_those_of_the_model(monkeypatch):
    """A DualEncoder's blocks hold what its logits hold, those of a none-candidate too."""
    data = things(unanswered=True)
    model = calibrated(none_vector=tiny().encode(["carpet"])[0])
    whole = scan(model, data, "dev")
    for name, value in (("WHOLE", 0), ("MOST_TOLD_APART", 0), ("BLOCK", 4 * len(data.candidates)), ("QUERIES", 1)):
        monkeypatch.setattr(scanning, name, value)
    split = scan(model, data, "dev")
    assert split.none == pytest.approx(whole.none, abs=1e-5)
    for row, columns, logits in zip(split.logits, split.columns, whole.logits, strict=True):
        assert row[columns >= 0] == pytest.approx(logits[columns[columns >= 0]], abs=1e-5)
    seen = quick_metrics(model, data)
    monkeypatch.undo()
    expected = quick_metrics(model, data)
    # Across queries a tie may break either way by the rounding of a product of other shape; the logits above are close.
    ordered_across_queries = {"none_auroc_share", "none_auroc_logit"}
    assert seen.keys() == expected.keys() >= ordered_across_queries
    kept = seen.keys() - ordered_across_queries
    assert {name: seen[name] for name in kept} == pytest.approx({name: expected[name] for name in kept})
