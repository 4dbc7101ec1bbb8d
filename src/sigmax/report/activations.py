"""The activation table for the terminal, in words, and as a figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sigmax.calibration.competition import competition_words
from sigmax.calibration.familiar import UNLIKE
from sigmax.errors import extra
from sigmax.explain import Activation, Explanation, common_shift
from sigmax.report.style import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["activation_figure", "activation_tables", "explanation_words", "shifts"]

#: Names listed in a sentence, at most; beyond, they are counted.
_NAMED = 4
#: Candidates of an item whose shared words are told, the most probable ones.
_CANDIDATES = 2
_VERDICT_STYLES = {"present": "bold", "perhaps": "", "absent": "dim"}


def shifts(explanations: Sequence[Explanation]) -> list[float | None] | None:
    """Return the shift of each further item against the first, see `common_shift`; None for a single item."""
    first, *others = explanations
    return [common_shift(first, other) for other in others] or None


# -- words ---------------------------------------------------------------------------------------


def explanation_words(explanations: Sequence[Explanation]) -> list[str]:
    """Explain the tables of some items in one or two sentences per point."""
    names = _names(explanations)
    column = _column(explanations[0])
    words = []
    for name, one in zip(names, explanations, strict=True):
        words.append(f"{_upper(name)}: {_findings(one)}.")
        if one.any is not None:
            words[-1] += f" At least one of all {one.offered:,} is right with probability {one.any:.3f}."
        if one.unlike_training:
            words[-1] += f" It is {UNLIKE} (p = {one.familiar_p:.2g})."
        told = [row for place, row in enumerate(_best(one)[:_CANDIDATES]) if not place or row.verdict != "absent"]
        words.extend(_shared(name, row) for row in told if row.shared is not None)
    rows, offered = len(explanations[0].activations), explanations[0].offered
    if rows < offered:
        best = f"the {rows} best" if len(explanations) == 1 else f"{rows}, the best of each item,"
        words.append(f"Shown: {best} of {offered:,} candidates; shares and sums are over all {offered:,}.")
    sums = _listed([f"{one.expected:,.2f}" for one in explanations])
    if len(explanations) == 1:
        words.append(
            f"The softmax column adds up to 1, whether or not anything is right. The {column} column adds up to {sums}"
        )
    else:
        words.append(
            f"Each softmax column adds up to 1, whether or not anything is right. The {column} columns add up to {sums}"
        )
    words[-1] += ": that many are expected to be right."
    for name, other, shift in zip(names[1:], explanations[1:], shifts(explanations) or (), strict=True):
        if shift is not None:
            words.append(_shifted(names[0], explanations[0], name, other, shift))
    low, high = explanations[0].bounds
    words.append(f"By {column}: present from {high:g} on, absent below {low:g}, perhaps between.")
    if explanations[0].competition is not None:
        words.append(f"In the presence {competition_words(explanations[0].competition)}.")
    if not explanations[0].calibrated:
        words.append(
            "Nothing is calibrated here: binary is σ(activation), a probability only if a sigmoid loss trained it."
        )
    return words


def _findings(one: Explanation) -> str:
    """Which candidates are present, perhaps, absent; the largest probability first."""
    order = _best(one)
    parts = []
    for verdict in ("present", "perhaps", "absent"):
        found = [row for row in order if row.verdict == verdict]
        if not found:
            continue
        if len(found) == len(order) and verdict == "absent":
            return "every one shown is absent"
        named = [f"{row.candidate} ({row.probability:.2f})" for row in found[:_NAMED]]
        if len(found) > _NAMED:
            named.append(f"{len(found) - _NAMED} more")
        parts.append(f"{verdict} {_listed(named)}")
    return "; ".join(parts)


def _best(one: Explanation) -> list[Activation]:
    return sorted(one.activations, key=lambda row: -row.probability)


def _shared(name: str, row: Activation) -> str:
    """What the words that an item shares with a candidate add to its activation, in a sentence."""
    shared, candidate = row.shared or {}, _short(row.candidate)
    if not shared:
        return f"{_upper(name)} and {candidate} share no words: all of the activation {_logit_text(row)} is learnt."
    named = [f"{word} {added:+.2f}" for word, added in list(shared.items())[:_NAMED]]
    if len(shared) > _NAMED:
        named.append(f"{len(shared) - _NAMED} more {math.fsum(list(shared.values())[_NAMED:]):+.2f}")
    return (
        f"Of the activation {_logit_text(row)} of {candidate}, words shared with {name} make up "
        f"{math.fsum(shared.values()):.2f}: {_listed(named)}."
    )


def _shifted(name: str, one: Explanation, other_name: str, other: Explanation, shift: float) -> str:
    if abs(shift) < 0.0005:
        return f"The activations of {other_name} are those of {name}."
    column = _column(one)
    said = (
        f"The activations of {other_name} are those of {name} shifted by {_signed(shift)}. The softmax is the same to "
        f"three decimals: it cannot see a common shift. The {column} column can"
    )
    theirs = {row.candidate_id: row for row in other.activations}
    changed = [(row, theirs[row.candidate_id]) for row in one.activations]
    changed = [(row, then) for row, then in changed if row.verdict != then.verdict]
    if not changed:
        return f"{said}, though no verdict changes."
    changed.sort(key=lambda pair: -pair[0].share)
    verb = "falls " if shift < 0 else "rises "
    moves = [
        f"{row.candidate} {verb if place == 0 else ''}from {row.probability:.2f} to {then.probability:.2f}"
        for place, (row, then) in enumerate(changed[:_NAMED])
    ]
    return f"{said}: {_listed(moves)}."


def _names(explanations: Sequence[Explanation]) -> list[str]:
    """Return what sentences call the items: the text or the picture's name, or the number of bare activations."""
    return [f"“{one.item}”" if one.item else f"item {place}" for place, one in enumerate(explanations, start=1)]


