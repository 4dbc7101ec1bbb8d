"""What a command printed, what it reads, and how it is started as a program."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import typer

from helpers.data import things
from sigmax.cli.main import app

COMMANDS = typer.main.get_command(app).commands
#: Texts that a terminal's markup would swallow.
BRACKETS = ["[red]night", "[/]", "[/b] sky", "a [bold]moon[/bold]"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")


class Done:
    """What a command printed, and its exit code."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def words(self):
        """Of stderr, on one line however it was wrapped."""
        return " ".join(self.err.split())


def refused(done, code, *said):
    """It failed as it should: nothing on stdout, a message without a traceback on stderr."""
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    for text in said:
        assert text in done.words


def rows(**given):
    """The small data set of the training tests as rows of a table of pairs."""
    data = things(**given)
    split = {i: name for name, places in data.splits.items() for i in places.tolist()}
    answers = [[data.candidates[j] for j in data.graph[[i]].indices] for i in range(len(data.queries))]
    return [
        {"query": query, "answers": right, "split": split[i]}
        for i, (query, right) in enumerate(zip(data.queries, answers, strict=True))
    ]


def jsonl(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table), encoding="utf-8")
    return path


def write_labelled(path, table):
    return jsonl(
        path / "things.jsonl", [{"text": r["query"], "labels": r["answers"], "split": r["split"]} for r in table]
    )


def broken(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def changed(model, folder, **about):
    shutil.copytree(model, folder)
    text = json.loads((folder / "sigmax.json").read_text(encoding="utf-8")) | about
    (folder / "sigmax.json").write_text(json.dumps(text), encoding="utf-8")
    return folder


def spawn(*words, **given):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-m", *map(str, words)], env=environment, text=True, **given)
