"""What is watched in use, as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from sigmax.watch.drift import Drift
    from sigmax.watch.recalibrate import Recalibration
    from sigmax.watch.refit import Refit
    from sigmax.watch.verify import Verification

__all__ = ["drift_table", "moves_table", "refit_table", "unlike_table", "verification_table"]


def verification_table(found: Verification) -> Table:
    """Show each check with what was measured and what came of it."""
    title = f"{found.data}: {found.queries:,} fresh queries; a false alarm with probability {found.alpha:g} at most"
    table = Table(title=Text(title), title_justify="left")
    for name in ("check", "measured", "95% interval", "queries", "p", "", "queries to tell"):
        table.add_column(name, justify="left" if name in ("check", "") else "right")
    for check in found.checks:
        table.add_row(
            Text(check.name),
            "–" if check.value is None else f"{check.value:.3f}",
            "–" if check.low is None else f"{check.low:.3f}–{check.high:.3f}",
            f"{check.queries:,}",
            "–" if check.p is None else f"{check.p:.2g}",
            check.verdict,
            "–" if check.needed is None else f"{check.needed:,}",
        )
    return table


def drift_table(found: Drift) -> Table:
    """Show each sign of queries, on dev and now."""
    title = f"{found.queries:,} queries now, {found.dev_queries:,} of dev: median (5% to 95%)"
    table = Table(title=Text(title), title_justify="left")
    for name in ("", "dev", "now", "evidence of change"):
        table.add_column(name, justify="right" if name else "left")
    for sign in found.signs:
        spans = (f"{middle:.3g} ({low:.3g} to {high:.3g})" for low, middle, high in (sign.dev, sign.now))
        table.add_row(sign.name, *spans, f"{sign.evidence:.3g}")
    return table


def unlike_table(found: Drift) -> Table:
    """Show the queries that are most unlike those of dev."""
    table = Table(title=Text("most unlike the queries of dev"), title_justify="left")
    table.add_column("query")
    table.add_column("of dev as far out", justify="right")
    for query, part in found.unlike:
        table.add_row(Text(query), f"{part:.1%}")
    return table


def moves_table(found: Recalibration) -> Table:
    """Show where presences move, and what that is worth."""
    losses = f"log loss per judgement {found.log_loss_before:.4f}, then {found.log_loss_after:.4f} (cross-validated)"
    table = Table(title=Text(f"{found.judged:,} judgements: {losses}"), title_justify="left")
    for name in ("presence before", "after"):
        table.add_column(name, justify="right")
    for before, after in found.moves():
        table.add_row(f"{before:.2f}", f"{after:.3f}")
    return table


def refit_table(found: Refit) -> Table:
    """Show what columns weigh before and after, and what that is worth."""
    title = (
        f"{found.queries:,} lists of feedback, {found.old_queries:,} of dev; per list that was not fitted on: log loss "
        f"{found.log_loss_before:.4f}, then {found.log_loss_after:.4f}; of any right {found.any_log_loss_before:.4f}, "
        f"then {found.any_log_loss_after:.4f}"
    )
    table = Table(title=Text(title), title_justify="left")
    for name in ("weight of a unit of", "before", "after"):
        table.add_column(name, justify="left" if name.startswith("weight") else "right")
    for name, sides in found.weights.items():
        for place, what in enumerate(("logit", "share", "not returned")):
            before, after = (side[place] for side in sides)
            if before or after:
                table.add_row(Text(f"{name}: {what}"), f"{before:.3f}", f"{after:.3f}")
    return table
