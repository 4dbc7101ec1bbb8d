"""The base class of encoders: its registry, its files, and encoders defined outside the package."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.feature_extraction.text import HashingVectorizer
from torch import nn

import sigmax
from helpers.data import things
from sigmax.encoders import ENCODERS, FrozenEncoder, LabelTable, Module, NgramEmbedding, load_encoder, save_encoder
from sigmax.encoders.build import build_towers
from sigmax.encoders.hashing import BUCKETS, NgramFeatures
from sigmax.encoders.plan import Defaults, Encoder, Towers
from sigmax.encoders.static import StaticVectors
from sigmax.errors import DataError

# -- an encoder from outside the package ----------------------------------------------------------


class Letters(Module):
    """text -> a trained linear map of how often each letter occurs."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(26, width)

    def preprocess(self, inputs, **_):
        counts = [[text.lower().count(chr(97 + letter)) for letter in range(26)] for text in inputs]
        return {"counts": torch.tensor(counts, dtype=torch.float32)}

    def forward(self, features, **_):
        features["sentence_embedding"] = self.layer(features["counts"])
        return features

    def get_embedding_dimension(self):
        return self.layer.out_features

    def config(self):
        return {"width": self.layer.out_features}


@pytest.fixture
def letters(monkeypatch):
    """Registered for one test."""
    entry = Encoder(
        name="letters",
        describes="how often each letter occurs",
        build=lambda data, plan: Towers(Letters(16), None, "cosine"),
        labels=Defaults(epochs=1, learning_rate=0.01, logit_scale=10.0),
        texts=Defaults(epochs=2, learning_rate=0.01, logit_scale=10.0),
    )
    monkeypatch.setitem(ENCODERS, "letters", entry)


def test_an_encoder_from_outside_trains_saves_and_loads(letters, tmp_path):
    data = things()
    model = sigmax.train(data, sigmax.Settings(encoder="letters"))
    model.save(tmp_path / "model")
    loaded = sigmax.load(tmp_path / "model")
    assert isinstance(loaded.query_encoder, Letters)
    for side, items in (("query", data.queries[:4]), ("candidate", data.candidates)):
        assert torch.equal(loaded.encode(items, side), model.encode(items, side))


def test_an_encoder_from_outside_is_named_in_messages(letters):
    with pytest.raises(DataError, match=r"Expected `encoder` to be ngrams, letters, or .*'letter' did not load"):
        build_towers("letter", things())


def test_a_type_that_is_not_imported(tmp_path):
    save_encoder(Letters(2), tmp_path / "model")
    listing = tmp_path / "model" / "modules.json"
    modules = json.loads(listing.read_text())
    assert modules[0]["type"] == f"{__name__}.Letters"
    modules[0]["type"] = "os.nowhere.Encoder"
    listing.write_text(json.dumps(modules))
    with pytest.raises(DataError, match=r"the encoder is a os\.nowhere\.Encoder\. Import os\.nowhere before loading"):
        load_encoder(tmp_path / "model")
    for name in ("sigmax.encoders.labels.more.Encoder", "sigmax.encoders.\\ud800.Encoder"):
        listing.write_text(f'[{{"type": "{name}"}}]')
        with pytest.raises(DataError, match="which this version of Sigmax does not have"):
            load_encoder(tmp_path / "model")
    assert "os.nowhere" not in sys.modules, "a folder cannot have anything imported"


# -- files ----------------------------------------------------------------------------------------


def test_types_that_are_saved_keep_their_paths():
    for module, name in (("ngrams", "NgramEmbedding"), ("labels", "LabelTable"), ("images", "PictureEncoder")):
        assert f"sigmax.encoders.{module}.{name}" in Module.types
    assert "sigmax.encoders.frozen.FrozenEncoder" in Module.types


def test_weights_that_do_not_belong_to_the_module(tmp_path):
    save_encoder(LabelTable(["a"], torch.ones(1, 2)), tmp_path / "model")
    save_file({"vectors": torch.ones(1, 2), "more": torch.ones(1)}, str(tmp_path / "model" / "model.safetensors"))
    with pytest.raises(DataError, match=r"expected the tensors vectors, got (more, vectors|vectors, more)"):
        load_encoder(tmp_path / "model")


