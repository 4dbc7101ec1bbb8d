import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.data import things
from helpers.models import calibrated, tiny
from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.curves import Platt, PlattCandidate
from sigmax.encoders import LabelTable
from sigmax.errors import DataError, UnknownNameError
from sigmax.model import dual_encoder
from sigmax.model import folder as folders
from sigmax.model.dual_encoder import load
from sigmax.model.folder import FORMAT
from sigmax.model.matches import Match, Matches, answer
from sigmax.positives import Positives
from sigmax.training.settings import Settings
from sigmax.training.train import train

KINDS = {
    "texts": ({}, Settings(epochs=2)),
    "two towers": ({}, Settings(epochs=2, loss="sigmoid", two_towers=True)),
    "labels": ({"labels": True}, Settings(encoder="ngrams", epochs=2, loss="sigmoid")),
    "linear": ({"labels": True}, Settings(epochs=2, loss="softmax-any", encoder="ngrams-linear")),
    "static": ({}, Settings(epochs=2, loss="softmax-average", encoder="static")),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture(scope="module")
def trained(static_folder):
    made = {}

    def model(kind):
        if kind not in made:
            data, settings = KINDS[kind]
            encoder = str(static_folder) if settings.encoder == "static" else settings.encoder
            made[kind] = train(things(**data), Settings(**{**settings.__dict__, "encoder": encoder}), tell=False)
        return made[kind]

    return model


# -- files ---------------------------------------------------------------------------------------


@kinds
def test_round_trip(kind, trained, tmp_path):
    model = trained(kind)
    folder = tmp_path / "deep" / "model"
    model.save(folder)
    other = load(str(folder))
    queries = ["moon", "the forest by night", "xyzzy", "SOLAR warmth!", "水"]
    assert np.array_equal(
        other.logits(queries, other.candidates).values, model.logits(queries, model.candidates).values
    )
    assert other.match(queries, top_k=6) == model.match(queries, top_k=6)
    assert (other.calibration, other.threshold) == (model.calibration, model.threshold)
    assert other.facts == model.facts
    assert (other.candidates, other.candidate_ids) == (model.candidates, model.candidate_ids)
    assert other.loss.objective is model.loss.objective
    assert (other.loss.logit_bias is None) == (kind in ("texts", "linear", "static"))
    assert other.training is False
    other.save(folder)  # over itself
    assert load(folder).match(queries) == model.match(queries)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


ALONE = """
    import sys
    from pathlib import Path
    import sigmax

    models = [sigmax.load(folder) for folder in sys.argv[1:]]
    for folder in sys.argv[1:]:
        for file in Path(folder).rglob("*.safetensors"):
            file.write_bytes(b"")  # in place; safetensors would have the weights in the file's own pages
    for model in models:
        print(len(model.match("the forest by night", top_k=2)))
"""


@pytest.mark.slow
def test_a_loaded_model_needs_its_files_no_more(trained, tmp_path):
    """Else the system ends the process (SIGBUS) that reads a weight."""
    folders = [tmp_path / kind for kind in KINDS]
    for kind, folder in zip(KINDS, folders, strict=True):
        trained(kind).save(folder)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ALONE), *map(str, folders)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"] * len(KINDS)


def test_nothing_but_plain_files(trained, tmp_path):
    trained("texts").save(tmp_path / "model")
    endings = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert endings == {".json", ".jsonl", ".safetensors", ".md"}
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert len(modes) == 1  # whoever may read one of them may read all


@pytest.mark.parametrize(
    "odd", ["a\u2028b", "a\x85b", "a\nb", 'a"b\\', "a\x1cb", "\U0001f315 日本", "[red]a[/red]", " a ", "ﬀ\u200d"]
)
def test_candidates_of_any_characters(odd, tmp_path):
    model = tiny(["moon", odd], candidate_ids=["1", f"id of {odd}"])
    model.save(tmp_path / "model")
    other = load(tmp_path / "model")
    assert other.candidates == ["moon", odd]
    assert other.candidate_ids == ["1", f"id of {odd}"]
    assert other.match("moon") == model.match("moon")


