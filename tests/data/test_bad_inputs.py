"""Small bad inputs, and what exactly becomes of each: outcomes.json holds the message, or what was read."""

import json
from pathlib import Path

import pytest

from sigmax.data.check import check
from sigmax.data.formats import read
from sigmax.data.pictures import Picture, check_pictures

FOLDER = Path(__file__).with_name("bad_inputs")
OUTCOMES = json.loads((FOLDER / "outcomes.json").read_text(encoding="utf-8"))


def outcome(name):
    try:
        data = read(FOLDER / name)
        check_pictures([query for query in data.queries if isinstance(query, Picture)])
    except ValueError as error:
        said = str(error).replace(str(FOLDER), "HERE").partition(" Expected one of\n")[0]
        return said.partition(" (JPEG, ")[0]  # the formats that this build of Pillow reads
    return {
        "queries": list(map(str, data.queries)),
        "candidates": list(data.candidates),
        "right": data.pairs.tolist(),
        "wrong": data.wrong.tolist(),
        "splits": {part: indices.tolist() for part, indices in data.splits.items()},
        "notes": list(data.notes),
        "conflicts": check(data).conflicts,
    }


def test_every_input_has_its_outcome():
    assert OUTCOMES.keys() == {path.name for path in FOLDER.iterdir()} - {"outcomes.json"}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcome(name):
    assert outcome(name) == OUTCOMES[name]
