import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from helpers.comparisons import NONE, scripted
from helpers.data import things
from sigmax.comparison.compare import compare
from sigmax.comparison.examples import KINDS
from sigmax.comparison.results import Budget
from sigmax.metrics.intervals import interval, number
from sigmax.metrics.registry import METRICS
from sigmax.report.answer import duels, recommended, standings
from sigmax.report.html import check_report, report_html
from sigmax.report.words import gap_words, headline, notes
from sigmax.training.settings import Settings

NAMES = ("softmax-average", "sigmoid", "tfidf-lr")
VOID = {"meta", "br", "col", "hr", "img", "input", "link"}
SECTIONS = [
    *("answer", "ranking", "reliability", "labels", "logits", "risk", "training"),
    *("costs", "differences", "queries", "data", "reproduce"),
]


class Page(HTMLParser):
    """What a browser would see: balanced elements, ids, references, and the texts of sections, cells and captions."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.refers, self.styles = [], [], [], [], []
        self.sections, self.rows, self.texts = {}, [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert len(given) == len(attributes), (tag, attributes)
        self.tags.append((tag, given))
        if tag not in VOID:
            self.open.append((tag, given.get("id")))
        if "id" in given:
            self.ids.append(given["id"])
        self.refers += (given.get("aria-labelledby") or "").split()
        self.refers += [given["href"].removeprefix("#")] if "href" in given else []
        self.refers += re.findall(r"url\(#([^)]*)\)", " ".join(value or "" for value in given.values()))
        if tag == "tr":
            self.rows.append((self.section, []))
        if tag in ("td", "th"):
            self.rows[-1][1].append("")

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        self.sections[self.section] = self.sections.get(self.section, "") + text
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.rows[-1][1][-1] += text

    @property
    def section(self):
        return next((name for tag, name in self.open if tag == "section"), None)

    def table(self, section):
        return [cells for where, cells in self.rows if where == section]


def checked(text):
    """The page, held to what every page must be."""
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.refers) <= set(page.ids)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image", "base", "form"}
    assert not {key for _, given in page.tags for key in given if key.startswith(("on", "src", "xmlns", "xlink"))}
    assert "http" not in text
    assert not re.search(r"url\((?!#)|@import", text)
    drawings = [given for tag, given in page.tags if tag == "svg"]
    for given in drawings:
        assert given["role"] == "img"
        title, described = given["aria-labelledby"].split()
        for name, tag in ((title, "title"), (described, "desc")):
            assert (tag, {"id": name}) in page.tags
    assert len(text.encode()) < 2_000_000
    return page


@pytest.fixture(scope="module")
def data():
    """Texts that would be markup if they were let."""
    plain = things(labels=True, unanswered=True)
    return replace(
        plain,
        name="<i>things</i>",
        queries=[f"{query} <script>alert('x')</script> & {{{{ 7 * 7 }}}}" for query in plain.queries],
        candidates=[f"<b>{name}</b>" for name in plain.candidates],
        candidate_ids=(),
    )


@pytest.fixture(scope="module")
def comparison(data):
    return compare(data, Settings(steps=12, batch_size=32), contenders=NAMES, budget=Budget((1.0,), (1.0,), 1))


@pytest.fixture(scope="module")
def page(comparison):
    return checked(report_html(comparison, command="sigmax compare '<i>' --seeds 2"))


@pytest.mark.slow
def test_promises_of_each_label(page, comparison):
    rows = page.table("labels")
    assert rows[0] == [
        "",
        "labels promised",
        "test queries that get one",
        "of what they get, right",
        "labels below it on test",
    ]
    for result, row in zip(comparison.results, rows[1:], strict=True):
        one = result.label_promises
        assert row[:3] == [result.contender.name, f"{one.promised} of {one.labels}", f"{one.claimed} of {one.queries}"]
    assert "label-precision=0.9, first seed, with confidence 0.9 for all labels at once" in page.sections["labels"]


# -- the whole page ------------------------------------------------------------------------------


def test_sections_in_order(page):
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS


def test_what_looks_like_markup_is_text(page, comparison):
    assert page.sections["queries"].count("<script>alert('x')</script> & {{ 7 * 7 }}") == len(comparison.examples)
    assert "<b>moon</b>" in page.sections["queries"]
    assert "sigmax compare '<i>' --seeds 2" in page.sections["reproduce"]
    assert not {tag for tag, _ in page.tags} & {"i", "script"}


def test_a_picture_for_each_contender(page):
    drawn = [given["aria-labelledby"].split()[0] for tag, given in page.tags if tag == "svg"]
    assert drawn == [
        "ranking-presence-title",
        "none-title",
        *(f"{what}-{name}-title" for what in ("reliability", "logits") for name in NAMES),
        "risk-title",
        *(f"curve-{name}-title" for name in NAMES[:2]),
    ]


@pytest.mark.parametrize("section", ["ranking", "reliability", "logits", "risk", "training"])
def test_every_figure_says_how_to_read_it_and_has_its_numbers(page, section):
    assert page.sections[section].count("How to read it:") == 1
    assert len(page.table(section)) >= 4


def test_a_page_of_little():
    """One contender, nothing measured beyond metrics."""
    text = report_html(scripted({"sigmoid": {}}, without=NONE))
    page = checked(text)
    assert [name for name in page.ids if name in SECTIONS] == [
        name for name in SECTIONS if name not in ("reliability", "labels", "logits", "risk", "training", "queries")
    ]
    assert "There is only one contender, so there is nothing to compare." in page.sections["differences"]
    assert "<pre>" not in text


# -- its numbers ---------------------------------------------------------------------------------


def test_the_answer_comes_first(page, comparison):
    said = " ".join(page.sections["answer"].split())
    assert said.startswith(f"The answer {headline(comparison)}")
    assert all(note in said for note in notes(comparison))
    rows = page.table("answer")[1:]
    assert rows[0][0] == "RankingMAP"
    for duel, (_, best, softmax, sigmoid, gap) in zip(duels(comparison), rows, strict=True):
        for name, cell in (
            (recommended(comparison)[duel.need], best),
            (duel.softmax, softmax),
            (duel.sigmoid, sigmoid),
        ):
            value = comparison[name][duel.metric]
            assert cell == f"{number(value.value)}{name}{interval(value)}"
        assert ("better" in gap) == (duel.winner is not None)
        assert ("not significant" in gap) == (duel.winner is None)


def test_advantages_have_this_run_s_numbers(page, comparison):
    said = " ".join(page.sections["answer"].split())
    for family in standings(comparison):
        for point in [*family.better, *family.worse, *family.same]:
            one, other = (f"{name} {number(comparison[name][point.metric].value)}" for name in (point.one, point.other))
            assert f"{point.aspect}, {METRICS[point.metric].title}: {one}" in said
            assert f"{other}: {gap_words(point.gap)}" in said


def test_reliability_numbers(page, comparison):
    rows = [row for row in page.table("reliability") if len(row) == 4 and row[0] != "presence claimed"]
    bins = [one for result in comparison.results for one in result.evaluations[0].reliability]
    assert [row[0] for row in rows] == [f"{one.presence:.3g}" for one in bins]
    assert [row[1] for row in rows] == [f"{one.right.value:.3g}" for one in bins]
    assert sum(int(row[3].replace(",", "")) for row in rows) == 27 * 6 * len(NAMES)


def test_logit_numbers(page, data):
    rows = [row for row in page.table("logits") if row[0] != "logit"]
    sums = np.array([[int(cell.replace(",", "")) for cell in row[1:]] for row in rows]).sum(0)
    right = data.answer_counts[data.split("test")]
    assert sums.tolist() == [3 * right.sum(), 3 * (27 * 6 - right.sum()), 3 * 6]


def test_risk_numbers(page, comparison):
    rows = [row for row in page.table("risk") if row[0] != "answered"]
    points = [point for result in comparison.results for point in result.evaluations[0].risk_coverage]
    assert [row[:2] for row in rows] == [[f"{p.coverage:.1%}", number(p.risk.value)] for p in points]


def test_training_numbers(page, comparison):
    curves = [result.training.curve for result in comparison.results if result.training]
    rows = [row for row in page.table("training") if row[0] != "steps"]
    assert [row[:2] for row in rows] == [[f"{step:,}", number(loss)] for curve in curves for step, loss in curve]
    floor = comparison["softmax-average"].training.floor
    assert f"softmax-average, floor {number(floor)}" in page.sections["training"]
    assert f"floor {floor:.3g}" in page.sections["training"]
    assert floor > 0


def test_costs(page, comparison):
    rows = {row[0]: row[1:] for row in page.table("costs")}
    assert rows["tfidf-lr"][1:] == ["not measured", "not measured"]
    for name in NAMES[:2]:
        one = comparison[name]
        sizes = (one.training.parameter_bytes, one.training.optimizer_bytes)
        assert rows[name] == [f"{one.train_seconds:.1f}", *(f"{size / 2**20:,.1f}" for size in sizes)]
    assert f"held {comparison.peak_bytes / 2**20:,.0f} MiB at its peak" in page.sections["costs"]


def test_examples(page, comparison):
    shown = page.sections["queries"]
    assert [shown.index(KINDS[kind]) for kind in KINDS if KINDS[kind] in shown] == sorted(
        shown.index(KINDS[kind]) for kind in {example.kind for example in comparison.examples}
    )
    rows = [row for row in page.table("queries") if row[0] != "candidate"]
    answers = [one for example in comparison.examples for given in example.answers.values() for one in given.best]
    assert [row[1:] for row in rows] == [[f"{one.share:.3f}", f"{one.presence:.3f}"] for one in answers]
    assert [row[0][0] for row in rows] == ["✓" if one.right else "✗" for one in answers]


def test_data_and_how_to_reproduce(page, comparison, data):
    for finding in comparison.data.findings:
        assert finding in page.sections["data"]
    assert ["test queries, of them with no right answer", "27, 6"] in page.table("data")
    said = page.sections["reproduce"]
    assert data.fingerprint in said
    for name, version in comparison.versions.items():
        assert f"{name} {version}" in said
    rows = {row[0]: row[1:] for row in page.table("reproduce") if row[0]}
    assert rows["loss"] == list(NAMES[:2])
    assert set(rows["steps"]) == {"12"}


# -- differences, advantages ---------------------------------------------------------------------

KNOWN = {"softmax-average": {"map": 0.7, "log_loss": 12.5, "calibration_slope": 0.9}, "sigmoid": {"map": 0.6}}


def test_differences():
    comparison = scripted({**KNOWN, "sigmoid": {"map": 0.6, "log_loss": 9.5}})
    page = checked(report_html(comparison))
    rows = {row[0]: row[1] for row in page.table("differences")[: len(comparison.metrics)] if len(row) > 1}
    gap = comparison.difference("softmax-average", "sigmoid", "map")
    assert rows["MAP"] == f"+0.100 · better{gap.low:+.3f} to {gap.high:+.3f}"
    assert rows["log loss per query ↓"].startswith("+3.000 · worse")
    assert rows["calibration slope →1"].startswith("+0.400 · differs")
    assert rows["micro-F1"].startswith("+0.000")
    assert "better" not in rows["micro-F1"]
    assert "worse" not in rows["micro-F1"]
    assert f"Of {len(rows) - 1} differences 3 are significant; about 1 would" in page.sections["differences"]


def test_no_advantage_without_significance():
    text = report_html(scripted({"softmax-average": {"map": 0.7}, "sigmoid": {"map": 0.6}}, spread=0.5))
    said = checked(text).sections["answer"]
    assert said.count("No difference in its favour is shown.") == 2
    assert said.count("No difference in its disfavour is shown.") == 2


# -- what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_the_extra(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing} is not installed. Try: pip install 'sigmax\[report\]'"):
        check_report()
