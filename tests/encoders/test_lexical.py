import math

import bm25s
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sigmax.encoders.lexical import WEIGHTS, Lexical
from sigmax.encoders.tokens import STEMMERS

CANDIDATES = [
    "Press and hold the power button of the SKU-4711.",
    "Order 123-456 was sent; the SKU-4712 follows.",
    "the the the",
    "",
    "猫が好きです",
    "Fire fire 🔥 burns",
]
QUERIES = ["sku-4711", "power buttons", "the", "", "好き", "🔥", "burning fires", "unheard xyzzy", "the 猫 the"]


def alphabet(most: int):
    """Texts of few different words, so that they share many."""
    word = st.sampled_from(["fire", "fires", "sea", "a", "SKU-4711", "猫が", "🔥", "the", "deep sea", "Éclair", "-"])
    return st.lists(st.lists(word, max_size=8).map(" ".join), min_size=1, max_size=most)


def bm25(view: Lexical, queries: list[str], candidates: list[str], kind: str) -> np.ndarray:
    """The peer's scores of every query over every candidate, on the same tokens."""
    tokens = getattr(view.tokenizer, kind)
    corpus = [tokens(text) for text in candidates]
    scores = np.zeros((len(queries), len(candidates)))
    if any(corpus):
        peer = bm25s.BM25(method="lucene", k1=view.k1, b=view.b)
        peer.index(corpus, show_progress=False)
        for row, text in enumerate(queries):
            known = [token for token in tokens(text) if token in peer.vocab_dict]
            if known:
                scores[row] = peer.get_scores(known)
    return scores


def logits(view: Lexical, queries: list[str], candidates: list[str]) -> torch.Tensor:
    return view(view.tokens(queries, "query"), view.tokens(candidates, "candidate"))


def trained(view: Lexical, seed: int = 0) -> Lexical:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        view.theta.normal_(generator=generator)
        view.log_weights.normal_(generator=generator)
    return view


# -- BM25 ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(alphabet(6), alphabet(6), st.sampled_from([0.0, 0.9, 1.5]), st.sampled_from([0.0, 0.6, 1.0]))
def test_untrained_it_is_bm25(queries, candidates, k1, b):
    view = Lexical.fit(candidates, k1=k1, b=b)
    expected = sum(weight * bm25(view, queries, candidates, kind) for kind, weight in WEIGHTS.items())
    np.testing.assert_allclose(logits(view, queries, candidates).detach(), expected, rtol=2e-5, atol=1e-6)


def test_formula():
    """The docstring's sum, token by token."""
    view = trained(Lexical.fit(CANDIDATES))
    found = logits(view, QUERIES, CANDIDATES).detach()
    counted = {text: view.tokenizer.count([text])[0] for text in {*QUERIES, *CANDIDATES}}
    held = {text: dict(zip(*map(np.ndarray.tolist, pair), strict=True)) for text, pair in counted.items()}
    for i, query in enumerate(QUERIES):
        for j, candidate in enumerate(CANDIDATES):
            total = 0.0
            for token, n_q in held[query].items():
                n_c = held[candidate].get(token, 0)
                if n_c:
                    kind = token & 3
                    df = sum(token in held[text] for text in CANDIDATES)
                    idf = math.log(1 + (len(CANDIDATES) - df + 0.5) / (df + 0.5))
                    length = sum(many for other, many in held[candidate].items() if other & 3 == kind)
                    saturated = n_c / (n_c + view.k1 * (1 - view.b + view.b * length / view.mean_lengths[kind]))
                    theta = view.theta[(view.keys == token).nonzero()[0, 0]].item()
                    total += math.exp(view.log_weights[kind].item() + theta) * idf * n_q * saturated
            assert found[i, j].item() == pytest.approx(total, rel=1e-4, abs=1e-6)


