"""Sigmax in sentence-transformers: the graph of a batch, the losses, the sampler, the evaluator, real trainings."""

import csv
import math
import re
import runpy
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, IterableDataset, Value, disable_progress_bars
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import sigmax
from helpers import oracles
from helpers.processes import run as run_ranks
from helpers.texts import TABLE, WORDS, features_of, static, tokenizer
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sigmax import DataError
from sigmax.families import of_family
from sigmax.sentence_transformers import (
    MatchEvaluator,
    MultiPositiveBatchSampler,
    SigmoidLoss,
    SoftmaxLoss,
    known_pairs,
)
from sigmax.sentence_transformers.graph import Columns, find_graph, text_keys

disable_progress_bars()
OBJECTIVES = list(of_family("softmax"))


def bert(folder, dropout=0.0):
    """A transformer of 20,000 numbers."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=42, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer(), pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return SentenceTransformer(modules=[Transformer(str(folder)), Pooling(16, "mean")], device="cpu").train()


# -- the graph of a batch ------------------------------------------------------------------------


def oracle_graph(columns, ids=None, known=None):
    """Each distinct candidate's first place, right and ignored pairs, from the texts, in loops."""
    n = len(columns[0])
    places = [(row, column) for column in range(1, len(columns)) for row in range(n)]
    ids = ids or [[-1] * len(columns)] * n
    known = known or {}

    def groups(items):
        """items: (text, id); rows of equal text or equal id share a group."""
        group = list(range(len(items)))
        for _ in items:
            for a, (text, key) in enumerate(items):
                for b, (other_text, other_key) in enumerate(items):
                    if text == other_text or key == other_key >= 0:
                        group[a] = group[b] = min(group[a], group[b])
        return group

    query = groups([(columns[0][row], ids[row][0]) for row in range(n)])
    candidate = groups([(columns[column][row], ids[row][column]) for row, column in places])
    offered = sorted(set(candidate))
    right, ignored = set(), set()
    for i in range(n):
        for j, one in enumerate(offered):
            texts = {columns[c][row] for place, (row, c) in enumerate(places) if candidate[place] == one}
            of_row = any(query[r] == query[i] and candidate[r] == one for r in range(n))
            of_known = any(
                text in known.get(columns[0][r], ()) for text in texts for r in range(n) if query[r] == query[i]
            )
            if of_row or of_known:
                right.add((i, j))
            elif columns[0][i] in texts:
                ignored.add((i, j))
    return offered, right, ignored


def found_graph(loss, columns, ids=None):
    labels = None if ids is None else torch.tensor(ids)
    matches = loss._graph(features_of(loss.model, columns), labels)
    count = len(columns[0]) * (len(columns) - 1)
    offered = list(range(count)) if matches.kept is None else matches.kept.tolist()
    positives = matches.positives
    right = set(zip(positives.rows.tolist(), positives.columns.tolist(), strict=True))
    ignored = set(zip(positives.ignored_rows.tolist(), positives.ignored_columns.tolist(), strict=True))
    return offered, right, ignored


texts = st.sampled_from(WORDS[:4])


@given(st.data(), st.integers(1, 5), st.integers(2, 4), st.booleans(), st.booleans())
def test_the_graph_of_a_batch(data, n, count, with_ids, with_known):
    columns = [data.draw(st.lists(texts, min_size=n, max_size=n)) for _ in range(count)]
    known = data.draw(st.dictionaries(texts, st.lists(texts, max_size=3))) if with_known else None
    width = data.draw(st.integers(2, count))
    ids = [[data.draw(st.integers(-1, 2)) for _ in range(width)] for _ in range(n)] if with_ids else None
    padded = ids and [row + [-1] * (count - width) for row in ids]
    assert found_graph(SoftmaxLoss(static(), positives=known), columns, ids) == oracle_graph(columns, padded, known)


