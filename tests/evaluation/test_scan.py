import numpy as np
import pytest

from helpers.data import things
from helpers.models import calibrated, tiny
from sigmax.errors import UnknownNameError
from sigmax.evaluation import calibrate, evaluate, quick_metrics
from sigmax.scan import scan


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
    monkeypatch.setattr(
        model,
        "encode",
        lambda items, side="query", **given: encoded.append(side) or type(model).encode(model, items, side),
    )
    look(model, data, split="dev")
    assert encoded == ["query", "candidate"]


def test_unknown_split():
    with pytest.raises(UnknownNameError, match="Did you mean 'dev'"):
        scan(tiny(), things(), "dve")
