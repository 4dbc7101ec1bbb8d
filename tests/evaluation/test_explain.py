"""The activation table of softmax and sigmoid."""

import html
import io
import json
import math
import re

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from helpers.models import tiny
from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.curves import Platt
from sigmax.data.pictures import Picture
from sigmax.encoders.lexical import Lexical
from sigmax.explain import BOUNDS, common_shift, explain, explain_logits, parse_logits
from sigmax.model.matches import Offer, Rated
from sigmax.model.reranker import Reranker
from sigmax.model.vectors import Vectors
from sigmax.report.activations import activation_figure, activation_tables, explanation_words, shifts
from sigmax.report.style import save_figure

FIRST = {"cat": 0.02, "dog": -2.49, "plane": -1.75, "fish": 2.07, "building": 1.25}
SECOND = {"cat": -1.43, "dog": -3.94, "plane": -3.20, "fish": 0.62, "building": -0.20}
#: exp, softmax, binary and verdict, to the digits that the table has in print.
PRINTED = {
    "cat": ("1.02", "0.080", "0.505", "perhaps", "0.24", "0.080", "0.19", "absent"),
    "dog": ("0.08", "0.01", "0.08", "absent", "0.02", "0.01", "0.02", "absent"),
    "plane": ("0.17", "0.01", "0.15", "absent", "0.04", "0.01", "0.04", "absent"),
    "fish": ("7.92", "0.62", "0.89", "present", "1.86", "0.62", "0.65", "perhaps"),
    "building": ("3.49", "0.275", "0.78", "present", "0.82", "0.275", "0.45", "perhaps"),
}

numbers = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(-50, 50)
labels = st.text(min_size=1, max_size=8)


def printed(table, width=110, **style):
    text = io.StringIO()
    console = Console(file=text, width=width, **style)
    for one in activation_tables(table, console):
        console.print(one)
    return text.getvalue()


@pytest.fixture(scope="module")
def both():
    return [explain_logits(FIRST), explain_logits(SECOND)]


# -- numbers -------------------------------------------------------------------------------------


def test_the_table(both):
    for row, then in zip(both[0].activations, both[1].activations, strict=True):
        values = (row.exp, row.share, row.binary, row.verdict, then.exp, then.share, then.binary, then.verdict)
        assert row.candidate == then.candidate
        for value, expected in zip(values, PRINTED[row.candidate], strict=True):
            if isinstance(value, str):
                assert value == expected
            else:
                assert f"{value:.{len(expected.partition('.')[2])}f}" == expected
    assert both[0].expected == pytest.approx(2.3949, abs=1e-4)
    assert both[0].any is None
    assert sum(row.share for row in both[0].activations) == pytest.approx(1)


@given(st.dictionaries(labels, numbers, min_size=1, max_size=6))
def test_any_finite_activations(logits):
    one = explain_logits(logits)
    assert math.fsum(row.share for row in one.activations) == pytest.approx(1)
    assert [row.logit for row in one.activations] == list(logits.values())
    for row in one.activations:
        assert 0 <= row.share <= 1
        assert row.exp >= 0
        assert row.binary == pytest.approx(
            math.exp(min(row.logit, 0)) / (1 + math.exp(-abs(row.logit))), rel=1e-9, abs=1e-300
        )
    json.dumps(one.as_dict(), allow_nan=False)
    assert common_shift(one, one) == 0
    assert printed([one])
    assert all(explanation_words([one, one]))


@given(st.lists(moderate, min_size=1, max_size=6), moderate)
def test_a_shift_moves_no_share(values, shift):
    """And it is found, whatever it is."""
    before = explain_logits({f"c{j}": value for j, value in enumerate(values)})
    after = explain_logits({f"c{j}": value + shift for j, value in enumerate(values)})
    assert [row.share for row in after.activations] == pytest.approx([row.share for row in before.activations])
    assert common_shift(before, after) == pytest.approx(shift, abs=1e-9)
    assert common_shift(after, before) == pytest.approx(-shift, abs=1e-9)


