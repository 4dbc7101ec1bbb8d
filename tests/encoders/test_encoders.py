import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.feature_extraction.text import TfidfVectorizer

from helpers.data import things
from sigmax.data import MatchDataset
from sigmax.encoders import LabelTable, NgramEmbedding, hashing, load_encoder, save_encoder
from sigmax.encoders.build import ENCODERS, build_towers, defaults_of, label_text
from sigmax.encoders.plan import Plan
from sigmax.encoders.pretrained import is_static, load_pretrained
from sigmax.errors import DataError

CORPUS = [
    "What's in the sky? The moon, the sun.",
    "what appears at night? the moon",
    "What's hot? The sun and the fire!",
    "night night",
    "ÉCLAIR au café ☕ 3 x",
    "sun",
]
NEW = ["the moon the moon THE MOON", "a new sunny night", "fire_fire naïve café", "日本", "", "  ", "!?", "w"]


def data(labels: bool = False) -> MatchDataset:
    return MatchDataset(
        "x",
        [*CORPUS[:4], "on dev alone zzz", "on test alone yyy"],
        ["moon", "sun", "aFire_place"],
        np.array([[0, 0], [0, 1], [1, 0], [2, 1], [4, 0], [5, 2]]),
        {"train": np.arange(4), "dev": np.array([4]), "test": np.array([5])},
        labels=labels,
    )


def features(encoder: NgramEmbedding, texts: list[str]) -> list[tuple[list[int], list[float]]]:
    """Ids and weights of each text."""
    found = encoder.preprocess(texts)
    cuts = found["offsets"].tolist()[1:]
    parts = (torch.tensor_split(found[name], cuts) for name in ("input_ids", "weights"))
    return [(ids.tolist(), weights.tolist()) for ids, weights in zip(*parts, strict=True)]


def vectors(encoder, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return encoder(encoder.preprocess(texts))["sentence_embedding"]


# -- n-grams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [1, 2])
def test_weights_are_scikit_learns_tf_idf(least):
    encoder = NgramEmbedding.fit(CORPUS, dimension=3, least=least)
    settings = {"sublinear_tf": True, "min_df": least}
    blocks = [
        TfidfVectorizer(analyzer="word", token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 2), **settings).fit(CORPUS),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **settings).fit(CORPUS),
    ]
    assert len(encoder.buckets) == sum(len(block.vocabulary_) for block in blocks), "no two n-grams in one bucket"
    for text, (ids, weights) in zip([*CORPUS, *NEW], features(encoder, [*CORPUS, *NEW]), strict=True):
        expected = np.concatenate([block.transform([text]).data / math.sqrt(2) for block in blocks] + [[1.0]])
        assert sorted(weights) == pytest.approx(sorted(expected.tolist()), abs=1e-6), text
        assert len(set(ids)) == len(ids)


def test_other_n_grams():
    encoder = NgramEmbedding.fit(CORPUS, dimension=3, words=(1, 1), characters=(3, 3))
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit(CORPUS)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3)).fit(CORPUS)
    assert len(encoder.buckets) == len(words.vocabulary_) + len(characters.vocabulary_)
    lengths = [len(words.transform([text]).data) + len(characters.transform([text]).data) + 1 for text in NEW]
    assert [len(ids) for ids, _ in features(encoder, NEW)] == lengths


def test_the_same_n_gram_has_the_same_row():
    encoder = NgramEmbedding.fit(CORPUS, dimension=3)
    moon, the_moon, fire = (set(ids) for ids, _ in features(encoder, ["moon", "the moon", "fire"]))
    assert moon < the_moon
    assert moon & fire == {len(encoder.buckets)}, "the constant alone"


def test_unseen_n_grams_are_passed_over():
    encoder = NgramEmbedding.fit(["moon"], dimension=3)
    assert features(encoder, ["moon qqqq"]) == features(encoder, ["moon"])


def test_a_text_with_nothing_known_has_the_constant():
    encoder = NgramEmbedding.fit(CORPUS, dimension=3)
    constant = len(encoder.buckets)
    for text in ("日本", "", "@@"):
        assert features(encoder, [text]) == [([constant], [1.0])]
        assert torch.equal(vectors(encoder, [text])[0], encoder.table.weight[constant])
    assert features(encoder, ["", "moon", ""])[1] == features(encoder, ["moon"])[0]