def test_candidate_ids(tmp_path):
    model = tiny(["moon", "moon"], candidate_ids=["a", "b"])
    assert {match.candidate_id for match in model.match("moon")} == {"a", "b"}
    assert [match.candidate_id for match in tiny().match("moon", top_k=1)] == ["moon"]


def edit(**changes):
    def damage(folder):
        about = json.loads((folder / "sigmax.json").read_text()) | changes
        (folder / "sigmax.json").write_text(json.dumps({key: value for key, value in about.items() if value != "-"}))

    return damage


def write(name, text):
    def damage(folder):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


def remove(name):
    def damage(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def halve(name):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=name)
        for name, damage in {
            "about empty": write("sigmax.json", ""),
            "about half": halve("sigmax.json"),
            "about list": write("sigmax.json", "[]"),
            "about not UTF-8": write("sigmax.json", b'{"format": "\xff"}'),
            "format": edit(format="one"),
            "loss": edit(loss="hinge"),
            "no loss": edit(loss="-"),
            "similarity": edit(similarity="euclid"),
            "scale": edit(logit_scale=-1.0),
            "scale null": edit(logit_scale=None),
            "calibrator": edit(calibrator={"slope": 1.0}),
            "no calibrator": edit(calibrator="-"),
            "dev half": halve("dev.safetensors"),
            "no two_encoders": edit(two_encoders="-"),
            "two_encoders": edit(two_encoders=True),
            "no facts": edit(facts="-"),
            "no candidates": remove("candidates.jsonl"),
            "candidates half": halve("candidates.jsonl"),
            "candidates without id": write("candidates.jsonl", '{"text": "moon"}\n'),
            "candidates of numbers": write("candidates.jsonl", "[1]\n"),
            "candidates not UTF-8": write("candidates.jsonl", b'{"_id": "1", "text": "\xff"}\n'),
            "no encoder": remove("query_encoder"),
            "no modules": remove("query_encoder/modules.json"),
            "modules empty": write("query_encoder/modules.json", "[]"),
            "modules half": halve("query_encoder/modules.json"),
            "no config": remove("query_encoder/config.json"),
            "config half": halve("query_encoder/config.json"),
            "no weights": remove("query_encoder/model.safetensors"),
            "weights half": halve("query_encoder/model.safetensors"),
            "weights empty": write("query_encoder/model.safetensors", ""),
        }.items()
    ],
)
def test_damage_is_reported(damage, tmp_path):
    calibrated().save(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "model")
    assert str(tmp_path / "model") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_newer_format(tmp_path):
    tiny().save(tmp_path / "model")
    edit(format=FORMAT + 1)(tmp_path / "model")
    with pytest.raises(DataError, match=f"format {FORMAT + 1}, .* reads up to {FORMAT}. Upgrade"):
        load(tmp_path / "model")