@given(st.data(), st.integers(2, 4))
def test_processes_see_together_what_one_sees(data, ranks):
    """Every rank's rows are those of the whole batch, and each distinct candidate is offered by one rank."""
    model = static()
    parts = []
    for _ in range(ranks):
        n = data.draw(st.integers(1, 3))
        parts.append([data.draw(st.lists(texts, min_size=n, max_size=n)) for _ in range(3)])
    held = [Columns.of(features_of(model, part), None) for part in parts]
    seen = [find_graph(held, rank, None) for rank in range(ranks)]
    kept = []
    for part, matches in zip(parts, seen, strict=True):
        candidates = part[1] + part[2]
        kept += candidates if matches.kept is None else [candidates[place] for place in matches.kept]
    assert len(kept) == len(set(kept)) == seen[0].positives.shape[1]
    assert set(kept) == {text for part in parts for column in part[1:] for text in column}
    anchors = [anchor for part in parts for anchor in part[0]]
    pairs = {pair for part in parts for pair in zip(*part[:2], strict=True)}
    rows = torch.cat([matches.positives.to_dense() for matches in seen])
    expected = [[(anchor, text) in pairs for text in kept] for anchor in anchors]
    assert rows.tolist() == expected
    assert seen[0].right_rate == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_count(side, tmp_path):
    model = bert(tmp_path)
    model.tokenizer.padding_side = side
    short = text_keys(model.preprocess(["w1 w2", "w2 w1", "w1"]))
    long = text_keys(model.preprocess(["w1 w2", "w2 w1", "w1", "w1 w2 w3 w4 w5"]))
    assert short.tolist() == long[:3].tolist()
    assert len(set(long.tolist())) == 4
    assert short.tolist() == text_keys(static().preprocess(["w1 w2", "w2 w1", "w1"])).tolist()


def test_flattened_batches_and_rows_without_mask():
    ids = torch.tensor([[3, 4], [5, 6]])
    flat = text_keys({"input_ids": ids.reshape(1, -1), "cu_seq_lens_q": torch.tensor([0, 2, 4])})
    assert flat.tolist() == text_keys({"input_ids": ids}).tolist()


def test_many_texts_have_keys_of_their_own():
    """Adding up the tokens of a text, or their places alone, would not tell these apart."""
    ids = torch.cartesian_prod(*[torch.arange(20)] * 4)
    assert len(set(text_keys({"input_ids": ids}).tolist())) == 20**4


def test_pictures_are_recognised_by_their_numbers():
    pictures = torch.rand(3, 3, 4, 4)
    keys = text_keys({"pixel_values": torch.cat([pictures, pictures[:1]])}).tolist()
    assert keys[3] == keys[0]
    assert len(set(keys)) == 3
    captioned = text_keys({"input_ids": torch.zeros(3, 2, dtype=torch.int64), "pixel_values": pictures})
    assert len(set(captioned.tolist())) == 3
    with pytest.raises(ValueError, match="Expected `pixel_values` with one row an input, got 3 rows for 2 inputs"):
        text_keys({"input_ids": torch.zeros(2, 2, dtype=torch.int64), "pixel_values": pictures})
    with pytest.raises(ValueError, match="Expected features with input_ids or one of pixel_values"):
        text_keys({"odd": pictures})


def test_known_pairs():
    rows = {"anchor": ["a", "b", "a"], "score": [1, 1, 1], "positive": ["x", "y", "z"], "negative": ["p", "q", "r"]}
    assert known_pairs(Dataset.from_dict(rows)) == {"a": ["x", "z"], "b": ["y"]}
    with pytest.raises(DataError, match="Expected a data set with a column of anchors and one of positives, got a"):
        known_pairs(Dataset.from_dict({"a": ["x"], "label": [0]}))


# -- the losses ----------------------------------------------------------------------------------


#: An anchor twice, a positive twice, a negative that is another's positive, an anchor among the candidates.
def expected(model, name, scale, bias=0.0):
    """The loss of the deduplicated graph, in loops."""
    offered, right, ignored = oracle_graph(TABLE)
    texts = [*TABLE[1], *TABLE[2]]
    queries = model.encode(TABLE[0], convert_to_tensor=True).double().tolist()
    candidates = model.encode([texts[place] for place in offered], convert_to_tensor=True).double().tolist()
    s = oracles.logits(queries, candidates, scale, bias)
    rows = oracles.row_losses(name, s, (len(queries), len(candidates)), right, ignored)
    return sum(rows) / len(rows)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_softmax_is_the_loss_of_the_deduplicated_graph(objective):
    model = static()
    loss = SoftmaxLoss(model, 7.0, objective=objective)(features_of(model, TABLE))
    assert loss.item() == pytest.approx(expected(model, f"softmax-{objective}", 7.0), rel=1e-5)