def _heads(explanations: Sequence[Explanation]) -> list[str]:
    return [one.item or name for one, name in zip(explanations, _names(explanations), strict=True)]


def _column(one: Explanation) -> str:
    """Return the column that verdicts go by."""
    return "presence" if one.calibrated else "binary"


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _signed(value: float) -> str:
    return f"{value:+.4g}".replace("-", "−")


def _exp_text(row: Activation) -> str:
    """Print eˢ: 7.92, 1.2e+99, and e^1000 where a float cannot hold it."""
    if row.exp in (0.0, math.inf):
        return f"e^{row.logit:.4g}"
    return f"{row.exp:.2f}" if 0.005 <= row.exp < 10_000 else f"{row.exp:.1e}"


def _logit_text(row: Activation) -> str:
    return f"{row.logit:.2f}" if abs(row.logit) < 1e6 else f"{row.logit:.2e}"


# -- the table -----------------------------------------------------------------------------------


def activation_tables(explanations: Sequence[Explanation], console: Console) -> list[Table]:
    """Make tables with as many items side by side as fit the console.

    Rows are the union of the items' candidates; a dash stands where an item was not offered one.
    """
    candidates = _union(explanations)
    heads = _heads(explanations)
    for beside in range(len(explanations), 0, -1):
        made = [
            _side_by_side(explanations[start : start + beside], heads[start : start + beside], candidates, console)
            for start in range(0, len(explanations), beside)
        ]
        if all(_width(table, console) <= console.width for table in made):
            break
    return made


def _width(table: Table, console: Console) -> int:
    """Width of a table in which nothing is cut, however narrow the console."""
    return console.measure(table, options=console.options.update(max_width=100_000)).maximum


def _union(explanations: Sequence[Explanation]) -> dict[str, str]:
    """Return id -> candidate of every row of any item."""
    return {row.candidate_id: row.candidate for one in explanations for row in one.activations}