def test_no_model_there(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, got in (("nothing", "got nothing"), ("file", "got a file"), ("folder", "an empty or other folder")):
        with pytest.raises(DataError, match=got) as caught:
            load(tmp_path / name)
        assert f"sigmax train DATA -o {tmp_path / name}" in str(caught.value)


# -- writing that fails --------------------------------------------------------------------------


posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits and signals")


@contextlib.contextmanager
def files_of_at_most(size):
    """As on a full disk: writing beyond the size fails."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@posix
@pytest.mark.parametrize("size", [0, 100, 20_000])  # room for nothing, for small files, for all but the candidates
def test_a_full_disk_leaves_the_previous_model(size, tmp_path):
    folder = tmp_path / "model"
    tiny().save(folder)
    expected = load(folder).match("moon")
    bigger = tiny(["moon", "sun", "x" * 30_000])
    with files_of_at_most(size), pytest.raises(OSError, match=r"."):
        bigger.save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert load(folder).match("moon") == expected
    with files_of_at_most(size), pytest.raises(OSError, match=r"."):
        bigger.save(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_any_failure_leaves_the_previous_model(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    tiny().save(folder)
    expected = load(folder).match("moon")
    rename = Path.rename
    for failing in range(2):
        calls = []

        def fails(path, target, failing=failing, calls=calls):
            calls.append(path)
            if len(calls) == failing + 1:
                raise OSError(28, "No space left on device")
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", fails)
            with pytest.raises(OSError, match="No space left"):
                tiny(["other"]).save(folder)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert load(folder).match("moon") == expected


KILLS = """
    import os, shutil, signal, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from sigmax import files
    from sigmax import model
    from sigmax.model import folder as files_of_models
    from sigmax.encoders import NgramEmbedding
    from sigmax.losses import make_loss

    def tiny(candidates):
        encoder = NgramEmbedding.fit(candidates, dimension=8)
        loss = make_loss("sigmoid", logit_scale=5.0, logit_bias=-1.0)
        return model.DualEncoder(encoder, None, loss, candidates=candidates)

    def killed_before(name, owner, number):
        original, calls = getattr(owner, name), []
        def wrapped(*args, **kwargs):
            calls.append(args)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)
        setattr(owner, name, wrapped)

    folder = Path(sys.argv[1])
    points = [
        ("save_encoder", files_of_models, 1),
        ("_sync", files, 1),
        ("chmod", Path, 1),
        ("rename", Path, 1),  # the previous one aside
        ("rename", Path, 2),  # the new one into its place
        ("rmtree", shutil, 2),  # what was aside goes
    ]
    for point in points:
        shutil.rmtree(folder, ignore_errors=True)
        for left in folder.parent.glob(".*"):
            shutil.rmtree(left)
        tiny(["old"]).save(folder)
        child = os.fork()
        if not child:
            killed_before(point[0], point[1], point[2])
            tiny(["new"]).save(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = model.load(folder).candidates[0]
        hidden = [path.name for path in folder.parent.glob(".*.new-*")]
        tiny(["newest"]).save(folder)
        after = model.load(folder).candidates[0]
        print(point[0], point[2], os.WTERMSIG(status), found, after, len(hidden))
"""


@posix
@pytest.mark.slow
def test_a_kill_leaves_the_previous_model(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLS), str(tmp_path / "model")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "save_encoder 1 9 old newest 1",
        "_sync 1 9 old newest 1",
        "chmod 1 9 old newest 1",
        "rename 1 9 old newest 1",
        "rename 2 9 old newest 1",
        "rmtree 2 9 new newest 0",
    ]


# -- many candidates -----------------------------------------------------------------------------


@pytest.fixture
def many(monkeypatch):
    """Six candidates are many here."""
    for module in (dual_encoder, folders):
        monkeypatch.setattr(module, "FEW", 5)
    names = ["moon", "sun", "fire", "sea\u2028", "ein größerer", "tree"]
    model = calibrated(candidates=names, candidate_ids=[f"c{j}" for j in range(6)])
    model.calibrator = replace(model.calibrator, calibration=Platt(1.0, -1.0))  # so many are told apart by none
    return model


def test_vectors_of_many_candidates_are_made_once(many, tmp_path, monkeypatch):
    expected = many.match(["moon light", "größer"], top_k=6)
    many.save(tmp_path / "model")
    assert {"candidates.parquet", "candidates.safetensors"} <= {path.name for path in (tmp_path / "model").iterdir()}
    about = json.loads((tmp_path / "model" / "sigmax.json").read_text())
    assert (about["format"], about["calibrator"]["candidate_ids"]) == (3, [])
    again = load(tmp_path / "model")
    assert (again.candidates, again.candidate_ids) == (many.candidates, many.candidate_ids)
    sides = []
    vectors = again.vectors
    monkeypatch.setattr(again, "vectors", lambda items, side="query": sides.append(side) or vectors(items, side))
    assert again.match(["moon light", "größer"], top_k=6) == expected
    assert again.logits(["moon"], list(again.candidates)).values == pytest.approx(
        many.logits(["moon"], many.candidates).values
    )
    assert sides == ["query", "query"], "no candidate is encoded again"
    again.candidates, again.candidate_ids = [*again.candidates[:-1], "comet"], again.candidate_ids
    assert again.match("moon", top_k=6).best[-1].candidate in again.candidates
    assert sorted(sides[2:]) == ["candidate", "query"], "others are"


def test_training_forgets_vectors(many):
    before = many.match("moon", top_k=6)
    assert many.match("moon", top_k=6) == before
    with torch.no_grad():
        for parameter in many.query_encoder.parameters():
            parameter.neg_()
            parameter[0] += 1
    assert many.match("moon light", top_k=6).best != before.best
    many.train()
    many.eval()
    expected = many.loss.logits(many.encode(["moon"]), many.encode(many.candidates, "candidate"))
    assert many.logits(["moon"], many.candidates).values == pytest.approx(expected.detach().numpy(), abs=1e-5)


@pytest.mark.parametrize("rows", [5, 7])
def test_vectors_that_do_not_fit_their_ids(many, tmp_path, rows):
    many.save(tmp_path / "model")
    save_file({"vectors": torch.zeros(rows, 8)}, str(tmp_path / "model" / "candidates.safetensors"))
    with pytest.raises(DataError, match=rf"damaged \(ValueError: \({rows}, 8\) vectors of 6 candidates"):
        load(tmp_path / "model")


def set_in(path, keys, value):
    """Change one value of a JSON file."""
    whole = json.loads(path.read_text())
    at = whole
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("sigmax.json", ["facts"], 0.5),
        ("sigmax.json", ["logit_scale"], 10**400),
        ("sigmax.json", ["calibrator", "calibration"], 1),
        ("sigmax.json", ["calibrator", "candidate_ids", 0], {"a": 1}),
        ("query_encoder/modules.json", [0, "type"], True),
        ("query_encoder/config.json", ["characters"], [2]),
        ("query_encoder/config.json", ["characters", 1], "5"),
        ("query_encoder/config.json", ["words", 1], 2**70),
        ("query_encoder/config.json", ["words", 0], 0.5),
    ],
    ids=str,
)
def test_a_damaged_value_is_found_at_loading(tmp_path, file, keys, value):
    calibrated().save(tmp_path / "model")
    set_in(tmp_path / "model" / file, keys, value)
    with pytest.raises(DataError, match="the model folder is damaged"):
        load(tmp_path / "model")


def test_damaged_labels_are_found_at_loading(tmp_path):
    for names in (["moon", None, "fire"], ["moon"]):
        model = tiny()
        model.candidate_encoder = LabelTable(["moon", "sun", "fire"], torch.zeros(3, 8))
        model.save(tmp_path / "model")
        set_in(tmp_path / "model" / "candidate_encoder" / "config.json", ["names"], names)
        with pytest.raises(DataError, match="the model folder is damaged"):
            load(tmp_path / "model")


# -- matching ------------------------------------------------------------------------------------


def test_match(trained):
    model = trained("two towers")
    logits = model.logits(["the sky"], model.candidates).values[0].astype(float)
    matches = model.match("the sky", top_k=4)
    assert isinstance(matches, Matches)
    assert len(matches) == 4
    assert matches.query == "the sky"
    best = np.argsort(-logits)
    shares = np.exp(logits) / np.exp(logits).sum()
    for match, j in zip(matches, best, strict=False):
        assert isinstance(match, Match)
        assert match.candidate == match.candidate_id == model.candidates[j]
        assert match.logit == pytest.approx(logits[j])
        assert match.share == pytest.approx(shares[j])
        assert match.presence == pytest.approx(model.calibration.presence(logits)[j])
    assert matches[0].as_dict() == {
        name: getattr(matches[0], name) for name in ("candidate", "candidate_id", "logit", "share", "presence")
    }
    assert matches[:2] == matches.best[:2]
    assert matches[0] in matches
    assert [match.candidate for match in matches.accepted] == [
        match.candidate for match in matches if match.presence >= model.threshold
    ]


@kinds
def test_shares_add_up_to_one(kind, trained):
    matches = trained(kind).match("night", top_k=1000)
    assert len(matches) == 6
    assert sum(match.share for match in matches) == pytest.approx(1, abs=1e-12)
    assert [match.presence for match in matches] == sorted((match.presence for match in matches), reverse=True)


def test_order(trained):
    """By presence, or by logit where that is asked for, or there is no presence; the accepted ones likewise."""
    model = trained("texts")
    before = model.calibrator
    scales, biases = (1.0, 0.5, 2.0, 0.1, 1.5, 2.0), (3.0, -4.0, 1.0, -1.0, 0.0, 2.0)
    model.calibrator = Calibrator(PlattCandidate(1.0, 0.0, scales, biases), tuple(model.candidate_ids), threshold=0.3)
    try:
        by_presence, by_logit = (model.match("night", top_k=6, order=order) for order in ("presence", "logit"))
        for found, key in ((by_presence, "presence"), (by_logit, "logit")):
            for some in (found.best, found.accepted):
                values = [getattr(match, key) for match in some]
                assert values == sorted(values, reverse=True)
        assert by_presence.best != by_logit.best
        assert set(by_presence.accepted) == set(by_logit.accepted)
        assert [match for match in by_presence if match in by_presence.accepted] == list(by_presence.accepted)
        assert model.match("night", top_k=6) == by_presence
        with pytest.raises(UnknownNameError, match=r"`order`.*logit, presence.*'share'"):
            model.match("night", order="share")
        model.calibrator = None
        assert [match.candidate for match in model.match("night", top_k=6)] == [one.candidate for one in by_logit]
    finally:
        model.calibrator = before


def test_one_or_several(trained):
    model = trained("texts")
    texts = ["night", "a wave", "night"]
    several = model.match(texts, top_k=3)
    assert [matches.query for matches in several] == texts
    # The same text in another row of a block: the same order, logits but for the rounding of a product.
    assert [match.candidate for match in several[0]] == [match.candidate for match in several[2]]
    for text, matches in zip(texts, several, strict=True):
        alone = model.match(text, top_k=3)
        assert [match.candidate for match in alone] == [match.candidate for match in matches]
        assert [match.logit for match in alone] == pytest.approx([match.logit for match in matches], rel=1e-5)
    assert isinstance(model.match(["night"]), list)
    assert [matches.best for matches in model.match(tuple(texts), top_k=3)] == [matches.best for matches in several]
    assert model.match([]) == []


def test_ties_keep_the_order_of_candidates():
    model = tiny(["sun", "moon", "sun", "sun"], candidate_ids=["a", "b", "c", "d"])
    assert [match.candidate_id for match in model.match("sun")] == ["a", "c", "d", "b"]


def test_many_texts_in_blocks(trained):
    model = trained("texts")
    texts = [f"{word} {number}" for number in range(300) for word in ("night", "wave", "song", "leaf")]
    whole = model.logits(texts, model.candidates).values
    assert whole.shape == (1200, 6)
    assert np.allclose(whole[1100:1103], model.logits(texts[1100:1103], model.candidates).values, rtol=0, atol=1e-4)
    seen = np.zeros_like(whole)
    tiles = model.tiles(model.vectors(texts), model.vectors(model.candidates, "candidate"), height=7, width=4)
    for rows, columns, logits in tiles:
        assert (seen[rows, columns] == 0).all()
        seen[rows, columns] = logits
    assert np.allclose(whole, seen, rtol=0, atol=1e-4)


def test_not_calibrated(tmp_path):
    model = tiny()
    assert model.calibration is None
    model.save(tmp_path / "model")
    for one in (model, load(tmp_path / "model")):
        matches = one.match("moon")
        assert {match.presence for match in matches} == {None}
        assert matches.decision is matches.accepts(matches[0]) is None
        assert matches.accepted == ()
        about = matches.as_dict()
        assert about["accepted"] is about["accepted_count"] is about["matches"][0]["accepted"] is None


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_empty_text(empty):
    for text in (empty, ["moon", empty]):
        with pytest.raises(ValueError, match="Expected a text to match"):
            tiny().match(text)
    with pytest.raises(ValueError, match="Expected a text to match, got None"):
        tiny().match(["moon", None])


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_of_nothing(top_k):
    with pytest.raises(ValueError, match=f"`top_k` of at least 1, got {top_k}"):
        tiny().match("moon", top_k=top_k)


def test_no_candidates():
    with pytest.raises(ValueError, match="no candidates to offer"):
        tiny(()).match("moon")


def test_new_candidates(trained):
    model = trained("texts")
    assert model.logits(["night"], ["moonlight", "sunlight"]).values.shape == (1, 2)
    with pytest.raises(DataError, match=r"Label 'moons' has no vector.*Did you mean 'moon'"):
        trained("labels").logits(["night"], ["sun", "moons"])


def test_logits_that_are_not_finite():
    model = tiny()
    with torch.no_grad():
        model.query_encoder.table.weight[:] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        model.match("moon")


def test_using_a_model_leaves_its_mode_alone():
    for mode in (True, False):
        model = tiny().train(mode)
        model.match("moon")
        assert model.training is mode


def test_gradients_reach_both_towers(trained):
    model = trained("labels")
    assert isinstance(model.candidate_encoder, LabelTable)
    model.zero_grad()
    from sigmax.positives import Positives

    queries, candidates = model.preprocess(["night"], "query"), model.preprocess(["moon", "sun"], "candidate")
    model(queries, candidates, Positives([0], [0], (1, 2)))["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@kinds
def test_any_is_that_of_the_calibrator(kind, trained):
    model = trained(kind)
    matches = model.match("night", top_k=1)
    everything = model.match("night", top_k=1000)
    logits = model.logits(["night"], model.candidates)
    expected = model.calibrator.any(logits.values, model.candidate_ids, novelty=logits.novelty)[0]
    assert matches.any == expected == everything.any
    assert 0 <= matches.any <= 1
    assert tiny().match("night").any is None


def test_as_json():
    model = calibrated()
    model.calibrator = replace(model.calibrator, record=None, threshold=0.0)
    found = model.match(["moon", "fire"], top_k=2)
    about = json.loads(json.dumps(answer(found), allow_nan=False))
    assert about["rule"] == json.loads(json.dumps(found[0].decision.as_dict())) | {"promise": None}
    assert [result["query"] for result in about["results"]] == ["moon", "fire"]
    for result, matches in zip(about["results"], found, strict=True):
        assert result == matches.as_dict()
        assert (result["any"], result["accepted_count"]) == (matches.any, 3)
        assert result["accepted"] == [match.as_dict() for match in matches.accepted]
        assert result["matches"] == [match.as_dict() | {"accepted": True} for match in matches]
    # Rated in the same block: products over another number of rows may round otherwise.
    rated, _ = model.rate(["moon", "fire"], model.offer())
    few = rated.matches("moon", 1, found[0].decision, most_accepted=2)
    assert (len(few), len(few.accepted), few.accepted_count) == (1, 2, 3)
    assert few.accepted == found[0].accepted[:2]
    assert answer([]) == {"rule": None, "results": []}


# -- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["best-f1", "precision=0.5", "recall=0.5", "false-claims=0.5", "contains=0.5"])
def test_rules(rule, tmp_path):
    model = calibrated()
    model.save(tmp_path / "model")
    expected = model.calibrator.decide(rule)
    for one in (model, load(tmp_path / "model")):
        matches = one.match("moon light", top_k=1, rule=rule)
        assert matches.decision == expected
        everything = one.match("moon light", top_k=3)
        assert list(matches.accepted) == [m for m in everything if m.presence >= expected.threshold]
        assert len(matches) == 1


def test_accepts_more_than_was_asked_for():
    model = calibrated()
    model.calibrator = replace(model.calibrator, record=None, threshold=0.0)
    matches = model.match("moon", top_k=1)
    assert (len(matches), len(matches.accepted)) == (1, 3)


def test_wrong_rules():
    model = calibrated()
    with pytest.raises(ValueError, match=r"Expected a level for precision"):
        model.match("moon", rule="precision")
    with pytest.raises(UnknownNameError, match="Did you mean 'precision'"):
        model.match("moon", rule="precison=0.9")
    with pytest.raises(ValueError, match=r"not calibrated, so it cannot accept by recall=0.9"):
        tiny().match("moon", rule="recall=0.9")
    model.calibrator = replace(model.calibrator, record=None)
    assert model.match("moon").decision.threshold == model.threshold
    with pytest.raises(DataError, match=r"without the record of its dev split.*sigmax calibrate"):
        model.match("moon", rule="recall=0.9")


def test_candidates_added_after_calibration():
    model = calibrated()
    shared = PlattCandidate(1.0, -1.0, (1.0, 1.0, 1.0), (0.0, 5.0, -5.0))
    model.calibrator = replace(model.calibrator, calibration=shared)
    before = {match.candidate: match.presence for match in model.match("moon", top_k=3)}
    model.candidates = model.candidate_ids = ["fire", "ash", "moon"]
    after = {match.candidate: match for match in model.match("moon", top_k=3)}
    assert after["moon"].presence == pytest.approx(before["moon"])
    assert after["fire"].presence == pytest.approx(before["fire"])
    assert after["ash"].presence == pytest.approx(1 / (1 + np.exp(1.0 - after["ash"].logit)))


DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", ["model-format-1", "model-format-2"])
def test_folders_of_older_versions(name, tmp_path):
    """As Sigmax of that time wrote them, with the numbers it gave."""
    expected = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    shutil.copytree(DATA / name, tmp_path / "old")
    old = load(tmp_path / "old")
    old.save(tmp_path / "new")
    for model in (old, load(tmp_path / "new")):
        queries = expected["queries"]
        logits = model.logits(queries, model.candidates)
        assert logits.values == pytest.approx(np.array(expected["logits"]), abs=1e-5)
        found = model.match(queries, top_k=3)
        presences = [
            [{match.candidate: match.presence for match in one}[text] for text in model.candidates] for one in found
        ]
        assert np.array(presences) == pytest.approx(np.array(expected["presences"]), abs=1e-5)
        assert [one.any for one in found] == pytest.approx(expected["any"], abs=1e-5)
        assert model.threshold == pytest.approx(expected["threshold"])
        assert (
            logits.none is None
            if expected["none_logits"] is None
            else logits.none == pytest.approx(expected["none_logits"], abs=1e-5)
        )


def test_a_folder_of_format_1(tmp_path):
    """As version 0.1.0 wrote it: a curve and a threshold."""
    tiny().save(tmp_path / "model")
    about = json.loads((tmp_path / "model" / "sigmax.json").read_text())
    del about["calibrator"]
    about |= {"format": 1, "calibration": {"scale": 2.0, "bias": -1.0}, "threshold": 0.25}
    (tmp_path / "model" / "sigmax.json").write_text(json.dumps(about))
    model = load(tmp_path / "model")
    matches = model.match("moon", top_k=3)
    for match in matches:
        assert match.presence == pytest.approx(1 / (1 + np.exp(1.0 - 2 * match.logit)))
    assert matches.any == pytest.approx(1 - np.prod([1 - match.presence for match in matches]))
    assert {m.candidate for m in matches.accepted} == {m.candidate for m in matches if m.presence >= 0.25}
    about |= {"calibration": None, "threshold": None}
    (tmp_path / "model" / "sigmax.json").write_text(json.dumps(about))
    assert load(tmp_path / "model").calibrator is None


# -- none of these as a candidate ------------------------------------------------------------------


def test_none_candidate(tmp_path):
    model = tiny(none_vector=torch.arange(8.0))
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert torch.equal(again.none_vector, model.none_vector)
    texts = ["moon light", "fire"]
    asked = model.encode(texts)
    expected = model.loss.logits(asked, torch.arange(8.0)[None])[:, 0].detach().numpy()
    for one in (model, again):
        assert one.logits(texts, one.candidates).none == pytest.approx(expected)
        assert len(one.match("moon", top_k=9)) == 3
    assert tiny().logits(texts, ["moon"]).none is None


def test_none_candidate_is_right_where_nothing_else_is():
    model = tiny(none_vector=torch.arange(8.0)).train()
    queries, candidates = model.preprocess(["moon", "xyz"], "query"), model.preprocess(["moon", "sun"], "candidate")
    found = model(queries, candidates, Positives([0], [0], (2, 2)))["loss"]
    offered = torch.cat([model.embed(candidates, "candidate"), model.none_vector[None]])
    expected = model.loss(model.embed(queries, "query"), offered, Positives([0, 1], [0, 2], (2, 3)))
    assert found == expected
    found.backward()
    assert model.none_vector.grad.abs().sum() > 0