def test_parts_lie_in_folders_of_their_own(tmp_path):
    trunk = NgramEmbedding.fit(["moon", "sun"], dimension=4)
    encoder = FrozenEncoder(trunk, linear=False)
    with torch.no_grad():
        encoder.layer.weight.add_(1)
        encoder.mean.add_(0.5)
    save_encoder(encoder, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "trunk", "config.json", "model.safetensors", "modules.json"
    }  # fmt: skip
    back = load_encoder(tmp_path / "model")
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in encoder.state_dict().items())
    assert isinstance(back.trunk, NgramEmbedding)


def test_static_vectors_are_those_of_sentence_transformers(static_folder, tmp_path):
    """The same features and vectors, and each reads what the other wrote."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from sentence_transformers import SentenceTransformer

    ours = StaticVectors.read(static_folder)
    theirs = StaticEmbedding(ours.tokenizer, ours.embedding.weight.detach().clone())
    texts = ["the moon", "", "sun sun nothing"]
    for mine, other in ((ours(ours.preprocess(texts)), theirs(theirs.preprocess(texts))),):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in mine)
    save_encoder(ours, tmp_path / "ours")
    assert torch.equal(
        SentenceTransformer(str(tmp_path / "ours"), device="cpu")[0].embedding.weight, theirs.embedding.weight
    )
    SentenceTransformer(modules=[theirs], device="cpu").save(str(tmp_path / "theirs"), create_model_card=False)
    back = load_encoder(tmp_path / "theirs")
    assert isinstance(back, StaticVectors)
    assert torch.equal(back.embedding.weight, ours.embedding.weight)


# -- n-grams --------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
@example(["A  b\t\tc\u00a0d", "É\u0307 ẞ İ x2", "a", " ", "1234567890 " * 3])
def test_buckets_are_those_of_scikit_learns_hashing_vectorizer(texts):
    shared = {"n_features": BUCKETS, "alternate_sign": False, "norm": None}
    words = HashingVectorizer(analyzer="word", token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 2), **shared)
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared)
    rows, buckets, frequency = NgramFeatures(np.empty(0, np.int64), np.empty(0, np.float32)).counts(texts)
    found = np.zeros((len(texts), 2 * BUCKETS), np.int32)
    found[rows, buckets] = frequency
    np.testing.assert_array_equal(found[:, :BUCKETS], words.transform(texts).toarray())
    np.testing.assert_array_equal(found[:, BUCKETS:], characters.transform(texts).toarray())


# -- imports --------------------------------------------------------------------------------------

DECLARATIONS = """
import sys, types
sigmax = types.ModuleType("sigmax"); sigmax.__path__ = sys.argv[1:]; sys.modules["sigmax"] = sigmax
from sigmax.encoders import AUGMENTATIONS, ENCODERS, HEADS
assert len(ENCODERS) >= 4 and AUGMENTATIONS and HEADS and all(entry.describes for entry in ENCODERS.values())
heavy = "torch numpy transformers sentence_transformers sklearn scipy pyarrow PIL safetensors"
print([name for name in heavy.split() if name in sys.modules])
"""

LOADING = """
import sys
from pathlib import Path
from sigmax.encoders.module import load_encoder
for folder in sys.argv[1:]:
    encoder = load_encoder(Path(folder))
    encoder(encoder.preprocess(["the moon"]))
heavy = "transformers sentence_transformers sklearn pyarrow pandas datasets"
print([name for name in heavy.split() if name in sys.modules])
"""


def fresh(code, *arguments):
    """What a new interpreter prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_declarations_import_nothing_heavy():
    assert fresh(DECLARATIONS, *sigmax.__path__) == "[]"


def test_loading_imports_only_what_the_encoder_needs(static_folder, tmp_path):
    save_encoder(NgramEmbedding.fit(["the moon"], dimension=2), tmp_path / "ngrams")
    save_encoder(StaticVectors.read(static_folder), tmp_path / "static")
    save_encoder(LabelTable(["the moon"], torch.ones(1, 2)), tmp_path / "labels")
    assert fresh(LOADING, *(tmp_path / name for name in ("ngrams", "static", "labels"))) == "[]"
