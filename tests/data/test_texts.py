"""Texts on disk are the texts: same data, same model, and the memory of a few of them."""

import copy
import json
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import sigmax
from sigmax.data import texts
from sigmax.data.texts import IndexPairs, Numbered, TextsOnDisk, TextStore
from sigmax.data.writers import write_beir

KINDS = (("moon", "train"), ("sun", "train"), ("fire", "dev"), ("moon", "test"))
TABLES = {
    "labelled.csv": "text,labels,split\n"
    + "".join(f"the {kind} of day {day} é☾,{kind},{split}\n" for day in range(9) for kind, split in KINDS),
    "pairs.jsonl": "".join(
        f'{{"query": "what shines on day {day % 7}", "answer": "the lamp {day}", "wrong": "the stone {day}"}}\n'
        for day in range(40)
    ),
}


@pytest.fixture(params=[*TABLES, "beir"])
def source(request, tmp_path):
    if request.param == "beir":
        write_beir(sigmax.load_data("emoji"), tmp_path / "beir")
        return tmp_path / "beir"
    path = tmp_path / request.param
    path.write_text(TABLES[request.param], encoding="utf-8")
    return path


def test_what_is_read_is_the_same_on_disk_and_in_memory(source, monkeypatch):
    memory = sigmax.load_data(source)
    assert isinstance(memory.queries, list)
    monkeypatch.setattr(texts, "IN_MEMORY", 50)
    disk = sigmax.load_data(source)
    assert isinstance(disk.queries, TextsOnDisk)
    assert disk.fingerprint == memory.fingerprint
    assert list(disk.queries) == memory.queries
    assert list(disk.candidates) == list(memory.candidates)
    assert list(disk.query_ids) == list(memory.query_ids)
    assert list(disk.candidate_ids) == list(memory.candidate_ids)
    for split in ("train", "dev", "test"):
        np.testing.assert_array_equal(disk.split(split), memory.split(split))


def test_training_from_disk_gives_the_same_model(tmp_path, monkeypatch):
    path = tmp_path / "labelled.csv"
    path.write_text(TABLES["labelled.csv"], encoding="utf-8")
    settings = sigmax.Settings(loss="sigmoid", steps=5, batch_size=4)
    memory = sigmax.train(sigmax.load_data(path), settings)
    monkeypatch.setattr(texts, "IN_MEMORY", 50)
    disk = sigmax.train(sigmax.load_data(path), settings)
    for name, tensor in memory.state_dict().items():
        assert torch.equal(tensor, disk.state_dict()[name]), name


@given(st.lists(st.text(max_size=20)), st.integers(0, 60))
def test_texts_come_back(given_texts, most):
    """Any text, empty ones and those of many bytes a character too; from both ends and in slices."""
    before = texts.IN_MEMORY
    texts.IN_MEMORY = most
    try:
        store, distinct = TextStore(), TextStore()
        assert [store.append(text) for text in given_texts] == list(range(len(given_texts)))
        order = list(dict.fromkeys(given_texts))
        assert [distinct.place(text) for text in given_texts] == [order.index(text) for text in given_texts]
    finally:
        texts.IN_MEMORY = before
    found = store.texts()
    assert list(distinct.texts()) == order
    assert isinstance(found, TextsOnDisk) == (sum(len(text.encode()) for text in given_texts) > most)
    assert len(found) == len(given_texts)
    assert list(found) == given_texts
    assert found[1:-1:2] == given_texts[1:-1:2]
    assert [found[-i - 1] for i in range(len(found))] == given_texts[::-1]
    with pytest.raises(IndexError):
        found[len(found)]


def on_disk(monkeypatch, *given_texts):
    monkeypatch.setattr(texts, "IN_MEMORY", 0)
    store = TextStore()
    for text in given_texts:
        store.append(text)
    return store


def test_copies_are_lists(monkeypatch):
    """Another process may not see the file."""
    found = on_disk(monkeypatch, "moon", "sun").texts()
    assert isinstance(found, TextsOnDisk)
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == ["moon", "sun"]


def test_a_full_disk_is_told_with_what_to_try(monkeypatch):
    monkeypatch.setattr(texts.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b"))  # noqa: SIM115
    store = on_disk(monkeypatch, "moon")
    with pytest.raises(sigmax.DataError, match=r"could not be written there \(No space left on device\). Set TMPDIR"):
        store.texts()
    store._file.raw.close()


def test_files_of_texts_that_nobody_took_are_closed(monkeypatch):
    store = on_disk(monkeypatch, "moon")
    file = store._file
    del store
    assert file.closed


def test_equal_texts_with_other_keys_have_places_of_their_own():
    store = TextStore()
    assert [store.place("moon", key="a"), store.place("moon", key="b"), store.place("moon", key="a")] == [0, 1, 0]
    assert store.texts() == ["moon", "moon"]


def test_numbers_and_pairs():
    names = Numbered("q", 3)
    assert [*names] == ["q0", "q1", "q2"] == names[:]
    assert names[-1] == "q2"
    with pytest.raises(IndexError):
        names[3]
    pairs = IndexPairs()
    assert pairs.array().shape == (0, 2)
    pairs.append(3, 4)
    pairs.append(-1, 2**40)
    assert pairs.array().tolist() == [[3, 4], [-1, 2**40]]


READ = """
    import resource, sys
    from pathlib import Path
    import pyarrow.parquet
    import sigmax
    from sigmax.data import texts

    texts.IN_MEMORY = int(sys.argv[2])
    status = Path("/proc/self/status").read_text()
    used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + 100 * 2**20,) * 2)
    data = sigmax.load_data(sys.argv[1])
    print(len(data.queries), sum(map(len, data.queries)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's own memory is Linux's")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["long.csv", "long.jsonl", "long.parquet"])
def test_a_file_larger_than_the_memory_allowed_is_read(name, tmp_path):
    """150 MB in a process that may take 100 MB more than it has; with the texts in memory it may not."""
    path, rows = tmp_path / name, 15_000
    table = {
        "text": [f"{i} " + "moonlight " * 1000 for i in range(rows)],
        "label": [f"l{i % 7}" for i in range(rows)],
        "split": [("train", "dev", "test")[i % 3] for i in range(rows)],
    }
    if path.suffix == ".parquet":  # one row group, of one column nearly
        parquet.write_table(pyarrow.table(table), path, compression="none", use_dictionary=False, row_group_size=rows)
    else:
        with path.open("w", encoding="utf-8") as file:
            if path.suffix == ".csv":
                file.write("text,label,split\n")
            for row in zip(*table.values(), strict=True):
                line = ",".join(row) if path.suffix == ".csv" else json.dumps(dict(zip(table, row, strict=True)))
                file.write(f"{line}\n")
    assert path.stat().st_size > 150e6

    def read(in_memory):
        command = [sys.executable, "-c", textwrap.dedent(READ), str(path), str(in_memory)]
        return subprocess.run(command, capture_output=True, text=True)

    done = read(2**24)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == str(rows)
    failed = read(2**40)
    assert failed.returncode != 0
    assert "MemoryError" in failed.stderr or "malloc" in failed.stderr