def test_an_empty_vocabulary():
    encoder = NgramEmbedding.fit(["moon", "sun"], dimension=3, least=3)
    assert len(encoder.buckets) == 0
    assert torch.equal(vectors(encoder, ["moon", "x"]), encoder.table.weight[[0, 0]])


def test_a_repeated_text_counts_once():
    once, often = NgramEmbedding.fit(CORPUS), NgramEmbedding.fit(CORPUS * 3)
    assert torch.equal(once.idf, often.idf)
    assert torch.equal(once.buckets, often.buckets)


def test_words_and_characters_weigh_the_same():
    encoder = NgramEmbedding.fit(CORPUS, dimension=3)
    for ids, weights in features(encoder, CORPUS[:3]):
        is_word = encoder.buckets[torch.tensor(ids[:-1])] < hashing.BUCKETS
        squares = torch.tensor(weights[:-1]) ** 2
        assert float(squares[is_word].sum()) == pytest.approx(0.5, abs=1e-5)
        assert float(squares[~is_word].sum()) == pytest.approx(0.5, abs=1e-5)


def test_the_vector_is_the_weighted_sum():
    encoder = NgramEmbedding.fit(CORPUS, dimension=5)
    texts = [*CORPUS, *NEW]
    rows = encoder.table.weight.tolist()
    for vector, (ids, weights) in zip(vectors(encoder, texts).tolist(), features(encoder, texts), strict=True):
        expected = [sum(w * rows[g][d] for g, w in zip(ids, weights, strict=True)) for d in range(5)]
        assert vector == pytest.approx(expected, abs=1e-5)


def test_only_the_n_grams_of_a_text_are_trained():
    encoder = NgramEmbedding.fit(CORPUS, dimension=3)
    encoder(encoder.preprocess(["moon"]))["sentence_embedding"].sum().backward()
    ((ids, weights),) = features(encoder, ["moon"])
    gradient = torch.zeros_like(encoder.table.weight)
    gradient[ids] = torch.tensor(weights)[:, None]
    torch.testing.assert_close(encoder.table.weight.grad, gradient)


def test_cached_features_are_those_made_afresh(monkeypatch):
    texts = [*CORPUS, *NEW]
    fresh = [features(NgramEmbedding.fit(CORPUS, dimension=3), [text])[0] for text in texts]
    encoder = NgramEmbedding.fit(CORPUS, dimension=3)
    assert features(encoder, texts) == fresh
    assert features(encoder, texts) == fresh
    assert features(encoder, texts[::-1] + texts) == fresh[::-1] + fresh
    monkeypatch.setattr(hashing, "CACHED_BYTES", 4 * 1024)
    encoder = NgramEmbedding.fit(CORPUS, dimension=3)
    for start in range(len(texts) - 2):
        part = slice(start, start + 3)
        assert features(encoder, texts[part] + texts[part]) == fresh[part] + fresh[part]
    assert 1 <= len(encoder.features._cache) <= 4


def test_a_prompt_stands_before_the_text():
    encoder = NgramEmbedding.fit(CORPUS, dimension=3)
    prompted = encoder.preprocess(["moon", "sun"], prompt="the ")
    plain = encoder.preprocess(["the moon", "the sun"])
    assert all(torch.equal(prompted[name], plain[name]) for name in plain)


def test_the_start_follows_from_the_seed():
    one, again, other = (NgramEmbedding.fit(CORPUS, seed=seed, dimension=64) for seed in (1, 1, 2))
    assert torch.equal(one.table.weight, again.table.weight)
    assert not torch.equal(one.table.weight, other.table.weight)
    assert one.table.weight.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)
    assert one.get_embedding_dimension() == 64 == one.table.weight.shape[1]