@given(alphabet(5), alphabet(5), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_both_ways_to_the_logits_agree(queries, candidates, seed):
    view = trained(Lexical.fit(CANDIDATES), seed)
    asked, offered = view.tokens(queries, "query"), view.tokens(candidates, "candidate")
    np.testing.assert_allclose(view.scores(asked, offered), view(asked, offered).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("products", [1, 5, 2**20])
def test_sums_do_not_depend_on_blocks(products, monkeypatch):
    """In float32, token by token in the query's order, as a product of sparse matrices adds them up."""
    monkeypatch.setattr("sigmax.encoders.shared_words.PRODUCTS", products)
    view = trained(Lexical.fit(CANDIDATES))
    asked, offered = view.tokens(QUERIES, "query"), view.tokens(CANDIDATES, "candidate")
    rows, columns = (sparse.csr_array((one.values, one.keys % 100_003, one.ends)) for one in (asked, offered))
    rows.resize(len(QUERIES), 100_003)
    columns.resize(len(CANDIDATES), 100_003)
    assert len(np.unique(np.concatenate([asked.keys, offered.keys]) % 100_003)) == len(
        np.union1d(asked.keys, offered.keys)
    )
    rows.data = rows.data * view.weight_values(asked.keys)
    np.testing.assert_array_equal(view.scores(asked, offered), (rows @ columns.T.tocsr()).toarray())


def test_gradients():
    view = trained(Lexical.fit(CANDIDATES).double())
    asked, offered = view.tokens(QUERIES, "query"), view.tokens(CANDIDATES, "candidate")
    names = ("theta", "log_weights")
    parameters = tuple(dict(view.named_parameters())[name].detach().requires_grad_() for name in names)

    def of(*values):
        return torch.func.functional_call(view, dict(zip(names, values, strict=True)), (asked, offered))

    assert torch.autograd.gradcheck(of, parameters)


# -- what it is for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "best"),
    [("sku-4711", 0), ("SKU-4712?", 1), ("power buttons", 0), ("好き", 4), ("🔥", 5), ("burning", 5), ("the", 2)],
)
def test_finds(query, best):
    view = Lexical.fit(CANDIDATES)
    assert logits(view, [query], CANDIDATES)[0].argmax() == best


def test_codes_never_seen_match_themselves():
    view = Lexical.fit(CANDIDATES)
    offered = ["AB-99", "AB-98", "98", "nothing"]
    found = logits(view, ["ab-98"], offered)[0]
    assert found.argmax() == 1
    assert found[1] > found[2] > found[0] > found[3] == 0  # 98 alone; the parts of ab alone


@pytest.mark.parametrize("candidates", [[], [""], ["", "!?"]])
def test_nothing_to_match(candidates):
    view = Lexical.fit(candidates)
    assert not logits(view, ["sea", ""], ["", "!"]).any()
    assert logits(view, ["sea"], ["deep sea"]).item() > 0
    assert logits(view, [], ["sea"]).shape == (0, 1)
    assert logits(view, ["sea"], []).shape == (1, 0)
    assert view.scores(view.tokens(["sea"], "query"), view.tokens([], "candidate")).shape == (1, 0)


def test_long_text():
    long = "deep sea and wide shore " * 5_000
    view = Lexical.fit([long, "deep", "sea"])
    found = logits(view, ["deep sea", long], [long, "deep"]).detach()
    assert found.isfinite().all()
    assert found[0, 0] > 0


@pytest.mark.parametrize("settings", [{"k1": -0.1}, {"b": 1.5}, {"k1": math.nan}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="Expected `k1` of at least 0 and `b`"):
        Lexical.fit(CANDIDATES, **settings)


# -- tokens --------------------------------------------------------------------------------------


def test_slices():
    view = Lexical.fit(CANDIDATES)
    tokens = view.tokens(CANDIDATES, "candidate")
    assert len(tokens) == len(CANDIDATES)
    part = tokens[1:4]
    alone = view.tokens(CANDIDATES[1:4], "candidate")
    for name in ("keys", "values", "ends", "rows"):
        np.testing.assert_array_equal(getattr(part, name), getattr(alone, name))
    assert tokens[1:4] is part  # and with it the postings
    assert tokens[:] is tokens
    assert len(tokens[3:2]) == len(tokens[9:]) == 0


def test_the_cache_changes_nothing(monkeypatch):
    with_cache = Lexical.fit(CANDIDATES)
    monkeypatch.setattr("sigmax.encoders.shared_words.CACHED_BYTES", 0)
    monkeypatch.setattr("sigmax.encoders.lexical.BLOCK", 2)
    without = Lexical.fit(CANDIDATES)
    assert not without._cache
    for name in ("keys", "frequency"):
        assert torch.equal(getattr(with_cache, name), getattr(without, name))
    assert with_cache.config() == without.config()
    torch.testing.assert_close(logits(with_cache, QUERIES, CANDIDATES), logits(without, QUERIES, CANDIDATES))


# -- words in it ---------------------------------------------------------------------------------


def test_shared_words_add_up_to_the_logit():
    view = trained(Lexical.fit(CANDIDATES))
    for query in QUERIES:
        for candidate in CANDIDATES:
            words = view.shared(query, candidate)
            assert sum(words.values()) == pytest.approx(logits(view, [query], [candidate]).item(), rel=1e-5, abs=1e-6)
            assert list(words.values()) == sorted(words.values(), reverse=True)
    told = Lexical.fit(CANDIDATES).shared("burning sky FIRES", CANDIDATES[5])
    assert list(told) == ["fires", "burning"]  # fire is there twice


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stemmer", ["none", "german"])
def test_saved_and_loaded(tmp_path, stemmer):
    assert stemmer in STEMMERS
    view = trained(Lexical.fit(CANDIDATES, stemmer=stemmer, k1=1.3, b=0.2))
    view.save(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = Lexical.load(str(tmp_path))
    assert again.config() == view.config()
    assert torch.equal(logits(again, QUERIES, CANDIDATES), logits(view, QUERIES, CANDIDATES))
