"""Output: any encoding, closed streams, full disks; what was computed is not lost whatever fails later."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from helpers.commands import posix, refused
from sigmax.cli import console
from sigmax.cli.console import deliver

BRIEF = ["--contenders", "sigmoid", "--steps", "1", "--rates", "1", "--scales", "1", "--seeds", "1"]


def run(*words, encoding="utf-8", shell=None, **given):
    """The command line as a process of its own."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sigmax", *map(str, words)]
    if shell is not None:
        command = ["bash", "-c", shell, "bash", *command]
    return subprocess.run(command, env=environment, capture_output=True, check=False, **given)


@pytest.mark.parametrize("encoding", ["cp1252", pytest.param("cp437", marks=pytest.mark.slow), "ascii"])
def test_output_in_any_encoding(encoding, model):
    done = run("match", model, "sky", encoding=encoding)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "presence" in text
    assert "\ufffd" not in text
    assert "* " in text  # an accepted candidate's check mark


@pytest.mark.slow
def test_json_in_any_encoding_is_whole(model):
    done = run("match", model, "日本 café", "--json", encoding="ascii")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("ascii"))["results"][0]["query"] == "日本 café"


def test_signs_that_look_alike():
    assert "✓ a – b • 日 é".encode("ascii", "sigmax") == b"* a - b - ? ?"
    assert "✓ é – 日".encode("cp1252", "sigmax").decode("cp1252") == "* é – ?"


@posix
@pytest.mark.slow
@pytest.mark.parametrize("shell", ['"$@" | true', '"$@" | head -c 10', '"$@" >&-', '"$@" <&-', '"$@" 2>&-'])
def test_closed_streams(shell, data):
    done = run("check", data, shell=shell)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.slow
@posix
def test_a_closed_pipe_loses_no_file(data, tmp_path):
    done = run("compare", data, *BRIEF, "-o", tmp_path / "out", shell='"$@" | true')
    assert b"Traceback" not in done.stderr
    assert json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))["results"]


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_stdout(data):
    done = run("--help", shell='"$@" >/dev/full')
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


UNWRITABLE = [
    "compare DATA --report FILE/report.html",
    "compare DATA -o FILE/out",
    "train DATA -o FILE/model",
    "evaluate MODEL DATA --figure FILE/figure.png",
    "explain MODEL sky --figure FILE/figure.png",
    "encode MODEL DATA -o FILE/vectors.parquet",
    "mine MODEL DATA -o FILE/mined",
]


@pytest.mark.parametrize("command", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_told_first(command, sigmax, model, data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("sigmax.data.sources.load_data", lambda *_, **__: pytest.fail("read the data"))
    places = {"DATA": data, "MODEL": model}
    words = [places.get(word, word.replace("FILE", str(tmp_path / "file"))) for word in command.split()]
    refused(sigmax(*words), 1, f"{tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_report_that_fails_does_not_take_the_table_with_it(sigmax, data, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError(28, "No space left on device", "report.html")

    monkeypatch.setattr("sigmax.report.html.report_html", fails)
    done = sigmax("compare", data, *BRIEF, "--report", tmp_path / "report.html", "-o", tmp_path / "out")
    assert done.code == 1
    assert "things: test metrics" in done.out
    assert "No space left on device: report.html" in done.words
    assert (tmp_path / "out" / "comparison.json").exists()


def test_a_model_is_saved_before_it_is_measured(sigmax, data, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ValueError("no memory")

    monkeypatch.setattr("sigmax.evaluation.evaluate", fails)
    done = sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1")
    assert done.code == 1
    assert (tmp_path / "model" / "sigmax.json").exists()


def test_every_step_is_taken():
    taken = []

    def fail(what):
        taken.append(what)
        raise ValueError(what)

    with pytest.raises(ValueError, match="first"):
        deliver(partial(fail, "first"), partial(taken.append, "second"), partial(fail, "third"))
    assert taken == ["first", "second", "third"]


def test_a_bar_is_shown_once_work_takes_long(monkeypatch):
    """On a terminal alone, and not for what is done at once."""
    import io
    import time

    from rich.console import Console

    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(console, "err", screen)
    monkeypatch.setattr(console, "PATIENCE", 0.05)
    with console.bar("short work"):
        pass
    assert "short work" not in screen.file.getvalue()
    with console.bar("long work") as advance:
        time.sleep(0.3)
        advance(0.5, "half done")
        time.sleep(0.3)
    assert "long work" in screen.file.getvalue()
    assert "half done" in screen.file.getvalue()