def _side_by_side(
    explanations: Sequence[Explanation], heads: Sequence[str], candidates: dict[str, str], console: Console
) -> Table:
    parts = [_part(one, candidates, labels=place == 0) for place, one in enumerate(explanations)]
    grid = Table.grid(padding=(0, 3, 0, 0), pad_edge=False)
    for part in parts:
        grid.add_column(max_width=_width(part, console), vertical="bottom")
    grid.add_row(*(Text(head, style="italic") for head in heads))
    grid.add_row(*parts)
    return grid


def _part(one: Explanation, candidates: dict[str, str], *, labels: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False)
    if labels:
        table.add_column("", no_wrap=True, overflow="ellipsis", max_width=30)
    names = ["activation", "exp", "softmax", "binary", *(["presence"] if one.calibrated else [])]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    rows = {row.candidate_id: row for row in one.activations}
    for candidate_id, candidate in candidates.items():
        row = rows.get(candidate_id)
        cells = [Text(" ".join(candidate.split()))] if labels else []
        if row is None:
            table.add_row(*cells, *("–" for _ in (*names, "verdict")))
            continue
        shown = [_logit_text(row), _exp_text(row), f"{row.share:.3f}", f"{row.binary:.3f}"]
        if row.presence is not None:
            shown.append(f"{row.presence:.3f}")
        table.add_row(*cells, *shown, Text(row.verdict, style=_VERDICT_STYLES[row.verdict]))
    return table


# -- the figure ----------------------------------------------------------------------------------

#: Lengths in inches.
_ROW, _LABEL_CHARACTER, _PANEL, _GAP, _MARGIN = 0.32, 0.092, 4.75, 0.45, 0.25
_PICTURE = 1.3
#: Right edges of the columns of numbers and the left edges and length of bars, from a panel's left.
_LOGIT_AT, _EXP_AT, _SHARE_AT, _PROBABILITY_AT, _BAR = 0.6, 1.4, 1.62, 3.2, 0.9
_LONGEST_LABEL = 30
_ALPHA = {"present": 1.0, "perhaps": 0.5, "absent": 0.22}


