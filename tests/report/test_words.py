"""What a comparison answers, and the words for it."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.answers import matches
from helpers.comparisons import NONE, PRESENCE, scripted
from sigmax.calibration.competition import competition_words
from sigmax.comparison.contenders import CONTENDERS
from sigmax.evaluation import Evaluation
from sigmax.metrics.intervals import Difference
from sigmax.metrics.registry import METRICS
from sigmax.report.answer import ASPECTS, NEEDS, duels, outcome, recommended, standings
from sigmax.report.words import headline, matches_words, notes, verdict

SOFTMAX, SIGMOID = "softmax-average", "sigmoid"


def lines(comparison):
    """What stands under the headline."""
    first, *others = verdict(comparison).split("\n")
    assert first == headline(comparison)
    assert all(line.startswith("• ") for line in others)
    return [line.removeprefix("• ") for line in others]


def line(comparison, start):
    """The one line that begins so."""
    (found,) = [one for one in lines(comparison) if one.startswith(start)]
    return found


def better(metric, by=0.1):
    """0.5, and a value that is better."""
    return 0.5, 0.5 - by if METRICS[metric].better == "lower" else 0.5 + by


# -- which to train ------------------------------------------------------------------------------


@pytest.mark.parametrize("need", NEEDS)
@pytest.mark.parametrize("winner", [SOFTMAX, SIGMOID])
def test_one_contender_for_everything(need, winner):
    """It is better at one need, and nothing is better than it at another."""
    _, good = better(NEEDS[need])
    values = {SOFTMAX: {}, SIGMOID: {}, winner: {NEEDS[need]: good}}
    comparison = scripted(values, spread=0.0001)
    assert recommended(comparison) == dict.fromkeys(NEEDS, winner)
    assert headline(comparison) == (
        f"Train {winner}: nothing tried is shown to be better at ranking, presences or “none of these”."
    )


def test_a_contender_per_need():
    values = {
        SOFTMAX: {"map": 0.7},
        "softmax-none": {"none_auroc_any": 0.7},
        SIGMOID: {"log_loss": 0.3},
    }
    comparison = scripted(values)
    assert recommended(comparison) == {
        "ranking": SOFTMAX,
        "presences": SIGMOID,
        "“none of these”": "softmax-none",
    }
    assert headline(comparison) == (
        "Train softmax-average for ranking; take presences from sigmoid; for “none of these” use softmax-none."
    )


def test_two_needs_of_one_contender():
    first = scripted({SOFTMAX: {"map": 0.7, "log_loss": 0.3}, SIGMOID: {"none_auroc_any": 0.7}})
    assert headline(first) == "Train softmax-average for ranking and presences; for “none of these” use sigmoid."
    second = scripted({SOFTMAX: {"map": 0.7}, SIGMOID: {"log_loss": 0.3, "none_auroc_any": 0.7}})
    assert headline(second) == "Train softmax-average for ranking; take presences and “none of these” from sigmoid."
    third = scripted({SOFTMAX: {"map": 0.7, "none_auroc_any": 0.7}, SIGMOID: {"log_loss": 0.3}})
    assert headline(third) == "Train softmax-average for ranking and “none of these”; take presences from sigmoid."


def test_it_is_chosen_on_dev():
    values = {SOFTMAX: {"map": 0.6}, "softmax-decoupled": {"map": 0.61}, SIGMOID: {"log_loss": 0.3}}
    dev = {SOFTMAX: {"map": 0.9}, "softmax-decoupled": {"map": 0.1}, SIGMOID: {"map": 0.2}}
    assert recommended(scripted(values, dev=dev))["ranking"] == SOFTMAX
    level = {SOFTMAX: {}, SIGMOID: {}}
    for first in level:
        assert set(recommended(scripted(level, dev={first: {"map": 0.8}})).values()) == {first}


def test_what_is_no_number_on_dev_comes_last():
    values = {SOFTMAX: {}, SIGMOID: {}}
    assert set(recommended(scripted(values, dev={SOFTMAX: {"map": np.nan}})).values()) == {SIGMOID}


def test_today_s_practice_is_named_where_it_wins():
    values = {SOFTMAX: {}, SIGMOID: {"map": 0.55}, "tfidf-lr": {"map": 0.7}, "one-positive": {"log_loss": 0.3}}
    comparison = scripted(values)
    assert recommended(comparison) == {
        "ranking": "tfidf-lr",
        "presences": "one-positive",
        "“none of these”": SOFTMAX,
    }
    assert headline(comparison) == (
        "Use tfidf-lr (tf-idf with logistic regression) for ranking; take presences from one-positive (the usual "
        "in-batch softmax with one positive per row); for “none of these” use softmax-average."
    )
    slightly = scripted({**values, "tfidf-lr": {"map": 0.58}, "one-positive": {}}, spread=0.1)
    assert set(recommended(slightly).values()) <= {SOFTMAX, SIGMOID}, "not because it is ahead, but significantly so"


@pytest.mark.parametrize("alone", list(CONTENDERS))
def test_one_contender_alone(alone):
    comparison = scripted({alone: {}})
    assert headline(comparison) == f"{alone} had no contender to be compared with."
    assert not any("better" in one for one in lines(comparison))


def test_today_s_practice_alone():
    assert headline(scripted({"one-positive": {"map": 0.7}, "tfidf-lr": {}})).startswith(
        "Train one-positive (the usual"
    )


# -- what it rests on ----------------------------------------------------------------------------


@pytest.mark.parametrize(("need", "metric"), NEEDS.items())
@pytest.mark.parametrize("winner", [SOFTMAX, SIGMOID])
def test_duel(need, metric, winner):
    bad, good = better(metric)
    loser = SIGMOID if winner == SOFTMAX else SOFTMAX
    comparison = scripted({SOFTMAX: {metric: bad}, SIGMOID: {metric: bad}, winner: {metric: good}})
    found = {duel.need: duel for duel in duels(comparison)}
    assert {duel.winner for name, duel in found.items() if name != need} == {None}
    assert found[need].winner == winner
    gap = comparison.difference(winner, loser, metric)
    title = {"ranking": "Ranking", "presences": "Presences", "“none of these”": "“None of these”"}[need]
    assert line(comparison, title) == (
        f"{title}: {winner} is better than {loser} ({METRICS[metric].title} {good:.3f} against {bad:.3f}: "
        f"{good - bad:+.3f}, 95% interval {gap.low:+.3f} to {gap.high:+.3f})."
    )


def test_duel_without_significance():
    comparison = scripted({SOFTMAX: {"map": 0.7}, SIGMOID: {"map": 0.6}}, spread=0.2)
    said = line(comparison, "Ranking")
    assert said.startswith(
        "Ranking: no significant difference between softmax-average and sigmoid (MAP 0.700 against 0"
    )
    assert "better" not in said


def test_a_family_is_represented_by_its_best_on_dev():
    values = {SOFTMAX: {"map": 0.9}, "softmax-decoupled": {"map": 0.8}, SIGMOID: {"map": 0.7}}
    assert "MAP 0.900" in line(scripted(values), "Ranking: softmax-average is better")
    assert "MAP 0.800" in line(
        scripted(values, dev={"softmax-decoupled": {"map": 0.95}}), "Ranking: softmax-decoupled is better"
    )
    comparison = scripted(values, dev={"softmax-decoupled": {"log_loss": 0.1}})
    assert "softmax-average" in line(comparison, "Ranking")
    assert "softmax-decoupled" in line(comparison, "Presences")
    comparison = scripted(values, dev={SOFTMAX: {"map": np.nan}, "softmax-decoupled": {"map": 0.1}})
    assert "softmax-decoupled" in line(comparison, "Ranking"), "what is no number is passed over"


@pytest.mark.parametrize(
    ("without", "left"), [(NONE, ["ranking", "presences"]), (PRESENCE, ["ranking", "“none of these”"])]
)
def test_what_was_not_measured(without, left):
    comparison = scripted({SOFTMAX: {}, SIGMOID: {}}, without=without)
    assert [duel.need for duel in duels(comparison)] == left == list(recommended(comparison))
    unmeasured = "Every test query has a right answer, so “none of these” could not be measured."
    assert (unmeasured in notes(comparison)) == (without is NONE)
    assert ("AUROC" in verdict(comparison)) == (without is not NONE)


def test_competition():
    comparison = scripted({SOFTMAX: {}, SIGMOID: {}})
    results = [
        replace(result, evaluations=[Evaluation("tiny", "test", 9, 0, {}, competition=part)])
        for result, part in zip(comparison.results, (0.625, 0.0), strict=True)
    ]
    (note,) = notes(replace(comparison, results=results))
    assert note.startswith("How much competition counts in presences: softmax-average 62% and sigmoid 0%. At 0% a")
    assert notes(comparison) == []


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (0.0, "0%: a candidate is judged almost only by itself, as a sigmoid does"),
        (0.1, "10%: a candidate is judged mostly by itself, as a sigmoid does"),
        (0.5, "50%: a candidate is judged by itself and against the others about equally"),
        (0.89, "89%: a candidate is judged mostly against the others, as a softmax does"),
        (1.0, "100%: a candidate is judged almost only against the others, as a softmax does"),
    ],
)
def test_competition_in_words(part, said):
    assert competition_words(part) == f"competition counts {said}"


@pytest.mark.parametrize(("queries", "few"), [(49, True), (50, False)])
def test_few_queries(queries, few):
    splits = {"train": 984, "dev": 125, "test": queries}
    said = notes(scripted({SOFTMAX: {}, SIGMOID: {}}, splits=splits))
    assert any(f"With {queries} test queries the intervals are rough" in one for one in said) == few


@pytest.mark.parametrize(
    ("several", "unanswered", "said"),
    [
        (
            0.0,
            0,
            "Every item has exactly one label: where one is always there, softmax with cross-entropy is the textb",
        ),
        (0.0, 3, "Every item has at most one label, and some have none: where one is always there"),
        (0.62, 3, "62% of the items with a label have several: the averaged softmax is at its best when each of k"),
    ],
)
def test_labels(several, unanswered, said):
    facts = {"several": several, "unanswered": dict.fromkeys(("train", "dev", "test"), unanswered)}
    (note,) = notes(scripted({SOFTMAX: {}, SIGMOID: {}}, labels=True, **facts))
    assert note.startswith(said)
    assert notes(scripted({SOFTMAX: {}, SIGMOID: {}}, labels=False, **facts)) == []
    assert notes(scripted({SIGMOID: {}}, labels=True, **facts)) == [], "nothing to say of a softmax"


@pytest.mark.parametrize(
    ("share", "logit", "says"),
    [(0.6, 0.7, "tells less than"), (0.7, 0.6, "tells more than"), (0.6, 0.6, "is not shown to differ from")],
)
def test_shares(share, logit, says):
    given = {"none_auroc_share": share, "none_auroc_logit": logit}
    said = line(scripted({SOFTMAX: given, SIGMOID: {}}), "Of softmax-average")
    assert f"the largest share {says} the largest logit about whether anything is right" in said
    assert f"(AUROC {share:.3f} against {logit:.3f}: " in said


@pytest.mark.parametrize(
    ("value", "says"),
    [(0.6, "worse than"), (0.4, "better than"), (0.5, "neither significantly better nor worse than")],
)
def test_today(value, says):
    today = {"one-positive": {"map": value}, "tfidf-lr": {"map": value}}
    comparison = scripted({SOFTMAX: {"map": 0.45}, SIGMOID: {"map": 0.5}, **today})
    usual, tfidf = [one for one in lines(comparison) if one.startswith("Today’s practice: ")]
    assert (
        f"sigmoid ranks {says} the usual in-batch softmax with one positive per row (MAP 0.500 against {value:.3f}"
        in (usual)
    )
    assert f"sigmoid ranks {says} tf-idf with logistic regression (MAP 0.500 against {value:.3f}" in tfidf
    assert "Today" not in verdict(scripted({SOFTMAX: {}, SIGMOID: {}}))


# -- advantages ----------------------------------------------------------------------------------

KNOWN = {SOFTMAX: {"map": 0.7, "log_loss": 12.5, "calibration_slope": 0.9}, SIGMOID: {"map": 0.6, "log_loss": 9.5}}


def test_advantages():
    comparison = scripted(KNOWN)
    softmax, sigmoid = standings(comparison)
    assert (softmax.family, sigmoid.family) == ("softmax", "sigmoid")
    assert [(point.aspect, point.one, point.other) for point in softmax.better] == [("Ranking", SOFTMAX, SIGMOID)]
    assert [(point.aspect, point.one, point.other) for point in softmax.worse] == [("Presences", SOFTMAX, SIGMOID)]
    assert [(point.aspect, point.one, point.other) for point in sigmoid.better] == [("Presences", SIGMOID, SOFTMAX)]
    assert [point.aspect for point in sigmoid.worse] == ["Ranking"]
    assert softmax.better[0].gap == comparison.difference(SOFTMAX, SIGMOID, "map")
    assert len(softmax.same) == len(sigmoid.same) == len(ASPECTS) - 2


@pytest.mark.parametrize(
    ("metric", "low", "high", "said"),
    [
        ("map", 0.1, 0.2, "better"),
        ("map", -0.2, -0.1, "worse"),
        ("map", -0.1, 0.1, "not significant"),
        ("log_loss", 0.1, 0.2, "worse"),
        ("log_loss", -0.2, -0.1, "better"),
        ("calibration_slope", 0.1, 0.2, "differs"),
        ("map", np.nan, np.nan, "not significant"),
    ],
)
def test_outcome(metric, low, high, said):
    assert outcome(metric, Difference((low + high) / 2, low, high)) == said


# -- a query -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "any_right", "outcome", "said"),
    [
        (0, 0.499, "none of these", "none of these (any right: 0.499)"),
        (0, 0.5, "nothing accepted", "nothing accepted (any right: 0.500)"),
        (2, 0.12, "accepted", "any right: 0.120"),
        (5, 0.88, "accepted", "any right: 0.880; 2 more accepted (--top-k shows them)"),
        (0, None, None, None),
    ],
)
def test_matches_words(accepted, any_right, outcome, said):
    found = matches(0.9, 0.8, 0.7, 0.6, 0.5, accepted=accepted, any_right=any_right)
    assert found.outcome == found.as_dict()["outcome"] == outcome
    assert matches_words(found) == said
    for p, unlike in ((0.05, True), (0.051, False)):
        flagged = replace(found, familiar_p=p)
        assert flagged.unlike_training is flagged.as_dict()["unlike_training"] is unlike
        more = "; unlike anything in training (p = 0.05)" if unlike else ""
        assert matches_words(flagged) == (None if said is None else said + more)
