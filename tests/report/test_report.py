import html
import io
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from helpers.answers import matches
from helpers.comparisons import NONE, PRESENCE, scripted
from helpers.data import things
from sigmax.calibration.curves import Platt
from sigmax.data.check import Pictures, check
from sigmax.data.dataset import SPLITS
from sigmax.evaluation import Evaluation, evaluate
from sigmax.metrics.intervals import Estimate, number
from sigmax.metrics.registry import METRICS
from sigmax.report.figure import comparison_figure, reliability_figure
from sigmax.report.tables import check_table, comparison_table, evaluation_table, matches_table
from sigmax.report.words import matches_words


def shown(table, width=150):
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue()


# -- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9124, "0.912"),
        (1.0, "1.000"),
        (0.00314, "0.0031"),
        (-0.00314, "-0.0031"),
        (0.0, "0.000"),
        (12.44, "12.4"),
        (9.9994, "9.999"),
        (-0.5, "-0.500"),
        (1234.0, "1234.0"),
        (float("nan"), "–"),
    ],
)
def test_number(value, text):
    assert number(value) == text


# -- tables --------------------------------------------------------------------------------------


def test_comparison_table():
    values = {
        "softmax-average": {"map": 0.7, "log_loss": 12.5},
        "sigmoid": {"map": 0.6, "log_loss": 9.5},
        "tfidf-lr": {"map": 0.65, "log_loss": 11.5},
    }
    comparison = scripted(values)
    text = shown(comparison_table(comparison))
    assert "tiny: test metrics, mean of seeds, 95% intervals" in text
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in rows["MAP"].split("│")[2:-1]] == ["0.700", "0.600", "0.650"]
    assert [cell.strip() for cell in rows["log loss per query ↓"].split("│")[2:-1]] == ["12.5", "9.500", "11.5"]
    assert rows["seconds per run"].count("1.2") == 3
    low, high = comparison["sigmoid"]["map"].low, comparison["sigmoid"]["map"].high
    assert f"{low:.3f}–{high:.3f}" in text
    assert {"ranking", "presence", "none of these"} <= rows.keys()
    text = shown(comparison_table(scripted(values, without=(*NONE, *PRESENCE))))
    assert "none of these" not in text
    assert "presence" not in text


def test_the_best_is_bold():
    values = {"softmax-average": {"map": 0.7, "log_loss": 12.5}, "sigmoid": {"map": 0.6, "log_loss": 9.5}}
    text = io.StringIO()
    table = comparison_table(scripted(values))
    Console(file=text, width=150, force_terminal=True, color_system="standard").print(table)
    assert "\x1b[1m0.700" in text.getvalue()
    assert "\x1b[1m9.500" in text.getvalue()
    assert "\x1b[1m0.600" not in text.getvalue()
    assert "\x1b[1m12.5" not in text.getvalue()


def test_the_best_is_closest_to_one():
    values = {"softmax-average": {"calibration_slope": 1.4}, "sigmoid": {"calibration_slope": 0.9}}
    values["tfidf-lr"] = {"calibration_slope": np.nan, "map": np.nan}
    for order in (list(values), list(values)[::-1]):
        text = io.StringIO()
        table = comparison_table(scripted({name: values[name] for name in order}))
        Console(file=text, width=150, force_terminal=True, color_system="standard").print(table)
        assert "\x1b[1m0.900" in text.getvalue()
        assert "\x1b[1m1.400" not in text.getvalue()
        assert "\x1b[1m–" not in text.getvalue()


def evaluated(name="tiny", without=()):
    draws = {metric: np.array([0.5, 0.4, 0.6]) for metric in METRICS if metric not in without}
    return Evaluation(name, "test", 10, 2, draws)


def test_evaluation_table():
    text = shown(evaluation_table(evaluated()))
    assert "tiny, test: 10 queries, 2 with no answer; ranked by logit" in text
    assert sum("0.500" in line for line in text.splitlines()) == len(METRICS)
    assert "0.405–0.595" in text
    text = shown(evaluation_table(evaluated(without=(*PRESENCE, *NONE))))
    assert "presence" not in text
    assert "none of these" not in text
    assert "none" not in shown(evaluation_table(Evaluation("tiny", "test", 10, 0, {"map": np.array([0.5])}))).lower()


@pytest.mark.parametrize("name", ["a[red]b", "a[/]b", "[bold]", "a [b] c"])
def test_names_with_brackets(name):
    """They mean nothing, however much they look like markup."""
    assert f"{name}, test: 10 queries" in shown(evaluation_table(evaluated(name)))
    assert f"{name}: test metrics" in shown(comparison_table(scripted({"sigmoid": {}}, data=name)))


# -- matches and data ----------------------------------------------------------------------------


def test_matches_table():
    text = shown(matches_table(matches(0.91, 0.25, 0.004, accepted=1, any_right=0.93)))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert text.startswith("a query")
    assert lines == [
        ["✓", "candidate 0", "2.00", "0.500", "0.910"],
        ["", "candidate 1", "1.00", "0.500", "0.250"],
        ["", "candidate 2", "0.00", "0.500", "0.004"],
    ]


def test_matches_of_a_model_that_was_not_calibrated():
    found = matches(0.9, 0.1)
    assert shown(matches_table(found)).count("–") >= 2
    assert "✓" not in shown(matches_table(found))
    assert matches_words(found) is None


@pytest.mark.parametrize("name", ["a[red]b", "[bold]"])
def test_matches_of_any_text(name):
    assert shown(matches_table(matches(0.5, any_right=0.5, query=name))).startswith(name)