def activation_figure(explanations: Sequence[Explanation]) -> Figure:
    """Draw the table with bars for shares and probabilities, two items side by side, further ones below.

    Raises:
        ImportError: matplotlib is not there.
    """
    with extra("report"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    candidates = _union(explanations)
    labels = {key: _short(text) for key, text in candidates.items()}
    side = _MARGIN + _LABEL_CHARACTER * max(5, *map(len, labels.values())) + 0.1
    beside = min(2, len(explanations))
    width = max(side + beside * _PANEL + (beside - 1) * _GAP + _MARGIN, 8.0)
    heads = [textwrap.wrap(head, 44, max_lines=4, placeholder=" …") for head in _heads(explanations)]
    pictured = any(one.picture is not None for one in explanations)
    head = 0.25 * max(map(len, heads)) + (_PICTURE + 0.12 if pictured else 0) + 0.05
    block = head + 0.4 + _ROW * len(candidates) + 0.35
    notes = textwrap.wrap(_how_to_read(explanations), int(13.3 * (width - 2 * _MARGIN)))
    height = 0.2 + block * -(-len(explanations) // beside) + 0.19 * len(notes) + 0.2
    with rc_context({"font.size": 11}):
        figure = Figure(figsize=(width, height))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, width), ylim=(height, 0))
        ax.axis("off")
        for place, one in enumerate(explanations):
            left = side + (place % beside) * (_PANEL + _GAP)
            top = 0.2 + block * (place // beside)
            _head(ax, one, heads[place], left, top, head)
            _panel(ax, one, candidates, left, top + head)
            if place % beside == 0:
                for line, label in enumerate(labels.values()):
                    _write(ax, side - 0.15, top + head + 0.4 + _ROW * (line + 0.5), label, ha="right")
        for line, note in enumerate(notes):
            _write(ax, _MARGIN, height - 0.2 - 0.19 * (len(notes) - line - 0.5), note, fontsize=9.5, color=GREY)
    return figure


def _how_to_read(explanations: Sequence[Explanation]) -> str:
    one = explanations[0]
    low, high = one.bounds
    said = (
        f"How to read: softmax bars add up to 1 for every item, whether or not anything is right; {_column(one)} "
        f"judges each candidate alone. Full colour: present, from {high:g}; half: perhaps; pale: absent, below "
        f"{low:g}."
    )
    if len(one.activations) < one.offered:
        said += f" Shown are {len(one.activations)} of {one.offered:,} candidates; shares are over all."
    names = _names(explanations)
    for name, shift in zip(names[1:], shifts(explanations) or (), strict=True):
        if shift is not None and abs(shift) >= 0.0005:
            said += f" The activations of {name} are those of {names[0]} shifted by {_signed(shift)}."
    return said


def _head(ax: Any, one: Explanation, lines: Sequence[str], left: float, top: float, height: float) -> None:
    if one.picture is not None:
        image = one.picture.image()
        scale = min(_PICTURE / image.height, (_PANEL - 0.4) / image.width)
        extent = (left, left + scale * image.width, top + scale * image.height, top)
        ax.imshow(image, extent=extent, cmap="gray" if image.mode == "L" else None, aspect="auto")
    for line, text in enumerate(lines):
        at = top + height - 0.05 - 0.25 * (len(lines) - line - 0.5)
        _write(ax, left, at, text, fontweight="bold", fontsize=12)


def _panel(ax: Any, one: Explanation, candidates: dict[str, str], left: float, top: float) -> None:
    bars = (
        ("share", "softmax", _SHARE_AT, COLOURS["softmax"]),
        ("probability", _column(one), _PROBABILITY_AT, COLOURS["sigmoid"]),
    )
    for at, name in ((_LOGIT_AT, "activation"), (_EXP_AT, "exp")):
        _write(ax, left + at, top + 0.18, name, ha="right", color=GREY, fontsize=10)
    for _, name, at, colour in bars:
        _write(ax, left + at, top + 0.18, name, color=colour, fontsize=10, fontweight="bold")
    ax.plot([left - 0.1, left + _PANEL], [top + 0.36] * 2, color="#cfcfcf", lw=0.8)
    rows = {row.candidate_id: row for row in one.activations}
    for line, candidate_id in enumerate(candidates):
        middle = top + 0.4 + _ROW * (line + 0.5)
        row = rows.get(candidate_id)
        if row is None:
            for at in (_LOGIT_AT, _EXP_AT):
                _write(ax, left + at, middle, "–", ha="right", color=GREY)
            for _, _, at, _ in bars:
                _write(ax, left + at, middle, "–", color=GREY)
            continue
        _write(ax, left + _LOGIT_AT, middle, _logit_text(row).replace("-", "−"), ha="right")
        _write(ax, left + _EXP_AT, middle, _exp_text(row).replace("-", "−"), ha="right", color=GREY)
        for field, _, at, colour in bars:
            value = getattr(row, field)
            alpha = _ALPHA[row.verdict] if field == "probability" else 1.0
            _bar(ax, left + at, middle, _BAR, "#f0f0f0", 1.0)
            _bar(ax, left + at, middle, _BAR * value, colour, alpha)
            _write(ax, left + at + _BAR + 0.08, middle, f"{value:.3f}")


def _bar(ax: Any, left: float, middle: float, length: float, colour: str, alpha: float) -> None:
    ax.barh(middle, length, height=0.6 * _ROW, left=left, color=colour, alpha=alpha)


def _write(ax: Any, x: float, y: float, text: str, **style: Any) -> None:
    ax.text(x, y, text, va="center", parse_math=False, **style)


def _short(text: str) -> str:
    return textwrap.shorten(text, _LONGEST_LABEL, placeholder="…") or text[:_LONGEST_LABEL]
