"""train interrupted, resumed, on a full disk, on several processes."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from helpers.commands import posix, refused, spawn
from sigmax.data.sources import load_data
from sigmax.evaluation import evaluate
from sigmax.model.dual_encoder import load


def weights(folder):
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{path.relative_to(folder)} {name}": t for path in files for name, t in load_file(path).items()}


#: 25 epochs of 6 steps: long enough to be killed in the middle, and so slow that the best epoch comes late.
LONG = (
    "--loss sigmoid --two-towers --batch-size 16 --answers 1 --negatives 1 --epochs 25 --patience 1000 "
    "--learning-rate 0.0003"
)


@posix
@pytest.mark.slow
def test_a_killed_run_goes_on(sigmax, data, tmp_path):
    options = LONG.split()
    killed, checkpoints = tmp_path / "killed", tmp_path / "killed.checkpoints"
    with spawn("sigmax", "train", data, "-o", killed, *options, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 120
        while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not killed.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["killed.checkpoints"]
    reached = max(int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*"))
    assert reached < 150

    then = load_file(checkpoints / f"checkpoint-{reached}" / "model.safetensors")["query_encoder.table.weight"]
    before = sorted(checkpoints.rglob("*"))
    refused(sigmax("train", data, "-o", killed, *options), 1, str(checkpoints), "(--resume)", "(--fresh)")
    done = sigmax("train", data, "-o", killed, *options, "--resume", "--seed", "1")
    refused(done, 1, "seed 0 → 1", "(--fresh)")
    assert sorted(checkpoints.rglob("*")) == before

    part = checkpoints / "checkpoint-9999"  # as if killed while one more was written
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"\x10\x00")

    whole = json.loads(sigmax("train", data, "-o", tmp_path / "whole", *options, "--json").out)
    done = sigmax("train", data, "-o", killed, *options, "--resume", "--json")
    assert done.code == 0
    assert json.loads(done.out) == whole | {"model": str(killed)}
    one, other = weights(tmp_path / "whole"), weights(killed)
    assert one.keys() == other.keys()
    # of each tower: n-grams, their idf, their vectors; of words: counts and weights; of training queries:
    # their profiles; of dev: what rules decide from
    assert len(one) == 21
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(other["query_encoder/model.safetensors table.weight"], then)  # it learnt more after the kill
    assert (killed / "sigmax.json").read_bytes() == (tmp_path / "whole" / "sigmax.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_fresh_throws_checkpoints_away(sigmax, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            sys.modules["sigmax.training.train"], "calibrate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1").code == 130
    assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1", "--fresh", "--seed", "1").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1", "--fresh").code == 0
    assert sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1", "--resume").code == 0


@pytest.mark.slow
def test_what_is_no_checkpoint_is_left_alone(sigmax, tmp_path):
    (tmp_path / "model.checkpoints").mkdir()
    (tmp_path / "model.checkpoints" / "mine.txt").write_text("mine")
    for flags in ((), ("--fresh",), ("--resume",)):
        done = sigmax("train", "emoji", "-o", tmp_path / "model", *flags)
        assert done.code == 1
        assert "holds no checkpoints" in done.err
    assert (tmp_path / "model.checkpoints" / "mine.txt").read_text() == "mine"


def test_interrupted(sigmax, data, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["sigmax.training.train"], "calibrate", interrupt)
    refused(sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1"), 130, "Stopped.")
    assert not (tmp_path / "model").exists()
    refused(sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1"), 1, "--resume", "--fresh")


@posix
@pytest.mark.parametrize("size", [300, 3_000, 400_000])
def test_a_full_disk(size, sigmax, data, tmp_path):
    """Wherever it fills up: in the settings, the parameters, or the optimizer's state of a checkpoint."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        done = sigmax("train", data, "-o", tmp_path / "model", "--epochs", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused(done, 1, "Error:")
    assert not (tmp_path / "model").exists()


TORCHRUN = "torch.distributed.run --standalone --nproc-per-node={} -m sigmax train"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "loss"), [(2, "sigmoid"), (4, "sigmoid"), (2, "softmax-average --none-candidate")]
)
def test_many_processes(processes, loss, sigmax, data, tmp_path):
    """They train one model; the first of them alone writes and prints."""
    words = [*TORCHRUN.format(processes).split(), data, "-o", tmp_path / "model", "--loss", *loss.split()]
    words += ["--epochs", "4", "--json", "--no-lexical"]  # many processes train without it
    with spawn(*words, "--batch-size", str(32 // processes), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    found = json.loads(out)
    trained = load(tmp_path / "model")
    assert found["facts"] == trained.facts
    assert found["facts"]["steps"] == 12  # 4 epochs of 81 queries, 32 a step
    assert found["evaluation"]["metrics"]["map"]["value"] > 0.8
    assert found["evaluation"] == evaluate(trained, load_data(data), split="dev").as_dict()
    assert err.count("81 training queries") == 1
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # The model that one process with a batch as large trains, but for the order in which floats are added.
    options = f"--loss {loss} --epochs 4 --batch-size 32 --no-lexical"
    alone = sigmax("train", data, "-o", tmp_path / "alone", *options.split())
    assert alone.code == 0
    for name, weights in load(tmp_path / "alone").state_dict().items():
        apart = (trained.state_dict()[name] - weights).abs()
        assert (apart > 1e-4 + 1e-3 * weights.abs()).double().mean() < 1e-3, name
        assert apart.max() < 3e-3, (
            name
        )  # a tenth of a step: where a gradient is as small as its rounding, Adam shows it