def test_saved_n_grams_come_back_bit_for_bit(tmp_path):
    encoder = NgramEmbedding.fit(CORPUS, seed=3, dimension=7, words=(1, 3), characters=(2, 3))
    save_encoder(encoder, tmp_path / "model")
    back = load_encoder(tmp_path / "model")
    assert isinstance(back, NgramEmbedding)
    assert (back.dimension, back.words, back.characters) == (7, (1, 3), (2, 3))
    assert back.state_dict().keys() == encoder.state_dict().keys()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
        assert back.state_dict()[name].dtype == tensor.dtype
    assert torch.equal(vectors(back, [*CORPUS, *NEW]), vectors(encoder, [*CORPUS, *NEW]))
    assert not list(tmp_path.rglob("*.bin")), "safetensors alone"


@pytest.mark.slow  # sentence-transformers takes seconds to import
def test_sentence_transformers_reads_saved_n_grams(tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder = NgramEmbedding.fit(CORPUS, dimension=7)
    save_encoder(encoder, tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    texts = [*CORPUS, *NEW]
    np.testing.assert_allclose(theirs.encode(texts, batch_size=4), vectors(encoder, texts), atol=1e-6)
    assert theirs.get_embedding_dimension() == 7


# -- labels --------------------------------------------------------------------------------------


def test_a_label_has_its_own_vector():
    start = torch.arange(6.0).reshape(3, 2)
    table = LabelTable(["cat", "dog", "a|b é"], start)
    assert torch.equal(vectors(table, ["dog", "a|b é", "dog"]), start[[1, 2, 1]])
    assert vectors(table, []).shape == (0, 2)
    assert table.get_embedding_dimension() == 2
    with torch.no_grad():
        table.vectors += 1
    assert start.max() == 5, "the vectors given are copied"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dgo", r"Label 'dgo' has no vector: the model knows 3 labels\. Did you mean 'dog'\?.*train again"),
        ("CATS", r"Label 'CATS'.*Did you mean 'cat'"),
        ("plain", r"Label 'plain'.*Did you mean 'Plane'"),
        ("zzz", r"Label 'zzz' has no vector: the model knows 3 labels\. A label table cannot take new labels"),
    ],
)
def test_unknown_labels(name, message):
    with pytest.raises(DataError, match=message):
        LabelTable(["cat", "dog", "Plane"], torch.zeros(3, 2)).preprocess(["cat", name])


def test_a_frozen_table_is_not_trained():
    assert not LabelTable(["a"], torch.ones(1, 1), frozen=True).vectors.requires_grad
    table = LabelTable(["a", "b"], torch.ones(2, 2))
    table(table.preprocess(["b"]))["sentence_embedding"].sum().backward()
    assert table.vectors.grad.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("biases", [None, torch.tensor([1.0, -2.0, 0.0])])
@pytest.mark.parametrize("frozen", [False, True])
def test_saved_labels_come_back(tmp_path, frozen, biases):
    table = LabelTable(["cat", 'é "dog"\n', "🌙"], torch.randn(3, 4), biases=biases, frozen=frozen)
    save_encoder(table, tmp_path / "model")
    back = load_encoder(tmp_path / "model")
    assert isinstance(back, LabelTable)
    assert back.names == table.names
    assert back.frozen is frozen
    assert back.vectors.requires_grad is not frozen
    assert torch.equal(vectors(back, table.names), vectors(table, table.names))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fireEngine", "fire Engine"),
        ("fire_engine", "fire engine"),
        ("comp.sys.ibm-pc/hardware", "comp sys ibm pc hardware"),
        ("USA", "USA"),
        ("a__b", "a b"),
        ("_hidden_", "hidden"),
        ("___", "___"),
        ("two words", "two words"),
    ],
)
def test_label_text(name, text):
    assert label_text(name) == text


# -- towers --------------------------------------------------------------------------------------


def test_towers_for_texts():
    towers = build_towers("ngrams", data())
    assert towers.candidate is None, "one encoder serves both sides"
    assert towers.similarity == "cosine"
    assert len(features(towers.query, ["aFire_place"])[0][0]) > 10, "candidates are in the vocabulary"
    assert features(towers.query, ["zzz yyy"])[0][0] == [len(towers.query.buckets)], "dev and test are not"