def test_sigmoid_is_the_loss_of_the_deduplicated_graph():
    model = static()
    offered, right, _ = oracle_graph(TABLE)
    rate = len(right) / (5 * len(offered))
    loss = SigmoidLoss(model, 7.0, -0.5)(features_of(model, TABLE))
    bias = -0.5 + math.log(rate / (1 - rate))
    assert loss.item() == pytest.approx(expected(model, "sigmoid", 7.0, bias), rel=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("how", ["queries", "both"])
def test_as_multiple_negatives_ranking_where_nothing_comes_twice(count, how):
    model = static()
    columns = [[WORDS[row * count + column] for row in range(6)] for column in range(count)]
    if how == "both" and count > 2:
        pytest.skip("theirs scores positives alone in the other direction, ours negatives' texts too")
    directions = {
        "queries": {},
        "both": {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
    }[how]
    found = []
    for loss in (SoftmaxLoss(model, directions=how), MultipleNegativesRankingLoss(model, **directions)):
        model.zero_grad()
        value = loss(features_of(model, columns), None)
        value.backward()
        found.append((value.detach(), model[0].embedding.weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_an_anchor_twice_is_not_trained_against_its_own_answer():
    """With theirs, each of the two answers is wrong for the anchor that it is right for."""
    model = static()
    columns = (["w0", "w0"], ["w1", "w2"])
    assert SoftmaxLoss(model)(features_of(model, columns)).item() == 0.0  # nothing is wrong
    assert MultipleNegativesRankingLoss(model)(features_of(model, columns), None).item() > 0.1


def test_mini_batches_give_the_same_gradients_dropout_and_all(tmp_path):
    model = bert(tmp_path)
    found = []
    for size in (None, 2, 100):
        loss = SoftmaxLoss(model, learnable=True, mini_batch_size=size)
        value = loss(features_of(model, TABLE), None)
        (3 * value).backward()  # as a gradient scaler or accumulation would
        found.append([value.detach(), *(p.grad.clone() for p in loss.parameters() if p.grad is not None)])
        model.zero_grad()
    assert len(found[0]) > 30
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)


def test_mini_batches_replay_dropout(tmp_path):
    """The gradient belongs to the value: a step against it, with the same random numbers, makes the loss smaller."""
    model = bert(tmp_path, dropout=0.3)
    loss = SoftmaxLoss(model, mini_batch_size=2)

    def value():
        torch.manual_seed(5)
        return loss(features_of(model, TABLE), None)

    before = value()
    before.backward()
    slope = sum(p.grad.double().square().sum() for p in model.parameters() if p.grad is not None)
    rate = 1e-3 / slope
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= (rate * p.grad).float()
        assert (before - value()).item() == pytest.approx(1e-3, rel=0.15)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("kind", [SoftmaxLoss, SigmoidLoss])
@pytest.mark.slow
def test_matryoshka(tmp_path, kind, size):
    """Value and gradients, those of the scale included, are the weighted sum over widths of shortened vectors."""
    model = bert(tmp_path).double()  # sums in another order differ by the last digits alone
    inner = kind(model, learnable=True, mini_batch_size=size)
    loss = MatryoshkaLoss(model, inner, [16, 6], matryoshka_weights=[1.0, 0.5])
    value = loss(features_of(model, TABLE), None)
    value.backward()
    found = [value.detach(), *(p.grad.clone() for p in inner.parameters() if p.grad is not None)]
    model.zero_grad()
    plain = kind(model, learnable=True)
    matches = plain._graph(features_of(model, TABLE), None)
    vectors = [model(one)["sentence_embedding"] for one in features_of(model, TABLE)]
    value = sum(
        weight * plain.calculate_loss([[column[:, :width]] for column in vectors], matches)
        for width, weight in ((16, 1.0), (6, 0.5))
    )
    value.backward()
    expected = [value.detach(), *(p.grad for p in plain.parameters() if p.grad is not None)]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_mini_batches_agree_with_theirs(tmp_path):
    model = bert(tmp_path)
    columns = [[WORDS[row * 2 + column] for row in range(6)] for column in range(2)]
    ours = SoftmaxLoss(model, mini_batch_size=2)(features_of(model, columns), None)
    theirs = CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)(features_of(model, columns), None)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(tmp_path, dtype):
    model = bert(tmp_path)
    loss = SoftmaxLoss(model)
    plain = loss(features_of(model, TABLE), None)
    with torch.autocast("cpu", dtype=dtype):
        low = loss(features_of(model, TABLE), None)
    low.backward()
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(plain.item(), rel=0.05)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """The second process holds a text that the first offers, and an anchor's own text is offered by the other."""
    found = run_ranks("columns_of_texts", 2, tmp_path)
    for number, make in enumerate((SoftmaxLoss, SigmoidLoss)):
        loss = make(static(), learnable=True)
        value = loss(features_of(loss.model, TABLE), None)
        value.backward()
        ranks = [rank[number] for rank in found]
        for rank in ranks:
            torch.testing.assert_close(rank[0], value.detach(), rtol=1e-5, atol=1e-6)
        for place, (name, parameter) in enumerate(loss.named_parameters(), start=1):
            average = sum(rank[place] for rank in ranks) / 2  # as DistributedDataParallel does
            torch.testing.assert_close(average, parameter.grad, rtol=1e-4, atol=1e-5)
            if name.startswith("match_loss"):  # no DistributedDataParallel holds these
                assert ranks[0][place] == ranks[1][place]


def test_a_batch_without_anything_known_is_told_once(caplog):
    model = static()
    loss = SoftmaxLoss(model, positives={"query: w0": ["w1"]})
    for _ in range(2):
        loss(features_of(model, TABLE), None)
    assert [record.message for record in caplog.records] == [
        "None of the batch's anchors is in `positives`. Were they given without the prompt that training puts before "
        "them?"
    ]


# -- what goes wrong -----------------------------------------------------------------------------


def test_one_column():
    model = static()
    with pytest.raises(ValueError, match="a column of anchors and one of positives, got 1 column"):
        SoftmaxLoss(model)(features_of(model, TABLE[:1]), None)


@pytest.mark.parametrize(
    "labels", [torch.zeros(5), torch.zeros(5, dtype=torch.int64), torch.zeros(5, 2), torch.zeros(5, 4).long()]
)
def test_labels_that_are_no_ids(labels):
    model = static()
    with pytest.raises(ValueError, match=r"label column of integer ids, \[anchor id, positive id\].*remove the column"):
        SoftmaxLoss(model)(features_of(model, TABLE), labels)


def test_columns_of_two_lengths():
    model = static()
    with pytest.raises(ValueError, match="Expected columns of one length, got 2, 1"):
        SoftmaxLoss(model)(features_of(model, (["w0", "w1"], ["w2"])), None)


def test_arguments():
    model = static()
    with pytest.raises(ValueError, match="`mini_batch_size` of at least 1, got 0"):
        SoftmaxLoss(model, mini_batch_size=0)
    with pytest.raises(ValueError, match="no `mini_batch_size` with an encoder whose texts come as one run"):
        SoftmaxLoss(model, mini_batch_size=2)(features_of(model, TABLE), None)
    with pytest.raises(ValueError, match="Expected `positives` to be one of any, average, decoupled, pairs, got 'avg'"):
        SoftmaxLoss(model, objective="avg")
    with pytest.raises(ValueError, match="Expected `logit_scale` to be finite and above 0"):
        SigmoidLoss(model, 0)
    for odd in ([("w0", "w1")], {"w0": "w1"}):
        with pytest.raises(TypeError, match="Expected `positives` to be a mapping of each anchor to a list"):
            SoftmaxLoss(model, positives=odd)


# -- the sampler ---------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 12), st.booleans(), st.integers(0, 3)
)  # fmt: skip
def test_sampler(anchors, batch_size, drop_last, seed):
    dataset = Dataset.from_dict(
        {"label": anchors, "anchor": [f"a{i}" for i in anchors], "positive": ["p"] * len(anchors)}
    )
    sampler = MultiPositiveBatchSampler(dataset, batch_size, drop_last, ["label"], torch.Generator(), seed)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert list(sampler) == batches == list(MultiPositiveBatchSampler(dataset, batch_size, drop_last, seed=seed))
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == len(rows)
    assert all(len(batch) == batch_size for batch in batches[: None if drop_last else -1])
    if not drop_last:
        assert sorted(rows) == list(range(len(anchors)))
        # No more runs of one anchor than groups of up to four make.
        runs = 1 + sum(anchors[a] != anchors[b] for a, b in pairwise(rows))
        assert runs <= sum(math.ceil(anchors.count(one) / 4) for one in set(anchors))


def test_sampler_draws_anew_each_epoch():
    dataset = Dataset.from_dict({"anchor": [f"a{i // 3}" for i in range(60)], "positive": ["p"] * 60})
    sampler = MultiPositiveBatchSampler(dataset, 10, False, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    with pytest.raises(DataError, match="a column of anchors, got label"):
        MultiPositiveBatchSampler(Dataset.from_dict({"label": [1]}), 10, False)


# -- the evaluator -------------------------------------------------------------------------------

QUERIES = {f"q{i}": f"w{i % 20} w{i % 7}" for i in range(60)}
CANDIDATES = {f"c{j}": WORDS[j] for j in range(20)}
RELEVANT = {f"q{i}": {f"c{i % 20}", f"c{i % 7}"} for i in range(60) if i % 5}


@pytest.mark.parametrize("with_loss", [False, True])
def test_evaluator(tmp_path, with_loss):
    model = static()
    dev = {f"d{i}": f"w{i % 19} w{i % 3}" for i in range(40)}, {f"d{i}": [f"c{i % 19}"] for i in range(30)}
    loss = SigmoidLoss(model, 12.0, -3.0) if with_loss else None
    evaluator = MatchEvaluator(QUERIES, CANDIDATES, RELEVANT, dev=dev, loss=loss, name="ours")
    metrics = evaluator(model, str(tmp_path / "eval"), epoch=1.0, steps=3)
    assert metrics[evaluator.primary_metric] == metrics["ours_map"]
    vectors = [
        torch.nn.functional.normalize(model.encode(list(t.values()), convert_to_tensor=True))
        for t in (QUERIES, CANDIDATES)
    ]
    cosines = (vectors[0] @ vectors[1].T).numpy()
    right = np.array([[c in RELEVANT.get(q, ()) for c in CANDIDATES] for q in QUERIES])
    presence = evaluator.calibrator.presence(12 * cosines - 3 if with_loss else cosines, list(CANDIDATES))
    errors = -np.where(right, np.log(presence), np.log1p(-presence)).sum(1).mean()
    assert metrics["ours_log_loss"] == pytest.approx(errors, rel=1e-4)
    answered = right.any(1)
    best = cosines.max(1)
    auroc = np.mean([(a > b) + (a == b) / 2 for a in best[answered] for b in best[~answered]])
    assert metrics["ours_none_auroc_logit"] == pytest.approx(auroc, rel=1e-5)
    evaluator(model, str(tmp_path / "eval"), epoch=2.0, steps=6)
    with (tmp_path / "eval" / "match_evaluation_ours_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["steps"] for row in rows] == ["3", "6"]
    assert float(rows[0]["map"]) == metrics["ours_map"]


def test_evaluator_halves_are_the_same_each_time():
    one, other = (MatchEvaluator(QUERIES, CANDIDATES, RELEVANT) for _ in range(2))
    assert one.queries == other.queries
    assert sorted(one.queries + one.dev_queries) == sorted(QUERIES.values())
    assert len(one.queries) == len(one.right) == 30


def test_relevant_as_in_beir():
    """Scores above 0 are right; those of 0 and below were judged, and wrong."""
    scores = {q: {**dict.fromkeys(ids, 2), "c18": 0, "c19": -1} for q, ids in RELEVANT.items()}
    right = {q: ids - {"c18", "c19"} for q, ids in RELEVANT.items()}
    one, other = (MatchEvaluator(QUERIES, CANDIDATES, relevant) for relevant in (scores, right))
    assert (one.right == other.right).all()
    assert (one.dev_right == other.dev_right).all()
    assert one.right.any()


def test_evaluator_failures():
    for relevant, message in {
        "a list of candidate ids, or id -> score, for query 'q0', got 'c1'": {"q0": "c1"},
        "a list of candidate ids, or id -> score, for query 'q0', got None": {"q0": None},
        "`relevant` to name queries, got 'Q1'. Did you mean 'q1'?": {"q0": ["c1"], "Q1": ["c1"]},
        "a number for candidate 'c1' of query 'q0', got 'yes'": {"q0": {"c1": "yes"}},
        "a number for candidate 'c1' of query 'q0', got nan": {"q0": {"c1": float("nan")}},
    }.items():
        with pytest.raises(DataError, match=re.escape(relevant)):
            MatchEvaluator(QUERIES, CANDIDATES, message)
    with pytest.raises(DataError, match="`relevant` to name candidates, got 'c99' for query 'q0'"):
        MatchEvaluator(QUERIES, CANDIDATES, {"q0": ["c99"]})
    with pytest.raises(DataError, match="Expected a right answer among the 30 queries to calibrate on"):
        MatchEvaluator(QUERIES, CANDIDATES, {})
    with pytest.raises(ValueError, match="Expected `primary` to be one of"):
        MatchEvaluator(QUERIES, CANDIDATES, RELEVANT, primary="ndgc@10")
    assert not MatchEvaluator(QUERIES, CANDIDATES, RELEVANT, primary="log_loss").greater_is_better


# -- real trainings ------------------------------------------------------------------------------

#: Anchor i is right for the words i and (i + 10): two rows an anchor.
PAIRS = {
    "anchor": [f"w{i} w{i + 20}" for i in range(10) for _ in range(2)],
    "positive": [WORDS[i + 10 * turn] for i in range(10) for turn in range(2)],
}
THEIRS = [  # sentence-transformers and the libraries under its trainer, on this machine without a GPU
    "ignore:.*pin_memory.*:UserWarning",
    "ignore:.*lr_scheduler.step.*:UserWarning",
]
trains = pytest.mark.filterwarnings(*THEIRS)


def run(tmp_path, model, loss, rows=PAIRS, evaluator=None, **given):
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=8,
        num_train_epochs=8,
        learning_rate=0.1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        **given,
    )
    dataset = rows if isinstance(rows, IterableDataset) else Dataset.from_dict(rows)
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=dataset, loss=loss, evaluator=evaluator
    )
    trainer.train()
    return trainer


def right_cosines(model):
    """Mean cosine of right pairs less that of all."""
    anchors = model.encode(PAIRS["anchor"], convert_to_tensor=True, normalize_embeddings=True)
    words = model.encode(WORDS[:20], convert_to_tensor=True, normalize_embeddings=True)
    cosines = anchors @ words.T
    right = [WORDS.index(word) for word in PAIRS["positive"]]
    return (cosines[range(20), right].mean() - cosines.mean()).item()


@trains
@pytest.mark.parametrize("columns", [2, 3, 5])
@pytest.mark.parametrize("kind", [SoftmaxLoss, SigmoidLoss])
@pytest.mark.slow
def test_trainer_learns(tmp_path, kind, columns):
    model = static()
    negatives = {f"negative_{k}": [WORDS[(i + k) % 20] for i in range(20)] for k in range(1, columns - 1)}
    rows = {**PAIRS, **negatives}
    before = right_cosines(model)
    run(tmp_path, model, kind(model), rows, batch_sampler=MultiPositiveBatchSampler)
    assert right_cosines(model) > before + 0.3


@trains
@pytest.mark.parametrize("kind", [SoftmaxLoss, SigmoidLoss])
def test_trainer_learns_from_a_stream(tmp_path, kind):
    """Rows that are never in memory together; right answers are recognised among those of a batch all the same."""
    drawn = []

    def rows():
        drawn.append(0)
        for anchor, positive in zip(PAIRS["anchor"], PAIRS["positive"], strict=True):
            drawn[-1] += 1
            yield {"anchor": anchor, "positive": positive}

    model = static()
    before = right_cosines(model)
    features = Features(dict.fromkeys(PAIRS, Value("string")))
    run(tmp_path, model, kind(model), IterableDataset.from_generator(rows, features=features), max_steps=24)
    assert sum(drawn) >= 24 * 20 / 3
    assert right_cosines(model) > before + 0.3


@trains
def test_trainer_with_ids(tmp_path):
    """The label column reaches the loss, and with it the anchors of two wordings are one."""
    model = static()
    seen = []
    loss = SoftmaxLoss(model)
    loss.register_forward_pre_hook(lambda module, given: seen.append(given[1].tolist()))
    run(tmp_path, model, loss, {**PAIRS, "label": [[i // 2, i] for i in range(20)]})
    assert sorted(chain(*seen[:3])) == [[i // 2, i] for i in range(20)]


@trains
def test_learnable_scale_reaches_the_optimizer(tmp_path):
    for learnable in (True, False):
        model = static()
        loss = SigmoidLoss(model, learnable=learnable)
        rates = {"learning_rate_mapping": {"match_loss": 0.02}} if learnable else {}
        trainer = run(tmp_path, model, loss, **rates)
        held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
        assert (id(loss.match_loss.log_scale) in held) == learnable
        assert (loss.match_loss.logit_scale.item() != pytest.approx(20.0)) == learnable
        assert (loss.match_loss.logit_bias.item() != -5.0) == learnable


@trains
def test_evaluator_in_training_and_model_card(tmp_path):
    model = static()
    loss = SoftmaxLoss(model, positives=known_pairs(Dataset.from_dict(PAIRS)))
    evaluator = MatchEvaluator(QUERIES, CANDIDATES, RELEVANT, name="ours", loss=loss)
    trainer = run(tmp_path, model, loss, evaluator=evaluator, eval_strategy="epoch")
    assert "eval_ours_map" in trainer.state.log_history[-2]
    with (tmp_path / "out" / "eval" / "match_evaluation_ours_results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    trainer.save_model(str(tmp_path / "saved"))
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "sigmax.sentence_transformers.losses.SoftmaxLoss" in card
    assert '"objective": "softmax-decoupled"' in card
    assert "gupta2024dualencoders" in card
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert right_cosines(again) == pytest.approx(right_cosines(model), abs=1e-6)


@trains
def test_matryoshka_in_training(tmp_path):
    model = static()
    run(tmp_path, model, MatryoshkaLoss(model, SoftmaxLoss(model), [12, 6]))
    model.truncate_dim = 6
    assert right_cosines(model) > 0.3


@trains
def test_mini_batches_train_the_same_transformer(tmp_path):
    weights = []
    for size in (None, 3):
        model = bert(tmp_path / str(size)).eval()
        run(tmp_path, model, SoftmaxLoss(model, mini_batch_size=size), optim="sgd", max_steps=6)
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


def test_names():
    import sigmax.sentence_transformers as module

    assert sorted(module.__all__) == module.__all__
    assert sigmax.SoftmaxLoss is not SoftmaxLoss


@trains
@pytest.mark.slow
def test_example(tmp_path, monkeypatch, capsys):
    """examples/sentence_transformers_training.py runs from end to end, and what it saves is what it trained."""
    data = sigmax.load_data("emoji-hidden")
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator([*data.queries, *data.candidates], trainers.WordLevelTrainer(special_tokens=["[UNK]"]))
    torch.manual_seed(0)
    SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=32)], device="cpu").save(str(tmp_path / "model"))
    example = Path(__file__).parents[2] / "examples" / "sentence_transformers_training.py"
    given = [
        "--model",
        str(tmp_path / "model"),
        "--output",
        str(tmp_path / "out"),
        "--learning-rate",
        "0.01",
        "--epochs",
        "3",
    ]
    monkeypatch.setattr("sys.argv", [str(example), *given])
    runpy.run_path(str(example), run_name="__main__")
    metrics = {line.split()[0]: line.split()[2::2] for line in capsys.readouterr().out.splitlines() if "before" in line}
    assert list(metrics) == ["map", "log_loss", "calibration_error", "none_auroc_any"]
    assert all(0 < float(value) < 20 for values in metrics.values() for value in values)
    start, end = (
        SentenceTransformer(str(tmp_path / folder), device="cpu").encode("moon") for folder in ("model", "out")
    )
    assert np.abs(start - end).max() > 0.01
