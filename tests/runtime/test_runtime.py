"""Exported models: the same answers, without PyTorch, or a refusal."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.commands import refused
from helpers.data import things
from helpers.models import calibrated, tiny
from helpers.servers import serving
from sigmax.calibration.calibrator import fit_calibrator
from sigmax.calibration.curves import Beta, Isotonic, Platt, PlattCandidate, Quadratic
from sigmax.encoders import FrozenEncoder, LabelTable, NgramEmbedding, PictureEncoder, StaticVectors
from sigmax.encoders.lexical import Lexical
from sigmax.errors import DataError
from sigmax.evaluation import calibrate, evaluate
from sigmax.losses import make_loss
from sigmax.model.dual_encoder import DualEncoder
from sigmax.runtime import export, load
from sigmax.training.settings import Settings
from sigmax.training.train import train

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TEXTS = ["moon light", "fire", "sun", "what is it?", "moon moon Moon", "a\u00a0sun", "日本 7pm", "x", "sun " * 3000]
#: Unit roundoff of float32.
EPS = 2.0**-24


def ngrams(**given):
    return calibrated(**given)


def shared_words(**given):
    model = calibrated(lexical=Lexical.fit(["moon", "sun", "fire"], stemmer="english"), **given)
    with torch.no_grad():
        model.lexical.theta += 0.3 * torch.randn(len(model.lexical.theta))
    return model


def none_of_these(**given):
    return calibrated(none_vector=torch.ones(8), **given)


def labels(encoder, similarity, biases=None, **given):
    names = ["moon", "sun", "fire"]
    width = encoder.get_embedding_dimension()
    loss = make_loss("softmax-average", logit_scale=3.0, logit_bias=0.0, similarity=similarity)
    table = LabelTable(names, torch.randn(3, width), biases=biases)
    model = DualEncoder(encoder, table, loss, candidates=names, **given).eval()
    right = np.random.default_rng(0).random((60, 3)) < 0.3
    logits = np.random.default_rng(1).normal(size=right.shape) + 2 * right
    model.calibrator = fit_calibrator(logits, right, names, method="platt-candidate")
    return model


def static(folder):
    return labels(StaticVectors.read(folder), "cosine")


def with_biases(encoder):
    return labels(encoder, "dot", biases=torch.tensor([0.3, -0.1, -0.8]))


def frozen(folder, linear):
    encoder = FrozenEncoder(StaticVectors.read(folder), linear=linear)
    encoder.learn([*things().queries], np.arange(20))
    if not linear:
        torch.nn.init.normal_(encoder.layer.weight)
    return labels(encoder, "dot" if linear else "cosine")


MODELS = {
    "n-grams": lambda _: ngrams(),
    "shared words": lambda _: shared_words(),
    "none of these": lambda _: none_of_these(),
    "not calibrated": lambda _: tiny(),
    "labels": lambda _: labels(
        NgramEmbedding.fit(["moon light", "sun", "fire"], dimension=8, digits_alike=True), "dot"
    ),
    "n-grams, labels with biases": lambda _: with_biases(NgramEmbedding.fit(["moon light", "sun"], dimension=8)),
    "static, labels with biases": lambda folder: with_biases(StaticVectors.read(folder)),
    "static": static,
    "frozen, linear": lambda folder: frozen(folder, True),
    "frozen, cosine": lambda folder: frozen(folder, False),
}


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGMAX_CACHE", str(tmp_path / "cache"))


# -- the same answers ----------------------------------------------------------------------------


def logit_error(model, texts):
    """Bound of what a logit may differ by, (n, m).

    Both sums go over at most k rows of the table and d coordinates, in whatever order: relative to the sums of absolute
    values each differs from the exact one by at most (k + d + 4) · 2⁻²⁴, and bringing to length 1 doubles that.
    """
    with torch.no_grad():
        size = model.logits(texts, model.candidates).values
    longest = 6000  # n-grams of the longest text
    return 4 * (longest + 64) * EPS * (model.loss.logit_scale.item() + np.abs(size))


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_same_answers(kind, static_folder, tmp_path):
    model = MODELS[kind](static_folder)
    path = tmp_path / "model.onnx"
    export(model, path)
    made = load(path)
    expected, got = (one.logits(TEXTS, model.candidates) for one in (model, made))
    assert (np.abs(expected.values - got.values) <= logit_error(model, TEXTS)).all()
    assert (expected.none is None) == (got.none is None)
    if expected.none is not None:
        np.testing.assert_allclose(expected.none, got.none, rtol=1e-4, atol=1e-4)
    rules = ["best-f1", "recall=0.5", "false-claims=0.5"] if model.calibrator else ["best-f1"]
    for rule in rules:
        for one, other in zip(
            model.match(TEXTS, rule=rule, top_k=2), made.match(TEXTS, rule=rule, top_k=2), strict=True
        ):
            assert [match.candidate_id for match in one] == [match.candidate_id for match in other]
            assert (one.any is None) == (other.any is None)
            assert one.any == pytest.approx(other.any, abs=1e-3)
            for match, same in zip(one, other, strict=True):
                assert match.presence == pytest.approx(same.presence, abs=1e-3)
                assert match.share == pytest.approx(same.share, abs=1e-3)
            assert one.decision == other.decision
            assert [match.candidate for match in one.accepted] == [match.candidate for match in other.accepted]
    assert [one.candidate for one in made.match("moon light")] == [one.candidate for one in model.match("moon light")]
    assert made.facts["export"]["int8"] is False


def test_what_is_unlike_training_is_told_as_well(tmp_path):
    """By the dev queries' own numbers, of which some float32 sums differ: one dev query more or less may be passed."""
    data = things()
    model = train(data, Settings(epochs=2), tell=False)
    export(model, tmp_path / "model.onnx")
    made = load(tmp_path / "model.onnx")
    texts = ["moon", "qqqq zzzz", *(data.queries[i] for i in data.split("test")[:10])]
    one_query = 1.5 / (len(model.calibrator.familiar.dev) + 1)
    for one, other in zip(model.match(texts), made.match(texts), strict=True):
        assert one.familiar_p is not None
        assert other.familiar_p == pytest.approx(one.familiar_p, abs=one_query)
        assert other.any == pytest.approx(one.any, abs=1e-3)