@given(st.lists(st.tuples(moderate, st.floats(-0.001, 0.001)), min_size=1, max_size=8), moderate)
def test_the_tolerance_keeps_its_promise(pairs, shift):
    """Within it, no share differs by more than three decimals can hide."""
    one = explain_logits({f"c{j}": value for j, (value, _) in enumerate(pairs)})
    other = explain_logits({f"c{j}": value + shift + error for j, (value, error) in enumerate(pairs)})
    assert common_shift(one, other) is not None
    for row, then in zip(one.activations, other.activations, strict=True):
        assert abs(row.share - then.share) <= 0.0005


def test_what_is_no_common_shift(both):
    assert common_shift(*both) == pytest.approx(-1.45)
    assert common_shift(both[0], explain_logits(SECOND | {"cat": -1.42})) is None
    assert common_shift(both[0], explain_logits(SECOND | {"cat": -1.433})) is None
    assert common_shift(both[0], explain_logits(SECOND | {"cat": -1.432})) is not None
    assert common_shift(both[0], explain_logits(SECOND | {"bus": 1})) is None
    without = {label: logit for label, logit in SECOND.items() if label != "cat"}
    assert common_shift(both[0], explain_logits(without)) is None
    assert shifts(both[:1]) is None
    assert shifts([*both, explain_logits({"cat": 1})]) == [pytest.approx(-1.45), None]


@given(st.lists(moderate, min_size=2, max_size=8))
def test_verdicts_rise_with_the_activation(values):
    rows = explain_logits({f"c{j}": value for j, value in enumerate(values)}).activations
    order = ["absent", "perhaps", "present"]
    ranks = [order.index(row.verdict) for row in sorted(rows, key=lambda row: row.logit)]
    assert ranks == sorted(ranks)


def test_bounds():
    def verdict(probability, **given):
        return explain_logits({"a": math.log(probability / (1 - probability))}, **given).activations[0].verdict

    assert sum(BOUNDS) == 1
    assert [verdict(p) for p in (0.2499, 0.2501, 0.7499, 0.7501)] == ["absent", "perhaps", "perhaps", "present"]
    assert [verdict(0.5, bounds=(0.5, 0.5)), verdict(0.6, bounds=(0.7, 0.8))] == ["present", "absent"]
    for wrong in ((0.8, 0.2), (-0.1, 0.5), (0.5, 1.1), (math.nan, 0.5)):
        with pytest.raises(ValueError, match="Expected bounds with 0 ≤ low ≤ high ≤ 1"):
            explain_logits(FIRST, bounds=wrong)


def test_bare_activations_refused():
    with pytest.raises(ValueError, match="at least one activation"):
        explain_logits({})
    with pytest.raises(ValueError, match="finite activation of 'dog', got inf"):
        explain_logits({"cat": 1, "dog": math.inf})


# -- the parser ----------------------------------------------------------------------------------


@given(st.dictionaries(labels.filter(lambda label: "," not in label and label.strip() == label), numbers, min_size=1))
def test_parser_reads_what_was_written(logits):
    text = ",".join(f"{label}={logit!r}" for label, logit in logits.items())
    if not text.startswith("{"):
        assert parse_logits(text) == logits


@given(st.dictionaries(labels, numbers, min_size=1))
def test_parser_reads_json(logits):
    for ascii_only in (True, False):
        assert parse_logits(json.dumps(logits, ensure_ascii=ascii_only)) == logits


