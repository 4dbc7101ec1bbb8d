import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects
from test_model import DATA

from helpers.hub import Hub, serving
from sigmax.errors import DataError
from sigmax.model.dual_encoder import load
from sigmax.model.folder import PARTS

MODEL = DATA / "model-format-2"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository on a hub that has just this one: its files, of which those asked for are downloaded."""
    files = tmp_path / "repository"
    shutil.copytree(MODEL, files)

    def snapshot_download(name, *, revision, allow_patterns):
        found = tmp_path / "cache" / str(revision)
        names = [file.relative_to(files).as_posix() for file in files.rglob("*") if file.is_file()]
        for wanted in filter_repo_objects(names, allow_patterns=allow_patterns):
            (found / wanted).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(files / wanted, found / wanted)
        return str(found)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    return files


def test_a_folder_here_wins(repository):
    assert load("me/sky").candidates == ["moon", "sun", "fire"]
    assert load("me/sky", revision="v1").candidates == ["moon", "sun", "fire"]
    shutil.copytree(MODEL, "me/sky")
    Path("me/sky/candidates.jsonl").write_text('{"_id": "1", "text": "here"}\n')
    assert load("me/sky").candidates == ["here"]
    with pytest.raises(ValueError, match="expected no `revision` of a folder here, got 'v1'"):
        load("me/sky", revision="v1")


@pytest.mark.parametrize("name", ["me", "a/b/c", "../me/sky", "/me/sky", "./me", "me/sky/", Path("me/sky")])
def test_what_cannot_be_on_the_hub_is_not_looked_for(name, repository):
    with pytest.raises(DataError, match="got nothing"):
        load(name)


EVIL = (
    "from pathlib import Path\nPath('executed').touch()\nclass Evil:\n    load = classmethod(lambda *_, **__: None)\n"
)


def test_no_code_and_no_pickle_of_a_repository_is_read(repository, monkeypatch):
    (repository / "query_encoder" / "evil.py").write_text(EVIL)
    (repository / "evil.py").write_text(EVIL)
    (repository / "query_encoder" / "pytorch_model.bin").write_bytes(b"pickle")
    load("me/sky")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]
    (repository / "query_encoder" / "modules.json").write_text(json.dumps(modules))
    monkeypatch.syspath_prepend(repository)  # were it looked for, it would be found
    for source in ("me/sky", repository):
        with pytest.raises(DataError, match=r"evil\.Evil"):
            load(source)
    assert not Path("executed").exists()
    assert {file.suffix for file in Path("cache").rglob("*") if file.is_file()} <= {".json", ".jsonl", ".safetensors"}


def test_a_repository_of_something_else(repository):
    (repository / "sigmax.json").unlink()
    with pytest.raises(DataError, match=r"me/sky: the repository on the hub holds no model of Sigmax"):
        load("me/sky")


def test_without_a_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"me/sky: no such folder.* could not be looked for, .* the hub's cache has no"):
        load("me/sky")
    with pytest.raises(DataError, match=r"me/sky: could not be published .* a token that may write: hf auth login"):
        load(MODEL).push_to_hub("me/sky")


BOTH_WAYS = """
    import dataclasses, os, sys
    import sigmax
    model = sigmax.load(sys.argv[1])

    def tried(work, *given, **more):
        try:
            return work(*given, **more)
        except sigmax.DataError as error:
            print(error)

    print(model.push_to_hub("me/sky"))
    model.none_vector = None
    model.candidate_ids[0] = "changed"
    model.push_to_hub("me/sky")
    for revision in (None, os.environ["FIRST"]):
        again = sigmax.load("me/sky", revision=revision)
        logits = again.logits(["moon"], again.candidates).values
        print(again.candidate_ids, again.none_vector is not None, logits.tolist())
    tried(sigmax.load, "me/sky", revision="v9")
    tried(sigmax.load, "me/nothing")
    tried(model.push_to_hub, "me/sky", token="hf_reads_only")
"""
CACHED = """
    import sys
    import sigmax
    print(sigmax.load("me/sky").candidate_ids)
    try:
        sigmax.load("me/other")
    except sigmax.DataError as error:
        print(error)
"""


@pytest.mark.slow
def test_there_and_back(tmp_path):
    """Over HTTP, with a hub of our own; then without it."""
    hub, repository = Hub(), "me/sky"
    settings = {"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_may_write", "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}

    def run(code, address):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(MODEL)],
            capture_output=True,
            text=True,
            env=os.environ | settings | {"HF_ENDPOINT": address, "FIRST": hub.sha(repository, 1)},
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with serving(hub) as address:
        said = run(BOTH_WAYS, address)
    logits = load(MODEL).logits(["moon"], ["moon", "sun", "fire"]).values.tolist()
    assert said[:3] == [
        f"{address}/me/sky",
        f"['changed', 'c2', 'c3'] False {logits}",
        f"['c1', 'c2', 'c3'] True {logits}",
    ]
    assert said[3] == "me/sky: the model on the hub has no revision 'v9'."
    assert said[4].startswith("me/nothing: no such folder, and no such model on the Hugging Face hub.")
    assert said[5].startswith("me/sky: could not be published (")
    first, second = hub.repositories[repository][1:]
    parts = {name.split("/")[0] for name in first}
    assert parts == PARTS - {
        "lexical",
        "reranker",
        "candidates.parquet",
        "candidates.safetensors",
        "index",
        "database",
        "novelty.safetensors",
    }  # those of larger models, and of trained ones
    assert first.keys() - second.keys() == {"none.safetensors"}
    assert 'sigmax.load("me/sky")' in first["README.md"].decode()
    cached = run(CACHED, address)
    assert cached[0] == "['changed', 'c2', 'c3']"
    assert "could not be looked for" in cached[1]