def test_two_towers_for_texts():
    towers = build_towers("ngrams", data(), Plan(two_towers=True))
    assert towers.candidate is not None
    assert towers.candidate is not towers.query
    assert towers.candidate.table.weight.data_ptr() != towers.query.table.weight.data_ptr()
    assert vectors(towers.candidate, ["moon"]).shape == vectors(towers.query, ["moon"]).shape


def test_labels_have_no_encoder_of_their_own():
    with pytest.raises(DataError, match="two towers need candidates that are texts"):
        build_towers("ngrams", data(labels=True), Plan(two_towers=True))


def test_towers_for_labels():
    towers = build_towers("ngrams", data(labels=True), Plan(seed=1))
    assert isinstance(towers.candidate, LabelTable)
    assert towers.candidate.names == ["moon", "sun", "aFire_place"]
    assert towers.similarity == "dot", "the label table brings vectors to length 1, and adds a bias"
    assert towers.candidate.biases.tolist() == [0, 0, 0]
    table = towers.candidate.vectors.detach()
    assert table.shape[1] == towers.query.get_embedding_dimension() >= 3
    torch.testing.assert_close(table @ table.T, torch.eye(3))
    assert torch.equal(table, build_towers("ngrams", data(labels=True), Plan(seed=1)).candidate.vectors)
    assert not torch.equal(table, build_towers("ngrams", data(labels=True), Plan(seed=2)).candidate.vectors)


def test_towers_of_many_labels(monkeypatch):
    """Too many to be orthogonal: a table as wide as they are many would not fit into memory."""
    monkeypatch.setattr("sigmax.encoders.build.ORTHOGONAL", 5)
    towers = build_towers("ngrams", things(labels=True))
    assert towers.query.dimension == 256
    assert towers.candidate.vectors.shape == (6, 256)
    assert towers.candidate.vectors.norm(dim=1).tolist() == pytest.approx([1] * 6, abs=0.2)


def test_rare_n_grams_of_labelled_texts_are_left_out():
    found = build_towers("ngrams", data(labels=True)).query.buckets
    assert torch.equal(found, NgramEmbedding.fit(CORPUS[:4], least=2).buckets)
    assert 0 < len(found) < len(NgramEmbedding.fit(CORPUS[:4]).buckets) / 2


def test_a_penalty_needs_no_cut_of_rare_n_grams(monkeypatch):
    found = build_towers("ngrams-linear", data(labels=True)).query.buckets
    assert torch.equal(found, NgramEmbedding.fit(CORPUS[:4]).buckets)
    # Weights for 100 n-grams and three labels: those seen once are too many.
    monkeypatch.setattr("sigmax.encoders.build.LINEAR_WEIGHTS", 300)
    found = build_towers("ngrams-linear", data(labels=True)).query.buckets
    assert torch.equal(found, NgramEmbedding.fit(CORPUS[:4], least=2).buckets)


def test_linear_towers():
    towers = build_towers("ngrams-linear", data(labels=True))
    assert towers.similarity == "dot"
    assert torch.equal(vectors(towers.candidate, ["moon", "sun", "aFire_place"]), torch.eye(3))
    assert not towers.candidate.vectors.requires_grad
    assert vectors(towers.query, ["the moon"]).tolist() == [[0, 0, 0]], "nothing is known before training"
    assert towers.query.table.weight.requires_grad


def test_linear_towers_need_labels():
    with pytest.raises(
        DataError, match=r"ngrams-linear needs fixed labels: data with columns text and labels\. Try ngrams, or"
    ):
        build_towers("ngrams-linear", data())


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_has_defaults(name):
    for labels in (True, False):
        settings = defaults_of(name, data(labels=labels))
        assert min(settings.epochs, settings.learning_rate, settings.logit_scale, settings.epsilon) > 0


# -- files ---------------------------------------------------------------------------------------


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(
        DataError, match=r"expected a sentence-transformers model folder, got one without modules\.json"
    ):
        load_encoder(tmp_path)


# -- encoders trained by others ------------------------------------------------------------------

WORDS = ["[UNK]", "moon", "sun", "fire", "place", "a"]
STATIC = torch.tensor([[0, 0], [127, 0], [0, -127], [64, 64], [1, 2], [10, 20]], dtype=torch.int8)


