import io
import sys

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pillow

from sigmax.data.sources import load_data
from sigmax.errors import DataError

PAIRS = {"query": ["a", "b", "c", "d"], "answers": [["x"], ["x", "y"], [], ["z"]]}
TEXTS = Features({"text": Value("string"), "label": ClassLabel(names=["cold", "hot"])})
MANY = Features({"text": Value("string"), "labels": List(ClassLabel(names=["cold", "hot", "wet"]))})


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def right(data):
    """What each query's right answers are."""
    return {str(query): {data.candidates[j] for j in data.graph[[i]].indices} for i, query in enumerate(data.queries)}


def of_split(data, name):
    return [str(data.queries[i]) for i in data.split(name)]


def test_pairs_saved_to_disk(tmp_path):
    Dataset.from_dict(PAIRS).save_to_disk(str(tmp_path / "things.v2"))
    data = load_data(tmp_path / "things.v2")
    assert data.name == "things.v2"
    assert right(data) == {"a": {"x"}, "b": {"x", "y"}, "c": set(), "d": {"z"}}
    assert not data.labels


def test_renamed_columns(tmp_path):
    Dataset.from_dict({"question": ["a", "b", "c"], "reply": ["x", "y", "x"]}).save_to_disk(str(tmp_path / "faq"))
    data = load_data(tmp_path / "faq", columns={"query": "question", "answer": "reply"})
    assert right(data) == {"a": {"x"}, "b": {"y"}, "c": {"x"}}


def test_class_names_and_splits(tmp_path):
    rows = {"text": ["ice", "fire", "snow"], "label": [0, 1, 0]}
    parts = {"train": rows, "validation": {"text": ["sun"], "label": [1]}, "test": {"text": ["frost"], "label": [0]}}
    found = DatasetDict({name: Dataset.from_dict(part, features=TEXTS) for name, part in parts.items()})
    found.save_to_disk(str(tmp_path / "weather"))
    data = load_data(tmp_path / "weather")
    assert data.labels
    assert right(data) == {"ice": {"cold"}, "fire": {"hot"}, "snow": {"cold"}, "sun": {"hot"}, "frost": {"cold"}}
    assert [of_split(data, name) for name in ("train", "dev", "test")] == [["ice", "fire", "snow"], ["sun"], ["frost"]]


def test_lists_of_class_names(tmp_path):
    rows = {"text": ["ice", "steam", "sand"], "labels": [[0, 2], [1, 2], []]}
    Dataset.from_dict(rows, features=MANY).save_to_disk(str(tmp_path / "weather"))
    assert right(load_data(tmp_path / "weather")) == {"ice": {"cold", "wet"}, "steam": {"hot", "wet"}, "sand": set()}


def test_pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 8, 3), dtype=np.uint8)
    encoded = []
    for one in pixels:
        file = io.BytesIO()
        Pillow.fromarray(one).save(file, "PNG")
        encoded.append({"bytes": file.getvalue(), "path": None})
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    Dataset.from_dict({"image": encoded, "label": [0, 1, 1, 0]}, features=features).save_to_disk(str(tmp_path / "pets"))
    data = load_data(tmp_path / "pets")
    assert data.pictures
    assert [set(data.candidates[j] for j in data.graph[[i]].indices) for i in range(4)] == [
        {"cat"},
        {"dog"},
        {"dog"},
        {"cat"},
    ]
    for query, one in zip(data.queries, pixels, strict=True):  # the files they were read from are gone
        assert np.array_equal(np.asarray(query.image()), one)


def test_errors_name_what_the_user_knows(tmp_path):
    bad = DatasetDict(
        {name: Dataset.from_dict({"query": ["a", ""], "answer": ["x", "y"]}) for name in ("train", "test")}
    )
    bad.save_to_disk(str(tmp_path / "bad"))
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "bad")
    assert str(caught.value).startswith(f"{tmp_path / 'bad'}, split test, row 2: expected a text under `query`")
    Dataset.from_dict({"a": ["b"]}).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "other")
    assert str(caught.value).startswith(f"{tmp_path / 'other'}: no known format; its columns are a.")
    odd = DatasetDict({name: Dataset.from_dict(PAIRS) for name in ("left", "right")})
    odd.save_to_disk(str(tmp_path / "odd"))
    with pytest.raises(DataError, match=r"odd: expected splits named train, .*, got left, right\."):
        load_data(tmp_path / "odd")
    Dataset.from_dict(PAIRS).save_to_disk(str(tmp_path / "whole"))
    for file in (tmp_path / "whole").glob("*.arrow"):
        file.write_bytes(b"ARROW")
    with pytest.raises(DataError, match="whole: not a readable data set of Hugging Face's datasets: "):
        load_data(tmp_path / "whole")


def test_from_the_hub(monkeypatch):
    asked = []

    def load_dataset(name, configuration):
        asked.append((name, configuration))
        if configuration == "none":
            raise ValueError("BuilderConfig 'none' not found. Available: ['default']\nmore")
        return DatasetDict({"everything": Dataset.from_dict(PAIRS)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_data("hf:me/things").name == "things"
    data = load_data("hf:me/things:small")
    assert right(data)["b"] == {"x", "y"}
    assert asked == [("me/things", None), ("me/things", "small")]
    with pytest.raises(DataError, match=r"hf:me/things:none: .* did not load: BuilderConfig 'none' not found.*\]$"):
        load_data("hf:me/things:none")


def test_the_hub_without_a_network():
    with pytest.raises(
        DataError, match=r"hf:me/things: expected a data set on the Hugging Face hub .* did not load: .*me/things"
    ):
        load_data("hf:me/things")


def test_without_the_library(tmp_path, monkeypatch):
    Dataset.from_dict(PAIRS).save_to_disk(str(tmp_path / "things"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (tmp_path / "things", "hf:me/things"):
        with pytest.raises(
            ImportError, match=r"datasets is not installed\. Try: pip install 'sigmax\[sentence-transformers\]'"
        ):
            load_data(source)