def test_check_table():
    data = things(unanswered=True)
    found = check(data)
    text = shown(check_table(found))
    rows = dict([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│"))
    assert rows["queries (train / dev / test)"] == " / ".join(str(len(data.split(name))) for name in SPLITS)
    assert rows["of them with no right answer"] == "18 / 6 / 6"
    assert rows["candidates"] == "6"
    assert rows["right pairs"] == str(len(data.pairs))
    assert rows["right answers per query (mean, median, maximum)"] == "1.1, 1, 3"
    assert any(name.startswith("in-batch false negatives at ") and "% of rows" in rows[name] for name in rows)
    assert "pictures" not in text
    pictures = Pictures((7, 9), (5, 5), 1200, 3)
    text = shown(check_table(replace(found, pictures=pictures, labels=True)))
    assert "size of the pictures (width × height)" in text
    assert "7–9 × 5 " in text
    assert "1,200 / 3" in text
    assert "labels" in text


# -- the figure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("without", [(), tuple(NONE), (*NONE, *PRESENCE)])
def test_figure(without, tmp_path):
    from PIL import Image

    values = {"softmax-average": {"map": 0.7}, "sigmoid": {}, "tfidf-lr": {}}
    path = tmp_path / "deep" / "comparison.png"
    comparison_figure(scripted(values, without=without), path)
    with Image.open(path) as image:
        image.verify()
        assert image.format == "PNG"
        assert image.width > 600
    assert path.stat().st_size > 10_000


def drawn(path, **given):
    """The texts of a figure."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        comparison_figure(scripted({"softmax-average": {"map": 0.7}, "sigmoid": {}, "one-positive": {}}, **given), path)
    return html.unescape(" ".join(re.findall("<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))))


def test_figure_says_everything(tmp_path):
    text = drawn(tmp_path / "comparison.svg")
    for said in (
        *("softmax-average", "sigmoid", "one-positive", "Ranking", "Presence", "None of these", "← better", "better →"),
        "tiny: 1,234 queries, 56 candidates, 1.8 right answers per query, encoder ngrams",
        "How to read: a dot is the mean over seeds on test, a line its 95% interval",
        "Filled: by the largest logit; hollow: by the largest share.",
    ):
        assert said in text
    text = drawn(tmp_path / "comparison.svg", without=NONE)
    assert "None of these" not in text
    assert "hollow" not in text


@pytest.mark.parametrize("name", ["a <b> & c", "from $5 to $10", "$^$", "a_b^c", "[red]"])
def test_figure_of_any_name(name, tmp_path):
    """What looks like a formula or markup is none."""
    assert f"{name}: 1,234 queries" in drawn(tmp_path / "comparison.svg", data=name)


def test_figure_leaves_nothing_open(tmp_path):
    from matplotlib import pyplot

    pyplot.close("all")
    before = pyplot.rcParams["font.size"]
    comparison_figure(scripted({"sigmoid": {}}), tmp_path / "comparison.png")
    assert pyplot.get_fignums() == []
    assert pyplot.rcParams["font.size"] == before


def test_figure_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"matplotlib is not installed. Try: pip install 'sigmax\[report\]'"):
        comparison_figure(scripted({"sigmoid": {}}), tmp_path / "comparison.png")
    assert list(tmp_path.iterdir()) == []


# -- reliability ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    """One evaluation of true presences, one of presences that claim too much."""
    from helpers.scripted import Scripted, numbered

    random = np.random.default_rng(0)
    logits = random.normal(-3, 2, size=(300, 20))
    data = numbered(random.random((300, 20)) < 1 / (1 + np.exp(-logits)))
    return {
        name: evaluate(Scripted(logits, Platt(1.0, bias), 0.5), data, draws=100)
        for name, bias in (("true $", 0.0), ("too much", 1.5))
    }


def texts(figure, path):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(path)
    return html.unescape(" ".join(re.findall("<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("count", range(1, 6))
def test_reliability_figure(measured, tmp_path, count):
    evaluations = {f"{name} {k}": measured[name] for k in range(3) for name in measured}
    evaluations = dict(list(evaluations.items())[:count])
    figure = reliability_figure(evaluations)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert len(shown) == count
    for ax, (name, evaluation) in zip(shown, evaluations.items(), strict=True):
        assert ax.get_title(loc="left") == name
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert [dot.get_xdata()[0] for dot in dots] == [one.presence for one in evaluation.reliability]
        shares = [one.right.value for one in evaluation.reliability]
        low, high = ax.get_ylim()
        assert [dot.get_ydata()[0] for dot in dots] == [min(max(share, low), high) for share in shares]
    text = texts(figure, tmp_path / "reliability.svg")
    assert "How to read: each dot gathers pairs" in text
    assert "true $ 0" in text
    assert f"slope {number(measured['true $']['calibration_slope'].value)}" in text


def test_reliability_needs_a_calibration(measured):
    with pytest.raises(ValueError, match=r"Expected evaluations of calibrated models, got \['bare'\]"):
        reliability_figure({**measured, "bare": evaluated()})
    with pytest.raises(ValueError, match="Expected evaluations of calibrated models, got none"):
        reliability_figure({})


def test_reliability_without_draws(measured):
    one = measured["true $"]
    bins = tuple(replace(b, right=Estimate(b.right.value, np.nan, np.nan)) for b in one.reliability)
    assert reliability_figure({"plain": replace(one, reliability=bins)}).axes
