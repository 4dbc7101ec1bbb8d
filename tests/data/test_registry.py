"""A format is one definition, wherever it comes from: it is read, listed in messages and in the help."""

import subprocess
import sys

import pytest

from sigmax.data import MatchDataset, load_data
from sigmax.data.formats import READERS, Reader, known_columns, read, readers
from sigmax.errors import DataError, UnknownNameError

#: Lines of "query = answer" in a file that ends in .riddle.
RIDDLES = """
from sigmax.data import MatchDataset
from sigmax.data.formats import READERS, Reader

def read_riddles(path, reading):
    rows = [line.split(" = ") for line in path.read_text(encoding="utf-8").splitlines()]
    answers = sorted({answer for _, answer in rows})
    return MatchDataset(
        name=path.stem,
        queries=[query for query, _ in rows],
        candidates=answers,
        pairs=[(i, answers.index(answer)) for i, (_, answer) in enumerate(rows)],
        splits={name: [i for i in range(len(rows)) if i % 3 == k] for k, name in enumerate(("train", "dev", "test"))},
    )

riddles = Reader(
    name="riddles",
    describes="riddles: lines of query = answer in a file that ends in .riddle",
    claims=lambda path, found: path.suffix == ".riddle",
    read=read_riddles,
    columns=("riddle",),
    endings=(".riddle",),
    before="classes",
)
READERS[riddles.name] = riddles
"""


@pytest.fixture
def riddles():
    namespace = {}
    exec(RIDDLES, namespace)
    yield namespace["riddles"]
    del READERS["riddles"]


def test_a_format_from_elsewhere(tmp_path, riddles):
    path = tmp_path / "sky.riddle"
    path.write_text("round = moon\nhot = sun\nwarm = fire\n", encoding="utf-8")
    data = load_data(path)
    assert isinstance(data, MatchDataset)
    assert data.candidates == ["fire", "moon", "sun"]
    assert "riddle" in known_columns()
    names = [reader.name for reader in readers()]
    assert names.index("riddles") == names.index("classes") - 1, "its place is the one it asks for"
    (tmp_path / "x.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"expected a file ending in .*\.riddle"):
        read(tmp_path / "x.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="riddles: lines of query = answer"):
        read(tmp_path / "empty")


def test_a_format_from_elsewhere_in_the_help():
    shown = "import typer.rich_utils\ntyper.rich_utils.MAX_WIDTH = 400\nfrom sigmax.cli.main import app\n"
    code = f"{RIDDLES}\n{shown}app(['check', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, encoding="utf-8")
    assert "riddles: lines of query = answer in a file that ends in .riddle" in " ".join(done.stdout.split()), done


def test_a_format_before_one_that_does_not_exist(tmp_path, riddles, monkeypatch):
    monkeypatch.setitem(READERS, "riddles", Reader(**{**vars(riddles), "before": "class"}))
    with pytest.raises(UnknownNameError, match="Did you mean 'classes'"):
        readers()


def test_a_format_reads_or_unpacks():
    with pytest.raises(ValueError, match="either `read` or `unpack` of the format 'x'"):
        Reader(name="x", describes="nothing", claims=lambda path, found: True)


def test_columns_come_from_the_formats(tmp_path):
    assert {"query", "answer", "answers", "wrong", "text", "label", "labels", "image", "file_name", "split"} == {
        *known_columns()
    }
    with pytest.raises(UnknownNameError, match="Did you mean 'query'"):
        read(tmp_path, columns={"querry": "x"})


def test_listing_the_formats_is_light():
    code = (
        "import sys\n"
        "import sigmax.data.formats.registry\n"
        "heavy = 'torch transformers sentence_transformers sklearn pyarrow scipy datasets'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
