"""The registry: one definition of each metric, and everything that reads it."""

import ast
import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from helpers.comparisons import scripted
from helpers.data import things
from helpers.models import tiny
from helpers.scripted import Scripted, random_case
from sigmax.data.writers import write_beir
from sigmax.errors import UnknownNameError
from sigmax.evaluation import evaluate, quick_metrics
from sigmax.metrics import METRICS, Metric, Observed
from sigmax.metrics.intervals import mean_statistic
from sigmax.metrics.registry import groups, watched
from sigmax.report.html import report_html
from sigmax.report.tables import comparison_table, evaluation_table
from sigmax.training.settings import Settings
from sigmax.training.train import train


def shown(table):
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    return text.getvalue()


# -- what is in it -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_entry(name):
    metric = METRICS[name]
    assert metric.name == name
    assert re.fullmatch(r"[a-z0-9_@]+", name)
    assert metric.title
    assert not re.search("[↓↑→]", metric.title)
    assert metric.meaning
    assert not metric.meaning.endswith(".")
    assert metric.better in ("higher", "lower", "closer to one")


def test_titles_are_told_apart():
    titles = [(metric.group, metric.title) for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)


def test_groups():
    found = groups()
    assert list(found) == ["ranking", "presence", "none of these", "the surest first"]
    assert [metric.name for group in found.values() for metric in group] == list(METRICS), "groups lie together"


def test_watched_metrics_need_no_calibration():
    data, logits, _ = random_case()
    assert set(quick_metrics(Scripted(logits), data)) == set(watched())
    assert {metric.group for metric in watched().values()} == {"ranking", "none of these"}


@pytest.mark.parametrize(
    ("name", "rising", "heading"),
    [
        ("map", [0.2, 0.6, 0.7], "MAP"),
        ("brier", [0.7, 0.6, 0.2], "Brier per query ↓"),
        ("calibration_slope", [1.5, 0.7, 1.1], "calibration slope →1"),
    ],
)
def test_better(name, rising, heading):
    goodness = [METRICS[name].goodness(value) for value in rising]
    assert goodness == sorted(goodness)
    assert len(set(goodness)) == 3
    assert np.isnan(METRICS[name].goodness(np.nan))
    assert METRICS[name].heading == heading


def test_checkpoints_cannot_be_ordered_by_what_is_best_at_one():
    with pytest.raises(ValueError, match=r"`better` of ratio, a watched metric, to be .*got 'closer to one'"):
        Metric("ratio", "ratio", "a ratio", "ranking", "closer to one", lambda _: None, watched=True)


def test_what_is_shared_is_made_once():
    made = []

    def build(observed):
        made.append(observed)
        return len(made)

    observed = Observed(np.zeros((2, 3), np.float32), np.zeros((2, 3), bool))
    assert [observed.shared(build), observed.shared(build)] == [1, 1]
    assert made == [observed]
    assert observed.answered.tolist() == [False, False]


LIGHT = """
import sys
import sigmax.metrics.registry
print(sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""


def test_importing_is_light():
    """The command line's help reads it."""
    known = subprocess.run(
        [sys.executable, "-c", LIGHT.replace("sigmax.metrics.registry", "numpy, lazy_loader")],
        capture_output=True,
        text=True,
        check=True,
    )
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) - set(ast.literal_eval(known.stdout)) <= {"sigmax", "numpy"}


# -- a metric from outside the package -----------------------------------------------------------


def margin(observed):
    """How far the second-best logit is below the best, negated: lower is better."""
    best = np.sort(observed.logits.astype(float), axis=1)
    return mean_statistic(best[:, -2] - best[:, -1])


@pytest.fixture
def outside(monkeypatch):
    metric = Metric(
        "doubt", "second less best", "second-best logit less the best, mean", "ranking", "lower", margin, watched=True
    )
    monkeypatch.setitem(METRICS, metric.name, metric)
    return metric


