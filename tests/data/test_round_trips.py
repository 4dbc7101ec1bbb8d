"""What a person could write is read back, and nothing of it is lost: one property for each format."""

import io
import json
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import openpyxl
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sigmax.data import MatchDataset
from sigmax.data.formats import read
from sigmax.data.normal import normal
from sigmax.data.writers import write_beir

#: Texts of any letters, and those that mean something to a parser.
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), min_size=1, max_size=8) | st.text(
    ",\"'|[]{}:; é\u00a0🌙a1.0-#", min_size=1, max_size=6
)
WORDS = TEXTS.map(normal).filter(bool)
#: Names of files and folders, as every system allows them.
NAMES = (
    st.text(st.sampled_from("abcé猫 -_.1"), min_size=1, max_size=6)
    .map(str.strip)
    .filter(lambda name: name.strip(".-_ ") and name[0] != ".")
)
QUICK = settings(max_examples=40, deadline=None)

#: For each of some pictures the numbers of its labels.
LABELS = st.lists(st.sets(st.integers(0, 2), max_size=3), min_size=6, max_size=9).filter(lambda rows: any(rows))


def picture(number):
    file = io.BytesIO()
    Image.new("L", (3, 2), number).save(file, "PNG")
    return file.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def found(data):
    return {
        str(query): {data.candidates[j] for j in row}
        for query, row in zip(data.queries, data.graph.tolil().rows, strict=True)
    }


def unlike(names):
    """Names that are different labels and different files."""
    return st.lists(names, min_size=3, max_size=3, unique_by=lambda name: normal(name).casefold())


@QUICK
@given(rows=LABELS, names=unlike(WORDS))
def test_coco(rows, names):
    with tempfile.TemporaryDirectory() as folder:
        for i in range(len(rows)):
            put(Path(folder, f"{i}.png"), picture(i))
        content = {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(len(rows))],
            "annotations": [{"image_id": i, "category_id": j} for i, row in enumerate(rows) for j in row],
            "categories": [{"id": j, "name": name} for j, name in enumerate(names)],
        }
        put(Path(folder, "_annotations.coco.json"), json.dumps(content))
        data = read(folder)
        assert found(data) == {f"{i}.png": {names[j] for j in row} for i, row in enumerate(rows)}


@QUICK
@given(rows=LABELS, names=unlike(WORDS))
def test_voc(rows, names):
    with tempfile.TemporaryDirectory() as folder:
        for i, row in enumerate(rows):
            put(Path(folder, "JPEGImages", f"{i}.png"), picture(i))
            objects = "".join(f"<object><name>{escape(names[j])}</name></object>" for j in row)
            put(Path(folder, "Annotations", f"{i}.xml"), f"<annotation>{objects}</annotation>")
        expected = {f"JPEGImages/{i}.png": {names[j] for j in row} for i, row in enumerate(rows)}
        assert found(read(folder)) == expected


@QUICK
@given(rows=LABELS, names=unlike(WORDS), listed=st.booleans(), inside=st.booleans())
def test_yolo(rows, names, listed, inside):
    with tempfile.TemporaryDirectory() as folder:
        parts = ["train", "val", "test"]
        for i, row in enumerate(rows):
            part = parts[i % 3]
            images, labels = (f"{part}/images", f"{part}/labels") if inside else (f"images/{part}", f"labels/{part}")
            put(Path(folder, images, f"{i}.png"), picture(i))
            if row:
                put(Path(folder, labels, f"{i}.txt"), "".join(f"{j} .5 .5 .1 .1\n" for j in row))
            else:
                Path(folder, labels).mkdir(parents=True, exist_ok=True)
        put(Path(folder, "data.yaml"), yaml.safe_dump({"names": names if listed else dict(enumerate(names))}))
        data = read(folder)
        expected = {i: {names[j] for j in row} for i, row in enumerate(rows)}
        assert {int(Path(name).stem): labels for name, labels in found(data).items()} == expected
        assert all(
            (i % 3 == 0) == (name in split(data, "train")) for name in found(data) for i in [int(Path(name).stem)]
        )


def split(data, name):
    return {str(data.queries[i]) for i in data.split(name)}


@QUICK
@given(names=unlike(NAMES))
def test_folders_of_labels(names):
    with tempfile.TemporaryDirectory() as folder:
        for i in range(9):
            put(Path(folder, names[i % 3], f"{i}.png"), picture(i))
        data = read(folder)
        assert {int(Path(name).stem): labels for name, labels in found(data).items()} == {
            i: {names[i % 3]} for i in range(9)
        }


@QUICK
@given(rows=LABELS, names=unlike(WORDS))
def test_npz(rows, names):
    with tempfile.TemporaryDirectory() as folder:
        images = np.arange(len(rows) * 6, dtype=np.uint8).reshape(-1, 2, 3)
        right = np.array([[j in row for j in range(3)] for row in rows], dtype=np.uint8)
        np.savez(Path(folder, "x.npz"), images=images, labels=right, label_names=np.array(names))
        data = read(Path(folder, "x.npz"))
        assert list(found(data).values()) == [{names[j] for j in row} for row in rows]


@QUICK
@given(rows=LABELS, names=unlike(WORDS), texts=st.lists(WORDS, min_size=9, max_size=9))
def test_labelled_tables(rows, names, texts):
    entries = [{"text": texts[i], "labels": [names[j] for j in row]} for i, row in enumerate(rows)]
    split_names = ["train", "dev", "test"]
    with tempfile.TemporaryDirectory() as folder:
        put(
            Path(folder, "x.jsonl"),
            "".join(json.dumps({**entry, "split": split_names[i % 3]}) + "\n" for i, entry in enumerate(entries)),
        )
        book = openpyxl.Workbook()
        book.active.append(["text", "labels", "split"])
        for i, entry in enumerate(entries):
            book.active.append([entry["text"], json.dumps(entry["labels"]), split_names[i % 3]])
        for row in book.active.iter_rows():
            for cell in row:
                cell.data_type = "s"  # a text that starts with = is no formula
        book.save(Path(folder, "x.xlsx"))
        for name in ("x.jsonl", "x.xlsx"):
            data = read(Path(folder, name))
            assert list(data.queries) == texts[: len(rows)]
            assert [{data.candidates[j] for j in row} for row in data.graph.tolil().rows] == [
                {names[j] for j in row} for row in rows
            ]


@QUICK
@given(
    rows=LABELS,
    wrong=st.lists(st.integers(0, 2), min_size=9, max_size=9),
    texts=st.lists(WORDS, min_size=12, max_size=12),
)
def test_beir(rows, wrong, texts):
    n = len(rows)
    data = MatchDataset(
        name="x",
        queries=texts[:n],
        candidates=texts[-3:],
        pairs=np.array([(i, j) for i, row in enumerate(rows) for j in row]).reshape(-1, 2),
        wrong=np.array([(i, wrong[i]) for i, row in enumerate(rows) if wrong[i] not in row]).reshape(-1, 2),
        splits={"train": range(0, n, 3), "dev": range(1, n, 3), "test": range(2, n, 3)},
        candidate_ids=["a", "b", "c"],
    )
    with tempfile.TemporaryDirectory() as folder:
        write_beir(data, Path(folder, "x"))
        back = read(Path(folder, "x"))
    assert back.fingerprint == data.fingerprint
    assert (list(back.query_ids), list(back.candidate_ids)) == (list(data.query_ids), list(data.candidate_ids))