def test_parser():
    assert parse_logits(" a = b = 1 , what's in the sky?=−2.5,c=1e3") == {
        "a = b": 1,
        "what's in the sky?": -2.5,
        "c": 1000,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "got nothing"),
        (" ", "got nothing"),
        ("a", "Expected label=number, got 'a'. A label with a comma needs JSON"),
        ("a=1,", "Expected label=number, got ''"),
        ("a=", "Expected a number for 'a', got ''"),
        ("a=one", "Expected a number for 'a', got 'one'"),
        ("=1", "Expected a label before the number"),
        ("a=nan", "Expected a finite number for 'a', got nan"),
        ("a=-inf", "Expected a finite number for 'a', got -inf"),
        ("a=1, a =2", "Expected each label once, got 'a' twice"),
        ('{"a": 1, "a": 2}', "Expected each label once, got 'a' twice"),
        ('{"a": "1"}', "Expected a number for 'a', got \"1\""),
        ('{"a": true}', "Expected a number for 'a', got true"),
        ('{"a": NaN}', "Expected a finite number for 'a', got nan"),
        ('{"a": 1' + "0" * 400 + "}", "Expected a finite number for 'a', got inf"),
        ("{}", "got no pairs"),
        ('{"a"', "Expected JSON such as"),
    ],
)
def test_parser_refuses(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_logits(text)


# -- a model -------------------------------------------------------------------------------------


class Scripted:
    """A model of known logits: what `explain` needs of one."""

    lexical = reranker = None

    def __init__(self, logits, calibrated=True):
        self.logits = np.asarray(logits, float)
        self.candidates = [f"c{j}" for j in range(self.logits.shape[1])]
        self.calibrator = Calibrator(Platt(2.0, -1.0), tuple(self.candidates)) if calibrated else None

    def as_queries(self, items):
        return list(items)

    def offer(self):
        return Offer(tuple(f"text {name}" for name in self.candidates), tuple(self.candidates), Vectors(torch.empty(0)))

    def rate(self, queries, offer):
        for _, s in zip(queries, self.logits, strict=False):
            share = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
            presence = self.calibrator and self.calibrator.presence(s, self.candidates)
            anything = self.calibrator and float(self.calibrator.any(s[None], self.candidates)[0])
            yield Rated(offer.candidates, offer.candidate_ids, s, share, presence, anything)


def painted(name, *shape):
    return Picture(name, np.linspace(0, 255, math.prod(shape)).astype(np.uint8).reshape(shape))


def test_rows_are_the_union_of_the_best():
    random = np.random.default_rng(0)
    model = Scripted(random.normal(size=(3, 40)))
    found = explain(model, ["a", "b", "c"], top_k=4)
    best = {f"c{j}" for s in model.logits for j in np.argsort(-s)[:4]}
    for one, s in zip(found, model.logits, strict=True):
        assert {row.candidate_id for row in one.activations} == best
        assert [row.candidate_id for row in one.activations] == [row.candidate_id for row in found[0].activations]
        assert one.offered == 40
        assert one.expected == pytest.approx(sum(1 / (1 + math.exp(1 - 2 * logit)) for logit in s))
        for row in one.activations:
            assert row.share == pytest.approx(math.exp(row.logit) / sum(map(math.exp, s)))
            assert row.presence == pytest.approx(1 / (1 + math.exp(1 - 2 * row.logit)))
            assert row.verdict == ("absent" if row.presence < 0.25 else "perhaps" if row.presence < 0.75 else "present")
    alone = explain(model, ["a"], top_k=4)[0]
    assert [row.logit for row in alone.activations] == sorted(model.logits[0])[:-5:-1]


@pytest.mark.parametrize(("offered", "top_k", "shown"), [(12, 10, 12), (13, 10, 10), (6, 3, 3), (5, 3, 5), (2, 9, 2)])
def test_few_candidates_are_all_shown(offered, top_k, shown):
    assert len(explain(Scripted(np.arange(offered)[None]), ["a"], top_k=top_k)[0].activations) == shown


def test_a_shift_behind_what_is_shown():
    """Rows that are left out tell through the shares that the shift is not common to all."""
    s = np.linspace(3, -3, 30)
    other = s - 1
    assert common_shift(*explain(Scripted([s, other]), ["a", "b"], top_k=2)) == pytest.approx(-1)
    other[10:] += 1
    assert common_shift(*explain(Scripted([s, other]), ["a", "b"], top_k=2)) is None


def test_explain_refuses():
    model = Scripted(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="a list of items, got the text 'sky'"):
        explain(model, "sky")
    with pytest.raises(ValueError, match="`top_k` of at least 1, got 0"):
        explain(model, ["sky"], top_k=0)
    with pytest.raises(ValueError, match="bounds"):
        explain(model, ["sky"], bounds=(2, 3))
    assert explain(model, []) == []


# -- words ---------------------------------------------------------------------------------------


def test_words(both):
    assert explanation_words(both) == [
        "Item 1: present fish (0.89) and building (0.78); perhaps cat (0.50); absent plane (0.15) and dog (0.08).",
        "Item 2: perhaps fish (0.65) and building (0.45); absent cat (0.19), plane (0.04) and dog (0.02).",
        "Each softmax column adds up to 1, whether or not anything is right. The binary columns add up to 2.39 and "
        "1.35: that many are expected to be right.",
        "The activations of item 2 are those of item 1 shifted by −1.45. The softmax is the same to three decimals: it "
        "cannot see a common shift. The binary column can: fish falls from 0.89 to 0.65, building from 0.78 to 0.45 "
        "and cat from 0.50 to 0.19.",
        "By binary: present from 0.75 on, absent below 0.25, perhaps between.",
        "Nothing is calibrated here: binary is σ(activation), a probability only if a sigmoid loss trained it.",
    ]


def test_words_of_other_shifts(both):
    assert "shifted by +1.45" in " ".join(explanation_words(both[::-1]))
    assert "fish rises from 0.65 to 0.89" in " ".join(explanation_words(both[::-1]))
    assert "The activations of item 2 are those of item 1." in explanation_words([both[0], both[0]])
    slight = explain_logits({label: logit + 0.01 for label, logit in FIRST.items()})
    assert "though no verdict changes" in " ".join(explanation_words([both[0], slight]))
    assert "those of" not in " ".join(explanation_words([both[0], explain_logits(SECOND | {"cat": 0})]))


def test_words_of_a_calibrated_model():
    model = Scripted(np.linspace(2, -2, 40)[None])
    one = explain(model, ["what's in the sky?"], top_k=3)[0]
    words = explanation_words([one])
    assert words[0].startswith("“what's in the sky?”: present text c0 (0.95), ")
    assert words[0].endswith(f"At least one of all 40 is right with probability {one.any:.3f}.")
    assert "Shown: the 3 best of 40 candidates; shares and sums are over all 40." in words
    assert f"The presence column adds up to {one.expected:.2f}: that many" in " ".join(words)
    assert "calibrated" not in " ".join(words)
    assert "By presence:" in " ".join(words)
    assert "every one shown is absent." in explanation_words([explain_logits({"a": -5, "b": -6})])[0]
    many = explain_logits({f"c{j}": -5 for j in range(9)} | {"d": 3})
    assert "c3 (0.01) and 5 more." in explanation_words([many])[0]


# -- the terminal --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worded():
    """An untrained model with a lexical view."""
    candidates = ["waxing moon", "waning moon", "pizza with cheese", "sun"]
    return tiny(candidates, lexical=Lexical.fit(candidates))


def test_shared_words_add_up_to_their_part_of_the_activation(worded):
    (one,) = explain(worded, ["waxing moon"])
    alone = tiny(worded.candidates).match("waxing moon", top_k=4)
    dense = {match.candidate: match.logit for match in alone}
    for row in one.activations:
        assert list(row.shared.values()) == sorted(row.shared.values(), reverse=True)
        assert row.logit == pytest.approx(dense[row.candidate] + sum(row.shared.values()), abs=1e-5)
    shared = {row.candidate: row.shared for row in one.activations}
    assert set(shared["waxing moon"]) == {"waxing", "moon", "waxing moon"} and shared["pizza with cheese"] == {}
    assert one.as_dict()["activations"][0]["shared"] == one.activations[0].shared


def test_words_of_shared_words(worded):
    words = explanation_words(explain(worded, ["waxing moon", "fire"]))
    shared = [said for said in words if "shared with" in said or "share no words" in said]
    assert re.fullmatch(
        r"Of the activation [\d.]+ of waxing moon, words shared with “waxing moon” make up ([\d.]+): (.*)\.", shared[0]
    )
    assert "waxing +" in shared[0] and "moon +" in shared[0]
    assert shared[-1].startswith("“Fire” and ") or "“fire” and " in shared[-1]
    assert explain_logits(FIRST).activations[0].shared is None
    assert not any("words" in said for said in explanation_words([explain_logits(FIRST)]))


def test_a_second_look_weighs_shared_words(worded):
    plain = explain(worded, ["waxing moon"])[0].activations[0].shared
    worded.reranker = Reranker(torch.nn.Identity(), depth=1, first=0.25)
    worded.reranker._known = Known()
    weighed = explain(worded, ["waxing moon"])[0].activations[0].shared
    worded.reranker = None
    assert weighed == {word: pytest.approx(0.25 * added) for word, added in plain.items()}


class Known(dict):
    """Pairs that need not be read."""

    def __contains__(self, key):
        return True

    def __missing__(self, key):
        return 0.0


def test_side_by_side(both):
    text = printed(both)
    lines = text.splitlines()
    assert lines[0].split() == ["item", "1", "item", "2"]
    assert lines[1].split().count("softmax") == 2
    assert "fish 2.07 7.92 0.624 0.888 present 0.62 1.86 0.624 0.650 perhaps" in [
        " ".join(line.split()) for line in lines
    ]
    assert len(lines) == 8
    assert "…" not in text
    narrow = printed(both, width=70).splitlines()
    assert len(narrow) == 16
    assert sum(line.startswith("fish") for line in narrow) == 2


def test_missing_cells_and_large_numbers():
    lines = printed([explain_logits({"a": 1000, "b": 229.0}), explain_logits({"b": -800, "c": 3})]).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in lines[3:]}
    assert cells["a"] == ["1000.00", "e^1000", "1.000", "1.000", "present", *"–––––"]
    assert cells["b"][1] == "2.8e+99"
    assert cells["b"][5:] == ["-800.00", "e^-800", "0.000", "0.000", "absent"]
    assert cells["c"][:5] == list("–––––")