def test_int8_rows(tmp_path):
    """A row of a table is off by at most half a step, max |row| / 254, in each coordinate."""
    data = things()
    model = tiny(candidates=data.candidates, candidate_ids=data.candidate_ids)
    calibrate(model, data)
    done = export(model, tmp_path / "small.onnx", int8=True, data=data, worse=1.0)
    assert done.before.keys() == done.after.keys() == {"precision@1", "log_loss"}
    assert done.data == "things"
    network = onnx.load(tmp_path / "small.onnx").graph
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in network.initializer}
    (rows,) = [array for array in stored.values() if array.dtype == np.int8]
    (scales,) = [array for array in stored.values() if array.shape == rows.shape[:1]]
    table = model.query_encoder.table.weight.detach().numpy()
    assert np.abs(rows * scales[:, None] - table).max() <= np.abs(table).max() / 254 * (1 + 1e-5)
    made = load(tmp_path / "small.onnx")
    assert made.calibrator.record.queries == len(data.split("dev")), "rules decide by presences of what was written"
    assert evaluate(made, data, split="dev", draws=0)["log_loss"].value == pytest.approx(done.after["log_loss"])


CURVES = {
    "platt": Platt(0.7, -0.3, 0.4),
    "platt of the logit": Platt(1.3, 0.2),
    "beta": Beta(0.8, 0.1, 1.2, 0.7, -0.4, 0.3, 0.6),
    "quadratic": Quadratic((-2.0, -5.0), (3.0, 4.0), (0.2, 0.5), (1.1, 0.0), -0.7),
    "isotonic": Isotonic((-3.0, -1.0, -1.0, 0.5, 4.0), (-5.0, -2.0, -1.0, 0.0, 3.0), 0.9, 0.3),
    "isotonic of one knot": Isotonic((0.5,), (-1.0,)),
    "platt-candidate": PlattCandidate(1.0, 0.0, (0.5, 2.0, 0.0), (0.1, -1.0, 2.0), Platt(0.7, -0.3, 0.4)),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A network for each curve, with and without *none of these*."""
    made = {}
    for (name, curve), none in itertools.product(CURVES.items(), (False, True)):
        model = none_of_these() if none else ngrams()
        model.calibrator = replace(model.calibrator, calibration=curve)
        path = tmp_path_factory.mktemp("curves") / "model.onnx"
        export(model, path)
        made[name, none] = model, load(path)
    return made


@pytest.mark.slow
@given(
    name=st.sampled_from(list(CURVES)),
    none=st.booleans(),
    texts=st.lists(st.sampled_from(TEXTS[:-1]), min_size=1, max_size=4),
)
def test_presence_in_the_network(networks, name, none, texts):
    """The network's own shares and presences are those of the calibration, for whoever runs it without Python."""
    _, made = networks[name, none]
    feeds = {**made.reader.read(texts), "candidates": made.offer().vectors}
    share, presence = made.session.run(["share", "presence"], feeds)
    for rated, shares, presences in zip(made.rate(texts, made.offer()), share, presence, strict=True):
        np.testing.assert_allclose(shares, rated.shares, rtol=1e-5)
        np.testing.assert_allclose(presences, rated.presence, rtol=1e-5, atol=1e-7)
    kept = made.session.run(["share", "presence"], {**feeds, "with_presence": np.array(False)})
    assert [one.size for one in kept] == [0, 0]


# -- without PyTorch -----------------------------------------------------------------------------

WITHOUT = """
import sys
from sigmax.runtime import load
made = load(sys.argv[1])
print([one.candidate for one in made.match("moon light")])
heavy = "torch transformers sentence_transformers sklearn pyarrow PIL pandas onnx safetensors datasets typer"
print([name for name in [*heavy.split(), "scipy.special", "scipy.sparse"] if name in sys.modules])
"""


def test_no_pytorch(tmp_path):
    model = shared_words()
    export(model, tmp_path / "model.onnx")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "model.onnx")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer, heavy = done.stdout.splitlines()
    assert answer == str([one.candidate for one in model.match("moon light")])
    assert heavy == "[]"


