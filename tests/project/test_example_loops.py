"""The examples of loops of one's own run, and learn what they are trained on."""

import re
import runpy
from pathlib import Path

import pytest

from sigmax import SoftmaxLoss, load_data

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_plain_pytorch(capsys):
    example = runpy.run_path(str(EXAMPLES / "plain_pytorch.py"))
    data, loss = load_data("emoji"), SoftmaxLoss(positives="decoupled")
    untrained = example["precision_at_1"](data, example["Encoder"](), loss, "train")
    encoder = example["train"](data, loss, epochs=3)
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", capsys.readouterr().out)]
    assert losses[0] > losses[1] > losses[2]
    assert example["precision_at_1"](data, encoder, loss, "train") > untrained + 0.03


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers
def test_lightning(capsys, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / "lightning_loop.py"), run_name="__main__")
    assert float(re.search(r"precision@1 on test: ([\d.]+)", capsys.readouterr().out)[1]) > 0.25