def test_outside_is_evaluated_and_shown(outside):
    data, logits, _ = random_case()
    found = evaluate(Scripted(logits), data, draws=50)
    expected = []
    for row in logits[data.split("test")].astype(np.float32).tolist():
        best = max(row)
        row.remove(best)
        expected.append(max(row) - best)
    assert found["doubt"].value == pytest.approx(sum(expected) / len(expected))
    assert found["doubt"].low < found["doubt"].value < found["doubt"].high
    assert quick_metrics(Scripted(logits), data, split="test")["doubt"] == pytest.approx(found["doubt"].value)
    (line,) = [line for line in shown(evaluation_table(found)).splitlines() if "second less best ↓" in line]
    assert f"{found['doubt'].value:.3f}" in line


def test_outside_is_compared(outside):
    comparison = scripted({"softmax-average": {"doubt": -2.0}, "sigmoid": {"doubt": -1.0}})
    assert "doubt" in comparison.metrics
    assert comparison.best("softmax", "doubt") == "softmax-average"
    table = shown(comparison_table(comparison))
    assert re.search(r"second less best ↓ *│ *-2.000 │ *-1.000 │", table)
    assert table.index("MAP") < table.index("second less best ↓") < table.index("log loss per query"), "in its group"
    page = report_html(comparison)
    assert '<th scope="row" title="second-best logit less the best, mean">second less best ↓</th>' in page


def test_outside_stands_in_the_card(outside):
    data, logits, _ = random_case()
    model = tiny()
    model.note(evaluate(Scripted(logits), data, draws=50))
    (row,) = [line for line in model.card("x").splitlines() if line.startswith("| doubt |")]
    assert row.endswith("| second-best logit less the best, mean |")


def test_outside_is_in_the_documentation(outside):
    place = Path(__file__).parents[2] / "docs" / "hooks.py"
    spec = importlib.util.spec_from_file_location("hooks", place)
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.on_page_markdown("Before.\n\n<!-- metrics -->\n")
    assert page.startswith("Before.")
    assert "| `doubt` | second-best logit less the best, mean | lower |" in page
    assert "| `calibration_slope` | " in page
    assert "| closer to one |" in page
    assert hooks.on_page_markdown("Nothing.") == "Nothing."


def test_outside_is_known_to_messages(outside):
    with pytest.raises(UnknownNameError, match=r"`metric`.*doubt.*'dout'.*Did you mean 'doubt'\?"):
        Settings(metric="dout")
    with pytest.raises(UnknownNameError, match=r"`metric`.*'log_loss'"):
        Settings(metric="log_loss")  # it needs a calibration


def test_training_chooses_by_an_outside_metric(outside, monkeypatch):
    """Lower is better: the epoch with the lowest value is kept."""
    from sigmax.training import trainer

    looks = iter([-1.0, -3.0, -2.0, -0.5])
    monkeypatch.setattr(trainer, "quick_metrics", lambda *_, **__: {"doubt": next(looks)})
    states = []
    settings = Settings(metric="doubt", epochs=4, patience=3)

    def keep(step, metrics):
        if "eval_doubt" in metrics:
            states.append(metrics["eval_doubt"])

    model = train(things(), settings, logged=keep)
    assert states == [-1.0, -3.0, -2.0, -0.5]
    early = iter([-1.0, -3.0])
    monkeypatch.setattr(trainer, "quick_metrics", lambda *_, **__: {"doubt": next(early, 0.0)})
    again = train(things(), settings)
    assert model.facts["settings"]["metric"] == "doubt"
    pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(one.equal(other) for one, other in pairs), "both kept the second epoch"


def test_outside_from_the_command_line(outside, sigmax, tmp_path):
    write_beir(things(), tmp_path / "data")
    done = sigmax("train", tmp_path / "data", "-o", tmp_path / "model", "--epochs", "1", "--metric", "doubt")
    assert done.code == 0
    done = sigmax("evaluate", tmp_path / "model", tmp_path / "data", "--json")
    assert json.loads(done.out)["metrics"]["doubt"]["value"] < 0
    done = sigmax("train", tmp_path / "data", "-o", tmp_path / "model2", "--metric", "doupt")
    assert done.code == 2
    assert "Did you mean 'doubt'?" in done.err