def test_long_and_odd_texts():
    found = [explain_logits({"[red]a[/] " * 9: 1, "b\nc": 2}, item="[bold]long " * 20), explain_logits({"b\nc": 1})]
    text = printed(found)
    assert "[red]a[/]" in text
    assert "…" in text
    assert "b c" in text
    assert text.count("[bold]long") == 20


# -- the figure ----------------------------------------------------------------------------------


def drawn(figure, path):
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        save_figure(figure, path)
    return html.unescape(" ".join(re.findall("<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))))


def test_figure(both, tmp_path):
    figure = activation_figure(both)
    text = drawn(figure, tmp_path / "table.svg")
    for said in ("item 1", "item 2", "fish", "0.080", "0.505", "−1.43", "softmax", "binary", "shifted by −1.45"):
        assert said in text
    lengths = [patch.get_width() for patch in figure.axes[0].patches][1::2]  # every other is a bar's track
    full = figure.axes[0].patches[0].get_width()
    values = [value for one in both for row in one.activations for value in (row.share, row.binary)]
    assert lengths == pytest.approx([full * value for value in values])


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_figure_is_written_whole(both, tmp_path, ending):
    path = tmp_path / "deep" / f"table.{ending}"
    save_figure(activation_figure(both), path)
    content = path.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])
    assert content.rstrip().endswith({"png": b"IEND\xaeB`\x82", "svg": b"</svg>", "pdf": b"%%EOF"}[ending])
    assert list(path.parent.iterdir()) == [path]


def test_a_figure_that_fails_leaves_the_old_one(both, tmp_path, monkeypatch):
    path = tmp_path / "table.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_figure(activation_figure(both), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"to end in .png, .svg, .pdf, got '.*table.jpg'"):
        save_figure(activation_figure(both), tmp_path / "table.jpg")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_figure_of_pictures(count, tmp_path):
    pictures = [painted("fish.jpg", 20, 30, 3), painted("grey $x$ <b>.png", 50, 20), painted("wide", 10, 900, 3)][
        :count
    ]
    found = explain(Scripted(np.random.default_rng(0).normal(size=(3, 20))), pictures, top_k=3)
    assert [one.item for one in found] == [picture.name for picture in pictures]
    assert [one.picture for one in found] == pictures
    assert "picture" not in found[0].as_dict()
    figure = activation_figure(found)
    images = figure.axes[0].images
    assert len(images) == count
    for image, picture in zip(images, pictures, strict=True):
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(picture.source.shape[1] / picture.source.shape[0])
    text = drawn(figure, tmp_path / "pictures.svg")
    for picture in pictures:
        assert picture.name in text
    assert "presence" in text
    assert "of 20 candidates; shares are over all" in text