@pytest.mark.parametrize("model", [shared_words, none_of_these], ids=["words", "none"])
def test_a_server_without_pytorch(model, tmp_path):
    """Whatever would import these fails."""
    export(model(), tmp_path / "model.onnx")
    for name in ("torch", "transformers", "sentence_transformers", "sklearn", "pyarrow", "pandas", "onnx"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('imported')\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with serving(tmp_path / "model.onnx", PYTHONPATH=path) as server:
        answer = server.match(["moon light", "fire"], rule="recall=0.5")
        assert len(answer["results"]) == 2
        for path in ("/explain", "/models", "/health", "/metrics", "/"):
            body = {"query": "moon light"} if path == "/explain" else None
            assert server.ask(path, body)[0] == 200


# -- refusals ------------------------------------------------------------------------------------


def test_what_cannot_be_exported(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=r"Expected `path` to end in \.onnx, got .*model\.bin"):
        export(tiny(), tmp_path / "model.bin")
    with pytest.raises(DataError, match="Models of pictures cannot be exported"):
        export(tiny(pictures=True), path)
    model = tiny()
    model.candidates, model.candidate_ids = [], []
    with pytest.raises(DataError, match="no candidates to export"):
        export(model, path)
    with pytest.raises(ValueError, match="Expected `data` with int8"):
        export(tiny(), path, int8=True)
    names = ["a", "b"]
    other = PictureEncoder("convnet", size=8, mode="L", augment="none", constant=False)
    model = DualEncoder(other, LabelTable(names, torch.zeros(2, other.get_embedding_dimension())), tiny().loss)
    model.candidates = model.candidate_ids = names
    with pytest.raises(DataError, match="The encoder PictureEncoder cannot be exported: n-grams, static vectors"):
        export(model.eval(), path)
    with pytest.raises(DataError, match=r"things: its candidates are not the model's"):
        export(ngrams(), path, data=things())
    (tmp_path / "model.npz").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"model\.npz: is there already, without model\.onnx"):
        export(tiny(), path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.npz"]
    assert (tmp_path / "model.npz").read_bytes() == b"mine"


def test_quality_that_is_lost(tmp_path, monkeypatch):
    """A table of the opposite sign: refused, with the numbers, and what was there stays."""
    data = things()
    model = train(data, Settings(epochs=2, loss="sigmoid"), tell=False)
    export(model, tmp_path / "model.onnx", data=data)
    before = [(tmp_path / name).read_bytes() for name in ("model.onnx", "model.npz")]
    from sigmax.runtime import networks as made

    monkeypatch.setattr(made, "_array", lambda tensor: -tensor.detach().numpy())
    with pytest.raises(
        DataError, match=r"Nothing was written: on dev of things, .*(precision@1|log_loss) 0?\.?\d.* before"
    ):
        export(model, tmp_path / "model.onnx", int8=True, data=data, worse=0.1)
    with pytest.raises(DataError, match="logits differ from the model's by up to"):
        export(model, tmp_path / "model.onnx")
    assert [(tmp_path / name).read_bytes() for name in ("model.onnx", "model.npz")] == before


def test_files_that_do_not_load(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(
        DataError, match=r"model\.onnx: expected a file, as `sigmax export DIR -o .*` writes it, got none"
    ):
        load(path)
    path.write_bytes(b"no network")
    with pytest.raises(DataError, match="not an ONNX file that runs here"):
        load(path)
    export(tiny(), path)
    whole = (tmp_path / "model.npz").read_bytes()
    (tmp_path / "model.npz").unlink()
    with pytest.raises(DataError, match=r"model\.npz: not there\. An exported model is two files"):
        load(path)
    (tmp_path / "model.npz").write_bytes(whole[:200])
    with pytest.raises(DataError, match=r"model\.npz: damaged .* Export the model again"):
        load(path)
    export(tiny(candidates=("moon", "sea")), tmp_path / "other.onnx")
    (tmp_path / "model.npz").write_bytes((tmp_path / "other.npz").read_bytes())
    with pytest.raises(DataError, match=r"model\.npz: does not belong to model\.onnx"):
        load(path)
    (tmp_path / "model.npz").write_bytes(whole)
    network = onnx.load(path)
    (props,) = network.metadata_props
    props.value = json.dumps({**json.loads(props.value), "format": 99})
    onnx.save(network, path)
    with pytest.raises(DataError, match="exported in format 99, this version of Sigmax reads up to 1"):
        load(path)
    del network.metadata_props[:]
    onnx.save(network, path)
    with pytest.raises(DataError, match="an ONNX file that `sigmax export` did not write"):
        load(path)


def test_what_is_asked(tmp_path):
    export(tiny(), tmp_path / "model.onnx")
    made = load(tmp_path / "model.onnx")
    assert made.match([]) == []
    for query in ("", " ", 3, None):
        with pytest.raises((ValueError, TypeError)):
            made.match(query)
    with pytest.raises(ValueError, match="was not calibrated"):
        made.match("moon", rule="recall=0.5")
    with pytest.raises(DataError, match="candidates are not those that the model was exported with"):
        made.logits(["moon"], ["moon"])


# -- the command line and the server -------------------------------------------------------------


def test_export_and_serve(sigmax, tmp_path):
    """End to end: a folder, a file, and the same answer over HTTP; the file is replaced under way."""
    data = things()
    model = tiny(candidates=data.candidates, candidate_ids=data.candidate_ids)
    calibrate(model, data)
    model.save(tmp_path / "things")
    file = tmp_path / "small.onnx"
    done = sigmax("export", tmp_path / "things", "-o", file)
    assert done.code == 0, done.err
    assert f"Written: {file}" in done.words
    refused(sigmax("export", tmp_path / "things", "-o", tmp_path / "small.txt"), 2, "expected a file ending in .onnx")
    refused(sigmax("export", tmp_path / "things", "-o", file, "--int8"), 2, "--int8 needs --data")
    with serving(file) as server:
        answer = server.match("moon", top_k=2)
        assert answer["model"] == "small"
        expected = model.match("moon", top_k=2)
        for one, other in zip(answer["results"][0]["matches"], expected, strict=True):
            assert one["candidate"] == other.candidate
            assert one["presence"] == pytest.approx(other.presence, abs=1e-5)
        status, told, _ = server.ask("/explain", {"query": "moon"})
        assert (status, told["items"][0]["calibrated"]) == (200, True)
        assert server.ask("/models")[1]["models"][0]["loss"] == "sigmoid"


@pytest.mark.slow  # PyTorch's exporter takes ten seconds
def test_a_transformer(tmp_path):
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from helpers.texts import WORDS, tokenizer
    from sentence_transformers import SentenceTransformer

    config = BertConfig(
        vocab_size=42, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    folder = tmp_path / "bert"
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer(), pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    encoder = SentenceTransformer(modules=[Transformer(str(folder)), Pooling(16, "mean")], device="cpu")
    model = DualEncoder(encoder, None, make_loss("sigmoid", logit_scale=5.0, logit_bias=-1.0), candidates=WORDS[:9])
    export(model.eval(), tmp_path / "model.onnx")
    made = load(tmp_path / "model.onnx")
    texts = ["w1 w2", "w3", "w4 w5 w6 w7 w8", "w1 " * 40, "unknown"]
    expected, got = (one.logits(texts, WORDS[:9]).values for one in (model, made))
    np.testing.assert_allclose(got, expected, atol=2e-4)
