import csv
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pyarrow import parquet

from helpers.commands import refused
from sigmax.data import load_data, pictures
from sigmax.data.formats.labelled_pictures import picture_files
from sigmax.data.formats.registry import READERS, read, readers
from sigmax.data.pictures import MAX_PIXELS, Picture, as_picture, check_pictures, pixel_batch
from sigmax.errors import DataError

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs links, permissions or any file name")


def drawn(seed: int, size: tuple[int, int] = (7, 5), channels: int = 3) -> np.ndarray:
    """(height, width, 3) or (height, width) pixels."""
    shape = (size[1], size[0], 3) if channels == 3 else (size[1], size[0])
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def put(path: Path, content: bytes | str | np.ndarray = b"") -> Path:
    """A file with this content, or a PNG of these pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = encoded(content) if isinstance(content, np.ndarray) else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Picture("it", content).image())


# -- reading one picture -------------------------------------------------------------------------


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3]))))
def test_pixels_come_back(image):
    image = image[..., 0] if image.shape[2] == 1 else image
    picture = Picture("it", encoded(image))
    assert (np.asarray(picture.image()) == image).all()
    assert picture.image().mode == ("L" if image.ndim == 2 else "RGB")
    assert (np.asarray(as_picture(image).image()) == image).all()
    assert picture.form() == as_picture(image).form() == (image.shape[1], image.shape[0], picture.image().mode)


def test_grey():
    sixteen = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    assert opened(encoded(sixteen)).tolist() == [[0, 0, 1], [128, 254, 255]]
    assert opened(encoded(sixteen.astype(np.int32), "TIFF")).tolist() == [[0, 0, 1], [128, 254, 255]]
    assert opened(encoded(np.array([[True, False]]))).tolist() == [[255, 0]]
    see_through = encoded(Image.fromarray(np.array([[[50, 255], [50, 0]]], dtype=np.uint8), "LA"))
    assert opened(see_through).tolist() == [[50, 255]]
    key = encoded(np.array([[50, 60]], dtype=np.uint8), transparency=60)
    assert opened(key).tolist() == [[50, 255]], "grey stays grey"
    for content in (encoded(np.ones((2, 2), np.float32), "TIFF"), encoded(np.full((2, 2), 70000, np.int32), "TIFF")):
        with pytest.raises(DataError, match=r"it: the picture cannot be decoded: grey values .*expected 8 or 16 bits"):
            opened(content)


def test_colour():
    image = Image.fromarray(np.array([[[255, 0, 0, 255], [0, 0, 255, 0], [0, 0, 0, 51]]], dtype=np.uint8))
    assert opened(encoded(image)).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]], "on white"
    palette = Image.fromarray(drawn(0)).quantize(8)
    assert (opened(encoded(palette)) == np.asarray(palette.convert("RGB"))).all()
    palette.info["transparency"] = int(np.asarray(palette)[0, 0])
    assert opened(encoded(palette, transparency=palette.info["transparency"]))[0, 0].tolist() == [255, 255, 255]
    flat = Image.new("RGB", (16, 16), (200, 30, 60))
    print_colours = opened(encoded(flat.convert("CMYK"), "JPEG", quality=95))
    assert abs(print_colours.astype(int) - (200, 30, 60)).max() < 8


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_upright(turn, kind):
    """The camera turned the picture; what the eyes see is compared with the definition of the eight ways."""
    upright = np.kron(np.array([[10, 80, 160], [240, 120, 40]], dtype=np.uint8), np.ones((16, 16), dtype=np.uint8))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(np.ascontiguousarray(stored), kind, exif=exif)
    assert abs(opened(content).astype(int) - upright).max() < 8
    assert Picture("it", content).form() == (48, 32, "L")
    assert abs(Picture("it", content).pixels(16, "L")[..., 0].astype(int)[2, 2] - 10) < 8


def test_the_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert opened(content)[0, 0].tolist() == [255, 0, 0]


def png_of(width: int, height: int, data: bytes = bytes(9)) -> bytes:
    """A PNG that says it has this size, black and white."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"not a picture", r"not a picture in a known format \(JPEG,.* PNG"),
    "truncated JPEG": (encoded(drawn(0, (90, 60)), "JPEG")[:-900], "cannot be decoded: .*truncated"),
    "truncated PNG": (encoded(drawn(0, (90, 60)))[:-900], "cannot be decoded"),
    "huge": (png_of(60_000, 60_000), "more than 80,000,000"),
    "large": (png_of(10_000, 8_001), "10,000 × 8,001 pixels, more than 80,000,000. Shrink it"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a picture in a known"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_pictures(case):
    content, reason = BROKEN[case]
    with pytest.raises(DataError, match=f"it: .*{reason}"):
        Picture("it", content).image()
    with pytest.raises(DataError, match=rf"1 of 2 pictures cannot be read. Fix or remove them:\n  it: .*{reason}"):
        check_pictures([Picture("fine", encoded(drawn(0))), Picture("it", content)])


def test_the_limit_is_one_that_pillow_does_not_warn_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Picture("it", png_of(10_000, 8_000, bytes(1251 * 8000))).form() == (10_000, 8_000, "L")
    assert MAX_PIXELS == 80_000_000


@given(
    st.binary(max_size=300)
    | st.binary(max_size=60).map(encoded(drawn(0)).__add__)
    | st.binary(max_size=60).map(lambda noise: encoded(drawn(0))[:33] + noise)
)
@example(encoded(drawn(0))[:33])
def test_any_bytes_read_or_are_refused(content):
    picture = Picture("it", content)
    for look in (picture.image, picture.form, lambda: picture.pixels(4, "RGB"), lambda: check_pictures([picture])):
        try:
            look()
        except DataError as error:
            assert "it: " in str(error)


WHOLE = {
    kind: encoded(drawn(1, (40, 30)), kind, **({"exif": Image.Exif()} if kind == "JPEG" else {}))
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
}


@settings(max_examples=150)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_any_damage_reads_or_is_refused(kind, data):
    content = bytearray(WHOLE[kind])
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    else:
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
    try:
        assert Picture("it", bytes(content)).image().size > (0, 0)
    except DataError as error:
        assert "it: " in str(error)


def test_equality_is_by_content(tmp_path):
    one, same = put(tmp_path / "1.png", drawn(1)), put(tmp_path / "2.png", drawn(1))
    assert Picture("a", one) == Picture("b", same) == Picture("c", one.read_bytes())
    assert len({Picture("a", one), Picture("b", same), Picture("d", drawn(1)), Picture("e", drawn(1))}) == 2
    assert Picture("a", drawn(1, (2, 3), 1)) != Picture("a", drawn(1, (3, 2), 1))


def test_what_is_taken_for_a_picture(tmp_path):
    image = Image.fromarray(drawn(1))
    path = put(tmp_path / "1.png", drawn(1))
    for given_ in (path, str(path), path.read_bytes(), image, Image.open(path), drawn(1)):
        assert (np.asarray(as_picture(given_).image()) == drawn(1)).all()
    assert as_picture(drawn(1, channels=1)[..., None]).source.shape == (5, 7)
    for wrong in (7, drawn(1).astype(int), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(DataError, match="Expected a picture as a path, bytes, a PIL image or"):
            as_picture(wrong)
    with pytest.raises(DataError, match="floating-point"):
        as_picture(Image.fromarray(np.ones((2, 2), np.float32)))


def test_pixel_batch(monkeypatch):
    monkeypatch.setattr(pictures, "_kept", pictures._Kept())
    monkeypatch.setattr(pictures, "KEPT_BYTES", 3 * 8 * 8 * 2)
    images = [drawn(seed, (seed + 8, 8)) for seed in range(4)]
    some = [Picture(f"{seed}", encoded(image)) for seed, image in enumerate(images)]
    for _ in range(2):
        batch = pixel_batch(some, 8, "RGB")
        assert batch.shape == (4, 3, 8, 8)
        for image, made in zip(images, batch, strict=True):
            expected = Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR, reducing_gap=2.0)
            assert (made.transpose(1, 2, 0) == np.asarray(expected)).all()
        assert pictures._kept.nbytes == sum(kept.nbytes for kept in pictures._kept.pixels.values()) == 2 * 192
    assert pixel_batch(some, 8, "L").shape == (4, 1, 8, 8)
    array = as_picture(images[0])
    assert array.pixels(8, "RGB").base is not None, "not copied"


def test_check_pictures_says_how_far_it_is():
    told = []
    check_pictures([as_picture(drawn(seed)) for seed in range(120)], lambda done, what: told.append((done, what)))
    assert told == [(50 / 120, "reading 120 pictures"), (100 / 120, "reading 120 pictures")]


# -- the formats ---------------------------------------------------------------------------------

#: Pixels, labels and split of each picture.
ROWS = [
    (drawn(4 * k + j), labels, part)
    for k, part in enumerate(("train", "dev", "test"))
    for j, labels in enumerate((["cat"], ["dog"], ["cat", "dog"], []))
]
ONE = [row for row in ROWS if len(row[1]) == 1]
AT_MOST_ONE = [row for row in ROWS if len(row[1]) < 2]


def told(data) -> set:
    """What was read, to compare."""
    part = {i: name for name, places in data.splits.items() for i in places.tolist()}
    return {
        (np.asarray(query.image()).tobytes(), tuple(data.candidates[j] for j in data.graph[[i]].indices), part[i])
        for i, query in enumerate(data.queries)
    }


def expected(rows) -> set:
    return {(image.tobytes(), tuple(labels), part) for image, labels, part in rows}


def class_folders(folder, rows=AT_MOST_ONE, dev="val"):
    for k, (image, labels, part) in enumerate(rows):
        put(Path(folder, dev if part == "dev" else part, *labels, f"{k}.png"), image)
    return folder


def table(path, rows):
    """Rows as CSV, JSONL or Parquet, by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        put(path, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: "|".join(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
    return path


def metadata(folder, rows=ROWS, ending=".csv", name="metadata"):
    for k, (image, _, _) in enumerate(rows):
        put(folder / "images" / f"{k}.png", image)
    table(
        folder / f"{name}{ending}",
        [{"file_name": f"images/{k}.png", "labels": row[1], "split": row[2]} for k, row in enumerate(rows)],
    )
    return folder


def metadata_a_split(folder, rows=ROWS):
    for part in ("train", "dev", "test"):
        some = [row for row in rows if row[2] == part]
        place = folder / {"dev": "validation"}.get(part, part)
        table(place / "metadata.jsonl", [{"file_name": f"{k}.png", "labels": row[1]} for k, row in enumerate(some)])
        for k, row in enumerate(some):
            put(place / f"{k}.png", row[0])
    return folder


def csv_file(folder, rows=ONE):
    metadata(folder, rows)
    (folder / "metadata.csv").unlink()
    lines = [f"{k}.png,{row[1][0]},{row[2]}" for k, row in enumerate(rows)]
    return put(folder / "images" / "list.csv", "\n".join(["image,label,split", *lines]))


def instances(rows, first=0):
    categories = [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 9, "name": "animals"}]
    number = {entry["name"]: entry["id"] for entry in categories}
    return {
        "images": [{"id": k, "file_name": f"{k + first}.png", "width": 7, "height": 5} for k in range(len(rows))],
        "annotations": [
            {"id": 10 * k + j, "image_id": k, "category_id": number[label], "bbox": [0, 0, 1, 1], "iscrowd": j}
            for k, row in enumerate(rows)
            for label in row[1]
            for j in range(2)
        ],
        "categories": categories,
    }


def coco(folder, rows=ROWS):
    for part in ("train", "dev", "test"):
        some = [row for row in rows if row[2] == part]
        name = f"{'val' if part == 'dev' else part}2017"
        put(folder / "annotations" / f"instances_{name}.json", json.dumps(instances(some)))
        put(folder / "annotations" / f"captions_{name}.json", "{}")
        for k, row in enumerate(some):
            put(folder / name / f"{k}.png", row[0])
    return folder


def roboflow(folder, rows=ROWS):
    for part in ("train", "dev", "test"):
        some = [row for row in rows if row[2] == part]
        place = folder / {"dev": "valid"}.get(part, part)
        put(place / "_annotations.coco.json", json.dumps(instances(some)))
        for k, row in enumerate(some):
            put(place / f"{k}.png", row[0])
    return folder


def voc(folder, rows=ROWS):
    sets = {}
    for k, (image, labels, part) in enumerate(rows):
        put(folder / "JPEGImages" / f"2007 {k}.png", image)
        objects = "".join(
            f"<object><name> {label} </name><difficult>{k % 2}</difficult><part><name>head</name></part></object>"
            for label in labels * 2
        )
        put(folder / "Annotations" / f"2007 {k}.xml", f"<annotation><filename>?</filename>{objects}</annotation>")
        sets.setdefault({"dev": "val"}.get(part, part), []).append(f"2007 {k}")
    sets["trainval"] = sets["train"] + sets["val"]
    for name, stems in sets.items():
        put(folder / "ImageSets" / "Main" / f"{name}.txt", "\n".join(stems) + "\n")
        put(folder / "ImageSets" / "Main" / f"cat_{name}.txt", "\n".join(f"{stem}  1" for stem in stems))
    return folder


def saved(path, **given_):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **given_)
    return path


def stack(rows):
    return np.stack([row[0] for row in rows])


def indicators(rows):
    return np.array([[label in row[1] for label in ("cat", "dog")] for row in rows], dtype=np.int64)


def npz(folder, rows=ROWS):
    return saved(
        folder / "x.npz",
        images=stack(rows),
        labels=indicators(rows),
        label_names=np.array(["cat", "dog"]),
        split=np.array([row[2] for row in rows]),
    )


def keras(folder, rows=ONE):
    def some(part):
        return [row for row in rows if row[2] == part]

    arrays_ = {f"x_{part}": stack(some(part)) / 255 for part in ("train", "test")} | {"x_val": stack(some("dev"))}
    arrays_ |= {f"y_{part}": np.array([row[1][0] for row in some(part)]) for part in ("train", "test")}
    return saved(folder / "x.npz", **arrays_, y_val=np.array([[row[1][0].encode()] for row in some("dev")])[:, 0])


def medmnist(folder, rows=ONE):
    arrays_ = {}
    for part, name in (("train", "train"), ("dev", "val"), ("test", "test")):
        some = [row for row in rows if row[2] == part]
        arrays_[f"{name}_images"] = stack(some).transpose(0, 3, 1, 2)
        arrays_[f"{name}_labels"] = np.array([[["cat", "dog"].index(row[1][0])] for row in some], dtype=np.uint8)
    return saved(folder / "x.npz", **arrays_, label_names=np.array([b"cat", b"dog"]))


def bytes_in_parquet(folder, rows=ROWS):
    return table(
        folder / "x.parquet",
        [{"image": encoded(image), "labels": labels, "split": part} for image, labels, part in rows],
    )


def hugging_face(folder, rows=ONE, kind="ClassLabel", labels=False):
    """As `datasets` writes it: two shards of train, class names in the schema."""
    column = "labels" if labels else "label"
    feature = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    if labels:
        feature = [feature] if kind == "old" else {"feature": feature, "_type": kind}
    info = {"info": {"features": {"image": {"_type": "Image"}, column: feature}}}
    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            (column, pyarrow.list_(pyarrow.int64()) if labels else pyarrow.int64()),
        ],
        metadata={"huggingface": json.dumps(info)},
    )
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        some = [row for row in rows if row[2] == part]
        for shard in range(2):
            cells = [
                {
                    "image": {"bytes": encoded(image), "path": "same.png"},
                    column: [["cat", "dog"].index(x) for x in its] if labels else ["cat", "dog"].index(its[0]),
                }
                for image, its, _ in some[shard::2]
            ]
            path = folder / f"{name}-0000{shard}-of-00002.parquet"
            parquet.write_table(pyarrow.Table.from_pylist(cells, schema=schema), path)
    return folder


FORMATS = {
    "classes": (class_folders, AT_MOST_ONE),
    "metadata.csv": (metadata, ROWS),
    "metadata.jsonl": (lambda folder: metadata(folder, ending=".jsonl"), ROWS),
    "metadata.parquet": (lambda folder: metadata(folder, ending=".parquet"), ROWS),
    "metadata a split": (metadata_a_split, ROWS),
    "a CSV file": (csv_file, ONE),
    "COCO": (coco, ROWS),
    "Roboflow": (roboflow, ROWS),
    "Pascal VOC": (voc, ROWS),
    "npz": (npz, ROWS),
    "Keras": (keras, ONE),
    "MedMNIST": (medmnist, ONE),
    "Parquet": (bytes_in_parquet, ROWS),
    "Hugging Face": (hugging_face, ONE),
    "Hugging Face, lists as they once were": (lambda folder: hugging_face(folder, ROWS, "old", labels=True), ROWS),
    "Hugging Face, lists": (lambda folder: hugging_face(folder, ROWS, "List", labels=True), ROWS),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(name, tmp_path, sigmax):
    build, rows = FORMATS[name]
    path = build(tmp_path / "pets")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    data = load_data(path)
    assert told(data) == expected(rows)
    assert len(data.queries) == len(rows) == len(set(data.query_ids))
    assert list(data.candidates) == ["cat", "dog"]
    assert data.labels
    assert data.name in ("pets", "x", "list")
    done = sigmax("check", path, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["queries"] == len(rows)
    assert facts["splits"] == {part: len(rows) // 3 for part in ("train", "dev", "test")}
    assert facts["pictures"] == {"width": [7, 7], "height": [5, 5], "grey": 0, "colour": len(rows)}
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before, "nothing is written"


def test_the_formats_are_told_apart(tmp_path):
    from sigmax.data.formats import Reading
    from sigmax.data.formats.rows import is_table
    from sigmax.data.formats.tables import columns_of

    for name, (build, _) in FORMATS.items():
        path = build(tmp_path / name)
        found = columns_of(path, Reading()) if path.is_dir() or is_table(path) else []
        reader = {"C": "coco", "R": "coco", "c": "classes", "n": "npz", "K": "npz"}.get(name[0], "picture_table")
        reader = {"Pascal VOC": "voc", "MedMNIST": "npz"}.get(name, reader)
        assert next(one.name for one in readers() if one.claims(path, found)) == reader, name


def test_the_help_lists_every_format(tmp_path, sigmax, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)
    shown = " ".join(sigmax("check", "--help").out.split())
    (tmp_path / "empty").mkdir()
    done = sigmax("check", tmp_path / "empty")
    for reader in READERS.values():
        assert reader.describes in shown
        assert reader.describes in done.words


# -- a folder for each label ---------------------------------------------------------------------


def parts(data):
    return {name: {str(data.queries[i]) for i in places} for name, places in data.splits.items()}


@posix
def test_class_folders_of_the_real_world(tmp_path):
    """Deep folders, any name, upper case, links, files of other programs; equal files stay on one side."""
    for k in range(20):
        put(tmp_path / "Katze ‑ ü 猫" / f"img ({k}).PNG", drawn(k))
        put(tmp_path / "dog" / "deep" / "er" / f"{k}.png", drawn(100 + k // 2))
    for name in (".hidden.png", "Thumbs.db", ".DS_Store", "notes.txt", "__MACOSX/x.png", ".git/x.png"):
        put(tmp_path / name, "rubbish")
        put(tmp_path / "dog" / name, "rubbish")
    put(tmp_path / "dog" / "called a jpeg.jpg", drawn(500))
    put(tmp_path / "beside.png", drawn(501))
    (tmp_path / "empty").mkdir()
    (tmp_path / "dog" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "dog" / "deep")
    data = load_data(tmp_path)
    assert list(data.candidates) == ["Katze ‑ ü 猫", "dog", "linked"]
    assert np.bincount(data.pairs[:, 1]).tolist() == [20, 21, 20]
    assert data.answer_counts[[str(query) for query in data.queries].index("beside.png")] == 0
    side = {}
    for name, places in data.splits.items():
        for i in places:
            assert side.setdefault(data.queries[i].digest, name) == name


def test_a_class_may_be_called_train(tmp_path):
    for k in range(9):
        put(tmp_path / ("train", "car", "bus")[k % 3] / f"{k}.png", drawn(k))
    assert list(read(tmp_path).candidates) == ["bus", "car", "train"]


def test_train_and_val_alone(tmp_path):
    """Half of what is held out is chosen on, the other half reported on; train stays whole."""
    for k in range(40):
        put(tmp_path / ("train" if k < 20 else "val") / ("cat", "dog")[k % 2] / f"{k}.png", drawn(k))
    found = parts(load_data(tmp_path))
    assert {name.split("/")[0] for name in found["train"]} == {"train"}
    assert {name.split("/")[0] for name in found["dev"] | found["test"]} == {"val"}
    assert (len(found["train"]), len(found["dev"]) + len(found["test"])) == (20, 20)
    assert abs(len(found["dev"]) - 10) <= 1


BAD_FOLDERS = {
    "misspelt split": (["train/cat/1", "tset/cat/2"], ["tset: expected split", "got 'tset'. Did you mean 'test'"]),
    "sets of COCO": (["train2017/1", "val2017/2"], ["pictures lie in train2017, val2017 without a folder for each"]),
    "a split of its own": (
        ["Train/cat/1", "Test/cat/2", "Predict/3"],
        ["Predict: expected a folder of a split"],
    ),
    "an exact split": (["cat/1", "dog/2", "test/3"], ["cat: expected a folder of a split, as test beside it"]),
    "sides": (["images/1", "masks/2"], ["images, masks look like the sides of an annotation"]),
    "no labels": (["train/1", "test/2"], ["pictures lie in test, train without a folder for each label"]),
    "one label": (["images/1", "images/2"], ["all pictures lie in the folder images"]),
    "beside splits": (["train/cat/1", "test/dog/1", "x"], ["x.png: 1 pictures lie beside the folders of the splits"]),
    "flat": (["1", "2"], ["no known format; no table with rows", "a folder of pictures for each label"]),
    "a table of a split": (["train.csv", "tset.csv"], ["tset.csv: expected split", "Did you mean 'test'"]),
    "metadata": (["train/metadata.csv", "vaild/metadata.csv"], ["metadata.csv: expected split", "mean 'valid'"]),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(case, tmp_path, sigmax):
    names, said = BAD_FOLDERS[case]
    for k, name in enumerate(names):
        put(tmp_path / (name if "." in name else f"{name}.png"), "text,label\na,b\n" if "." in name else drawn(k))
    refused(sigmax("check", tmp_path), 1, *said)


def test_unreadable_pictures_are_counted(tmp_path, sigmax):
    for k in range(30):
        put(tmp_path / ("cat", "dog")[k % 2] / f"{k}.png", drawn(k))
    for k, (content, _) in enumerate(BROKEN.values()):
        put(tmp_path / "cat" / f"broken {k}.jpg", content)
    put(tmp_path / "dog" / "phone.HEIC", b"\0\0\0\x18ftypheic")
    said = ["8 of 38 pictures cannot be read. Fix or remove them:", "cat/broken 0.jpg: the file is empty."]
    done = sigmax("check", tmp_path)
    refused(done, 1, *said, "dog/phone.HEIC: not a picture in a known format")
    with pytest.raises(DataError, match="8 of 38 pictures"):
        load_data(tmp_path)


@posix
def test_files_that_cannot_be_opened(tmp_path):
    for k in range(6):
        put(tmp_path / ("cat", "dog")[k % 2] / f"{k}.png", drawn(k))
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "cat" / "self.png").symlink_to(tmp_path / "cat" / "self.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    with pytest.raises(DataError, match=r"2 of 8 pictures(.|\n)*gone.png: cannot be read: No such file(.|\n)*self.png"):
        load_data(tmp_path)


@posix
def test_without_permission():
    """As another user where the tests run as root, to whom nothing is forbidden."""
    program = (
        "import os, sys; from sigmax.data import fetching, load_data, formats; formats.READERS\n"
        "os.geteuid() or os.setresuid(65534, 65534, 65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        load_data(path)\n"
        "    except ValueError as error:\n        print(error)"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("file", "folder"):
            for k in range(6):
                put(Path(folder, name, ("cat", "dog")[k % 2], f"{k}.png"), drawn(k))
        shut = Path(folder, "file", "cat", "0.png"), Path(folder, "folder", "dog")
        for path in shut:
            path.chmod(0)
        start = [sys.executable, "-c", program, f"{folder}/file", f"{folder}/folder"]
        done = subprocess.run(start, capture_output=True, text=True, check=True)
        shut[1].chmod(0o755)
    assert "1 of 6 pictures cannot be read" in done.stdout
    assert "folder/dog: cannot be listed: Permission denied" in done.stdout


@posix
def test_picture_files_end(tmp_path):
    """Folders that link to each other are walked once a way."""
    put(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    put(tmp_path / "b" / "2.png")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    found = [path.relative_to(tmp_path).as_posix() for path in picture_files(tmp_path)]
    assert found == ["a/1.png", "a/b/2.png", "b/2.png", "b/a/1.png"]


# -- tables --------------------------------------------------------------------------------------


def test_renamed_columns(tmp_path, sigmax):
    for k in range(9):
        put(tmp_path / "p" / f"{k}.png", drawn(k))
    path = table(tmp_path / "x.csv", [{"photo": f"p/{k}.png", "kind": "ab"[k % 2], "label": "z"} for k in range(9)])
    done = sigmax("check", path, "--columns", "image=photo,label=kind", "--json")
    assert json.loads(done.out)["candidates"] == 2
    refused(sigmax("check", path, "--columns", "image=foto"), 1, "no column 'foto'", "Did you mean 'photo'")
    assert {str(query) for query in read(path, columns={"file_name": "photo"}).queries} == {
        f"p/{k}.png" for k in range(9)
    }


def test_integers_are_texts(tmp_path):
    rows = [{"image": encoded(drawn(k)), "label": k % 3} for k in range(9)]
    assert list(read(table(tmp_path / "x.parquet", rows)).candidates) == ["0", "1", "2"]
    lists = [{**row, "label": [row["label"], 7]} for row in rows]
    assert list(read(table(tmp_path / "y.parquet", lists)).candidates) == ["0", "1", "2", "7"]


def test_a_path_names_its_split(tmp_path):
    """As Hugging Face reads one metadata file above the folders of the splits."""
    rows = []
    for k, part in enumerate(["train"] * 4 + ["validation"] * 2 + ["test"] * 2):
        put(tmp_path / part / f"{k}.png", drawn(k))
        rows.append({"file_name": f"{part}/{k}.png", "label": "ab"[k % 2]})
    table(tmp_path / "metadata.csv", rows)
    assert {name: len(found) for name, found in parts(read(tmp_path)).items()} == {"train": 4, "dev": 2, "test": 2}


def test_parquet_is_parsed_once(tmp_path, monkeypatch):
    path = bytes_in_parquet(tmp_path)
    calls = []
    whole = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        parquet.ParquetFile, "iter_batches", lambda *args, **given_: calls.append(1) or whole(*args, **given_)
    )
    read(path)
    assert calls == [1]


OTHER = [f"{k}.png,a\n" for k in range(3)]
BAD_TABLES = {
    "missing": ("9.png,a\n" + OTHER[0] + "8.png,b\n", ["x.csv, line 2: no such picture", "9.png. 2 of the 3 pictures"]),
    "up and out": ("../../etc/passwd,a\n", ["x.csv, line 2: expected a path inside", "got '../../etc/passwd'"]),
    "out on Windows": ("a\\..\\..\\x.png,a\n", ["line 2: expected a path inside"]),
    "absolute": (OTHER[0] + "/etc/passwd,a\n", ["x.csv, line 3: expected a path inside", "got '/etc/passwd'"]),
    "a drive": ("C:\\x.png,a\n", ["line 2: expected a path inside"]),
    "no name": (",a\n", ["x.csv, line 2: expected a picture under `image`, as a path, got ''"]),
    "NUL": ("a\0b.png,a\n", ["x.csv, line 2"]),
    "long": ("a" * 5000 + ".png,a\n", ["x.csv, line 2: no such picture"]),
    "no label": ("".join(f"{k}.png,\n" for k in range(3)), ["x.csv: no picture has a label"]),
    "a text": ("".join(OTHER) + "text.png,b\n", ["1 of 4 pictures cannot be read", "text.png: not a picture"]),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables(case, tmp_path, sigmax):
    for k in range(3):
        put(tmp_path / f"{k}.png", drawn(k))
    put(tmp_path / "text.png", "text")
    rows, said = BAD_TABLES[case]
    refused(sigmax("check", put(tmp_path / "x.csv", "image,label\n" + rows)), 1, *said)


BAD_CELLS = {
    "a number": ([{"image": 3, "label": "a"}], ["row 1: expected a picture under `image`, as a path or bytes, got 3"]),
    "nothing": ([{"image": None, "label": "a"}], ["row 1: expected a picture"]),
    "empty bytes": ([{"image": b"", "label": "a"}], ["row 1: expected a picture under `image`"]),
    "an infinity": ([{"image": b"x", "label": float("inf")}], ["row 1: expected a text in `label`, got inf"]),
    "no picture": (
        [{"image": b"x%d" % k, "label": "a"} for k in range(4)],
        ["4 of 4 pictures cannot be read", "x.parquet, row 1: not a"],
    ),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_bad_cells(case, tmp_path):
    rows, said = BAD_CELLS[case]
    with pytest.raises(DataError) as caught:
        load_data(table(tmp_path / "x.parquet", rows))
    for text in said:
        assert text in str(caught.value)


def test_an_unknown_label_of_hugging_face(tmp_path):
    schema = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["a", "b"]}}}})}
    rows = pyarrow.Table.from_pylist([{"image": encoded(drawn(k)), "label": k - 1} for k in range(3)])
    parquet.write_table(rows.replace_schema_metadata(schema), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet, row 1: expected `label` in 0 … 1.*got -1\. -1 stands for an unkn"):
        read(tmp_path / "x.parquet")


# -- COCO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["x/annotations", "x/labels", "x"])
def test_a_coco_file(below, tmp_path):
    """Alone, beside or above its pictures; the set's name is no split then."""
    file = put(tmp_path / below / "instances_train2017.json", json.dumps(instances(ROWS)))
    place = {"x/annotations": "x/train2017", "x/labels": "x/images", "x": "x"}[below]
    for k, row in enumerate(ROWS):
        put(tmp_path / place / f"{k}.png", row[0])
    found = {(pixels, labels) for pixels, labels, _ in told(read(file))}
    assert found == {(pixels, labels) for pixels, labels, _ in expected(ROWS)}


def broken_coco(**changes):
    content = {**instances(ROWS), **changes}
    return json.dumps({key: value for key, value in content.items() if value is not None})


BAD_COCO = {
    "not JSON": ("{", ["x.json: not JSON"]),
    "deep": ("[" * 100_000, ["x.json: JSON that is nested too deeply"]),
    "deep objects": ('{"images":' * 100_000, ["x.json: JSON that is nested too deeply"]),
    "another JSON": ("[1]", ["x.json, row 1: expected a JSON object", "got int"]),
    "an object": ('{"a":\n 1}', ["x.json: expected a list under `images`", "no such key", "an array of objects"]),
    "no categories": (broken_coco(categories=None), ["expected a list under `categories`"]),
    "no name": (broken_coco(images=[{"id": 0}]), ["images[0]: expected a text under `file_name`"]),
    "id twice": (broken_coco(images=[{"id": 0, "file_name": "0.png"}] * 2), ["images[1]: id 0 was given before"]),
    "id is a list": (broken_coco(images=[{"id": [], "file_name": "0.png"}]), ["an integer or a text under `id`"]),
    "no such image": (broken_coco(annotations=[{"image_id": 99, "category_id": 3}]), ["annotations[0]: image 99 does"]),
    "no such label": (
        broken_coco(annotations=[{"image_id": 0, "category_id": 4}]),
        ["annotations[0]: category 4 does"],
    ),
    "up": (broken_coco(images=[{"id": 0, "file_name": "../0.png"}], annotations=[]), ["inside", "got '../0.png'"]),
    "missing": (
        broken_coco(images=[{"id": 0, "file_name": "0.png"}, {"id": 1, "file_name": "no.png"}], annotations=[]),
        ["images[1]: no such picture", "1 of the 2 pictures named are missing"],
    ),
}


@pytest.mark.parametrize("case", BAD_COCO)
def test_bad_coco(case, tmp_path, sigmax):
    content, said = BAD_COCO[case]
    put(tmp_path / "0.png", drawn(0))
    refused(sigmax("check", put(tmp_path / "x.json", content)), 1, *said)


def test_a_misspelt_split_of_coco(tmp_path):
    coco(tmp_path / "a")
    (tmp_path / "a" / "annotations" / "instances_test2017.json").rename(
        tmp_path / "a" / "annotations" / "instances_tset2017.json"
    )
    with pytest.raises(DataError, match=r"instances_tset2017.json: expected split .*Did you mean 'test'"):
        read(tmp_path / "a")
    roboflow(tmp_path / "b")
    (tmp_path / "b" / "test").rename(tmp_path / "b" / "tset")
    with pytest.raises(DataError, match=r"_annotations.coco.json: expected split .*got 'tset'. Did you mean 'test'"):
        read(tmp_path / "b")


# -- Pascal VOC ----------------------------------------------------------------------------------


def test_voc_without_lists(tmp_path):
    """All pictures belong; one without an annotation has none of the labels."""
    voc(tmp_path)
    for file in (tmp_path / "ImageSets" / "Main").iterdir():
        file.unlink()
    (tmp_path / "Annotations" / "2007 0.xml").unlink()
    data = read(tmp_path)
    assert len(data.queries) == 12
    assert data.answer_counts[[str(query) for query in data.queries].index("JPEGImages/2007 0.png")] == 0


def test_trainval_is_trained_on(tmp_path):
    voc(tmp_path)
    for name in ("train", "val"):
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").unlink()
    data = read(tmp_path)
    assert len(data.split("test")) == 4
    assert len(data.split("train")) + len(data.split("dev")) == 8


LAUGHS = "<!DOCTYPE a [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {y} '{f'&{x};' * 10}'>" for x, y in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD_XML = {
    "entities that grow": (LAUGHS + "]><annotation><object><name>&i;</name></object></annotation>", "a DOCTYPE"),
    "another file": (
        "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotation><object><name>&x;</name></object></annotation>",
        "a DOCTYPE",
    ),
    "a DTD elsewhere": ("<!DOCTYPE annotation SYSTEM 'http://127.0.0.1:9/x.dtd'><annotation/>", "a DOCTYPE"),
    "not closed": ("<annotation>", "not a readable XML annotation"),
    "empty": ("", "not a readable XML annotation"),
    "no encoding": ("<?xml version='1.0' encoding='klingon'?><annotation/>", "not a readable XML annotation"),
    "no name": ("<annotation><object><name> </name></object></annotation>", "<name> in each <object>, got none in obj"),
}


@pytest.mark.parametrize("case", BAD_XML)
def test_bad_xml(case, tmp_path, sigmax):
    content, said = BAD_XML[case]
    put(voc(tmp_path) / "Annotations" / "2007 3.xml", content)
    refused(sigmax("check", tmp_path), 1, "2007 3.xml: ", said)


def test_bad_voc(tmp_path):
    folder = voc(tmp_path / "a")
    (folder / "JPEGImages" / "2007 5.png").unlink()
    with pytest.raises(DataError, match=r"val\.txt, line 2: no such picture: JPEGImages/2007 5\. 1 of the 12 pictures"):
        read(folder)
    folder = voc(tmp_path / "b")
    (folder / "Annotations" / "2007 5.xml").unlink()
    with pytest.raises(DataError, match=r"val\.txt, line 2: '2007 5' has no file in Annotations; 1 of 12 pictures"):
        read(folder)
    folder = voc(tmp_path / "c")
    (folder / "ImageSets" / "Main" / "test.txt").rename(folder / "ImageSets" / "Main" / "tset.txt")
    with pytest.raises(DataError, match=r"tset\.txt: expected split .*Did you mean 'test'"):
        read(folder)
    folder = voc(tmp_path / "d")
    put(folder / "ImageSets" / "Main" / "test.txt", "2007 0\n")
    with pytest.raises(DataError, match=r"train\.txt, line 1: '2007 0' is in the test split already"):
        read(folder)
    folder = voc(tmp_path / "e")
    put(folder / "JPEGImages" / "2007 0.gif", drawn(0))
    with pytest.raises(DataError, match=r"2007 0\.png: 2007 0\.gif has the same name"):
        read(folder)


# -- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 4, 4), (9, 1, 4, 4), (9, 4, 4, 1), (9, 3, 4, 4), (9, 4, 4, 3), (9, 3, 5, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_shapes_of_arrays(shape, kind, tmp_path):
    whole = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    given_ = whole if kind == np.uint8 else whole.astype(kind) / 255
    data = load_data(saved(tmp_path / "x.npz", images=given_, labels=np.arange(9) % 2))
    last = whole if whole.ndim == 3 or shape[3] in (1, 3) else whole.transpose(0, 2, 3, 1)
    last = last[..., 0] if last.shape[-1] == 1 else last
    for query, image in zip(data.queries, last, strict=True):
        assert (np.asarray(query.image()) == image).all()
        assert (opened(encoded(query.image())) == image).all()
    assert list(data.candidates) == ["0", "1"]


FINE = {"images": np.zeros((4, 3, 3), np.uint8), "labels": np.arange(4)}
BAD_ARRAYS = {
    "pickle": ({**FINE, "labels": np.array(["a", None, 1, 2], dtype=object)}, ["without pickles", "Save texts as str"]),
    "no images": ({"pictures": FINE["images"]}, ["expected arrays images and labels", "got pictures"]),
    "no labels": ({"images": FINE["images"]}, ["x.npz, images: no array labels beside it"]),
    "too few labels": ({**FINE, "labels": np.arange(3)}, ["as many images, labels and splits, got 4, 3, 4"]),
    "too few splits": ({**FINE, "split": np.array(["train"])}, ["got 4, 4, 1"]),
    "unknown split": ({**FINE, "split": np.array(["tset"] * 4)}, ["x.npz, split: expected split", "mean 'test'"]),
    "misspelt array": ({"x_trian": FINE["images"], "y_trian": FINE["labels"]}, ["x_trian: expected", "mean 'train'"]),
    "four channels": ({**FINE, "images": np.zeros((4, 5, 5, 4), np.uint8)}, ["expected the shape", "(4, 5, 5, 4)"]),
    "no pixels": ({**FINE, "images": np.zeros((4, 0, 3), np.uint8)}, ["expected the shape"]),
    "rows": ({**FINE, "images": np.zeros((4, 9), np.uint8)}, ["expected the shape"]),
    "floats": ({**FINE, "images": np.full((4, 3, 3), 2.5)}, ["expected floats in [0, 1], or uint8, got 2.5 to 2.5"]),
    "not a number": ({**FINE, "images": np.full((4, 3, 3), np.nan)}, ["expected floats in [0, 1]"]),
    "integers": ({**FINE, "images": np.zeros((4, 3, 3), np.int64)}, ["int64. Try .astype(np.uint8)"]),
    "labels are floats": ({**FINE, "labels": np.zeros(4)}, ["x.npz, labels: expected one text each, got float64"]),
    "labels are counts": ({**FINE, "labels": np.full((4, 2), 2)}, ["zeros and ones"]),
    "too few names": ({**FINE, "label_names": np.array(["a", "b"])}, ["`labels` in 0 … 1", "got 2"]),
    "too many names": (
        {**FINE, "labels": np.zeros((4, 2), int), "label_names": np.array([*"abc"])},
        ["expected 3 columns"],
    ),
    "not UTF-8": ({**FINE, "labels": np.array([b"\xff"] * 4)}, ["labels: not UTF-8"]),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(case, tmp_path, sigmax):
    given_, said = BAD_ARRAYS[case]
    refused(sigmax("check", saved(tmp_path / "x.npz", **given_)), 1, *said)


@given(st.data())
def test_any_damage_to_arrays_is_refused(data):
    file = io.BytesIO()
    np.savez_compressed(file, images=np.stack([drawn(k) for k in range(6)]), labels=np.arange(6) % 2)
    content = bytearray(file.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    with tempfile.TemporaryDirectory() as folder:
        try:
            assert len(load_data(put(Path(folder, "x.npz"), bytes(content))).queries)
        except DataError as error:
            assert "x.npz" in str(error)


# -- splits that are misspelt elsewhere ----------------------------------------------------------


def test_misspelt_qrels(tmp_path, sigmax):
    put(tmp_path / "queries.jsonl", "".join(f'{{"_id": "{k}", "text": "{k}"}}\n' for k in range(5)))
    put(tmp_path / "corpus.jsonl", '{"_id": "a", "text": "a"}\n')
    put(tmp_path / "qrels" / "train.tsv", "0\ta\t1\n")
    put(tmp_path / "qrels" / "tset.tsv", "1\ta\t1\n")
    refused(sigmax("check", tmp_path), 1, "tset.tsv: expected split to be one of train", "Did you mean 'test'?")


# -- what check says -----------------------------------------------------------------------------


def test_check_speaks_of_pictures(tmp_path, sigmax):
    for part, label, name, image in (
        ("train", "cat", "1", drawn(1)),
        ("train", "dog", "same as 1", drawn(1)),
        ("train", "dog", "2", drawn(2, (9, 30), 1)),
        ("dev", "cat", "3", drawn(3)),
        ("test", "cat", "same as 1", drawn(1)),
        ("test", "cow", "4", drawn(4)),
    ):
        put(tmp_path / part / label / f"{name}.png", image)
    facts = json.loads(sigmax("check", tmp_path, "--json").out)
    assert facts["pictures"] == {"width": [7, 9], "height": [5, 30], "grey": 1, "colour": 5}
    assert (facts["conflicting_queries"], facts["leaked_queries"], facts["untrained_candidates"]) == (1, 1, 1)
    shown = " ".join(sigmax("check", tmp_path).out.split())
    assert "size of the pictures (width × height) │ 7–9 × 5–30" in shown
    assert "of them grey / in colour │ 1 / 5" in shown
    assert "1 queries repeat an earlier one with other right answers" in shown
    assert "1 labels occur in dev or test but never in train" in shown
