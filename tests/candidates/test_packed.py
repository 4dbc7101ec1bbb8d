"""Vectors in fewer bits: how far off they are, that folders keep and change them, and what is said of the loss."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.commands import refused
from helpers.models import calibrated, stored_beyond
from sigmax.candidates import PACKINGS, Exact, Packed, pack
from sigmax.candidates.packed import kind_of
from sigmax.errors import DataError, UnknownNameError
from sigmax.model import dual_encoder, folder, packing
from sigmax.model.dual_encoder import load
from sigmax.model.packing import pack_candidates
from sigmax.model.stored import read_candidates

NAMES = [f"{a} {b} {j}" for j in range(20) for a in ("red", "blue", "old") for b in ("moon", "sun", "sea")]


@pytest.fixture(autouse=True, scope="module")
def small():
    with stored_beyond(100, dual_encoder, folder, packing):
        yield


@pytest.fixture
def place(tmp_path):
    calibrated(candidates=NAMES, candidate_ids=[f"c{j}" for j in range(len(NAMES))]).save(tmp_path / "model")
    return tmp_path / "model"


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 40), st.floats(1e-3, 1e3), st.integers(0, 9))
def test_how_far_off_numbers_are(m, d, size, seed):
    vectors = size * torch.randn(m, d, generator=torch.Generator().manual_seed(seed))
    half, whole = pack(vectors, "float16"), pack(vectors, "int8")
    # Half precision: 11 bits, and nothing finer than 2⁻²⁴ below the normal numbers.
    assert ((half.float() - vectors).abs() <= vectors.abs() * 2**-11 + 2**-24).all()
    step = vectors.abs().amax(1, keepdim=True) / 127
    plain = (vectors / step).round() * step
    assert ((plain - vectors).abs() <= step / 2 * (1 + 1e-5)).all()
    # The scale keeps the length, so that numbers are off by half a step and by what rounding had done to the length.
    longer = vectors.norm(dim=1, keepdim=True) / plain.norm(dim=1, keepdim=True)
    assert whole.float() == pytest.approx((plain * longer).numpy(), rel=1e-5, abs=1e-6 * size)
    assert whole.float().norm(dim=1) == pytest.approx(vectors.norm(dim=1).numpy(), rel=1e-5)
    assert pack(vectors, "float32") is vectors
    for one, kind in ((vectors, "float32"), (half, "float16"), (whole, "int8")):
        assert kind_of(one) == kind
        rows = torch.tensor([m - 1, 0])
        assert (one[rows] == one.float()[rows]).all()
        assert (one[: m // 2] == one.float()[: m // 2]).all()
        assert one[rows].dtype == torch.float32
    for packed in (half, whole):
        both = packed.followed_by(packed)
        assert (both.float() == torch.cat([packed.float(), packed.float()])).all()
        assert (both.take(torch.tensor([m])).float() == packed.float()[:1]).all()


def test_vectors_of_nothing_but_zeros():
    assert (pack(torch.zeros(3, 4), "int8").float() == 0).all()


def test_what_does_not_fit():
    with pytest.raises(UnknownNameError, match="int8"):
        pack(torch.zeros(2, 2), "int4")
    with pytest.raises(ValueError, match=r"vectors of torch\.int8"):
        Packed(torch.zeros(2, 2), torch.ones(2))
    with pytest.raises(ValueError, match="a scale for each of 2 vectors"):
        Packed(torch.zeros(2, 2, dtype=torch.int8), torch.ones(3))


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_store_compares_them(kind):
    made = torch.nn.functional.normalize(torch.randn(300, 16, generator=torch.Generator().manual_seed(0)))
    names = [str(j) for j in range(300)]
    store, exact = Exact(pack(made, kind), names, names), Exact(pack(made, kind).float(), names, names)
    asked = made[:5].numpy()
    for one, other in zip(store.search(asked, 7), exact.search(asked, 7), strict=True):
        assert one.places.tolist() == other.places.tolist()
        assert one.products == pytest.approx(other.products, abs=1e-6)
    assert store.sample(50).vectors == pytest.approx(exact.sample(50).vectors)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_from_packing_to_matching(sigmax, place, tmp_path, kind):
    before = load(place)
    size = (place / "candidates.safetensors").stat().st_size
    done = sigmax("candidates", "pack", place, "--vectors", kind, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["recall"] > 0.9
    assert 0 < told["presence_error"] < 0.05
    assert f"as {kind}" in done.words
    assert (place / "candidates.safetensors").stat().st_size < size
    model = load(place)
    assert kind_of(model.candidate_vectors(model.candidates).dense) == kind
    assert kind_of(read_candidates(place)[2].dense) == kind
    asked = ["red moon 3", "old sea"]
    for one, other in zip(model.match(asked), before.match(asked), strict=True):
        assert one[0].candidate == other[0].candidate
        assert one[0].presence == pytest.approx(other[0].presence, abs=told["presence_error"] + 1e-6)
    # Candidates that come later are packed too, and the others stay what they are.
    (tmp_path / "new.csv").write_text("id,text\nnew,green moon\nc0,red moon zero\n", encoding="utf-8")
    assert sigmax("candidates", "add", place, tmp_path / "new.csv").code == 0
    changed = load(place)
    dense = changed.candidate_vectors(changed.candidates).dense
    assert kind_of(dense) == kind
    assert len(dense) == len(NAMES) + 1
    assert (dense[1 : len(NAMES)] == model.candidate_vectors(model.candidates).dense[1:]).all()
    assert changed.match("green moon")[0].candidate == "green moon"


def test_back_again_and_by_queries(sigmax, place, tmp_path):
    whole = load(place).candidate_vectors(NAMES).dense
    assert pack_candidates(place, "int8").before == "float32"
    (tmp_path / "queries.csv").write_text("query\nred moon\nblue sea\n", encoding="utf-8")
    done = sigmax("candidates", "pack", place, tmp_path / "queries.csv", "--vectors", "float32", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["before"], told["queries"], told["recall"], told["presence_error"]) == ("int8", 2, 1.0, 0.0)
    assert load(place).candidate_vectors(NAMES).dense == pytest.approx(whole.numpy(), abs=1e-6)


def test_what_is_refused(sigmax, place, tmp_path, monkeypatch):
    refused(sigmax("candidates", "pack", place), 2, "how vectors are stored")
    refused(sigmax("candidates", "list", place, "--vectors", "int8"), 2, "expected none for list")
    refused(sigmax("candidates", "pack", place, "--vectors", "int4"), 2, "Did you mean 'int8'")
    monkeypatch.setattr(packing, "FEW", 1000)
    with pytest.raises(DataError, match="stored of more than 1,000 candidates"):
        pack_candidates(place, "int8")
    assert set(PACKINGS) == {"float32", "float16", "int8"}
    assert np.isfinite(load(place).candidate_vectors(NAMES).dense.numpy()).all()