@pytest.fixture
def static(tmp_path) -> Path:
    """A folder as model2vec writes it: a table of token vectors, a tokenizer, no network."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder = tmp_path / "static"
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": STATIC}, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    return folder


def test_what_a_static_folder_is(static):
    assert is_static(static)
    assert defaults_of(str(static), data()) != defaults_of("some/transformer", data())
    (static / "config.json").write_text('{"model_type": "bert"}')
    assert not is_static(static)
    assert not is_static(static / "nowhere")


@pytest.mark.slow
def test_static_vectors_are_made_trainable(static):
    encoder = load_pretrained(str(static))
    (table,) = encoder.parameters()
    assert table.dtype == torch.float32
    assert table.requires_grad
    torch.testing.assert_close(table.detach(), STATIC.float() / 127)
    found = encoder(encoder.preprocess(["Moon sun", "fire"]))["sentence_embedding"]
    torch.testing.assert_close(found.detach(), torch.stack([STATIC[[1, 2]].float().mean(0), STATIC[3].float()]) / 127)
    optimizer = torch.optim.SGD(encoder.parameters(), 0.1)
    found.sum().backward()
    optimizer.step()
    changed = (table.detach() != STATIC.float() / 127).any(1)
    assert changed.tolist() == [False, True, True, True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_static_vectors_of_other_types_keep_their_size(static, dtype):
    save_file({"embeddings": STATIC.to(dtype)}, str(static / "model.safetensors"))
    (table,) = load_pretrained(str(static)).parameters()
    assert torch.equal(table.detach(), STATIC.float())


@pytest.mark.slow
def test_static_vectors_under_another_name(static):
    save_file({"vectors": STATIC}, str(static / "model.safetensors"))
    with pytest.raises(DataError, match=r"model\.safetensors: expected a tensor named embeddings, got vectors"):
        load_pretrained(str(static))


@pytest.mark.slow
def test_towers_of_a_static_folder(static):
    towers = build_towers(str(static), data())
    assert towers.candidate is None
    assert build_towers(str(static), data(), Plan(two_towers=True)).candidate is not None
    labels = build_towers(str(static), data(labels=True))
    assert isinstance(labels.candidate, LabelTable)
    expected = torch.nn.functional.normalize(
        torch.stack([STATIC[1], STATIC[2], STATIC[[5, 3, 4]].float().mean(0)]).float()
    )
    torch.testing.assert_close(labels.candidate.vectors.detach(), expected)
    assert labels.query.training


@pytest.mark.slow
def test_saved_static_vectors_come_back(static, tmp_path):
    encoder = load_pretrained(str(static))
    with torch.no_grad():
        next(encoder.parameters()).add_(0.25)
    save_encoder(encoder, tmp_path / "model")
    back = load_encoder(tmp_path / "model")
    assert torch.equal(vectors(back, ["moon sun", "a fire"]), vectors(encoder, ["moon sun", "a fire"]))
    assert all(parameter.requires_grad for parameter in back.parameters())


@pytest.mark.slow
def test_unknown_encoders(tmp_path):
    message = (
        r"Expected `encoder` to be ngrams, or a .* by name or path\. The encoder 'no-such-encoder' did not load: \w"
    )
    with pytest.raises(DataError, match=message):
        build_towers("no-such-encoder", data())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty' did not load: "):
        build_towers(str(tmp_path / "empty"), data())


# -- digits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alike", [True, False])
def test_digits_alike(alike, tmp_path):
    encoder = NgramEmbedding.fit(["room 7 at 19:30", "a table"], dimension=8, digits_alike=alike)
    encoder.save(str(tmp_path))
    for one in (encoder, NgramEmbedding.load(str(tmp_path))):
        a, b = one(one.preprocess(["room 7 at 19:30", "room 4 at 12:05"]))["sentence_embedding"]
        assert torch.equal(a, b) == alike


def test_an_encoder_saved_before_digits_were_alike_reads_them_as_they_are(tmp_path):
    encoder = NgramEmbedding.fit(["room 7"], dimension=8)
    encoder.save(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["digits_alike"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert NgramEmbedding.load(str(tmp_path)).digits_alike is False
